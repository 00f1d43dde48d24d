"""Closed forms on known densities: what step 3 would find with perfect networks (section 3.3).

A density is an array of values on a grid whose points are ``cell`` apart (or ``cell`` in area, in
volume ...), or the probabilities of a discrete space, where ``cell`` is 1. Tests and the toy
figures measure the trained detector against these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Density = NDArray[np.float64]


def total_variation(p: ArrayLike, q: ArrayLike, cell: float = 1.0) -> float:
    """Eq. 5: delta(P, Q) = sup_A |P(A) - Q(A)| = (1/2) sum |p - q| cell, in [0, 1].

    Raises ValueError unless both are densities of one shape.
    """
    p, q = _densities(p, q)
    return float(np.abs(p - q).sum() * cell / 2)


def optimal_detector(data: ArrayLike, history: ArrayLike, bound_weight: float) -> Density:
    """Eq. 11: the minimiser of eq. 10, D* = sign(m) + m / (lambda s), of the densities' shape.

    m = history - data and s = history + data, so that D* lies in [-1 - 1/lambda, 1 + 1/lambda].
    Where the densities are equal every value in [-1, 1] is optimal, and where both are 0 every
    value whatever: both get 0. Raises ValueError unless both are densities of one shape.
    """
    data, history = _densities(data, history)
    return np.sign(history - data) + _relative_difference(data, history) / bound_weight


def minimum_loss(
    data: ArrayLike, history: ArrayLike, bound_weight: float, cell: float = 1.0
) -> float:
    """Eq. 12: the least value of eq. 10, -2 delta - (1 / 2 lambda) sum m^2 / s cell.

    Raises ValueError unless both are densities of one shape.
    """
    data, history = _densities(data, history)
    excess = (history - data) * _relative_difference(data, history)
    return -2 * total_variation(data, history, cell) - float(excess.sum() * cell / bound_weight / 2)


def _relative_difference(data: Density, history: Density) -> Density:
    """Return m / s in [-1, 1], and 0 where both densities are 0."""
    total = history + data
    return np.divide(history - data, total, out=np.zeros_like(total), where=total > 0)


def _densities(*values: ArrayLike) -> list[Density]:
    densities = [np.asarray(value, np.float64) for value in values]
    if len({density.shape for density in densities}) > 1:
        raise ValueError(f"the densities have shapes {[d.shape for d in densities]}: one is needed")
    if not all((density >= 0).all() for density in densities):  # NaN fails here, too
        raise ValueError("a density is negative or NaN somewhere")
    return densities
