"""What samples are once they are open: a `Source`, or a `Folder` of images for one pass.

How they are opened is in `historyad.datasets`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from historyad.errors import InputError
from historyad.images import Pixels, decode_many
from historyad.streams import ImageStream
from historyad.tables import Labels, Samples

Kind = Literal["image", "vector"]
Batch = tuple[Sequence[str], Samples]

CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class Source:
    """Samples in memory or on the disk, with what is needed to report on them.

    ``samples`` is uint8 (N, H, W, C) for images and float32 (N, F) for vectors, possibly a
    read-only memmap or an `ImageStream`. ``names`` are relative paths or row numbers, ``labels``
    int64 (N,) where the source has any, ``unreadable`` the (name, reason) of files left out;
    ``imprecise`` says what float32 loses of vectors, where that is too much to learn from.
    """

    kind: Kind
    samples: Samples
    names: Sequence[str]
    description: str
    labels: Labels | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    imprecise: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, type and values: equal for equal samples, whatever the file.

        That of an `ImageStream` is its own.
        """
        if isinstance(self.samples, ImageStream):
            return self.samples.fingerprint
        digest = hashlib.sha256(f"{self.samples.shape} {self.samples.dtype.str}".encode())
        step = max(1, CHUNK_BYTES // self.samples[0].nbytes)
        for start in range(0, len(self), step):
            digest.update(np.ascontiguousarray(self.samples[start : start + step]).data)
        return digest.hexdigest()

    def chunks(self, size: int) -> Iterator[Batch]:
        """Yield (names, samples) of at most ``size`` samples at a time, in order."""
        if isinstance(self.samples, ImageStream):
            yield from self.samples.chunks(size)
            return
        for start in range(0, len(self), size):
            yield self.names[start : start + size], self.samples[start : start + size]


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder of images that is decoded while it is read, and never held as a whole.

    `chunks` looks as that of a `Source`. It decodes in background threads, one chunk ahead of the
    consumer, and skips unreadable images: after it, ``unreadable`` holds their (name, reason).
    """

    path: Path
    paths: Sequence[Path]
    description: str
    mixed: int | None = None
    channels: int | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    kind: Kind = "image"

    def __len__(self) -> int:
        """Count the image files, readable or not."""
        return len(self.paths)

    def chunks(self, size: int) -> Iterator[Batch]:
        """Yield (names, uint8 (n, H, W, C)) of at most ``size`` images at a time, in order.

        Raises InputError for an image that differs from the first in size or channels.
        """
        names: list[str] = []
        images: list[Pixels] = []
        for name, image in alike(self.decoded(size)):
            names.append(name)
            images.append(image)
            if len(images) == size:
                yield names, np.stack(images)
                names, images = [], []
        if images:
            yield names, np.stack(images)

    def name_of(self, path: Path) -> str:
        """Return what the image at ``path`` is called: its path within the folder."""
        return path.relative_to(self.path).as_posix()

    def decoded(self, look_ahead: int) -> Iterator[tuple[str, Pixels]]:
        """Yield (name, image) of those that can be read; what cannot goes to ``unreadable``."""
        self.unreadable.clear()
        decoded = decode_many(
            self.paths, side=self.mixed, channels=self.channels, look_ahead=look_ahead
        )
        for path, image in zip(self.paths, decoded, strict=True):
            name = self.name_of(path)
            if isinstance(image, InputError):
                self.unreadable.append((name, str(image)))
            else:
                yield name, image


def alike(images: Iterable[tuple[str, Pixels]]) -> Iterator[tuple[str, Pixels]]:
    """Pass (name, image) on, as long as all have the shape of the first."""
    first: tuple[str, Pixels] | None = None
    for name, image in images:
        first = first or (name, image)
        if image.shape != first[1].shape:
            raise InputError(_difference(*first, name, image))
        yield name, image


def _difference(name: str, image: Samples, other_name: str, other: Samples) -> str:
    found = f"{name} is {_size(image)} but {other_name} is {_size(other)}; "
    if 1 in (image.ndim, other.ndim):
        return found + "give samples of one shape"
    if image.shape[-1] != other.shape[-1]:
        return found + "convert all images to grey or to colour first, or set channels to 1 or 3"
    return found + "resize all images to one size first, or set image_size to a common grid"


def _size(image: Samples) -> str:
    if image.ndim == 1:
        return f"a vector of {len(image)} values"
    height, width, channels = image.shape
    return f"{width} x {height} pixels with {channels} channel{'s' * (channels != 1)}"


def gather(items: Iterable[tuple[str, Samples]], count: int) -> tuple[list[str], Samples]:
    """Collect up to ``count`` alike items in one array, without a second copy of all of them."""
    names: list[str] = []
    samples: Samples = np.empty((0,), np.uint8)
    for name, item in items:
        if not names:
            samples = np.empty((count, *item.shape), item.dtype)
        samples[len(names)] = item
        names.append(name)
    return names, samples[: len(names)]
