"""From a score to a decision, by normal samples that nothing was fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from historyad.score.calibration import Calibration
from historyad.score.score import Score


@torch.no_grad()
def decide(
    score: Score,
    samples: NDArray[Any],
    held_out: NDArray[np.intp],
    false_positive_rate: float,
    reach: int = 1,
) -> Calibration:
    """Put all views of ``score`` on one scale, and set its threshold.

    ``held_out`` are the rows of normal samples to do it by, of which those less than ``reach``
    apart share a part. Errors are those of `Calibration.fit`.
    """
    return Calibration.fit(score.fit_scale(samples, held_out), false_positive_rate, reach)


def calibrate(
    score: Score,
    samples: NDArray[Any],
    rows: NDArray[np.intp],
    false_positive_rate: float,
    reach: int = 1,
) -> Calibration:
    """Set the threshold of ``score``, as it is, by ``rows`` of what may be on the disk."""
    return Calibration.fit(score.of_rows(samples, rows), false_positive_rate, reach)
