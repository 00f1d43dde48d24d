"""Ways to make one score of several views: that of the score, and others, none of which has labels.

Each is a function of views on the scale of the score and as they count, (N, views); those that
learn from damaged samples are given views of held-out samples, as they are and damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from historyad.constants import Rule
from historyad.judge.metrics import auroc
from historyad.score.companions import count

Views = NDArray[np.float64]  # (N, views)
Way = Callable[[Views], NDArray[np.float64]]

_MOST = 20.0  # of a view, where means and covariances are taken
_RIDGE = 0.01


@dataclass(frozen=True)
class Known:
    """What a way may be learnt from: views of held-out samples, as they are and damaged."""

    names: tuple[str, ...]
    rules: Mapping[str, Rule]
    held_out: Views
    damaged: Views


def ways(known: Known) -> dict[str, Way]:
    """Return every way by its name, that of the score first."""
    n = len(known.names)
    found = {"the score: a sum": _weighted(known, np.ones(n))}
    for i, name in enumerate(known.names):
        found[f"without {name}"] = _weighted(known, np.arange(n) != i)
    if "history" in known.names:
        place = known.names.index("history")
        found["half of history"] = _weighted(known, np.where(np.arange(n) == place, 0.5, 1))
    return found | {
        "every view as it is": lambda views: views.sum(1),
        "logarithms beyond 1": lambda views: _logarithmic(counted(known, views)).sum(1),
        "views less what plainness says of them": _corrected(known),
        "the largest view": lambda views: counted(known, views).max(1),
        "squares of what is above 0": lambda views: (views.clip(min=0) ** 2).sum(1),
        "Fisher's sum of logarithms of p-values": _p_values(known),
        "weights by covariance": _weighted(known, _by_covariance(known)),
        "weights by a discriminant of damaged samples": _weighted(known, _discriminant(known)),
        "weights by what each view finds of damaged samples": _weighted(known, _found(known)),
    }


def counted(known: Known, views: Views) -> Views:
    """Return views as they count in the score, (N, views)."""
    columns = [
        count(known.rules[name], torch.from_numpy(views[:, i])).numpy()
        for i, name in enumerate(known.names)
    ]
    return np.stack(columns, 1)


def _weighted(known: Known, weights: NDArray[np.floating] | NDArray[np.bool_]) -> Way:
    return lambda views: counted(known, views) @ weights.astype(float)


def _logarithmic(views: Views) -> Views:
    """Let views count beyond 1 by their logarithm, so that none outweighs all others."""
    return np.where(views > 1, 1 + np.log(views.clip(min=1)), views)


def _corrected(known: Known) -> Way:
    """Take from each view what simplicity and smoothness say of it, by a line through normals."""
    by = [known.names.index(name) for name in ("simplicity", "smoothness")]
    low, high = np.quantile(known.held_out, [0.01, 0.99], axis=0)

    def plainness(views: Views) -> Views:
        return np.column_stack([np.ones(len(views)), views.clip(low, high)[:, by]])

    held_out = known.held_out.clip(low, high)
    lines = np.linalg.lstsq(plainness(held_out), held_out, rcond=None)[0]
    lines[:, by] = 0  # they count as they are
    rest = known.held_out - plainness(known.held_out) @ lines
    center = np.median(rest, 0)
    spread = np.quantile(rest, 0.95, axis=0) - center
    center[by], spread[by] = 0, 1

    def score(views: Views) -> NDArray[np.float64]:
        corrected = (views - plainness(views) @ lines - center) / spread
        total: NDArray[np.float64] = counted(known, corrected).sum(1)
        return total

    return score


def _p_values(known: Known) -> Way:
    sorted_views = np.sort(known.held_out, 0)
    n = len(sorted_views)

    def score(views: Views) -> NDArray[np.float64]:
        below = [np.searchsorted(sorted_views[:, i], views[:, i]) for i in range(views.shape[1])]
        # Beyond all that was held out, how far beyond decides.
        logarithms = np.log((n - np.stack(below, 1) + 1) / (n + 1))
        total: NDArray[np.float64] = 1e-6 * views.sum(1) - logarithms.sum(1)
        return total

    return score


def _by_covariance(known: Known) -> NDArray[np.float64]:
    """Return the weights of the shift by 1 in every view that is the least usual."""
    views = counted(known, known.held_out)
    covariance = np.cov(views.T) + _RIDGE * np.eye(views.shape[1])
    return np.linalg.solve(covariance, np.ones(len(covariance))).clip(min=0)


def _discriminant(known: Known) -> NDArray[np.float64]:
    """Return Fisher's linear discriminant of damaged samples, none of its weights below 0."""
    normal, damaged = (
        counted(known, views).clip(-_MOST, _MOST) for views in (known.held_out, known.damaged)
    )
    within = np.cov(normal.T) + np.cov(damaged.T) + _RIDGE * np.eye(normal.shape[1])
    return np.linalg.solve(within, damaged.mean(0) - normal.mean(0)).clip(min=0)


def _found(known: Known) -> NDArray[np.float64]:
    """Return by how much the AUROC of each view is above chance, for damaged samples."""
    y = np.repeat([0, 1], [len(known.held_out), len(known.damaged)])
    both = counted(known, np.concatenate([known.held_out, known.damaged]))
    return np.array([max(0.0, auroc(y, view) - 0.5) for view in both.T])
