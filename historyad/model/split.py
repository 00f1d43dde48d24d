"""Which samples are trained on, and which are held out for the decision."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.data.rows import stretches
from historyad.errors import InputError
from historyad.randomness import Stream, numpy_generator
from historyad.score.calibration import samples_needed

_FEWEST_TRAINING_SAMPLES = 2


def split_rows(
    n: int, config: Config, groups: NDArray[np.intp] | None = None, reach: int = 1
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to train on and those to hold out; InputError when they are too few.

    ``groups`` (n,) number what each row belongs to: a group is never on both sides. Rows less than
    ``reach`` from one that is held out, which share a part with it, are on neither.
    """
    needed = samples_needed(config.false_positive_rate) if config.false_positive_rate else 1
    needed *= reach
    share = config.calibration_share or usual_share(n, config.false_positive_rate, reach)
    n_held_out = min(round(share * n), max(CONSTANTS.most_held_out, needed))
    if n_held_out < needed or n - n_held_out < _FEWEST_TRAINING_SAMPLES:
        smallest = max(needed / share, (_FEWEST_TRAINING_SAMPLES + 0.5) / (1 - share))
        raise InputError(
            f"{n} sample{'s' * (n != 1)} are too few: a false-positive rate of "
            f"{config.false_positive_rate or 0.5:g} needs {needed} held-out samples, and "
            f"calibration_share = {share:g} holds out {n_held_out}, which leaves "
            f"{n - n_held_out} to train on. Give about "
            f"{int(smallest) + 1} normal samples, or raise calibration_share or false_positive_rate"
        )
    held_out = stretches(n, n_held_out, numpy_generator(config.seed, Stream.SPLIT), reach)
    is_held_out = np.zeros(n, np.bool_)
    is_held_out[held_out] = True
    if groups is not None:
        is_held_out = _by_groups(is_held_out, groups, config)
        if not needed <= is_held_out.sum() <= n - _FEWEST_TRAINING_SAMPLES:
            raise InputError(
                f"{n} samples are of {groups.max() + 1} groups, too few to hold out {needed} "
                "samples that belong to none that is trained on: give samples of more groups, or "
                "raise false_positive_rate"
            )
    train = np.flatnonzero(_distances(is_held_out) >= reach)
    if len(train) < _FEWEST_TRAINING_SAMPLES:
        raise InputError(
            f"{n} windows are too few: {int(is_held_out.sum())} are held out, and those that share "
            f"no step with them are {len(train)}. Give a longer series, or a smaller window"
        )
    return train, np.flatnonzero(is_held_out)


def _distances(marked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return how many rows each is from the nearest that is marked: 0 where it is one itself."""
    n = len(marked)
    places = np.concatenate([[-n], np.flatnonzero(marked), [2 * n]])
    rows = np.arange(n)
    after = np.searchsorted(places, rows)
    found: NDArray[np.intp] = np.minimum(places[after] - rows, rows - places[after - 1])
    return found


def usual_share(n: int, false_positive_rate: float, reach: int = 1) -> float:
    """Return the share of ``n`` samples to hold out, where none is asked for.

    Of few, as many as the rate needs, up to a limit: the others are to be learnt from.
    """
    needed = reach * samples_needed(false_positive_rate or CONSTANTS.usual_rate)
    return min(max(needed / n, CONSTANTS.held_out_share), CONSTANTS.held_out_of_few)


def promised_rate(false_positive_rate: float, n_held_out: int) -> float:
    """Return the rate asked for; where it is 0, the usual or the lowest that so few can promise."""
    return false_positive_rate or max(CONSTANTS.usual_rate, 1 / (n_held_out + 1))


def samples_for_usual_rate(config: Config) -> int:
    """Return how many samples it takes to promise the usual rate."""
    share = config.calibration_share or CONSTANTS.held_out_of_few
    return math.ceil(samples_needed(CONSTANTS.usual_rate) / share)


def _by_groups(
    is_held_out: NDArray[np.bool_], groups: NDArray[np.intp], config: Config
) -> NDArray[np.bool_]:
    """Return the rows held out (n,) such that no group is divided, and about as many as before.

    A group goes where more of it is, and then others at random until enough are held out.
    """
    sizes = np.bincount(groups)
    held = np.bincount(groups, is_held_out) > sizes / 2
    missing = int(is_held_out.sum()) - int(sizes[held].sum())
    random = numpy_generator(config.seed, Stream.SPLIT, 1)
    for group in random.permutation(np.flatnonzero(~held)).tolist():
        if missing <= 0:
            break
        if sizes[group] <= max(missing, 2):
            held[group] = True
            missing -= int(sizes[group])
    return held[groups]
