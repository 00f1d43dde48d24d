"""Where an anomaly is: maps of images drawn over them, and what each value of a vector adds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from historyad.data.images import Pixels
from historyad.errors import InputError
from historyad.model.model import Model
from historyad.score.result import Map

_REASONS = 3  # columns that are named
_SMALLEST_REASON = 0.05  # of the way from what is typical to the threshold
_WEAKEST_REASON = 0.1  # of the strongest
_GAP = 4  # pixels between an image and its map
_FULL = 2.0  # value of a map at which the hue is full, unless told otherwise
_COLOUR = np.array([213, 94, 0])  # vermillion of Okabe and Ito: no shade of grey, and not red


class Reason(NamedTuple):
    """A column that makes a vector anomalous, and what is usual there: a number or a text.

    ``fall`` is how much less far out the vector would be with the usual value: 1 is as far as from
    what is typical to the threshold.
    """

    column: str
    value: float | str
    usual: float | str
    fall: float

    def __str__(self) -> str:
        """Return it as a person reads it."""
        value, usual = (
            one if isinstance(one, str) else f"{one:.6g}" for one in (self.value, self.usual)
        )
        return f"{self.column} {value}, usually {usual}"


def anomaly_map(model: Model, image: Pixels) -> Map:
    """Return a map of what makes ``image`` anomalous, float32 (H, W).

    ``image`` is uint8 (H, W, C), or (H, W) for one channel; `Model.maps` says what its values are.
    Raises InputError for a detector of vectors, and for an image that it does not accept.
    """
    return model.maps(_with_channels(image)[None])[0]


def feature_contributions(model: Model, vector: NDArray[Any]) -> NDArray[np.float32]:
    """Return what each feature of ``vector`` (F,) adds to how anomalous it is, float32 (F,).

    It is the fall of `Model.excess` when the feature alone takes the value that is usual beside the
    others: the median of the vector's nearest neighbours, by all other features, among normal ones.
    Raises InputError for a detector of images, and for another number of features.
    """
    return model.kind.contributions(model.score, vector, model.excess)


def reasons(model: Model, vector: NDArray[Any], most: int = _REASONS) -> list[Reason]:
    """Return the columns that make ``vector`` (F,) anomalous, the strongest first, at ``most``.

    Errors are those of `feature_contributions`.
    """
    falls = feature_contributions(model, vector)
    usual = model.kind.usual(model.score, vector)
    names = model.feature_names or [f"column {i}" for i in range(len(falls))]
    order = np.argsort(-falls, kind="stable")[:most].tolist()
    return [
        Reason(
            names[i],
            model.kind.called(i, float(vector[i])),
            model.kind.called(i, float(usual[i])),
            float(falls[i]),
        )
        for i in order
        if falls[i] > max(_SMALLEST_REASON, _WEAKEST_REASON * falls.max())
    ]


def overlay(
    image: Pixels, anomaly_map: Map, *, full: float = _FULL, opacity: float = 0.8
) -> Pixels:
    """Return ``image`` in grey with the map over it in one hue, uint8 (H, W, 3).

    ``image`` is uint8 (H, W, C) or (H, W). The hue's opacity grows with the map, from none at 0
    and below to ``opacity`` at ``full``, of which `Model.map_scale` tells. The scale does not
    follow the map, so that a faint map looks faint and pictures can be compared.
    """
    if image.shape[:2] != anomaly_map.shape:
        raise InputError(f"a map of {anomaly_map.shape} does not belong to {image.shape[:2]}")
    grey = image.reshape(*image.shape[:2], -1).mean(-1, keepdims=True)
    alpha = opacity * np.clip(anomaly_map / full, 0, 1)[..., None]
    shown: Pixels = np.rint(grey + alpha * (_COLOUR - grey)).astype(np.uint8)
    return shown


def picture(model: Model, image: Pixels, values: Map | None = None) -> Pixels:
    """Return ``image`` beside its anomaly map, as wide as both, uint8 (H, 2 W + gap, 3).

    ``values`` (H, W) are those of the map, where they are known. The hue over the right half begins
    at what is typical of normal images and is full at `Model.map_scale`. Of a detector of crops,
    what lies above the threshold has an outline.
    """
    image = _with_channels(image)
    shown = map_over(model, image, values)  # first, since it refuses what has no map
    nothing = np.zeros(image.shape[:2], np.float32)
    plain = overlay(image, nothing) if image.shape[2] != 3 else image
    gap = np.full((len(image), _GAP, 3), 255, np.uint8)
    return np.concatenate([plain, gap, shown], axis=1)


def map_over(model: Model, image: Pixels, values: Map | None = None) -> Pixels:
    """Return the right half of `picture`, uint8 (H, W, 3)."""
    values = anomaly_map(model, image) if values is None else values
    full, threshold = model.map_scale
    shown = overlay(image, values, full=full)
    if threshold is not None:
        from scipy.ndimage import binary_erosion  # slow to import

        above = values > threshold
        shown[above & ~binary_erosion(above)] = _COLOUR
    return shown


def _with_channels(image: Pixels) -> Pixels:
    return image[..., None] if image.ndim == 2 else image
