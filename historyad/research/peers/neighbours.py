"""Mean distance to the nearest normal samples."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from historyad.research.peers.features import Features


class Neighbours:
    """Mean distance to ``k`` neighbours, on pixels or on principal components."""

    def __init__(
        self,
        *,
        metric: Literal["euclidean", "cosine"],
        k: int = 5,
        n_components: int | None = None,
        seed: int = 0,
    ) -> None:
        self.metric = metric
        self.k = k
        self.n_components = n_components
        self.seed = seed

    def fit(self, samples: NDArray[Any]) -> Self:
        """Keep the samples, as features or as their components."""
        self._features = Features().fit(samples)
        x = self._features(samples)
        self._pca: PCA | None = None
        if self.n_components:
            n_components = min(self.n_components, x.shape[1], len(x) - 1)
            self._pca = PCA(n_components, random_state=self.seed).fit(x)
            x = self._pca.transform(x)
        k = min(self.k, len(x))
        self._index = NearestNeighbors(n_neighbors=k, metric=self.metric, algorithm="brute").fit(x)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the mean distance of each sample to its neighbours, (N,)."""
        x = self._features(samples)
        if self._pca is not None:
            x = self._pca.transform(x)
        distances, _ = self._index.kneighbors(x)
        return np.asarray(distances.mean(axis=1))
