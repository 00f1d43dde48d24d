"""D_TV and its companions as one score: several views of a sample on one scale.

=============  =================================================================================
view           what it says of a sample
=============  =================================================================================
`history`      D_TV: whether it looks like the data or like their history
`pattern`      images: distance, by cosine, to neighbours in the features of D_TV's convolutions
`neighbours`   distance to its neighbours: of an image in D_TV's last hidden layer, among those
               near by `pattern`; of a vector as it is
`blocks`       images: distance to neighbours, among those near by `pattern`, where every block of
               the image may have moved a little
`edges`        images: the same, of edges instead of grey values, and by moves of twice that length
`gaussian`     distance to a Gaussian; for an image, less twice that of its neighbours by `pattern`
`simplicity`   images: minus the logarithm of a coarser such distance: how much plainer than normal
`features`     images: distance to a Gaussian of the features of D_TV's convolutions, less that of
               its neighbours by `pattern`
=============  =================================================================================

Distances to neighbours are relative to the gaps between normal samples around them. A view is
standardised by normal samples that no view was fitted on: 0 is their median, and about one in
twenty exceeds 1. The score is a weighted sum. Some views count only beyond the range of normal
samples, or near its end, for they say nothing about what is normal within: the Gaussian of images,
beyond whose range nothing else is as sure, and D_TV's output on vectors, where the history does not
surround the data. Simplicity counts by its square: a little plainer than normal says nothing yet,
and much plainer decides. Some normal images are far from the mean, and so are those that resemble
them: hence the Gaussians of an image are compared with those of its neighbours.

Where samples have many values, all normal ones are about equally far from the mean, and what is
much *nearer* is not normal either: no photograph is as smooth as a house number (Nalisnick et al.,
2019, "Detecting out-of-distribution inputs to deep generative models using typicality"). All
distances call it normal; `simplicity` does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.kinds.preprocessing import Preprocessing
from historyad.method.batches import Batches
from historyad.method.detector import Detector, Score, Scores, in_batches
from historyad.score.companions import ImageCompanions, VectorCompanions, samples_to_fit

_Number = TypeVar("_Number", float, NDArray[np.float64])

_CHUNK = 512  # samples whose features are computed at a time
RANGE = 0.95  # quantile of normal samples that is 1 on the scale of a view
_FAR = 0.99  # or that is 2, of one that counts by its square, where that is less strict
ZERO = 0.99  # quantile of normal samples where the score is 0
_STEEPNESS = 4.0  # of the score at its 0, per unit of the scale
_MOST_BOUNDED = 1 - 2**-24  # the largest float32 below 1: a score of 1 is infinitely far
# A detector that is all but constant on normal samples has no scale of its own.
SMALLEST_SPREAD, SMALLEST_SPREAD_OF_HISTORY = 1e-6, 0.05


class Views(Score):
    """Anomaly score of D_TV and its companions."""

    center: Tensor
    spread: Tensor
    total_center: Tensor
    total_spread: Tensor

    def __init__(self, detector: Detector, companions: ImageCompanions | VectorCompanions) -> None:
        super().__init__()
        self.detector = detector
        self.companions = companions
        self.register_buffer("center", torch.zeros(len(self.names)))
        self.register_buffer("spread", torch.ones(len(self.names)))
        self.register_buffer("total_center", torch.zeros(1))
        self.register_buffer("total_spread", torch.ones(1))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views, in their order."""
        return tuple(self.companions.rules)

    @property
    def d_tv(self) -> Detector:
        """The view `history`."""
        return self.detector

    @property
    def companion_sizes(self) -> dict[str, int]:
        """The sizes by which the companions are built anew."""
        return self.companions.sizes

    def forward(self, x: Tensor) -> Tensor:
        """Return the anomaly score of each sample, (B,), in (-1, 1).

        Typical normal samples get -0.8, and one in a hundred of them more than 0; the score grows
        towards 1 with what is anomalous.
        """
        return self.score(self.raw(x))

    def score(self, raw: Tensor) -> Tensor:
        """Return the anomaly score of samples whose `raw` views are known, (views, B) to (B,)."""
        return bounded_score((self.total(raw) - self.total_center) / self.total_spread)

    def total(self, raw: Tensor) -> Tensor:
        """Return the weighted sum of `raw` views (views, B), (B,)."""
        rules = self.companions.rules.values()
        counted = [
            rule.count(view) for rule, view in zip(rules, self.standardised(raw), strict=True)
        ]
        # One after the other: torch adds up a stack in an order that depends on the batch.
        total: Tensor = reduce(torch.add, counted)
        return total

    def standardised(self, raw: Tensor) -> Tensor:
        """Put `raw` views (views, B) on one scale: 0 is typical, above 1 is rare."""
        return (raw - self.center[:, None]) / self.spread[:, None]

    def raw(self, x: Tensor) -> Tensor:
        """Return the score of D_TV and the distances of its companions, (views, B)."""
        history, features, hidden = self.detector.scores_and_features(x)
        return torch.stack([history, *self.companions(x, features, hidden)])

    def scores_and_views(
        self, samples: NDArray[Any], prepare: Preprocessing
    ) -> tuple[Scores, Scores]:
        """Return anomaly scores (N,), and `standardised` views (views, N), at the cost of one."""
        raw = torch.from_numpy(raw_views(self, samples, prepare).T).to(self.center.device)
        return self.score(raw).cpu().numpy(), self.standardised(raw).cpu().numpy()

    def unbounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return totals on their scale: the score nears 1 and hides how far out a sample is."""
        return total_of(scores)

    def fit_scale(self, raw_of_normal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Set the scale from the `raw_views` (N, views) of normal samples that were not fitted on.

        Return their anomaly scores, (N,).
        """
        raw = torch.from_numpy(raw_of_normal).to(self.center.device).T
        self.center.copy_(raw.median(dim=1).values)
        squared = torch.tensor([rule.squared for rule in self.companions.rules.values()])
        self.spread.copy_(spread_of(raw, self.center, squared=squared.to(raw.device)))
        self.spread[0].clamp_(min=SMALLEST_SPREAD_OF_HISTORY)
        total = self.total(raw)
        self.total_center.copy_(total.median())
        spread = total.quantile(ZERO) - self.total_center
        self.total_spread.copy_(spread.clamp(min=SMALLEST_SPREAD))
        scores: NDArray[np.float32] = self.score(raw).cpu().numpy()
        return scores


def spread_of(raw: Tensor, center: Tensor, *, squared: Tensor) -> Tensor:
    """Return how far 1 is from 0 on the scale of each of some views, (views,).

    ``raw`` (views, N) are those of normal samples, and ``center`` (views,) is their median. One in
    twenty is beyond 1. Of a view that counts ``squared`` (views,), one in a hundred at most is
    beyond 2: some kind of normal samples may be plainer than all others, as ones are among digits.
    """
    spread, far = (raw.quantile(quantile, dim=1) - center for quantile in (RANGE, _FAR))
    wider = torch.maximum(spread, far / 2)
    return torch.where(squared, wider, spread).clamp(min=SMALLEST_SPREAD)


def bounded_score(total: Tensor) -> Tensor:
    """Return the anomaly score in (-1, 1) of totals on their scale: -0.8 at 0, and 0 at 1."""
    t = _STEEPNESS * (total - 1)
    return t / (1 + t.abs())  # unlike tanh, it still tells apart what is far out


def total_of(score: _Number) -> _Number:
    """Invert `bounded_score`; a score of 1 gives what the largest float32 below it does."""
    inside: _Number = np.clip(score, -_MOST_BOUNDED, _MOST_BOUNDED)
    return inside / (1 - abs(inside)) / _STEEPNESS + 1


@torch.inference_mode()
def raw_views(views: Views, samples: NDArray[Any], prepare: Preprocessing) -> NDArray[np.float32]:
    """Return the views of samples as a source holds them, not yet on a scale, (N, views)."""
    return in_batches(lambda x: views.raw(x).T, samples, prepare, views.center.device)


def fit_views(detector: Detector, batches: Batches) -> Views:
    """Return ``detector`` with companions fitted on normal samples, their scale still unset."""
    n = min(len(batches), samples_to_fit(batches.shape))
    samples = torch.cat([batches.at(start, size) for start, size in _chunks(n)])
    companions: ImageCompanions | VectorCompanions
    if len(batches.shape) == 1:
        companions = VectorCompanions.fit(samples)
    else:
        companions = ImageCompanions.fit(samples, *_layers_of(detector, samples))
    return Views(detector, companions).to(batches.device).eval()


@torch.inference_mode()
def _layers_of(detector: Detector, samples: Tensor) -> list[Tensor]:
    """Return features (N, n_features) and last hidden layers (N, hidden) of samples."""
    parts = [detector.scores_and_features(x)[1:] for x in torch.split(samples, _CHUNK)]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, _CHUNK):
        yield start, min(_CHUNK, n - start)
