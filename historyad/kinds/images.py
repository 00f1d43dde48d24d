"""What all kinds of images share: channels, types, damages, and made-up examples."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from historyad.config import Config
from historyad.data.images import Pixels
from historyad.errors import InputError
from historyad.kinds.damages import Damage, image_damages
from historyad.kinds.kind import Kind, Random, Samples, by
from historyad.method.networks import ImageNetworks, Networks, image_floats

SIDES = (8, 16, 32, 64, 128)  # of a grid, in pixels


@dataclasses.dataclass(frozen=True, eq=False)
class ImageKind(Kind):
    """Images (N, H, W, C) that networks see in squares of ``side`` pixels."""

    side: int

    noun: ClassVar[str] = "image"
    is_picture: ClassVar[bool] = True
    networks_see_pictures: ClassVar[bool] = True
    rest_dtype: ClassVar[torch.dtype] = torch.uint8

    def networks(self, config: Config) -> Networks:
        """Return convolutional networks for squares of ``side`` pixels."""
        return ImageNetworks.of((self.input_shape[2], self.side, self.side), config)

    def floats(self, prepared: Samples, device: torch.device | str = "cpu") -> Tensor:
        """Map uint8 (N, H, W, C) to float32 (N, C, H, W) in [-1, 1]."""
        return image_floats(prepared, device)

    def check_samples(self, samples: Samples) -> None:
        """Raise InputError unless ``samples`` are uint8 images that can be scored."""
        self.check(tuple(samples.shape[1:]))
        if samples.dtype != np.uint8:
            raise InputError(
                f"the images are of type {samples.dtype}: give uint8, 0 to 255, or open them with "
                "open_source, which converts"
            )

    def check_channels(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless a sample of ``shape`` is an image of as many channels."""
        if len(shape) != len(self.input_shape):
            raise InputError(
                f"the input has shape {by(shape)}, the detector was fitted on images of "
                f"{by(self.input_shape)}: give it such images"
            )
        if shape[2] != self.input_shape[2]:
            raise InputError(
                f"the images have {_channels(shape[2])}, the detector was fitted on "
                f"{_channels(self.input_shape[2])}: convert the images or fit on such images"
            )

    def damages(self, shape: tuple[int, ...]) -> list[Damage]:
        """Return the damages of images of ``shape``, (H, W, C)."""
        return image_damages(*shape[:2])

    def damage(self, damage: Damage, samples: Samples, strength: float, random: Random) -> Samples:
        """Return damaged copies of images."""
        return damage.apply(samples, strength, random)

    def example(self, n: int, random: Random, shape: tuple[int, ...] | None = None) -> Pixels:
        """Return noise and, every second, sums of a few waves, uint8 (n, H, W, C)."""
        shape = shape or self.input_shape
        found = random.integers(0, 256, (n, *shape), np.uint8)
        found[1::2] = _waves(random, (n // 2, *shape))
        return found


def _waves(random: Random, shape: tuple[int, ...]) -> Pixels:
    """Return sums of a few waves over the whole range of grey values, uint8 (N, H, W, C)."""
    n, height, width, channels = shape
    longest = max(height, width)
    y, x = np.arange(height)[:, None, None] / longest, np.arange(width)[:, None] / longest
    waves = np.zeros(shape)
    for _ in range(3):
        fy, fx, phase = random.uniform(-4, 4, (3, n, 1, 1, channels))
        waves += np.sin(2 * np.pi * (fy * y + fx * x + phase))
    return np.rint((waves / 3 + 1) * 127.5).astype(np.uint8)


def _channels(n: int) -> str:
    return f"{n} channel" + "s" * (n != 1)
