"""Which kind of input some samples are, and which one a file describes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from historyad.config import Config
from historyad.errors import InputError
from historyad.kinds.augment import parse_augmentations
from historyad.kinds.columns import Columns
from historyad.kinds.crops import Crops
from historyad.kinds.kind import Kind, Samples, by, is_absurd
from historyad.kinds.whole import Whole

_PATCH, _SCALES = 32, 2  # that suit most images with small defects

_KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (Whole, Crops, Columns)}


def choose_kind(samples: Samples, config: Config, rows: NDArray[np.intp] | None = None) -> Kind:
    """Return the kind of samples (N, H, W, C) or (N, F), of which ``rows`` are trained on.

    Raises InputError or ConfigError for samples and settings that do not fit each other.
    """
    # Of images of several sizes, one says what they look like.
    shape = tuple(samples[0].shape if None in samples.shape else samples.shape[1:])
    if is_absurd(shape):  # which no model is loaded for
        raise InputError(
            f"samples of {by(shape)} values are too large: give smaller ones, and images of fewer "
            "channels"
        )
    if len(shape) == 1:
        if config.patch:
            raise InputError("patch is for images, and these are vectors: leave it 0")
        return Columns.choose(samples if rows is None else samples[rows], config)
    parse_augmentations(config.augment)  # an unknown one is refused here, before anything is done
    if config.patch:
        return Crops.choose(shape, config)
    return Whole.choose(shape, config.image_size)


def read_kind(content: dict[str, Any], tensors: dict[str, Tensor]) -> Kind:
    """Return the kind that a file describes; ValueError or KeyError when there is none such."""
    if content["kind"] not in _KINDS:
        raise ValueError(f"kind {content['kind']!r}")
    return _KINDS[content["kind"]].from_json(content, tensors)


def write_kind(kind: Kind) -> dict[str, Any]:
    """Return what `read_kind` reads, but for the tensors."""
    return {"kind": kind.name, **kind.to_json()}


def hint(samples: Samples, config: Config) -> str:
    """Return what would see more of samples than these settings do; else nothing."""
    shape = tuple(samples.shape[1:])
    if len(shape) == 1 or config.patch or None in shape:
        return ""
    kind = Whole.choose(shape, config.image_size)
    height, width = kind.input_shape[:2]
    if not kind.shrinks or min(height, width) < _PATCH << (_SCALES - 1):
        return ""
    return (
        f"images of {width} x {height} pixels are reduced to {kind.side} x {kind.side}; defects of "
        f"a few pixels are seen in crops: --patch {_PATCH} --scales {_SCALES}"
    )
