"""From a score to a decision, by normal samples that nothing was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from historyad.config import Config
from historyad.score.calibration import Calibration
from historyad.score.score import Part, Score


@torch.no_grad()
def decide(
    score: Score, samples: NDArray[Any], parts: Sequence[Part], config: Config, reach: int = 1
) -> Calibration:
    """Put all views of ``score`` on one scale, and set its threshold.

    ``parts`` are rows of normal samples to do it by, each with a score that was not fitted on them:
    of a held-out part ``score`` itself, of folds one of the same kind for each. Samples less than
    ``reach`` rows apart share a part. Errors are those of `Calibration.fit`.
    """
    found = score.fit_scale_by(samples, parts)
    return Calibration.fit(found, config.false_positive_rate, config.confidence, reach)


def calibrate(
    score: Score, samples: NDArray[Any], rows: NDArray[np.intp], config: Config, reach: int = 1
) -> Calibration:
    """Set the threshold of ``score``, as it is, by ``rows`` of what may be on the disk."""
    found = score.of_rows(samples, rows)
    return Calibration.fit(found, config.false_positive_rate, config.confidence, reach)
