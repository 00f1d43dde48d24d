"""Distance to the subspace of the first principal components: one line that is hard to beat."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from historyad.research.peers.features import Features

# 64 components for grey images, 256 for colour: three channels need more to be told apart.
_GREY_COMPONENTS, _COLOUR_COMPONENTS = 64, 256


class PCAResidual:
    """Norm of what the principal components of the normal samples cannot express."""

    def __init__(self, n_components: int | None = None, *, seed: int = 0) -> None:
        self.n_components = n_components
        self.seed = seed

    def fit(self, samples: NDArray[Any]) -> Self:
        """Find the components; their number is at most half of the features."""
        self._features = Features().fit(samples)
        x = self._features(samples)
        colour = samples.ndim == 4 and samples.shape[-1] > 1
        wanted = self.n_components or (_COLOUR_COMPONENTS if colour else _GREY_COMPONENTS)
        n_components = max(1, min(wanted, x.shape[1] // 2, len(x) - 1))
        self._pca = PCA(n_components, random_state=self.seed).fit(x)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the norm of the residual of each sample, (N,)."""
        x = self._features(samples)
        residual = x - self._pca.inverse_transform(self._pca.transform(x))
        return np.asarray(np.linalg.norm(residual, axis=1))
