"""Isolation forest (Liu, Ting and Zhou, 2008), scikit-learn's."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from historyad.research.peers.features import Features


class IsolationForestPeer:
    """scikit-learn's isolation forest with its default settings."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, samples: NDArray[Any]) -> Self:
        """Grow the trees."""
        self._features = Features().fit(samples)
        self._forest = IsolationForest(random_state=self.seed).fit(self._features(samples))
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the forest's score with the sign turned, (N,)."""
        return np.asarray(-self._forest.score_samples(self._features(samples)))
