"""Which samples are trained on, and which are held out for the decision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from historyad.config import Config
from historyad.constants import CONSTANTS
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
    held_out = _blocks(n, n_held_out, numpy_generator(config.seed, Stream.SPLIT))
    is_held_out = np.zeros(n, np.bool_)
    is_held_out[held_out] = True
    return np.flatnonzero(~is_held_out), held_out


def _blocks(n: int, size: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Return ``size`` of ``n`` rows in blocks, one at a random place in each equal stretch of them.

    Samples that were stored together are often related: digits of one writer, parts of one batch.
    Held out one by one, they would find their relatives among the training samples and look more
    normal than what will come, from other writers and batches.
    """
    n_blocks = min(CONSTANTS.held_out_blocks, size)
    stretches = np.array_split(np.arange(n), n_blocks)
    sizes = [len(part) for part in np.array_split(np.arange(size), n_blocks)]
    starts = [random.integers(len(s) - m + 1) for s, m in zip(stretches, sizes, strict=True)]
    parts = [s[at : at + m] for s, m, at in zip(stretches, sizes, starts, strict=True)]
    return np.concatenate(parts)
