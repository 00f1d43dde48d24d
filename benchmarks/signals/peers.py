"""Other methods on windows of series: what each says of windows (N, steps, channels).

Each is given all training windows, the channels scaled by mean and deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

Array = NDArray[Any]
Scores = Callable[[Array], Array]

_FLAT = 1e-6  # deviation of a window in which nothing happens
_SMALLEST = 1e-6  # share of a variance in the largest


def isolation_forest(train: Array, seed: int) -> Scores:
    """Isolation forest (Liu et al., 2008) on the values of windows."""
    forest = IsolationForest(random_state=seed).fit(_flat(train))
    return lambda windows: -forest.score_samples(_flat(windows))


def sub_pca(train: Array, seed: int) -> Scores:
    """Return the distances to the mean on all principal components, each by its deviation.

    As Sub-PCA of TSB-AD (Liu and Paparrizos, 2024), which leads its table of single series.
    """
    pca = PCA(random_state=seed).fit(_flat(train))
    variances = np.maximum(pca.explained_variance_, _SMALLEST * pca.explained_variance_[0] + 1e-12)
    return lambda windows: (np.square(pca.transform(_flat(windows))) / variances).sum(1)


def matrix_profile(train: Array, seed: int) -> Scores:
    """Distance to the nearest training window, all z-normalised (Yeh et al., 2016)."""
    nearest = NearestNeighbors(n_neighbors=1).fit(_flat(z_normalised(train)))
    return lambda windows: nearest.kneighbors(_flat(z_normalised(windows)))[0][:, 0]


def neighbours(train: Array, seed: int) -> Scores:
    """Mean distance to the five nearest training windows, value by value."""
    nearest = NearestNeighbors(n_neighbors=min(5, len(train))).fit(_flat(train))
    return lambda windows: nearest.kneighbors(_flat(windows))[0].mean(1)


def largest_z_score(train: Array, seed: int) -> Scores:
    """One number of a window: its value that is furthest from the mean, in deviations."""
    return lambda windows: np.abs(windows).max((1, 2))


def rolling_mean(train: Array, seed: int) -> Scores:
    """One number of a window: how far its mean is from that of all, mean over the channels."""
    return lambda windows: np.abs(windows.mean(1)).mean(1)


def change(train: Array, seed: int) -> Scores:
    """One number of a window: how far its mean change from step to step is from the usual one."""

    def changes(windows: Array) -> Array:
        found: Array = np.abs(np.diff(windows, axis=1)).mean(1)
        return found

    usual = np.median(changes(train), 0)
    return lambda windows: np.abs(changes(windows) - usual).mean(1)


PEERS: dict[str, Callable[[Array, int], Scores]] = {
    "isolation forest": isolation_forest,
    "sub-PCA": sub_pca,
    "matrix profile": matrix_profile,
    "5 neighbours": neighbours,
    "largest z-score": largest_z_score,
    "rolling mean": rolling_mean,
    "change": change,
}
DRAWING = ("isolation forest",)  # at random: the others are the same for all seeds


def z_normalised(windows: Array) -> Array:
    """Return windows whose channels have mean 0 and deviation 1 each."""
    deviation = windows.std(1, keepdims=True)
    found: Array = (windows - windows.mean(1, keepdims=True)) / np.maximum(deviation, _FLAT)
    return found


def _flat(windows: Array) -> Array:
    return windows.reshape(len(windows), -1)
