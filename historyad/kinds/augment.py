"""Transformations that turn a normal image into a normal image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from historyad.errors import ConfigError
from historyad.method.batches import Augmentation, Toss


def parse_augmentations(names: str) -> list[Augmentation]:
    """Return the transformations of a comma-separated list; ConfigError names an unknown one."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in _AUGMENTATIONS:
            raise ConfigError(f"unknown augmentation '{name}': choose {', '.join(_AUGMENTATIONS)}")
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
