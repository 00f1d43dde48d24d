"""What D_TV makes of the cells of an image, and how far that is from what it makes of normal ones.

A cell is a square of a quarter of the crop's side: one place of D_TV's coarsest layer. Its
convolutions run once over the image, in tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.data.images import mirrored
from historyad.method.networks import COARSEST, Critic

Floats = Callable[[NDArray[np.uint8]], Tensor]  # images (n, H, W, C) as networks see them

_HALO = 3  # cells around them: two for the crops of the head, one for the padding of convolutions


def cell_features(critic: Critic, tile: Tensor, cell: int) -> list[Tensor]:
    """Return the features of the cells of tiles but for their halo, each (N, n, rows, columns).

    ``tile`` is (N, C, h, w), with cells of ``cell`` pixels a side. The features are those after
    each convolution: the highest value in the cell.
    """
    x, layers = tile, []
    for layer in cast(nn.Sequential, critic.features):
        x = layer(x)
        if not isinstance(layer, nn.Conv2d):
            pooled = functional.max_pool2d(x, cell * x.shape[-1] // tile.shape[-1])
            layers.append(pooled[:, :, _HALO:-_HALO, _HALO:-_HALO])
    return layers


def crop_scores(critic: Critic, tile: Tensor) -> Tensor:
    """Return D_TV's mean score of the four crops around each cell but for the halo, (N, n, m)."""
    features = critic.features(tile)[:, :, 1:-1, 1:-1]
    first = cast(nn.Linear, critic.head[1])
    # The head's first layer at every place: a convolution over the grid that it flattens.
    kernel = first.weight.view(len(first.weight), COARSEST, COARSEST, -1).permute(0, 3, 1, 2)
    hidden = functional.conv2d(features, kernel, first.bias)
    score = critic.head[2:](hidden.permute(0, 2, 3, 1))[..., 0]
    return functional.avg_pool2d(score[:, None], 2, stride=1)[:, 0]


def feature_counts(critic: Critic) -> list[int]:
    """Return how many features each layer of `cell_features` has."""
    layers = cast(nn.Sequential, critic.features)
    return [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)]


def normalised(layers: Sequence[Tensor]) -> Tensor:
    """Return layers (N, n, h, w) as one, each normalised, since their values differ in size."""
    return torch.cat([functional.normalize(layer, dim=1) for layer in layers], dim=1)


def as_rows(features: Tensor) -> Tensor:
    """Map (N, n, h, w) to one row for each cell, (N * h * w, n)."""
    return features.transpose(0, 1).flatten(1).T


def in_tiles(
    image: NDArray[np.uint8],
    cell: int,
    floats: Floats,
    function: Callable[[Tensor], Tensor],
    side: int = 64,
) -> Tensor:
    """Return ``function`` of all cells of an image (H, W, C), (n, rows, columns).

    It maps a tile (1, C, h, w), with a halo that holds all that its cells depend on, to values of
    the cells within, ``side`` each way: what is held at a time. Beyond the image's edges, and up
    to whole cells, it is mirrored.
    """
    rows, columns = (-(-length // cell) for length in image.shape[:2])
    strips = []
    for top in range(0, rows, side):
        strip = []
        for left in range(0, columns, side):
            y = with_halo(top, min(top + side, rows), cell, image.shape[0])
            x = with_halo(left, min(left + side, columns), cell, image.shape[1])
            strip.append(function(floats(image[y[:, None], x][None])))
        strips.append(torch.cat(strip, dim=-1))
    return torch.cat(strips, dim=-2)


def with_halo(start: int, stop: int, cell: int, length: int) -> NDArray[np.intp]:
    """Return the pixels of cells ``start`` to ``stop`` and their halo, along one side."""
    return mirrored((start - _HALO) * cell, (stop - start + 2 * _HALO) * cell, length)
