"""From an image to the cells of a backbone's maps: one place of the finest map, with all features.

All of it is one function of an image alone, of operations that an exported graph has, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from historyad.constants import CONSTANTS

_ROWS = 64  # of a large image, that are looked at together


def levelled(images: Tensor, side: int) -> Tensor:
    """Map uint8 (N, H, W, C) to grey values (N, 3, side, side) of one brightness and contrast.

    Every image is brought to the square of the backbone, whatever its own shape. Then each channel
    has the same mean, and all together the same deviation: what light and exposure do to a whole
    image is no defect. Grey images are seen in three equal channels.
    """
    x = images.permute(0, 3, 1, 2).float()
    x = _weights(x.shape[2], side).to(x.device) @ x @ _weights(x.shape[3], side).to(x.device).T
    return on_level(x, *levels(x))


def levels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each channel (N, C, 1, 1), and the deviation of all, (N, 1, 1, 1)."""
    mean = x.mean((2, 3), keepdim=True)
    return mean, (x - mean).square().mean((1, 2, 3), keepdim=True).sqrt()


def on_level(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Map grey values (N, C, H, W) of images with this ``mean`` and ``deviation`` to the level.

    The mean is (N, C, 1, 1), the deviation (N, 1, 1, 1), and the result (N, 3, H, W).
    """
    x = (x - mean) / deviation.clamp(min=CONSTANTS.level_least) * CONSTANTS.level_contrast
    return (x + CONSTANTS.level_brightness).expand(-1, 3, -1, -1)


def level_of(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (1, C, 1, 1) and deviation (1, 1, 1, 1) of an image, uint8 (H, W, C).

    A few rows at a time, so that little memory is taken for large ones.
    """
    n = image.shape[0] * image.shape[1]
    sums, squares = torch.zeros(2, image.shape[2], dtype=torch.float64)
    for part in torch.split(image, _ROWS):
        values = part.double()
        sums, squares = sums + values.sum((0, 1)), squares + values.square().sum((0, 1))
    mean = sums / n
    deviation = (squares / n - mean.square()).clamp(min=0).mean().sqrt()
    return mean.float().view(1, -1, 1, 1), deviation.float().view(1, 1, 1, 1)


def cells_of(maps: Sequence[Tensor]) -> Tensor:
    """Map maps (N, c, h, w) of several strides to cells (N, sum of c, H, W) of the finest grid.

    Each map is averaged over 3 x 3 of its own places, of which the border has fewer; coarser ones
    are interpolated.
    """
    finest = max(maps, key=lambda one: one.shape[2])
    rows, columns = finest.shape[2:]
    means = [functional.avg_pool2d(one, 3, 1, 1, count_include_pad=False) for one in maps]
    return torch.cat(
        [
            one
            if one.shape[2:] == (rows, columns)
            else functional.interpolate(
                one, size=(rows, columns), mode="bilinear", align_corners=False
            )
            for one in means
        ],
        1,
    )


def _weights(n: int, m: int) -> Tensor:
    """Return the weights (m, n) that bring n pixels to m: a triangle as wide as a new pixel."""
    return torch.from_numpy(_triangles(n, m))


@lru_cache(64)
def _triangles(n: int, m: int) -> NDArray[np.float32]:
    scale = max(1.0, n / m)  # of fewer pixels, all count; of more, each is between two
    centers = (np.arange(m) + 0.5) * n / m - 0.5
    distance = np.abs(np.arange(n) - centers[:, None]) / scale
    weights = np.clip(1 - distance, 0, None)
    shares: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return shares
