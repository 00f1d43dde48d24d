"""Distance to one Gaussian fitted to the normal samples."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from historyad.research.peers.features import Features

_SMALLEST_RIDGE = 1e-12  # for samples that do not vary


class Mahalanobis:
    """Mahalanobis distance; a ridge makes the covariance regular.

    ``ridge`` is a share of the mean variance: pixels of plain images vary much less than 1.
    """

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    def fit(self, samples: NDArray[Any]) -> Self:
        """Estimate mean and covariance."""
        self._features = Features().fit(samples)
        x = self._features(samples)
        self._mean = x.mean(axis=0)
        covariance = np.atleast_2d(np.cov(x - self._mean, rowvar=False))
        values, vectors = np.linalg.eigh(covariance)
        ridge = max(self.ridge * values.mean(), _SMALLEST_RIDGE)
        # Rounding leaves eigenvalues a little below 0.
        regular = np.maximum(values, 0) + ridge
        self._whitening = (vectors / np.sqrt(regular)).astype(np.float32)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the distance of each sample, (N,)."""
        whitened = (self._features(samples) - self._mean) @ self._whitening
        return np.asarray(np.linalg.norm(whitened, axis=1))
