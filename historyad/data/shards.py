"""Images in tar files, as WebDataset writes them: found by an index, read one at a time.

Nothing is ever extracted. An image is a regular member with the suffix of one; labels and other
members are passed over. Compressed archives are refused: nothing in them can be found without
reading all that comes before.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np

from historyad.data.folders import natural
from historyad.data.images import SUFFIXES
from historyad.errors import InputError

_MOST_SHARDS = 1_000_000
_MOST_BYTES = 1 << 28  # of one image file
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def printable(name: str) -> str:
    """Return the name of a file as UTF-8 can hold it: other bytes become ``\\udcXX``."""
    return name.encode(errors="backslashreplace").decode()


def find_shards(source: str | Path) -> list[Path]:
    """Return the tar files that ``source`` names, in order, or none if it is something else.

    It is one file, a folder that holds some, or a pattern: ``x-{000..099}.tar``, ``x-*.tar``.
    Raises InputError when files of a pattern are missing.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        visible = (p for p in path.glob("*.tar") if p.is_file() and not p.name.startswith("."))
        return sorted(visible, key=natural)
    if path.suffix != ".tar":
        return []
    if path.is_file():
        return [path]
    found = [match for name in _expand(str(path)) for match in _matches(name)]
    if not found:
        raise InputError(f"no shards match {source}; is the path right?")
    return found


def _expand(pattern: str) -> Iterator[str]:
    """Yield the names that a pattern with ranges stands for."""
    if not (match := _RANGE.search(pattern)):
        yield pattern
        return
    first, last = match.groups()
    if not 0 <= int(last) - int(first) < _MOST_SHARDS:
        raise InputError(f"{match[0]} in {pattern} is no range of shards: write {{000..099}}")
    for number in range(int(first), int(last) + 1):
        yield from _expand(
            pattern[: match.start()] + f"{number:0{len(first)}}" + pattern[match.end() :]
        )


def _matches(name: str) -> list[Path]:
    path = Path(name)
    if any(sign in name for sign in "*?["):
        matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        return sorted((match for match in matches if match.is_file()), key=natural)
    if not path.is_file():
        raise InputError(f"shard {path} does not exist; is the path right?")
    return [path]


class Shards:
    """The images of some tar files, by number: 24 bytes of memory each.

    Raises InputError when a file is damaged; with ``skip_unreadable``, the images before the
    damage count, and ``closed`` has its (name, reason).
    """

    def __init__(self, paths: Sequence[Path], *, skip_unreadable: bool = False) -> None:
        self.left_out: dict[str, int] = {}  # nobody counts it
        self.closed: list[tuple[str, str]] = []
        self._paths = list(paths)
        self._places = array("q")  # of each image: where its header starts, its data, its size
        ends = []  # of each file: the number of images up to its end
        digest = hashlib.sha256()
        for path in paths:
            try:
                for member in _members(path):
                    self._places.extend((member.offset, member.offset_data, member.size))
                    line = f"{printable(member.name)} {member.size} {member.mtime}\n"
                    digest.update(line.encode())
            # tarfile answers a damaged file with TarError, OSError, ValueError, RecursionError, ...
            except Exception as error:
                reason = f"shard {path} cannot be read ({error})"
                if not skip_unreadable:
                    raise InputError(
                        f"{reason}: fetch it again, or leave out what is missing with "
                        "--skip-unreadable"
                    ) from error
                self.closed.append((path.name, reason))
            ends.append(len(self._places) // 3)
        self._ends = np.array(ends)
        self.fingerprint = digest.hexdigest()
        if not self._places:
            raise InputError(
                f"no images in {', '.join(map(str, paths[:3]))}; give tar files that hold some of "
                f"{' '.join(sorted(SUFFIXES))}"
            )

    def __len__(self) -> int:
        return len(self._places) // 3

    def name(self, number: int) -> str:
        """Return the file and the member."""
        path, header, _, _ = self._find(number)
        with path.open("rb") as file:
            file.seek(header)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                member = tar.next()
        return f"{path.name}/{member.name if member else ''}"

    def read(self, number: int) -> bytes:
        """Return the content of an image file; InputError when the disk does not give it."""
        path, _, start, size = self._find(number)
        if size > _MOST_BYTES:
            raise InputError(f"it has {size:,} bytes, more than the {_MOST_BYTES:,} of an image")
        try:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise InputError(f"shard {path} cannot be read ({error.strerror})") from error

    def _find(self, number: int) -> tuple[Path, int, int, int]:
        shard = int(np.searchsorted(self._ends, number, side="right"))
        header, start, size = self._places[3 * number : 3 * number + 3]
        return self._paths[shard], header, start, size


class _Header(tarfile.TarInfo):
    """A header whose size is one: a negative one would lead backwards, and perhaps for ever."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            raise tarfile.ReadError(f"a member has the size {header.size}")
        return header


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the images of a tar file; TarError or OSError when it is damaged."""
    n_bytes = path.stat().st_size
    with tarfile.open(path, "r:", tarinfo=_Header) as tar:
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            if member.size < 0:  # as an extended header may say
                raise tarfile.ReadError(f"a member has the size {member.size}")
            if member.offset_data + member.size > n_bytes:
                raise tarfile.ReadError("its end is missing")
            name = PurePosixPath(member.name)
            hidden = any(part.startswith(".") for part in name.parts)
            if member.isreg() and name.suffix.lower() in SUFFIXES and not hidden:
                yield member
        # tarfile takes a damaged header for the end, which is a block of zeros.
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"damaged at byte {tar.offset:,}")
