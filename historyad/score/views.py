"""D_TV and its companions as one score: several views of a sample on one scale.

=============  =================================================================================
view           what it says of a sample
=============  =================================================================================
`history`      D_TV: whether it looks like the data or like their history
`neighbours`   vectors: distance to the nearest normal ones
`blocks`       images: distance to the nearest normal ones, among those that are near by cosine in
               the features of D_TV's convolutions, where every block of the image may have moved a
               little
`edges`        images: the same, of edges instead of grey values, and by moves of twice that length
`gaussian`     distance to a Gaussian; for an image, less twice that of those near by
`simplicity`   images: minus the logarithm of a coarser such distance: how much plainer than normal
`spectrum`     recordings: distance to the nearest normal ones by mean and deviation of each band
`smoothness`   images: minus the logarithm of the mean difference of neighbouring pixels
=============  =================================================================================

Distances to neighbours are relative to the gaps between normal samples around them. A view is
standardised by normal samples that no view was fitted on: 0 is their median, and about one in
twenty exceeds 1. The score is the sum, without weights: what was tried to set them, from damaged
samples, from covariances or by hand, was no better. D_TV may raise suspicion, but not allay it: of
images it counts above the median of normal ones, and of vectors, which the history hardly
surrounds, beyond their range. So does the Gaussian of images, which says little of what is normal
within, and beyond it is surer than anything else. How plain an image is counts by its square: a
little plainer than normal says nothing yet, and much plainer decides. Some normal images are far
from the mean, and so are those that resemble them: hence the Gaussian of an image is compared with
that of its neighbours.

Where samples have many values, all normal ones are about equally far from the mean, and what is
much *nearer* is not normal either: no photograph is as smooth as a house number (Nalisnick et al.,
2019, "Detecting out-of-distribution inputs to deep generative models using typicality"). All
distances call it normal; `simplicity` and `smoothness` do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.constants import CONSTANTS, Rule
from historyad.data.streams import in_parts
from historyad.method.batches import Batches
from historyad.method.networks import Critic
from historyad.progress import each
from historyad.score.batching import in_batches, of_parts
from historyad.score.bounded import bounded_score, total_of
from historyad.score.companions import Companions, count
from historyad.score.result import Scored
from historyad.score.scale import Scale
from historyad.score.score import Input, Part, Score

_CHUNK = 512  # samples whose features are computed at a time


class Views(Score):
    """Anomaly score of D_TV and its companions.

    Where D_TV was not trained (``is_trained``), its output says nothing, and it has no view.
    """

    def __init__(
        self, kind: Input, d_tv: Critic, companions: Companions, *, is_trained: bool = True
    ) -> None:
        super().__init__()
        self.kind = kind
        self.d_tv = d_tv
        self.companions = companions
        self.is_trained = is_trained
        self.scale = Scale(len(self.names))
        self.total_scale = Scale(1)

    @property
    def rules(self) -> dict[str, Rule]:
        """How each view counts."""
        rules = self.companions.rules
        return {name: rules[name] for name in rules if self.is_trained or name != "history"}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views, in the order in which they are added up."""
        return tuple(self.rules)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by which the companions are built anew."""
        return self.companions.sizes

    def forward(self, x: Tensor) -> Tensor:
        """Return the anomaly score of each sample as networks see it, (B,), in (-1, 1).

        Typical normal samples get -0.8, and one in a hundred of them more than 0; the score grows
        towards 1 with what is anomalous.
        """
        return self.score(self.raw(x))

    def score(self, raw: Tensor) -> Tensor:
        """Return the anomaly score of samples whose `raw` views are known, (views, B) to (B,)."""
        return bounded_score(self.total_scale(self.total(raw)[None])[0])

    def total(self, raw: Tensor) -> Tensor:
        """Return the sum of `raw` views (views, B) as they count, (B,)."""
        rules = self.rules.values()
        counted = [count(rule, view) for rule, view in zip(rules, self.scale(raw), strict=True)]
        # One after the other: torch adds up a stack in an order that depends on the batch.
        total: Tensor = reduce(torch.add, counted)
        return total

    def raw(self, x: Tensor, n: int | None = None) -> Tensor:
        """Return the score of D_TV and the distances of its companions, (views, B).

        Of the first ``n``, where only these are wanted: what is there for the others means nothing.
        """
        if self.is_trained or self.companions.see_features:
            features, history = self.d_tv.with_features(x)
        else:  # nobody asks
            features = history = x.new_empty(0)
        found = {"history": history, **self.companions(x, features, n)}
        return torch.stack([found[name] for name in self.names])

    @torch.inference_mode()
    def raw_of(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Return the views of samples as a source holds them, not yet on a scale, (N, views)."""
        return self._in_batches(lambda x, n: self.raw(x, n).T, samples)

    @torch.inference_mode()
    def of(self, samples: NDArray[Any], *, views: bool = False, maps: bool = False) -> Scored:
        """Return the scores and, at no further cost, what each view says."""
        if not views:
            return Scored(self._in_batches(lambda x, n: self.score(self.raw(x, n)), samples))
        raw = torch.from_numpy(self.raw_of(samples).T).to(self.device)
        found = zip(self.names, self.scale(raw).cpu().numpy(), strict=True)
        return Scored(self.score(raw).cpu().numpy(), views=dict(found))

    def _in_batches(
        self, function: Callable[[Tensor, int], Tensor], samples: NDArray[Any]
    ) -> NDArray[np.float32]:
        return in_batches(function, samples, self.kind, self.device, tells=True)

    @torch.inference_mode()
    def place(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Return where samples lie in what their neighbours are looked for in, (N, values)."""

        def place(x: Tensor) -> Tensor:
            return self.companions.place(x, self.d_tv.with_features(x)[0])

        return in_batches(place, samples, self.kind, self.device)

    @torch.inference_mode()
    def usual(self, sample: NDArray[Any], owners: NDArray[np.intp]) -> NDArray[np.float32] | None:
        """Return what the nearest normal samples have in place of each prepared value, (F,)."""
        x = self.kind.floats(self.kind.prepare(sample[None]), self.device)[0]
        found = self.companions.usual(x, torch.from_numpy(owners).to(x.device))
        return None if found is None else found.cpu().numpy()

    @torch.inference_mode()
    def fit_scale_by(self, samples: NDArray[Any], parts: Sequence[Part]) -> NDArray[np.float32]:
        """Standardise each view, and their sum, by rows of normal samples not fitted on."""
        raw_of_parts = [
            cast(Views, score).raw_of(some)
            for score, rows in each(parts)
            for some in in_parts(samples, rows)
        ]
        raw = torch.from_numpy(np.concatenate(raw_of_parts)).to(self.device).T
        smallest = CONSTANTS.smallest_history_spread
        self.scale.fit(
            raw,
            squared=[rule.squared for rule in self.rules.values()],
            smallest={i: smallest for i, name in enumerate(self.names) if name == "history"},
        )
        self.total_scale.fit_tail(self.total(raw)[None])
        scores: NDArray[np.float32] = self.score(raw).cpu().numpy()
        return scores

    def unbounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return totals on their scale: the score nears 1 and hides how far out a sample is."""
        return total_of(scores)


def normal_samples(batches: Batches, most: int) -> Tensor:
    """Return at ``most`` so many normal samples to fit companions on, as networks see them."""
    n = min(len(batches), most)
    starts = range(0, n, _CHUNK)
    return torch.cat([batches.at(start, min(_CHUNK, n - start)) for start in starts])


@torch.inference_mode()
def features_of(d_tv: Critic, samples: Tensor) -> Tensor:
    """Return what the convolutions of D_TV make of samples, (N, n_features)."""
    return torch.cat(of_parts(lambda x: d_tv.with_features(x)[0], samples, size=_CHUNK))
