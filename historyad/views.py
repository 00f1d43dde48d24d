"""D_TV and its companions as one score: three views of a sample on one scale.

A view is standardised by normal samples that no view was fitted on: 0 is their median, and 1 is
what one in twenty exceeds. The score adds up what the history and the neighbours say. Of the
distance to the Gaussian only the part beyond 1 counts: within the range of normal samples it says
nothing about what is normal, and beyond it, nothing else is as sure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.batches import Batches
from historyad.companions import Gaussian, Neighbours, samples_to_fit
from historyad.detector import Detector, in_batches
from historyad.preprocessing import Preprocessing

VIEWS = ("history", "neighbours", "gaussian")

_CHUNK = 512  # samples whose features are computed at a time
_RANGE = 0.95  # quantile of normal samples that is 1 on the scale
_EXCESS_WEIGHT = 4.0  # of the Gaussian beyond its range
_ZERO = 0.99  # quantile of normal samples where the score is 0
_STEEPNESS = 4.0  # of the score at its 0, per unit of the scale
# A detector that is all but constant on normal samples has no scale of its own.
_SMALLEST_SPREAD = (0.05, 1e-6, 1e-6)


class Views(nn.Module):
    """Anomaly score of three views: D_TV, nearest neighbours in its features, and a Gaussian."""

    center: Tensor
    spread: Tensor
    total_center: Tensor
    total_spread: Tensor

    def __init__(self, detector: Detector, neighbours: Neighbours, gaussian: Gaussian) -> None:
        super().__init__()
        self.detector = detector
        self.neighbours = neighbours
        self.gaussian = gaussian
        self.register_buffer("center", torch.zeros(len(VIEWS)))
        self.register_buffer("spread", torch.ones(len(VIEWS)))
        self.register_buffer("total_center", torch.zeros(1))
        self.register_buffer("total_spread", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the anomaly score of each sample, (B,), in (-1, 1).

        Typical normal samples get -0.8, and one in a hundred of them more than 0; the score grows
        towards 1 with what is anomalous.
        """
        return self.score(self.raw(x))

    def score(self, raw: Tensor) -> Tensor:
        """Return the anomaly score of samples whose `raw` views are known, (views, B) to (B,)."""
        total = _add(self.standardised(raw))
        t = _STEEPNESS * ((total - self.total_center) / self.total_spread - 1)
        return t / (1 + t.abs())  # unlike tanh, it still tells apart what is far out

    def standardised(self, raw: Tensor) -> Tensor:
        """Put `raw` views (views, B) on one scale: 0 is typical, above 1 is rare."""
        return (raw - self.center[:, None]) / self.spread[:, None]

    def raw(self, x: Tensor) -> Tensor:
        """Return the score of D_TV and both distances, (views, B)."""
        history, features = self.detector.scores_and_features(x)
        seen = x if x.dim() == 2 else features
        return torch.stack([history, self.neighbours(seen), self.gaussian(x)])

    def fit_scale(self, raw_of_normal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Set the scale from the `raw_views` (N, views) of normal samples that were not fitted on.

        Return their anomaly scores, (N,).
        """
        raw = torch.from_numpy(raw_of_normal).to(self.center.device).T
        self.center.copy_(raw.median(dim=1).values)
        spread = raw.quantile(_RANGE, dim=1) - self.center
        self.spread.copy_(torch.maximum(spread, torch.tensor(_SMALLEST_SPREAD).to(spread)))
        total = _add(self.standardised(raw))
        self.total_center.copy_(total.median())
        spread = total.quantile(_ZERO) - self.total_center
        self.total_spread.copy_(spread.clamp(min=_SMALLEST_SPREAD[1]))
        scores: NDArray[np.float32] = self.score(raw).cpu().numpy()
        return scores


@torch.inference_mode()
def raw_views(views: Views, samples: NDArray[Any], prepare: Preprocessing) -> NDArray[np.float32]:
    """Return the views of samples as a source holds them, not yet on a scale, (N, views)."""
    return in_batches(lambda x: views.raw(x).T, samples, prepare, views.center.device)


def fit_views(detector: Detector, batches: Batches) -> Views:
    """Return ``detector`` with companions fitted on normal samples, their scale still unset."""
    n = min(len(batches), samples_to_fit(batches.shape))
    samples = torch.cat([batches.at(start, size) for start, size in _chunks(n)])
    gaussian = Gaussian.fit(samples)
    if len(batches.shape) == 1:
        neighbours = Neighbours.fit(samples, cosine=False)
    else:
        with torch.inference_mode():
            parts = [detector.scores_and_features(part)[1] for part in torch.split(samples, _CHUNK)]
        neighbours = Neighbours.fit(torch.cat(parts), cosine=True)
    return Views(detector, neighbours, gaussian).to(batches.device).eval()


def _add(standardised: Tensor) -> Tensor:
    excess = (standardised[2] - 1).clamp(min=0)
    return standardised[0] + standardised[1] + _EXCESS_WEIGHT * excess


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, _CHUNK):
        yield start, min(_CHUNK, n - start)
