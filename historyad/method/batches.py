"""From samples at rest (uint8 images or float32 vectors) to shuffled float batches.

A batch is a pure function of (seed, position): there is no iterator state to save, so that a
resumed run sees exactly the batches of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.data import streams
from historyad.errors import ConfigError
from historyad.kinds.preprocessing import Preprocessing
from historyad.randomness import Stream, numpy_generator, torch_generator

_WHOLE = slice(None)
_BLOCK = 256  # neighbouring rows that stay in one window of a windowed order
_WINDOW_BLOCKS = 64  # of one window, which is shuffled as a whole: 16,384 rows
_BATCHES_AHEAD = 3  # read while the networks train


def to_float(samples: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """Return what the networks see.

    uint8 images (B, H, W, C) become float32 (B, C, H, W) in [-1, 1], laid out channels last;
    float32 vectors (B, F) stay as they are.
    """
    # What is memory-mapped is read-only, which torch does not know: that is copied.
    if samples.dtype == np.uint8:
        pixels = torch.from_numpy(np.require(samples, requirements=["C", "W"])).to(device)
        return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)
    return torch.from_numpy(np.require(samples, np.float32, ["C", "W"])).to(device)


def from_float(samples: Tensor) -> NDArray[Any]:
    """Invert `to_float`: images are rounded to the 256 grey values that real images have."""
    if samples.dim() == 4:
        pixels = samples.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())
    return samples.cpu().numpy()


class Batches:
    """Shuffled, augmented batches of ``samples``, each a function of its position alone.

    ``samples`` is uint8 (N, H, W, C) or float32 (N, F), in memory or memory-mapped, or an
    `ImageStream`; only the rows of a batch are ever read, and those of a stream ahead of time.
    ``rows`` picks the ones to use, and ``prepare`` is applied to them a batch at a time. ``seed``
    decides the order; every pass over the data has its own. ``shape`` is that of one sample as the
    networks see it: (C, side, side) or (F,).
    """

    def __init__(
        self,
        samples: NDArray[Any],
        *,
        prepare: Preprocessing,
        seed: int,
        rows: NDArray[np.intp] | None = None,
        augment: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        self.seed = seed
        self.device = device
        self.shape = prepare.network_shape
        self.augmentations = parse_augmentations(augment, prepare.kind)
        rows = np.arange(len(samples)) if rows is None else rows
        self._samples = samples
        self._prepare: Preprocessing | None = prepare
        if prepare.shrinks and len(rows) * math.prod(self.shape) <= streams.IN_MEMORY_BYTES:
            # Once, and not again in every pass.
            self._samples = np.concatenate(
                [prepare(part) for part in streams.in_parts(samples, rows)]
            )
            rows, self._prepare = np.arange(len(rows)), None
        is_stream = isinstance(self._samples, streams.ImageStream)
        is_large = is_stream or self._samples.nbytes > streams.IN_MEMORY_BYTES
        self._order = ShuffledRows(rows, seed, windowed=is_large)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read") if is_stream else None
        self._ahead: dict[tuple[int, int, int, int], Future[NDArray[Any]]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def at(self, position: int, size: int, part: slice = _WHOLE) -> Tensor:
        """Return the ``size`` samples that follow the first ``position`` ones, as floats.

        Of ``part``, which is this process's part of a batch, only those samples are read.
        """
        samples = self._read(position, size, part)
        batch = to_float(self._prepare(samples) if self._prepare else samples, self.device)
        if self.augmentations:
            random = torch_generator(self.seed, Stream.AUGMENT, position)

            def toss() -> Tensor:  # for the whole batch, so that a part of it gets the same
                heads = torch.rand(size, generator=random)[part].lt(0.5)
                return heads.to(batch.device).view(-1, 1, 1, 1)

            for augmentation in self.augmentations:
                batch = augmentation(batch, toss)
        return batch

    def _read(self, position: int, size: int, part: slice) -> NDArray[Any]:
        """Return samples at rest; of a stream, the batches that follow are read meanwhile."""
        first, last, _ = part.indices(size)
        if self._reader is None:
            return self._read_now(position, size, first, last)
        keys = [(position + n * size, size, first, last) for n in range(1 + _BATCHES_AHEAD)]
        self._ahead = {
            key: self._ahead.get(key) or self._reader.submit(self._read_now, *key) for key in keys
        }
        return self._ahead[keys[0]].result()

    def _read_now(self, position: int, size: int, first: int, last: int) -> NDArray[Any]:
        return self._samples[self._order.at(position, size)[first:last]]


class ShuffledRows:
    """``rows`` in a random order of its own for every pass, each a function of the position alone.

    A ``windowed`` order reads a disk where its neighbours are, and needs little memory: blocks of
    neighbouring rows are shuffled, and then the rows within windows of some blocks.
    """

    def __init__(self, rows: NDArray[np.intp], seed: int, *, windowed: bool) -> None:
        self._rows = rows
        self._seed = seed
        self._windowed = windowed
        self._current: tuple[int, int, NDArray[np.intp]] = (-1, 0, rows[:0])

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, position: int, size: int) -> NDArray[np.intp]:
        """Return the ``size`` rows that follow the first ``position`` ones, pass after pass."""
        found = np.empty(size, np.intp)
        filled = 0
        while filled < size:
            turn, offset = divmod(position + filled, len(self))
            start, rows = self._window(turn, offset)
            some = rows[offset - start :][: size - filled]
            found[filled : filled + len(some)] = some
            filled += len(some)
        return found

    def _window(self, turn: int, offset: int) -> tuple[int, NDArray[np.intp]]:
        """Return the window of a pass that holds ``offset``: where it starts, and its rows."""
        its_turn, start, rows = self._current
        if its_turn != turn or not start <= offset < start + len(rows):
            start, rows = self._shuffled(turn, offset)
            self._current = (turn, start, rows)
        return start, rows

    def _shuffled(self, turn: int, offset: int) -> tuple[int, NDArray[np.intp]]:
        random = numpy_generator(self._seed, Stream.SHUFFLE, turn)
        if not self._windowed:
            return 0, random.permutation(self._rows)
        blocks = random.permutation(-(-len(self) // _BLOCK))
        short = np.flatnonzero(blocks == len(blocks) - 1)[0]  # where the last block, a rest, went
        rest = len(self) - (len(blocks) - 1) * _BLOCK
        starts = np.arange(0, len(blocks), _WINDOW_BLOCKS)
        starts = starts * _BLOCK - (starts > short) * (_BLOCK - rest)
        window = int(np.searchsorted(starts, offset, side="right")) - 1
        chosen = blocks[window * _WINDOW_BLOCKS :][:_WINDOW_BLOCKS]
        rows = np.concatenate([self._rows[block * _BLOCK :][:_BLOCK] for block in chosen])
        random = numpy_generator(self._seed, Stream.SHUFFLE, turn, window + 1)
        return int(starts[window]), random.permutation(rows)


class Crops(Batches):
    """Batches of crops, drawn anew whenever an image comes around; arguments as of `Batches`.

    Each is at a random place of a random level of the image's pyramid, as likely at its edges as
    elsewhere: there, what is missing is mirrored. The pyramid is held in memory.
    """

    def __init__(
        self,
        samples: NDArray[Any],
        *,
        prepare: Preprocessing,
        rows: NDArray[np.intp] | None = None,
        **others: Any,
    ) -> None:
        self.levels = prepare.pyramid(samples if rows is None else samples[rows])
        super().__init__(self.levels[0], prepare=prepare, **others)
        self._side = prepare.side
        self._prepare = None  # the pyramid is prepared

    def _read(self, position: int, size: int, part: slice) -> NDArray[Any]:
        """Return crops at rest; all are drawn, also those of other processes, and a part is cut."""
        random = numpy_generator(self.seed, Stream.CROP, position)
        levels = random.integers(len(self.levels), size=size)[part]
        places = random.random((size, 2))[part]
        indices = self._order.at(position, size)[part]
        crops = np.empty((len(indices), self._side, self._side, self.shape[0]), np.uint8)
        for crop, index, level, place in zip(crops, indices, levels, places, strict=True):
            image = self.levels[level][index]
            rows, columns = (
                mirrored(int(at * (length + 1)) - self._side // 2, self._side, length)
                for at, length in zip(place, image.shape[:2], strict=True)
            )
            crop[:] = image[rows[:, None], columns]
        return crops


def mirrored(start: int, size: int, length: int) -> NDArray[np.intp]:
    """Return ``size`` places from ``start`` on, those outside [0, length) mirrored at its ends."""
    places = np.abs(np.arange(start, start + size))
    inside: NDArray[np.intp] = length - 1 - np.abs(length - 1 - places)
    return inside


Toss = Callable[[], Tensor]  # a coin for each sample of a batch, (B, 1, 1, 1)
Augmentation = Callable[[Tensor, Toss], Tensor]


def parse_augmentations(names: str, kind: str = "image") -> list[Augmentation]:
    """Return the transformations of a comma-separated list.

    ConfigError names an unknown one, or says that samples of ``kind`` have none.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in _AUGMENTATIONS:
            raise ConfigError(f"unknown augmentation '{name}': choose {', '.join(_AUGMENTATIONS)}")
    if chosen and kind != "image":
        raise ConfigError(f"augment is '{names}', which is for images: leave it empty")
    return [_AUGMENTATIONS[name] for name in chosen]


def _per_sample(change: Callable[[Tensor], Tensor]) -> Augmentation:
    return lambda images, toss: torch.where(toss(), change(images), images)


def _rotate90(images: Tensor, toss: Toss) -> Tensor:
    for quarter_turns in (1, 2):  # each with probability 1/2: 0 to 3 quarter turns
        images = torch.where(toss(), images.rot90(quarter_turns, (2, 3)), images)
    return images


_AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": _per_sample(lambda x: x.flip(3)),
    "flip-vertical": _per_sample(lambda x: x.flip(2)),
    "rotate90": _rotate90,
}
