"""Distance to one Gaussian fitted to the normal samples."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from historyad.peers.features import Features


class Mahalanobis:
    """Mahalanobis distance, its covariance made regular by a ridge of a share of the variance."""

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    def fit(self, samples: NDArray[Any]) -> Self:
        """Estimate mean and covariance."""
        self._features = Features().fit(samples)
        x = self._features(samples)
        self._mean = x.mean(axis=0)
        covariance = np.atleast_2d(np.cov(x - self._mean, rowvar=False))
        values, vectors = np.linalg.eigh(covariance + self.ridge * np.eye(x.shape[1]))
        self._whitening = (vectors / np.sqrt(np.maximum(values, self.ridge))).astype(np.float32)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the distance of each sample, (N,)."""
        whitened = (self._features(samples) - self._mean) @ self._whitening
        return np.asarray(np.linalg.norm(whitened, axis=1))
