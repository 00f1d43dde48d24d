"""D_TV and its companions as one score: several views of a sample on one scale.

=============  =================================================================================
view           what it says of a sample
=============  =================================================================================
`history`      D_TV: whether it looks like the data or like their history
`pattern`      images: distance, by cosine, to neighbours in the features of D_TV's convolutions
`neighbours`   distance to its neighbours: of an image in D_TV's last hidden layer, among those
               near by `pattern`; of a vector as it is
`gaussian`     distance to a Gaussian; for an image, less twice that of its neighbours by `pattern`
=============  =================================================================================

Distances to neighbours are relative to the gaps between normal samples around them. A view is
standardised by normal samples that no view was fitted on: 0 is their median, and 1 is what one in
twenty exceeds. The score is a weighted sum. Some views count only beyond the range of normal
samples, within which they say nothing about what is normal: the Gaussian of images, beyond whose
range nothing else is as sure, and D_TV's output on vectors, where the history does not surround the
data. Some normal images are far from the mean, and so are those that resemble them: hence the
Gaussian of an image is compared with those of its neighbours.
"""

from __future__ import annotations

import math
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

# The weight of each view in the score, and the place on its scale from which it counts.
_IMAGE_VIEWS = {
    "history": (0.5, -math.inf),
    "pattern": (2.0, -math.inf),
    "neighbours": (5.0, -math.inf),
    "gaussian": (4.0, 1.5),
}
_NEARBY = 2.0  # of the neighbours' distance to the Gaussian, taken from an image's own
_VECTOR_VIEWS = {
    "history": (1.0, 1.0),
    "neighbours": (1.0, -math.inf),
    "gaussian": (1.0, -math.inf),
}

_CHUNK = 512  # samples whose features are computed at a time
RANGE = 0.95  # quantile of normal samples that is 1 on the scale of a view
ZERO = 0.99  # quantile of normal samples where the score is 0
_STEEPNESS = 4.0  # of the score at its 0, per unit of the scale
# A detector that is all but constant on normal samples has no scale of its own.
_SMALLEST_SPREAD, _SMALLEST_SPREAD_OF_HISTORY = 1e-6, 0.05


class Views(nn.Module):
    """Anomaly score of D_TV and its companions; ``pattern`` is None for vectors."""

    center: Tensor
    spread: Tensor
    bank_gaussians: Tensor
    total_center: Tensor
    total_spread: Tensor

    def __init__(
        self,
        detector: Detector,
        pattern: Neighbours | None,
        neighbours: Neighbours,
        gaussian: Gaussian,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.pattern = pattern
        self.neighbours = neighbours
        self.gaussian = gaussian
        self._rules = _VECTOR_VIEWS if pattern is None else _IMAGE_VIEWS
        self.register_buffer("center", torch.zeros(len(self._rules)))
        self.register_buffer("spread", torch.ones(len(self._rules)))
        if pattern is not None:
            self.register_buffer("bank_gaussians", torch.zeros(len(pattern.bank)))
        self.register_buffer("total_center", torch.zeros(1))
        self.register_buffer("total_spread", torch.ones(1))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views, in their order."""
        return tuple(self._rules)

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
        counted = [
            weight * (view if floor == -math.inf else view.clamp(min=floor))
            for view, (weight, floor) in zip(
                self.standardised(raw), self._rules.values(), strict=True
            )
        ]
        return torch.stack(counted).sum(0)

    def standardised(self, raw: Tensor) -> Tensor:
        """Put `raw` views (views, B) on one scale: 0 is typical, above 1 is rare."""
        return (raw - self.center[:, None]) / self.spread[:, None]

    def raw(self, x: Tensor) -> Tensor:
        """Return the score of D_TV and the distances of its companions, (views, B)."""
        history, features, hidden = self.detector.scores_and_features(x)
        if self.pattern is None:
            return torch.stack([history, self.neighbours(x), self.gaussian(x)])
        places = self.pattern.place(features)
        candidates = self.pattern.candidates(places)
        pattern, nearest = self.pattern.compare(places, candidates)
        neighbours, _ = self.neighbours.compare(self.neighbours.place(hidden), candidates)
        gaussian = self.gaussian(x) - _NEARBY * self.bank_gaussians[nearest].mean(1)
        return torch.stack([history, pattern, neighbours, gaussian])

    def fit_scale(self, raw_of_normal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Set the scale from the `raw_views` (N, views) of normal samples that were not fitted on.

        Return their anomaly scores, (N,).
        """
        raw = torch.from_numpy(raw_of_normal).to(self.center.device).T
        self.center.copy_(raw.median(dim=1).values)
        self.spread.copy_((raw.quantile(RANGE, dim=1) - self.center).clamp(min=_SMALLEST_SPREAD))
        self.spread[0].clamp_(min=_SMALLEST_SPREAD_OF_HISTORY)
        total = self.total(raw)
        self.total_center.copy_(total.median())
        spread = total.quantile(ZERO) - self.total_center
        self.total_spread.copy_(spread.clamp(min=_SMALLEST_SPREAD))
        scores: NDArray[np.float32] = self.score(raw).cpu().numpy()
        return scores


def bounded_score(total: Tensor) -> Tensor:
    """Return the anomaly score in (-1, 1) of totals on their scale: -0.8 at 0, and 0 at 1."""
    t = _STEEPNESS * (total - 1)
    return t / (1 + t.abs())  # unlike tanh, it still tells apart what is far out


def total_of(score: float) -> float:
    """Invert `bounded_score`."""
    return score / (1 - abs(score)) / _STEEPNESS + 1


@torch.inference_mode()
def raw_views(views: Views, samples: NDArray[Any], prepare: Preprocessing) -> NDArray[np.float32]:
    """Return the views of samples as a source holds them, not yet on a scale, (N, views)."""
    return in_batches(lambda x: views.raw(x).T, samples, prepare, views.center.device)


def fit_views(detector: Detector, batches: Batches) -> Views:
    """Return ``detector`` with companions fitted on normal samples, their scale still unset."""
    n = min(len(batches), samples_to_fit(batches.shape))
    samples = torch.cat([batches.at(start, size) for start, size in _chunks(n)])
    gaussian = Gaussian.fit(samples)
    pattern = None
    if len(batches.shape) == 1:
        neighbours = Neighbours.fit(samples, cosine=False, project=False)
    else:
        features, hidden = _layers_of(detector, samples)
        pattern = Neighbours.fit(features, cosine=True, project=True)
        among = pattern.candidates_of_bank()
        neighbours = Neighbours.fit(hidden, cosine=False, project=True, candidates=among)
    views = Views(detector, pattern, neighbours, gaussian).to(batches.device).eval()
    if pattern is not None:
        kept = torch.split(samples[: len(pattern.bank)], _CHUNK)
        views.bank_gaussians.copy_(torch.cat([gaussian(x) for x in kept]))
    return views


@torch.inference_mode()
def _layers_of(detector: Detector, samples: Tensor) -> list[Tensor]:
    """Return features (N, n_features) and last hidden layers (N, hidden) of samples."""
    parts = [detector.scores_and_features(x)[1:] for x in torch.split(samples, _CHUNK)]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, _CHUNK):
        yield start, min(_CHUNK, n - start)
