"""What gives samples their anomaly score: D_TV alone, with companions, or at every place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.data.any_size import parts_of
from historyad.method.networks import Critic
from historyad.score.batching import Preparing, in_batches
from historyad.score.result import Scored


class Input(Preparing, Protocol):
    """What a score has to know of its kind of input."""

    def check_samples(self, samples: NDArray[Any]) -> None:
        """Raise InputError unless ``samples`` are what a source holds, and can be scored."""


class Score(nn.Module, ABC):
    """A score of samples of one kind, of which D_TV is a part."""

    kind: Input
    d_tv: Critic
    makes_maps: ClassVar[bool] = False  # besides scores, at no further cost

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the views that make the score."""

    @property
    def sizes(self) -> dict[str, int] | None:
        """The sizes by which companions are built anew; None where there are none."""
        return None

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.d_tv.device

    @abstractmethod
    def of(self, samples: NDArray[Any], *, views: bool = False, maps: bool = False) -> Scored:
        """Score samples as a source holds them; `Scored` says what comes with it.

        The score of a sample depends on that sample alone. Raises InputError for samples of
        another kind, and where ``maps`` are asked for that this score does not make.
        """

    def of_prepared(self, prepared: NDArray[Any]) -> NDArray[np.float32] | None:
        """Score what a kind has prepared, such as samples of the history, (N,).

        None where networks see parts of what is scored.
        """
        with torch.inference_mode():
            return in_batches(self, prepared, _Prepared(self.kind), self.device)

    def place(self, samples: NDArray[Any]) -> NDArray[np.float32] | None:
        """Return where samples lie among normal ones, (N, values): near are those that are alike.

        None where the score compares with none.
        """
        return None

    def usual(self, sample: NDArray[Any], owners: NDArray[np.intp]) -> NDArray[np.float32] | None:
        """Return what is usual in place of each prepared value of a sample, by its like, (F,).

        ``owners`` (F,) number the column that each of them belongs to. None where it is not known.
        """
        return None

    def of_rows(self, samples: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the scores of ``rows`` of samples, of which few are in memory at a time."""
        return np.concatenate([self.of(part).anomaly_score for part in parts_of(samples, rows)])

    def in_graph(self, x: Any, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return what a graph has of samples of ``shape`` as `Kind.onnx` gives them: scores, (N,).

        And maps, (N, H, W), where there are some at no further cost.
        """
        return (self(x),)

    def fit_scale(self, samples: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Put the views on one scale by ``rows`` of normal samples that were not fitted on.

        Returns their scores.
        """
        return self.fit_scale_by(samples, [(self, rows)])

    @abstractmethod
    def fit_scale_by(self, samples: NDArray[Any], parts: Sequence[Part]) -> NDArray[np.float32]:
        """Put the views on one scale by rows of normal samples, part by part.

        What the views say of a part is what those of its own score do, which is alike but was not
        fitted on it. Returns the scores of all parts on the scale of this one.
        """

    @abstractmethod
    def unbounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put anomaly scores (N,) on a scale without an end."""


# A score, and the rows of samples that it was not fitted on.
Part = tuple[Score, NDArray[np.intp]]


@dataclass(frozen=True)
class _Prepared:
    """Samples that a kind has prepared already."""

    kind: Preparing

    def prepare(self, samples: NDArray[Any]) -> NDArray[Any]:
        return samples

    def floats(self, prepared: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
        return self.kind.floats(prepared, device)


class DetectorScore(Score):
    """The score of the paper: the output of D_TV, about -1 normal, +1 anomalous."""

    names = ("history",)

    def __init__(self, kind: Input, d_tv: Critic) -> None:
        super().__init__()
        self.kind = kind
        self.d_tv = d_tv

    def forward(self, x: Tensor) -> Tensor:
        """Return the score of each sample as networks see it, (B, ...) to (B,)."""
        score: Tensor = self.d_tv(x)
        return score

    @torch.inference_mode()
    def of(self, samples: NDArray[Any], *, views: bool = False, maps: bool = False) -> Scored:
        """Return the scores; the only view is the score."""
        scores = in_batches(self, samples, self.kind, self.device)
        return Scored(scores, views={"history": scores} if views else None)

    def fit_scale_by(self, samples: NDArray[Any], parts: Sequence[Part]) -> NDArray[np.float32]:
        """Leave the output of D_TV as it is, and return it."""
        return np.concatenate([score.of_rows(samples, rows) for score, rows in parts])

    def unbounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores, which have no end."""
        return scores
