"""One-class support vector machine (Schölkopf et al., 2001), scikit-learn's, on components."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.svm import OneClassSVM

from historyad.randomness import Stream, numpy_generator
from historyad.research.peers.features import Features


class OneClassSVMPeer:
    """One-class SVM with a Gaussian kernel on principal components.

    The kernel's width is scikit-learn's, gamma = 1 / (features * variance); ``nu`` bounds the share
    of training samples that fall outside. Of more than ``max_samples``, a seeded subset of that
    size is learnt from, since the time to fit grows with the square of their number.
    """

    def __init__(
        self,
        *,
        nu: float = 0.1,
        n_components: int = 64,
        max_samples: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.nu = nu
        self.n_components = n_components
        self.max_samples = max_samples
        self.seed = seed

    def fit(self, samples: NDArray[Any]) -> Self:
        """Find the components and the support vectors."""
        if len(samples) > self.max_samples:
            random = numpy_generator(self.seed, Stream.PEER)
            rows = random.choice(len(samples), self.max_samples, replace=False)
            samples = samples[np.sort(rows)]
        self._features = Features().fit(samples)
        x = self._features(samples)
        n_components = min(self.n_components, x.shape[1], len(x) - 1)
        self._pca = PCA(n_components, random_state=self.seed).fit(x)
        self._svm = OneClassSVM(nu=self.nu).fit(self._pca.transform(x))
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the distance to the separating surface with the sign turned, (N,)."""
        x = self._pca.transform(self._features(samples))
        return np.asarray(-self._svm.score_samples(x))
