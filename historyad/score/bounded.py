"""From a sum of views without bounds to the anomaly score in (-1, 1), and back."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from historyad.constants import CONSTANTS

_Number = TypeVar("_Number", float, NDArray[np.float64])

_MOST_BOUNDED = 1 - 2**-24  # the largest float32 below 1: a score of 1 is infinitely far


def bounded_score(total: Tensor) -> Tensor:
    """Return the anomaly score in (-1, 1) of totals on their scale: -0.8 at 0, and 0 at 1."""
    t = CONSTANTS.score_steepness * (total - 1)
    return t / (1 + t.abs())  # unlike tanh, it still tells apart what is far out


def total_of(score: _Number) -> _Number:
    """Invert `bounded_score`; a score of 1 gives what the largest float32 below it does."""
    inside: _Number = np.clip(score, -_MOST_BOUNDED, _MOST_BOUNDED)
    return inside / (1 - abs(inside)) / CONSTANTS.score_steepness + 1
