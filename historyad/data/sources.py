"""What samples are once they are open: a `Source`.

How they are opened is in `historyad.data.datasets`.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from historyad.data.arrays import Labels, Samples
from historyad.data.digests import digests
from historyad.data.images import Check, Pixels
from historyad.data.sounds import SOUNDS
from historyad.data.streams import ImageStream, any_shape, let_go
from historyad.data.tables import Levels
from historyad.errors import InputError

SourceKind = Literal["image", "vector", "window"]
Batch = tuple[Sequence[str], Samples]

CHUNK_BYTES = 1 << 24
CHUNK = 1024  # images scored between two reads or writes


@dataclass(frozen=True, eq=False)
class Series:
    """The steps whose windows are the samples of a source.

    ``steps`` is float32 (steps, channels) and ``names`` says what each is called, such as its time.
    Windows have ``length`` steps, and begin at ``starts`` (N,), which rise by the ``stride``.
    """

    steps: Samples
    names: Sequence[str]
    length: int
    stride: int
    starts: NDArray[np.intp]

    @property
    def reach(self) -> int:
        """From how many windows apart two of them share no step."""
        return math.ceil(self.length / self.stride)


@dataclass(frozen=True, eq=False)
class Source:
    """Samples in memory or on the disk, with what is needed to report on them.

    ``samples`` is uint8 (N, H, W, C) for images, float32 (N, F) for vectors and (N, steps,
    channels) for windows of a ``series``, possibly a read-only memmap or an `ImageStream`.
    ``names`` are relative paths or row numbers, ``labels``
    int64 (N,) where the source has any, ``unreadable`` the (name, reason) of files left out;
    ``imprecise`` says what float32 loses of vectors, where that is too much to learn from.
    ``columns`` are the names of the F columns of vectors, or of the channels of a series,
    ``levels`` the texts that the values of a column number, where one of them is of texts, and
    ``groups`` the N keys of what each sample belongs to, empty where a table did not say.
    ``left_out`` counts by reason what else was in a folder. ``channels`` is what its images were
    made alike in: 1, all grey, or 3, all colour. ``rate`` is that of recordings in Hz, as heard.
    """

    kind: SourceKind
    samples: Samples
    names: Sequence[str]
    description: str
    labels: Labels | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    imprecise: str = ""
    columns: tuple[str, ...] = ()
    levels: Levels = ()
    groups: Sequence[str] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    channels: int | None = None
    series: Series | None = None
    rate: int | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def reach(self) -> int:
        """From how many rows apart two samples have nothing in common: 1, but for windows."""
        return 1 if self.series is None else self.series.reach

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, type and values: equal for equal samples, whatever the file.

        That of an `ImageStream` is its own, and that of windows the one of their series.
        """
        if isinstance(self.samples, ImageStream):
            return self.samples.fingerprint
        values = self.samples if self.series is None else self.series.steps
        digest = hashlib.sha256(f"{values.shape} {values.dtype.str}".encode())
        step = max(1, CHUNK_BYTES // values[0].nbytes)
        for start in range(0, len(values), step):
            digest.update(np.ascontiguousarray(values[start : start + step]).data)
            let_go(values)
        return digest.hexdigest()

    @cached_property
    def digests(self) -> NDArray[np.uint8]:
        """The digest of each sample, (N, 16), as of `historyad.data.digests`."""
        return digests(self.samples)

    def share_unreadable(self) -> None:
        """Let every rank know what others could not read of a stream, of which each sees a part."""
        from historyad import ranks  # slow to import, and most sources do without

        if ranks.world_size() > 1 and isinstance(self.samples, ImageStream):
            self.samples.look_at(ranks.union(self.samples.unreadable_rows))

    def describe(self) -> dict[str, Any]:
        """Return what a model remembers of the samples, as JSON can hold it."""
        return {
            "description": self.description,
            "fingerprint": self.fingerprint,
            "n": len(self),
            "unreadable": len(self.unreadable),
            **({} if self.channels is None else {"channels": self.channels}),
            **({} if self.rate is None else {"rate": self.rate}),
        }

    @property
    def are_sounds(self) -> bool:
        """Whether samples are pictures of recordings."""
        return self.kind == "image" and self.names[0].lower().endswith(SOUNDS)

    @property
    def at_once(self) -> int:
        """How many samples are scored between two reads or writes: of small ones many."""
        if self.kind == "image":
            return CHUNK
        return max(CHUNK, CHUNK_BYTES // self.samples[:1].nbytes)

    def chunks(
        self,
        size: int | None = None,
        start: int = 0,
        stop: int | None = None,
        *,
        check: Check = any_shape,
    ) -> Iterator[Batch]:
        """Yield (names, samples) of rows ``start`` to ``stop``, ``size`` at a time, or `at_once`.

        ``check`` raises InputError for samples of a shape that is of no use.
        """
        size = size or self.at_once
        if isinstance(self.samples, ImageStream):
            yield from self.samples.chunks(size, start, stop, check=check)
            return
        check(tuple(self.samples.shape[1:]))
        rows = range(len(self))[start:stop]
        for first in rows[::size]:
            some = slice(first, min(first + size, rows.stop))
            yield self.names[some], self.samples[some]

    def unreadable_in(self, start: int, stop: int) -> list[tuple[str, str]]:
        """Return the ``unreadable`` of some rows; what has no row, as a whole shard, is of row 0.

        Those of an `ImageStream` are found by its `chunks`.
        """
        known: dict[int, tuple[str, str]] = getattr(self.samples, "unreadable_rows", {})
        of_rows = set(known.values())
        without = [entry for entry in self.unreadable if entry not in of_rows]
        found = [entry for row, entry in sorted(known.items()) if start <= row < stop]
        return [*(without if start <= 0 < stop else ()), *found]


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
        return found + "make all grey or colour with --channels 1 or 3 (channels=1, in Python)"
    return found + "resize all images to one size first, or fit with image_size, for any size"


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
