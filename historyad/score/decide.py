"""From a score to a decision, by normal samples that nothing was fitted on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from historyad.config import Config
from historyad.constants import CONSTANTS
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


def decide_anew(
    score: Score, samples: NDArray[Any], rows: NDArray[np.intp], config: Config, reach: int = 1
) -> tuple[Score, Calibration]:
    """Return a copy of ``score`` with its views on a new scale, and a threshold for it.

    ``rows`` are normal samples of what may be on the disk. What has changed for all of them, such
    as the light, would else outweigh every other view. Few say too little of a scale: it stays.
    Errors are those of `Calibration.fit`.
    """
    if len(rows) // reach >= CONSTANTS.fewest_for_a_scale:
        score = copy.deepcopy(score)
        return score, decide(score, samples, [(score, rows)], config, reach)
    found = score.of_rows(samples, rows)
    return score, Calibration.fit(found, config.false_positive_rate, config.confidence, reach)
