"""Detectors that train no network: companions in the features of one with random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from historyad.config import Config
from historyad.data.rows import rows_between
from historyad.kinds.kind import Kind
from historyad.method.detector import random_detector
from historyad.progress import each
from historyad.score.score import Part, Score

Rows = NDArray[np.intp]


def untrained_score(
    kind: Kind,
    samples: NDArray[Any],
    rows: Rows,
    config: Config,
    device: torch.device | str = "cpu",
) -> Score:
    """Return the score of companions fitted on ``rows`` of normal samples, no scale set."""
    batches = kind.batches(samples, config, rows=rows, device=device)
    d_tv = random_detector(batches.networks, config).to(device).eval()
    score = kind.fit_score(d_tv, batches, config)
    return score.to(device).eval()


def of_others(
    samples: NDArray[Any], folds: Sequence[Rows], config: Config, whole: Score, reach: int = 1
) -> Iterator[Part]:
    """Yield the rows of each fold of samples, with a score of all other folds ``like`` the whole.

    What the kind of input learns of samples, such as the scaling of columns, is of others, too, and
    of none less than ``reach`` rows from the fold, which shares a part with it.
    """
    assert isinstance(whole.kind, Kind)
    like = whole.kind.like(whole)
    for number, rows in enumerate(each(folds)):
        others = np.sort(np.concatenate([*folds[:number], *folds[number + 1 :]]))
        others = others[rows_between(others, rows) >= reach]
        kind = like.learnt_from(samples, others)
        yield untrained_score(kind, samples, others, config, whole.device), rows
