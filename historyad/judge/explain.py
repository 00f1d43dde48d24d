"""Where an anomaly is: what changes in the score when a part of the input is replaced.

For images this is occlusion sensitivity (Zeiler and Fergus, 2014), for vectors the same thing
with one feature at a time. Both ask the whole model, so that they explain any detector, and both
show what the score responds to, which need not be all that is wrong with the input.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion, gaussian_filter

from historyad.data.images import Pixels, reduced_size
from historyad.errors import InputError
from historyad.model.model import Model

Map = NDArray[np.float32]

_PATCHES_ACROSS = 3  # side of the patch: this part of the grid's side
_REACH = 2  # standard deviation of the blur, in sides of the patch
_STEPS_PER_PATCH = 3  # patches overlap: this many begin within the side of one
_BATCH = 128  # occluded copies held at a time
_GAP = 4  # pixels between an image and its map
# Thresholds at which the hue is full, of a map of crops and of one of falls.
_FULL, _FULL_FALL = 3.0, 2.0
_COLOUR = np.array([213, 94, 0])  # vermillion of Okabe and Ito: no shade of grey, and not red


def anomaly_map(model: Model, image: Pixels) -> Map:
    """Return a map of what makes ``image`` anomalous, float32 (H, W).

    Of a detector of crops (``patch``), it is the detector's own: `Model.anomaly_map`, whose worst
    cells make the score. Of one that sees images whole, it is occlusion sensitivity.

    ``image`` is uint8 (H, W, C), or (H, W) for one channel. A patch slides over the grid that the
    detector sees; its content is replaced by a blur of its surroundings. A pixel's value is by how
    much less anomalous that makes the image, on the scale of `Model.excess`, where 1 lies between
    a typical normal image and the threshold; it is the mean over the patches that cover the pixel,
    positive where the content looks anomalous. Detail finer than the patch is not resolved.

    Raises InputError for a detector of vectors, and for an image that it does not accept.
    """
    if model.preprocessing.kind != "image":
        raise InputError("this detector scores vectors: use feature_contributions")
    image = image[..., None] if image.ndim == 2 else image
    if model.preprocessing.scales:
        return model.anomaly_map(image)
    grid = model.preprocessing(image[None])[0]
    on_grid = dataclasses.replace(model.preprocessing, input_shape=grid.shape)
    model = dataclasses.replace(model, preprocessing=on_grid)

    (excess,) = model.excess(model.anomaly_score(grid[None]))
    total, count = np.zeros((2, *grid.shape[:2]), np.float32)
    patches = _patches(len(grid))
    while batch := list(itertools.islice(patches, _BATCH)):
        falls = excess - model.excess(model.anomaly_score(_occlude(grid, batch)))
        for patch, fall in zip(batch, falls, strict=True):
            total[patch] += fall
            count[patch] += 1
    return _off_grid(total / count, *image.shape[:2])


def feature_contributions(model: Model, vector: NDArray[Any]) -> NDArray[np.float32]:
    """Return what each feature of ``vector`` (F,) adds to how anomalous it is, float32 (F,).

    It is the fall of `Model.excess` when the feature alone takes its median over the training data.
    Raises InputError for a detector of images, and for another number of features.
    """
    medians = model.preprocessing.center
    if medians is None:
        raise InputError("this detector scores images: use anomaly_map")
    vector = np.asarray(vector, np.float32)
    (excess,) = model.excess(model.anomaly_score(vector[None]))
    contributions = np.empty(len(vector), np.float32)
    for features in np.array_split(np.arange(len(vector)), np.arange(_BATCH, len(vector), _BATCH)):
        replaced = np.tile(vector, (len(features), 1))
        replaced[np.arange(len(features)), features] = medians[features]
        contributions[features] = excess - model.excess(model.anomaly_score(replaced))
    return contributions


def full_hue(model: Model) -> float:
    """Return the value at which the hue of a map is full, the same in all pictures of a model."""
    return _FULL * model.map_threshold if model.preprocessing.scales else _FULL_FALL


def overlay(
    image: Pixels, anomaly_map: Map, *, full: float = _FULL_FALL, opacity: float = 0.8
) -> Pixels:
    """Return ``image`` in grey with the map over it in one hue, uint8 (H, W, 3).

    ``image`` is uint8 (H, W, C) or (H, W). The hue's opacity grows with the map, from none at 0
    and below to ``opacity`` at ``full``, which is `full_hue` of a model. The scale does not follow
    the map, so that a faint map looks faint and pictures can be compared.
    """
    if image.shape[:2] != anomaly_map.shape:
        raise InputError(f"a map of {anomaly_map.shape} does not belong to {image.shape[:2]}")
    grey = image.reshape(*image.shape[:2], -1).mean(-1, keepdims=True)
    alpha = opacity * np.clip(anomaly_map / full, 0, 1)[..., None]
    shown: Pixels = np.rint(grey + alpha * (_COLOUR - grey)).astype(np.uint8)
    return shown


def picture(model: Model, image: Pixels) -> Pixels:
    """Return ``image`` beside its anomaly map, as wide as both, uint8 (H, 2 W + gap, 3).

    The hue over the right half begins at what is typical of normal images and is full at
    `full_hue`. Of a detector of crops, what lies above the threshold has an outline.
    """
    image = image[..., None] if image.ndim == 2 else image
    values = anomaly_map(model, image)
    plain = overlay(image, np.zeros_like(values)) if image.shape[2] != 3 else image
    shown = overlay(image, values, full=full_hue(model))
    if model.preprocessing.scales:
        above = values > model.map_threshold
        shown[above & ~binary_erosion(above)] = _COLOUR
    gap = np.full((len(image), _GAP, 3), 255, np.uint8)
    return np.concatenate([plain, gap, shown], axis=1)


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
        return gaussian_filter(images, (0, sigma, sigma, 0), mode="constant", truncate=2)

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
