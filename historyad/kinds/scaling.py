"""How columns of numbers are centred and scaled, robustly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from historyad.constants import CONSTANTS

_IQR_OF_NORMAL = 1.349  # interquartile range of N(0, 1)
_ROUNDING = 1e-6  # of a value: some units in the last place of a float32
_TINY, _HUGE = (float(getattr(np.finfo(np.float32), edge)) for edge in ("tiny", "max"))


def constant_step(n_columns: int) -> float:
    """Return what a new value of a constant column is worth, in spreads of a column that varies.

    Normal rows differ by about the root of the number of columns: this is ten times as much.
    """
    return CONSTANTS.constant_step * math.sqrt(n_columns)


def step_of_new(
    columns: Sequence[NDArray[np.floating]], center: NDArray[np.floating], n_columns: int
) -> float:
    """Return what a new value of a constant column is worth beside ``columns``, (N,) each.

    Of what has varied, some was seen in one row alone; as large a share of all rows has something
    new (Good, 1953, "The population frequencies of species"). What comes with a share p of normal
    rows lies 1 / sqrt(p) spreads out: no more than that, and no more than `constant_step` of all
    ``n_columns``. ``center`` are the medians of ``columns``; what is missing is passed over.
    """
    pairs = zip(columns, center, rounding_of(center), strict=True)
    n_once = sum(
        np.count_nonzero(np.abs(one.astype(float) - c) > error) == 1 for one, c, error in pairs
    )
    usual = constant_step(n_columns)
    return min(usual, math.sqrt(len(columns[0]) / n_once)) if n_once else usual


def rounding_of(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how far rounding leads from values (F,): of large ones, less than to the next integer.

    A number of a lot may be 1000001 where all others were 1000000.
    """
    rounding: NDArray[np.float64] = np.minimum(_ROUNDING * np.abs(values.astype(np.float64)), 0.5)
    return rounding


def scaling_of(column: NDArray[np.float32]) -> tuple[float, float]:
    """Return the median and the spread of a column without missing values, 0 if it is empty."""
    if not len(column):
        return 0.0, 0.0
    values = column.astype(np.float64)  # a difference of two float32 may be too large for a third
    low, center, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    noise = float(rounding_of(np.array(center)))
    spread = (high - low) / _IQR_OF_NORMAL
    if spread <= noise:
        spread = _rare_spread(values - center, noise)
    return center, min(max(spread, _TINY), _HUGE) if spread > 0 else 0.0


def _rare_spread(differences: NDArray[np.float64], noise: float) -> float:
    """Return the spread of a column of which more than half is one value, 0 if all of it is.

    It is the root of the share of other values times the median of how far these are: about their
    root mean square, and one that is far out does not hide the others.
    """
    others = np.abs(differences)
    others = others[others > noise]
    if not len(others):
        return 0.0
    return math.sqrt(len(others) / len(differences)) * float(np.median(others))


def robust_scaling(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return median and spread of each column: interquartile range, else `_rare_spread`.

    What is missing is passed over; a column of which all is has a median and a spread of 0.
    """
    found = np.array([scaling_of(column[~np.isnan(column)]) for column in vectors.T])
    center, spread = found.reshape(-1, 2).astype(np.float32).T.copy()
    return center, spread
