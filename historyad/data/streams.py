"""Images that are too many for the memory: decoded when they are asked for, and then let go.

An `ImageStream` is, to who reads it, an array of images: it has a shape and a length, and gives
the rows of a slice or of an array of row numbers.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from historyad.data.ahead import N_THREADS, ahead
from historyad.data.decoding import decode_image
from historyad.data.folders import Contents
from historyad.data.images import Check, Pixels, conform
from historyad.data.shards import printable
from historyad.errors import InputError
from historyad.progress import each
from historyad.regular import read_regular

Chunk = tuple[Sequence[str], Pixels]

# Decoded images of a folder that are at most this large are held in memory. A number, and not a
# share of the memory that is there: the order of training must not depend on the machine.
IN_MEMORY_BYTES = 1 << 31

_PART_SAMPLES = 1024  # held at a time by who goes through all samples
PART_BYTES = 1 << 26
_SAMPLED_FILES = 256  # of which the content goes into the fingerprint
_MOST_FILE_BYTES = 1 << 30


def in_parts(samples: NDArray[Any], rows: NDArray[np.intp]) -> Iterator[NDArray[Any]]:
    """Yield ``rows`` of ``samples``, of which few are held in memory at a time."""
    size = fitting(_PART_SAMPLES, math.prod(samples.shape[1:]) * samples.dtype.itemsize)
    for start in each(range(0, len(rows), size)):
        part = samples[rows[start : start + size]]
        let_go(samples)
        yield part


def let_go(samples: NDArray[Any]) -> None:
    """Have no part in memory of samples that are mapped from a file, which is read again."""
    # What is mapped to be written to, perhaps in memory alone, would be lost.
    if isinstance(samples, np.memmap) and samples.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        samples._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def in_chunks(images: Iterable[tuple[str, Pixels]], size: int) -> Iterator[Chunk]:
    """Yield (names, images (n, H, W, C)), in order, each time of one shape.

    They are at most ``size``, and fewer where few fit into memory.
    """
    for shape, alike in groupby(images, key=lambda named: named[1].shape):
        n = fitting(size, math.prod(shape))
        while some := list(islice(alike, n)):
            names, pixels = zip(*some, strict=True)
            yield names, np.stack(pixels)


def fitting(size: int, n_bytes: int) -> int:
    """Return how many of ``size`` samples of ``n_bytes`` each are held at a time: one at least."""
    return max(1, min(size, PART_BYTES // n_bytes))


def any_shape(shape: tuple[int, ...]) -> None:
    """Accept samples of any shape: a `Check` that checks nothing."""


class Files(Protocol):
    """Image files by number: those of a folder, or of tar shards.

    ``left_out`` counts by reason what else there is, and ``closed`` has the (name, reason) of a
    folder or a shard of which not all can be read.
    """

    left_out: dict[str, int]
    closed: list[tuple[str, str]]

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """Return what reports call it."""

    def read(self, number: int) -> Path | bytes | Pixels:
        """Return where its content is, or the content, or its pixels where these are known."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all names and sizes."""


class FolderFiles:
    """The image files that were ``found`` in ``folder``."""

    def __init__(self, folder: Path, found: Contents) -> None:
        self._folder = folder
        self.paths = found.images
        self.left_out, self.closed = found.left_out, found.closed

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> str:
        """Return the path within the folder."""
        return self.paths[number].relative_to(self._folder).as_posix()

    def read(self, number: int) -> Path:
        """Return the path."""
        return self.paths[number]

    def part(self, rows: slice) -> FolderFiles:
        """Return some of the files; what has no row is of row 0, as in `Source.unreadable_in`."""
        closed = [] if rows.start else self.closed
        return FolderFiles(self._folder, Contents(self.paths[rows], {}, closed))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all names and sizes."""
        digest = hashlib.sha256()
        for number, path in enumerate(self.paths):
            digest.update(f"{printable(self.name(number))} {_size_of(path)}\n".encode())
        return digest.hexdigest()


def _size_of(path: Path) -> int:
    """Return the bytes of a file, or -1 where there is none, as behind a broken link."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


class Names(Sequence[str]):
    """``length`` names, each looked up when it is asked for."""

    def __init__(self, length: int, name: Callable[[int], str]) -> None:
        self._length = length
        self._name = name

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        numbers = range(self._length)[index]
        if isinstance(numbers, int):
            return self._name(numbers)
        return [self._name(number) for number in numbers]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class ImageStream:
    """An array of images, uint8 (N, H, W, C), that is on the disk.

    Files are decoded in a few threads and made to `conform` to ``side`` and ``channels``. In place
    of one that cannot be read stands the next that can, with ``skip_unreadable``; otherwise it is
    an InputError, as are rows of different shapes and, as of any array, rows that there are not.
    ``unreadable`` has the (name, reason) of those found so far, ``unreadable_rows`` by their row.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        files: Files,
        *,
        side: int | None = None,
        channels: int | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        self.files = files
        self.unreadable: list[tuple[str, str]] = []
        self._side, self._channels = side, channels
        self._skip_unreadable = skip_unreadable
        self.unreadable_rows: dict[int, tuple[str, str]] = {}
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(N_THREADS, thread_name_prefix="decode")
        self._rows = np.arange(len(files))

    @property
    def shape(self) -> tuple[Any, ...]:
        """(N, H, W, C), of which all but N is that of the first image that can be read."""
        return (len(self.files), *self._first_shape)

    @cached_property
    def _first_shape(self) -> tuple[int, ...]:
        return self._next_readable(0)[1].shape

    @property
    def names(self) -> Sequence[str]:
        """Name of each file."""
        return Names(len(self.files), self.files.name)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Pixels:
        rows = self._rows[index]
        if rows.ndim == 0:
            return self._readable(int(rows))
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        parts = np.array_split(np.arange(len(rows)), N_THREADS)
        for _ in self._threads.map(lambda part: self._fill(images, rows, part), parts):
            pass
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def chunks(
        self, size: int, start: int = 0, stop: int | None = None, *, check: Check = any_shape
    ) -> Iterator[Chunk]:
        """Yield (names, images) of rows ``start`` to ``stop``, in order, and none unreadable.

        They are chunks as of `in_chunks`. What ``check`` refuses counts as unreadable.
        """
        yield from in_chunks(self.decoded(size, start, stop, check=check), size)

    def decoded(
        self, look_ahead: int, start: int = 0, stop: int | None = None, *, check: Check = any_shape
    ) -> Iterator[tuple[str, Pixels]]:
        """Yield (name, image) of rows that can be read and pass ``check``, decoded ahead of time.

        At most ``look_ahead`` are, and fewer where they are large.
        """
        rows = range(len(self))[start:stop]
        images = ahead(lambda row: self._decode(row, check), rows, look_ahead, PART_BYTES)
        for row, image in zip(rows, images, strict=True):
            if image is not None:
                yield self.files.name(row), image

    def look_at(self, rows: Iterable[int]) -> None:
        """Note which of ``rows`` cannot be read."""
        for row in rows:
            self._decode(row)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, sizes and some of the content: reading it all would take too long."""
        form = f"{self.shape} {self._side} {self._channels} {self.files.fingerprint}"
        digest = hashlib.sha256(form.encode())
        for number in np.linspace(0, len(self) - 1, min(len(self), _SAMPLED_FILES), dtype=int):
            # Whoever decodes it says what cannot be read.
            with suppress(InputError, OSError):
                content = self.files.read(int(number))
                if isinstance(content, Path):
                    content = read_regular(content, _MOST_FILE_BYTES)
                digest.update(bytes(content))
        return digest.hexdigest()

    def _fill(self, images: Pixels, rows: NDArray[np.intp], places: NDArray[np.intp]) -> None:
        for place in places.tolist():
            images[place] = self._readable(int(rows[place]))

    def _readable(self, number: int) -> Pixels:
        """Return an image of the shape of all, or the next: a function of the number alone."""
        found, image = self._next_readable(number)
        if image.shape != self._first_shape:
            self._check(self.files.name(found), image.shape)
        return image

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise InputError for a shape that is not that of the others."""
        raise InputError(
            f"{name} is of shape {shape}, the first image {self._first_shape}: make all grey or "
            "colour with --channels 1 or 3, and convert all to one size or fit with image_size for "
            "images of any size"
        )

    def _next_readable(self, number: int) -> tuple[int, Pixels]:
        """Return the first image from ``number`` on that can be read, and its number."""
        for step in range(len(self)):
            found = (number + step) % len(self)
            image = self._decode(found)
            if image is not None:
                return found, image
        raise InputError(f"none of {len(self)} images can be read: {self.unreadable[0][1]}")

    def _decode(self, number: int, check: Check = any_shape) -> Pixels | None:
        """Return an image; None for an unreadable one that may be skipped."""
        if number in self.unreadable_rows:
            return None
        content: Path | bytes | Pixels = b""
        try:
            content = self.files.read(number)
            image = self._pixels(content, check)
        except InputError as error:
            named = isinstance(content, Path) and str(error).startswith(str(content))
            name = "" if named else f"{self.files.name(number)}: "
            if not self._skip_unreadable:
                raise InputError(
                    f"{name}{error}. Mend or remove it, or leave out such images with "
                    "--skip-unreadable"
                ) from error
            self._note(number, str(error))
            return None
        return image

    def _pixels(self, content: Path | bytes | Pixels, check: Check) -> Pixels:
        if isinstance(content, np.ndarray):  # decoded already
            check(content.shape)
            return conform(content, self._side, self._channels)
        return decode_image(content, side=self._side, channels=self._channels, check=check)

    def _note(self, number: int, reason: str) -> None:
        with self._lock:
            if number not in self.unreadable_rows:
                self.unreadable_rows[number] = (self.files.name(number), reason)
                self.unreadable.append(self.unreadable_rows[number])
