"""From samples at rest (uint8 images or float32 vectors) to shuffled float batches.

A batch is a pure function of (seed, position): there is no iterator state to save, so that a
resumed run sees exactly the batches of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.errors import ConfigError
from historyad.preprocessing import Preprocessing
from historyad.randomness import Stream, numpy_generator, torch_generator


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

    ``samples`` is uint8 (N, H, W, C) or float32 (N, F), in memory or memory-mapped; only the rows
    of a batch are ever read. ``rows`` picks the ones to use, and ``prepare`` is applied to them a
    batch at a time. ``seed`` decides the order; every pass over the data has its own. ``shape`` is
    that of one sample as the networks see it: (C, side, side) or (F,).
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
        self.augmentations = parse_augmentations(augment)
        if self.augmentations and prepare.kind != "image":
            raise ConfigError(f"augment is '{augment}', which is for images: leave it empty")
        self._rows = np.arange(len(samples)) if rows is None else rows
        self._samples = samples
        self._prepare: Preprocessing | None = prepare
        if prepare.shrinks:  # once, and not again in every pass
            parts = np.array_split(self._rows, max(1, len(self._rows) // 256))
            self._samples = np.concatenate([prepare(samples[part]) for part in parts])
            self._rows, self._prepare = np.arange(len(self._rows)), None
        self.shape = prepare.network_shape
        self._order: tuple[int, NDArray[np.intp]] = (-1, np.empty(0, np.intp))

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, position: int, size: int) -> Tensor:
        """Return the ``size`` samples that follow the first ``position`` ones, as floats."""
        indices = np.empty(size, np.intp)
        filled = 0
        while filled < size:
            turn, offset = divmod(position + filled, len(self))
            part = self._order_of(turn)[offset : offset + size - filled]
            indices[filled : filled + len(part)] = part
            filled += len(part)
        batch = to_float(self._read(indices, position), self.device)
        if self.augmentations:
            random = torch_generator(self.seed, Stream.AUGMENT, position)
            for augmentation in self.augmentations:
                batch = augmentation(batch, random)
        return batch

    def _read(self, indices: NDArray[np.intp], position: int) -> NDArray[Any]:
        """Return rows as the networks see them, but for the type."""
        samples = self._samples[indices]
        return self._prepare(samples) if self._prepare else samples

    def _order_of(self, turn: int) -> NDArray[np.intp]:
        if self._order[0] != turn:
            random = numpy_generator(self.seed, Stream.SHUFFLE, turn)
            self._order = (turn, random.permutation(self._rows))
        return self._order[1]


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
        seed: int,
        rows: NDArray[np.intp] | None = None,
        augment: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        rows = np.arange(len(samples)) if rows is None else rows
        self.levels = prepare.pyramid(samples[rows])
        super().__init__(
            self.levels[0],
            prepare=prepare,
            seed=seed,
            augment=augment,
            device=device,
        )
        self._side = prepare.side

    def _read(self, indices: NDArray[np.intp], position: int) -> NDArray[Any]:
        random = numpy_generator(self.seed, Stream.CROP, position)
        levels = random.integers(len(self.levels), size=len(indices))
        places = random.random((len(indices), 2))
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


Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def parse_augmentations(names: str) -> list[Augmentation]:
    """Return the transformations of a comma-separated list; ConfigError names an unknown one."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in _AUGMENTATIONS:
            raise ConfigError(f"unknown augmentation '{name}': choose {', '.join(_AUGMENTATIONS)}")
    return [_AUGMENTATIONS[name] for name in chosen]


def _per_sample(change: Callable[[Tensor], Tensor]) -> Augmentation:
    def augmentation(images: Tensor, random: torch.Generator) -> Tensor:
        chosen = torch.rand(len(images), generator=random).lt(0.5).to(images.device)
        return torch.where(chosen.view(-1, 1, 1, 1), change(images), images)

    return augmentation


def _rotate90(images: Tensor, random: torch.Generator) -> Tensor:
    for quarter_turns in (1, 2):  # each with probability 1/2: 0 to 3 quarter turns
        images = _per_sample(lambda x, k=quarter_turns: x.rot90(k, (2, 3)))(images, random)  # type: ignore[misc]
    return images


_AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": _per_sample(lambda x: x.flip(3)),
    "flip-vertical": _per_sample(lambda x: x.flip(2)),
    "rotate90": _rotate90,
}
