"""The sum of several simple peers, each on the scale of normal samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from historyad.research.peers import Peer

_SHARE = 0.1  # of the samples, held out to put the scores on one scale
_SMALLEST_SPREAD = 1e-12


class SumOfPeers:
    """Sum of scores, each standardised: 0 at the median of held-out samples, 1 at their 95 %."""

    def __init__(self, peers: Sequence[Peer], *, seed: int = 0) -> None:
        self.peers = peers
        self.seed = seed

    def fit(self, samples: NDArray[Any]) -> Self:
        """Fit each to nine tenths of the samples, and find its scale on the others."""
        order = np.random.default_rng(self.seed).permutation(len(samples))
        n_held_out = max(1, round(_SHARE * len(samples)))
        held_out, train = samples[np.sort(order[:n_held_out])], samples[np.sort(order[n_held_out:])]
        for peer in self.peers:
            peer.fit(train)
        self._quantiles = np.quantile(self._scores(held_out), [0.5, 0.95], axis=1)[..., None]
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the sum of the standardised scores, (N,)."""
        median, high = self._quantiles
        standardised = (self._scores(samples) - median) / np.maximum(
            high - median, _SMALLEST_SPREAD
        )
        return np.asarray(standardised.sum(0))

    def _scores(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        return np.stack([peer.anomaly_score(samples) for peer in self.peers]).astype(np.float64)
