"""Which samples are trained on, and which are held out for the decision."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.data.rows import rows_between, stretches, whole_groups
from historyad.errors import ConfigError, InputError
from historyad.randomness import Stream, numpy_generator
from historyad.score.calibration import check_number, lowest_rate, samples_needed

_FEWEST_TRAINING_SAMPLES = 2
_HIGHEST_RATE = 0.5  # that can be asked for
_FEWEST_LONG_FOLDS = 4

Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to train on and to hold out.

    With ``folds``, all rows are trained on, and each fold is held out by a detector of the others.
    Of copies, one is in ``held_out``.
    """

    train: Rows
    held_out: Rows
    folds: list[Rows]


def split_samples(
    rows: Rows,
    once: Rows,
    groups: Rows,
    config: Config,
    *,
    trains: bool,
    few: int = 0,
    reach: int = 1,
) -> tuple[Split, Config]:
    """Return how ``rows`` of samples are split, and the settings with what that decides.

    ``once`` are the rows that are no copies of one before: the promise rests on these alone, as ten
    copies say no more than one. ``groups`` (N,) number what each sample belongs to, ``trains`` says
    whether networks are trained, fewer samples than ``few`` are cut into folds, and ``reach`` is
    that of `split_rows`. Raises ConfigError, and InputError for too few samples.
    """

    def with_copies(part: Rows) -> Rows:
        return rows[np.isin(groups[rows], groups[once[part]])]

    n_folds = number_of_folds(len(once), config, trains=trains, few=few, reach=reach)
    with counting_copies(len(rows), len(once)):
        if n_folds > 1:
            parts = split_folds(len(once), n_folds, config, groups[once], reach)
            split = Split(rows, once, [with_copies(part) for part in parts])
            config = dataclasses.replace(config, folds=len(parts))
        else:
            train, held_out = split_rows(len(once), config, groups[once], reach)
            split = Split(with_copies(train), once[held_out], [])
        rate = promised_rate(config, len(split.held_out) // reach)
    return split, dataclasses.replace(config, false_positive_rate=rate)


@contextmanager
def counting_copies(n: int, n_different: int) -> Iterator[None]:
    """Say in an error about few samples how many of them are copies."""
    try:
        yield
    except InputError as error:
        if n == n_different:
            raise
        raise InputError(
            f"{error}. Copies count once, and {n - n_different:,} of {n:,} samples are copies"
        ) from error


def split_rows(
    n: int, config: Config, groups: Rows | None = None, reach: int = 1
) -> tuple[Rows, Rows]:
    """Return the rows to train on and those to hold out; InputError when they are too few.

    ``groups`` (n,) number what each row belongs to: a group is never on both sides. Rows less than
    ``reach`` from one that is held out, which share a part with it, are on neither.
    """
    needed = reach * _fewest(config)
    share = config.calibration_share or usual_share(n, config, reach)
    n_held_out = min(round(share * n), max(CONSTANTS.most_held_out, needed))
    if n_held_out < needed or n - n_held_out < _FEWEST_TRAINING_SAMPLES:
        smallest = max(needed / share, (_FEWEST_TRAINING_SAMPLES + 0.5) / (1 - share))
        raise InputError(
            f"{_are(n)} too few: a false-positive rate of "
            f"{config.false_positive_rate or _HIGHEST_RATE:g} needs {needed} held-out samples, and "
            f"calibration_share = {share:g} holds out {n_held_out}, which leaves "
            f"{n - n_held_out} to train on. Give about "
            f"{int(smallest) + 1} normal samples, or raise calibration_share or false_positive_rate"
        )
    held_out = stretches(n, n_held_out, numpy_generator(config.seed, Stream.SPLIT), reach)
    is_held_out = np.zeros(n, np.bool_)
    is_held_out[held_out] = True
    if groups is not None:
        random = numpy_generator(config.seed, Stream.SPLIT, 1)
        is_held_out = whole_groups(is_held_out, groups, random)
        if not needed <= is_held_out.sum() <= n - _FEWEST_TRAINING_SAMPLES:
            raise InputError(
                f"{n} samples are of {groups.max() + 1} groups, too few to hold out {needed} "
                "samples that belong to none that is trained on: give samples of more groups, or "
                "raise false_positive_rate"
            )
    held_out = np.flatnonzero(is_held_out)
    train = np.flatnonzero(rows_between(np.arange(n), held_out) >= reach)
    if len(train) < _FEWEST_TRAINING_SAMPLES:
        raise _too_short(n)
    return train, held_out


def _are(n: int) -> str:
    return "1 sample is" if n == 1 else f"{n} samples are"


def _too_short(n: int) -> InputError:
    return InputError(
        f"{n} windows are too few: none is left to learn from that shares no step with those that "
        "are held out. Give a longer series, or a smaller window"
    )


def usual_share(n: int, config: Config, reach: int = 1) -> float:
    """Return the share of ``n`` samples to hold out, where none is asked for.

    Of few, as many as the rate needs, up to a limit: the others are to be learnt from.
    """
    share = reach * _needed(config) / n
    return min(max(share, CONSTANTS.held_out_share), CONSTANTS.held_out_of_few)


def number_of_folds(n: int, config: Config, *, trains: bool, few: int = 0, reach: int = 1) -> int:
    """Return into how many parts ``n`` samples are cut; 1: a share is held out.

    Fewer than ``few`` are, and those of which a share would not do for the rate. ConfigError where
    folds are asked for and networks are trained, which takes too long for each.
    """
    if trains and config.folds > 1:
        raise ConfigError(
            f"folds is {config.folds}, and a network is trained: take --preset instant (views "
            "companions), which trains none, or leave out folds"
        )
    if trains or config.folds or config.calibration_share:
        return max(1, config.folds)
    are_few = n < few or reach * _needed(config) > CONSTANTS.held_out_share * n
    return CONSTANTS.usual_folds if are_few else 1


def split_folds(n: int, n_folds: int, config: Config, groups: Rows, reach: int = 1) -> list[Rows]:
    """Return the rows of each fold, about as many in each; InputError when there are too few.

    ``groups`` (n,) number what each row belongs to: no group is in two folds, so that there are no
    more folds than groups. Rows stay beside some of their neighbours, as in `stretches`; a fold is
    one stretch of rows where those less than ``reach`` apart share a part.
    """
    if reach > 1:
        return _long_folds(n, n_folds, config, reach)
    needed, n_groups = max(_fewest(config), _FEWEST_TRAINING_SAMPLES + 1), len(np.unique(groups))
    if n < needed:
        sure = f" with a confidence of {config.confidence:g}" * bool(config.confidence)
        raise InputError(
            f"{_are(n)} too few for a false-positive rate of "
            f"{config.false_positive_rate or _HIGHEST_RATE:g}{sure}: give at least {needed} normal "
            "samples" + ", or raise false_positive_rate" * bool(config.false_positive_rate)
        )
    random = numpy_generator(config.seed, Stream.SPLIT, 2)
    fold, sizes = np.empty(n, np.intp), np.zeros(min(n_folds, n_groups), np.intp)
    for rows in _units(groups, len(sizes), random):
        smallest = int(sizes.argmin())
        fold[rows] = smallest
        sizes[smallest] += len(rows)
    if n - sizes.max() < _FEWEST_TRAINING_SAMPLES:
        raise InputError(
            f"{n} samples are of {n_groups} group{'s' * (n_groups != 1)}, and so none is left to "
            "learn from when one is scored: give samples of more groups"
        )
    return [np.flatnonzero(fold == one) for one in range(len(sizes))]


def _long_folds(n: int, n_folds: int, config: Config, reach: int) -> list[Rows]:
    """Return folds of one stretch each, as long as what reaches into it from outside or longer."""
    n_apart = n // reach
    check_number(n_apart, config.false_positive_rate or _HIGHEST_RATE, config.confidence)
    n_folds = min(n_folds, n_apart)
    if n_folds < _FEWEST_LONG_FOLDS:  # all of the others may reach into the one in the middle
        raise _too_short(n)
    return np.array_split(np.arange(n), n_folds)


def _units(groups: Rows, n_folds: int, random: np.random.Generator) -> list[Rows]:
    """Return the rows that stay together, the largest first: groups, or else blocks of rows."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if sizes.max() == 1:
        n_blocks = min(len(groups), n_folds * CONSTANTS.held_out_blocks)
        units = np.array_split(np.arange(len(groups)), n_blocks)
    else:
        units = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    order = random.permutation(len(units)).tolist()
    return sorted((units[one] for one in order), key=len, reverse=True)


def promised_rate(config: Config, n_held_out: int) -> float:
    """Return the rate asked for; where it is 0, the usual or the lowest that so few can promise.

    InputError where that is more than can be asked for.
    """
    if config.false_positive_rate:
        return config.false_positive_rate
    rate = max(CONSTANTS.usual_rate, lowest_rate(n_held_out, config.confidence))
    if rate > _HIGHEST_RATE:
        check_number(n_held_out, _HIGHEST_RATE, config.confidence)
    return rate


def samples_for_usual_rate(config: Config) -> int:
    """Return how many samples it takes to promise the usual rate."""
    needed = samples_needed(CONSTANTS.usual_rate, config.confidence)
    if config.folds > 1:
        return needed
    return math.ceil(needed / (config.calibration_share or CONSTANTS.held_out_of_few))


def _needed(config: Config) -> int:
    """Return how many held-out samples the promise takes that is asked for, or is usual."""
    return samples_needed(config.false_positive_rate or CONSTANTS.usual_rate, config.confidence)


def _fewest(config: Config) -> int:
    """Return how many held-out samples the promise takes that is asked for, or the weakest."""
    return samples_needed(config.false_positive_rate or _HIGHEST_RATE, config.confidence)
