"""The compared methods, one file each, behind ``fit(samples)`` and ``anomaly_score(samples)``.

Samples are as a source holds them: uint8 images (N, H, W, C) or float32 vectors (N, F). Scores
are (N,), higher is more anomalous, and the score of a sample depends on that sample alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from historyad.peers.isolation_forest import IsolationForestPeer
from historyad.peers.mahalanobis import Mahalanobis
from historyad.peers.neighbours import Neighbours
from historyad.peers.pca_residual import PCAResidual


class Peer(Protocol):
    """What the benchmark asks of a method."""

    def fit(self, samples: NDArray[Any]) -> Peer:
        """Learn from normal samples (N, ...) and return the peer itself."""

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return one score per sample, (N,), higher for more anomalous ones."""


# By name, how a peer is made from a seed.
PEERS: dict[str, Callable[[int], Peer]] = {
    "pca-residual": lambda seed: PCAResidual(seed=seed),
    "mahalanobis": lambda seed: Mahalanobis(),
    "neighbours": lambda seed: Neighbours(metric="euclidean"),
    "neighbours-pca-cosine": lambda seed: Neighbours(metric="cosine", n_components=64, seed=seed),
    "isolation-forest": lambda seed: IsolationForestPeer(seed=seed),
}
