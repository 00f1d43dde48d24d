"""Which part of an image makes it anomalous, asked of the score: occlusion sensitivity.

A part of the image is replaced by a blur of its surroundings (Zeiler and Fergus, 2014). That
explains any detector, and shows what the score responds to, which need not be all that is wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy  # which imports its parts, slow ones among them, where they are first used
from numpy.typing import NDArray
from PIL import Image

from historyad.data.images import Pixels, reduced_size

Map = NDArray[np.float32]
Excess = Callable[[NDArray[Any]], NDArray[np.float64]]

_PATCHES_ACROSS = 3  # side of the patch: this part of the grid's side
_REACH = 2  # standard deviation of the blur, in sides of the patch
_STEPS_PER_PATCH = 3  # patches overlap: this many begin within the side of one
_BATCH = 128  # occluded copies held at a time


def occlusion_map(grid: Pixels, excess_of: Excess, height: int, width: int) -> Map:
    """Return by how much less anomalous an image is without each of its parts, (height, width).

    ``grid`` (side, side, C) is the image of ``height`` x ``width`` pixels as it was placed on its
    grid; ``excess_of`` maps such images to how far out they are, (N,). A patch slides over the
    grid; the value of a pixel is the mean over the patches that cover it, positive where the
    content looks anomalous. Detail finer than the patch is not resolved.
    """
    (excess,) = excess_of(grid[None])
    total, count = np.zeros((2, *grid.shape[:2]), np.float32)
    patches = _patches(len(grid))
    while batch := list(itertools.islice(patches, _BATCH)):
        falls = excess - excess_of(_occlude(grid, batch))
        for patch, fall in zip(batch, falls, strict=True):
            total[patch] += fall
            count[patch] += 1
    return _off_grid(total / count, height, width)


def _patches(side: int) -> Iterator[tuple[slice, slice]]:
    """Yield overlapping squares that cover a grid of ``side``, also along its edges."""
    patch = max(2, round(side / _PATCHES_ACROSS))
    step = max(1, patch // _STEPS_PER_PATCH)
    starts = [*range(0, side - patch, step), side - patch]
    for top, left in itertools.product(starts, starts):
        yield slice(top, top + patch), slice(left, left + patch)


def _occlude(grid: Pixels, patches: list[tuple[slice, slice]]) -> Pixels:
    """Return a copy of ``grid`` (side, side, C) for each patch, filled with what surrounds it.

    A normalised convolution: the Gaussian mean of the pixels outside the patch. It keeps nothing
    of the patch's content, and it reaches far, so that the rest of an anomaly that is larger than
    the patch does not fill the patch again.
    """
    outside = np.ones((len(patches), *grid.shape[:2], 1), np.float32)
    for mask, patch in zip(outside, patches, strict=True):
        mask[patch] = 0
    rows, _ = patches[0]
    sigma = _REACH * (rows.stop - rows.start)

    def blur(images: NDArray[np.floating]) -> Any:
        return scipy.ndimage.gaussian_filter(
            images, (0, sigma, sigma, 0), mode="constant", truncate=2
        )

    filled = np.where(outside, grid, blur(outside * grid) / blur(outside))
    return np.rint(filled).astype(np.uint8)


def _off_grid(values: Map, height: int, width: int) -> Map:
    """Invert `place_on_grid`: cut the image's part out of a grid and bring it to its size."""
    side = len(values)
    new_height, new_width = reduced_size(height, width, side)
    top, left = (side - new_height) // 2, (side - new_width) // 2
    part = values[top : top + new_height, left : left + new_width]
    if part.shape == (height, width):
        return part
    resized = Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)
