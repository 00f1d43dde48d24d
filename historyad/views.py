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
`simplicity`   images: minus the logarithm of that distance by itself: how much plainer than normal
`features`     images: distance to a Gaussian of the features of D_TV's convolutions, less that of
               its neighbours by `pattern`
=============  =================================================================================

Distances to neighbours are relative to the gaps between normal samples around them. A view is
standardised by normal samples that no view was fitted on: 0 is their median, and 1 is what one in
twenty exceeds. The score is a weighted sum. Some views count only beyond the range of normal
samples, or near its end, for they say nothing about what is normal within: the Gaussian of images,
beyond whose range nothing else is as sure, and D_TV's output on vectors, where the history does not
surround the data. Some normal images are far from the mean, and so are those that resemble them:
hence the Gaussians of an image are compared with those of its neighbours.

Where samples have many values, all normal ones are about equally far from the mean, and what is
much *nearer* is not normal either: no photograph is as smooth as a house number (Nalisnick et al.,
2019, "Detecting out-of-distribution inputs to deep generative models using typicality"). All
distances call it normal; `simplicity` does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.batches import Batches
from historyad.blocks import CANDIDATES, Blocks
from historyad.companions import (
    NEIGHBOURS,
    Gaussian,
    Neighbours,
    principal_components,
    samples_to_fit,
)
from historyad.detector import Detector, in_batches
from historyad.networks import Critic, Shape
from historyad.preprocessing import Preprocessing

_Number = TypeVar("_Number", float, NDArray[np.float64])

# Of the mean variance. Vectors have few values, and each was scaled: none may decide alone.
IMAGE_RIDGE, _VECTOR_RIDGE = 0.003, 1.0
_GAUSSIAN_COMPONENTS = 192  # of features
# How many times the neighbours' distance is taken from an image's own.
_NEARBY, _NEARBY_FEATURES = 2.0, 1.0

_SMALLEST_DISTANCE = 1e-6  # to a Gaussian, whose logarithm is taken
_CHUNK = 512  # samples whose features are computed at a time
RANGE = 0.95  # quantile of normal samples that is 1 on the scale of a view
ZERO = 0.99  # quantile of normal samples where the score is 0
_STEEPNESS = 4.0  # of the score at its 0, per unit of the scale
_MOST_BOUNDED = 1 - 2**-24  # the largest float32 below 1: a score of 1 is infinitely far
# A detector that is all but constant on normal samples has no scale of its own.
SMALLEST_SPREAD, SMALLEST_SPREAD_OF_HISTORY = 1e-6, 0.05


class VectorCompanions(nn.Module):
    """Companions of D_TV on vectors."""

    # The weight of each view in the score, and the place on its scale from which it counts.
    rules: ClassVar[dict[str, tuple[float, float]]] = {
        "history": (1.0, 1.0),
        "neighbours": (1.0, -math.inf),
        "gaussian": (0.5, -math.inf),
    }

    def __init__(self, neighbours: Neighbours, gaussian: Gaussian) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.gaussian = gaussian

    @classmethod
    def fit(cls, samples: Tensor) -> VectorCompanions:
        """Fit to normal samples (N, values)."""
        neighbours = Neighbours.fit(samples, cosine=False, project=False)
        return cls(neighbours, Gaussian.fit(samples, ridge=_VECTOR_RIDGE))

    @classmethod
    def build(cls, n_values: int, *, bank: int, components: int) -> VectorCompanions:
        """Return unfitted ones of these sizes."""
        neighbours = Neighbours(n_values, bank, cosine=False, project=False)
        return cls(neighbours, Gaussian(n_values, components))

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        return {"bank": len(self.neighbours.bank), "components": len(self.gaussian.components)}

    def forward(self, x: Tensor, features: Tensor, hidden: Tensor) -> list[Tensor]:
        """Return the views of samples (B, values) besides that of the history, (B,) each."""
        return [self.neighbours(x), self.gaussian(x)]


class ImageCompanions(nn.Module):
    """Companions of D_TV on images: in pixels, and in what D_TV makes of them.

    The bank is searched once, by `pattern`; neighbours in other layers are taken from the
    candidates that this finds.
    """

    bank_gaussian: Tensor
    bank_features: Tensor

    rules: ClassVar[dict[str, tuple[float, float]]] = {
        "history": (0.5, -math.inf),
        "pattern": (1.0, -math.inf),
        "neighbours": (10.0, -math.inf),
        "blocks": (12.0, -math.inf),
        "edges": (16.0, -math.inf),
        "gaussian": (14.0, 1.0),
        "simplicity": (30.0, 0.75),
        "features": (4.0, -math.inf),
    }

    def __init__(
        self,
        pattern: Neighbours,
        neighbours: Neighbours,
        blocks: Blocks,
        gaussian: Gaussian,
        features: Gaussian,
    ) -> None:
        super().__init__()
        self.pattern = pattern
        self.neighbours = neighbours
        self.blocks = blocks
        self.gaussian = gaussian
        self.features = features
        # What either Gaussian says of the normal samples that neighbours are sought among.
        self.register_buffer("bank_gaussian", torch.zeros(len(pattern.bank)))
        self.register_buffer("bank_features", torch.zeros(len(pattern.bank)))

    @classmethod
    def fit(cls, samples: Tensor, features: Tensor, hidden: Tensor) -> ImageCompanions:
        """Fit to normal samples (N, C, H, W) and their layers (N, n_features), (N, hidden)."""
        pca = principal_components(features, _GAUSSIAN_COMPONENTS)
        pattern = Neighbours.keep(features, pca, cosine=True)
        of_features = Gaussian.fit(features, ridge=IMAGE_RIDGE, pca=pca)
        pca = principal_components(hidden)
        in_layer = Neighbours.keep(hidden, pca, cosine=False)
        candidates = pattern.candidates_of_bank()
        in_layer.fit_gaps(candidates)
        others = pattern.fit_gaps(candidates, CANDIDATES)
        blocks = Blocks.fit(samples[: len(others)], others)
        of_pixels = Gaussian.fit(samples, ridge=IMAGE_RIDGE)
        companions = cls(pattern, in_layer, blocks, of_pixels, of_features)
        n = len(pattern.bank)
        companions.bank_gaussian.copy_(_in_chunks(of_pixels, samples[:n]))
        companions.bank_features.copy_(_in_chunks(of_features, features[:n]))
        return companions

    @classmethod
    def build(
        cls,
        critic: Critic,
        shape: Shape,
        *,
        bank: int,
        components: int,
        feature_components: int,
    ) -> ImageCompanions:
        """Return unfitted ones of these sizes, for images of ``shape``."""
        return cls(
            Neighbours(critic.n_features, bank, cosine=True, project=True),
            Neighbours(critic.n_hidden, bank, cosine=False, project=True),
            Blocks(shape[-1], bank),
            Gaussian(math.prod(shape), components),
            Gaussian(critic.n_features, feature_components),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        return {
            "bank": len(self.pattern.bank),
            "components": len(self.gaussian.components),
            "feature_components": len(self.features.components),
        }

    def forward(self, x: Tensor, features: Tensor, hidden: Tensor) -> list[Tensor]:
        """Return the views of images (B, C, H, W) besides that of the history, (B,) each."""
        places = self.pattern.place(features)
        candidates = self.pattern.candidates(places)
        distances, others = self.pattern.nearest(places, candidates, CANDIDATES)
        few = others[:, :NEIGHBOURS]
        nearby = self.bank_gaussian[few].mean(1), self.bank_features[few].mean(1)
        from_mean = self.gaussian(x)
        return [
            self.pattern.relative(distances, others),
            self.neighbours.among(hidden, candidates),
            *self.blocks(x, others),
            from_mean - _NEARBY * nearby[0],
            -from_mean.clamp(min=_SMALLEST_DISTANCE).log(),
            self.features(features) - _NEARBY_FEATURES * nearby[1],
        ]


class Views(nn.Module):
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
                self.standardised(raw), self.companions.rules.values(), strict=True
            )
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

    def fit_scale(self, raw_of_normal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Set the scale from the `raw_views` (N, views) of normal samples that were not fitted on.

        Return their anomaly scores, (N,).
        """
        raw = torch.from_numpy(raw_of_normal).to(self.center.device).T
        self.center.copy_(raw.median(dim=1).values)
        self.spread.copy_((raw.quantile(RANGE, dim=1) - self.center).clamp(min=SMALLEST_SPREAD))
        self.spread[0].clamp_(min=SMALLEST_SPREAD_OF_HISTORY)
        total = self.total(raw)
        self.total_center.copy_(total.median())
        spread = total.quantile(ZERO) - self.total_center
        self.total_spread.copy_(spread.clamp(min=SMALLEST_SPREAD))
        scores: NDArray[np.float32] = self.score(raw).cpu().numpy()
        return scores


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


def _in_chunks(view: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([view(part) for part in torch.split(x, _CHUNK)])


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, _CHUNK):
        yield start, min(_CHUNK, n - start)
