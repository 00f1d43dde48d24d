"""Images that are too many for the memory: decoded when they are asked for, and then let go.

An `ImageStream` is, to who reads it, an array of images: it has a shape and a length, and gives
the rows of a slice or of an array of row numbers.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from historyad.errors import InputError
from historyad.images import Pixels, conform, decode_image

# Decoded images of a folder that are at most this large are held in memory. A number, and not a
# share of the memory that is there: the order of training must not depend on the machine.
IN_MEMORY_BYTES = 1 << 31

_PART_SAMPLES = 1024  # held at a time by who goes through all samples
_PART_BYTES = 1 << 26
_SAMPLED_FILES = 256  # of which the content goes into the fingerprint


def in_parts(samples: NDArray[Any], rows: NDArray[np.intp]) -> Iterator[NDArray[Any]]:
    """Yield ``rows`` of ``samples``, of which few are held in memory at a time."""
    n_bytes = math.prod(samples.shape[1:]) * samples.dtype.itemsize
    size = max(1, min(_PART_SAMPLES, _PART_BYTES // n_bytes))
    for start in range(0, len(rows), size):
        yield samples[rows[start : start + size]]


class Files(Protocol):
    """Image files by number: those of a folder, or of tar shards."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """Return what reports call it."""

    def read(self, number: int) -> Path | bytes:
        """Return where its content is, or the content."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all names and sizes."""


class FolderFiles:
    """The image files ``paths`` below ``folder``."""

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        self._folder = folder
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, number: int) -> str:
        """Return the path within the folder."""
        return self._paths[number].relative_to(self._folder).as_posix()

    def read(self, number: int) -> Path:
        """Return the path."""
        return self._paths[number]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all names and sizes."""
        digest = hashlib.sha256()
        for number, path in enumerate(self._paths):
            digest.update(f"{self.name(number)} {path.stat().st_size}\n".encode())
        return digest.hexdigest()


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
    an InputError, as are images of different shapes. ``unreadable`` has the (name, reason) of those
    found so far.
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
        self.unreadable_rows: set[int] = set()
        self._lock = Lock()
        self._n_threads = min(4, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(self._n_threads, thread_name_prefix="decode")
        self._image_shape: tuple[int, ...] | None = None
        self._image_shape = self._readable(0).shape
        self.shape = (len(files), *self._image_shape)

    @property
    def names(self) -> Sequence[str]:
        """Name of each file."""
        return Names(len(self.files), self.files.name)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Pixels:
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        rows = np.asarray(index)
        if rows.ndim == 0:
            return self._readable(int(rows))
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        parts = np.array_split(np.arange(len(rows)), self._n_threads)
        for _ in self._threads.map(lambda part: self._fill(images, rows, part), parts):
            pass
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def chunks(self, size: int) -> Iterator[tuple[Sequence[str], Pixels]]:
        """Yield (names, images) of at most ``size`` at a time, in order, and none unreadable."""
        for start in range(0, len(self), size):
            numbers = range(start, min(start + size, len(self)))
            decoded = zip(numbers, self._threads.map(self._decode, numbers), strict=True)
            found = [(self.files.name(n), image) for n, image in decoded if image is not None]
            if found:
                names, images = zip(*found, strict=True)
                yield names, np.stack(images)

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
            content = self.files.read(int(number))
            digest.update(content if isinstance(content, bytes) else content.read_bytes())
        return digest.hexdigest()

    def _fill(self, images: Pixels, rows: NDArray[np.intp], places: NDArray[np.intp]) -> None:
        for place in places.tolist():
            images[place] = self._readable(int(rows[place]))

    def _readable(self, number: int) -> Pixels:
        """Return an image, or the next one that can be read: a function of the number alone."""
        for step in range(len(self)):
            image = self._decode((number + step) % len(self))
            if image is not None:
                return image
        raise InputError(f"none of {len(self)} images can be read: {self.unreadable[0][1]}")

    def _decode(self, number: int) -> Pixels | None:
        if number in self.unreadable_rows:
            return None
        content: Path | bytes = b""
        try:
            content = self.files.read(number)
            image = decode_image(content)
        except InputError as error:
            # A path is in the message already; the name in a tar file takes a while to look up.
            name = "" if isinstance(content, Path) else f"{self.files.name(number)}: "
            if not self._skip_unreadable:
                raise InputError(
                    f"{name}{error}. Mend or remove it, or leave out such images with "
                    "--skip-unreadable"
                ) from error
            self._note(number, f"{name}{error}")
            return None
        image = conform(image, self._side, self._channels)
        if self._image_shape not in (None, image.shape):
            raise InputError(
                f"{self.files.name(number)} is of shape {image.shape}, the first image "
                f"{self._image_shape}: make all alike, or set image_size and channels"
            )
        return image

    def _note(self, number: int, reason: str) -> None:
        with self._lock:
            if number not in self.unreadable_rows:
                self.unreadable_rows.add(number)
                self.unreadable.append((self.files.name(number), reason))
