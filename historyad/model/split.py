"""Which samples are trained on, and which are held out for the decision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.data.order import stretches
from historyad.errors import InputError
from historyad.randomness import Stream, numpy_generator
from historyad.score.calibration import samples_needed

_FEWEST_TRAINING_SAMPLES = 2


def split_rows(n: int, config: Config) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to train on and those to hold out; InputError when they are too few."""
    needed = samples_needed(config.false_positive_rate)
    n_held_out = min(round(config.calibration_share * n), max(CONSTANTS.most_held_out, needed))
    if n_held_out < needed or n - n_held_out < _FEWEST_TRAINING_SAMPLES:
        share = config.calibration_share
        smallest = max(needed / share, (_FEWEST_TRAINING_SAMPLES + 0.5) / (1 - share))
        raise InputError(
            f"{n} sample{'s' * (n != 1)} are too few: a false-positive rate of "
            f"{config.false_positive_rate:g} needs {needed} held-out samples, and "
            f"calibration_share = {share:g} holds out {n_held_out}. Give about "
            f"{int(smallest) + 1} normal samples, or raise calibration_share or false_positive_rate"
        )
    held_out = stretches(n, n_held_out, numpy_generator(config.seed, Stream.SPLIT))
    is_held_out = np.zeros(n, np.bool_)
    is_held_out[held_out] = True
    return np.flatnonzero(~is_held_out), held_out
