"""What is decided before a fit, from settings, shapes and numbers alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from historyad.config import Config, as_dict, validate
from historyad.data.copies import firsts, groups_of
from historyad.data.series import in_windows, refuse_images, usual_window
from historyad.data.sources import Source
from historyad.errors import ConfigError, InputError
from historyad.kinds.choose import choose_kind, which_kind
from historyad.kinds.kind import Kind
from historyad.method.history import History, resolve
from historyad.model.split import number_of_folds, promised_rate, split_folds, split_rows
from historyad.model.suspects import Suspect, find_suspects

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Plan:
    """What is decided before a fit: rows to train on and to hold out, and what was set aside.

    With ``folds``, all rows are trained on, and each fold is held out by a detector of the others.
    ``groups`` number what each row of ``train`` belongs to. Of copies, one is in ``held_out``,
    whose rows are of ``n_apart`` groups.
    """

    config: Config
    kind: Kind
    train: Rows
    groups: NDArray[np.intp]
    held_out: Rows
    n_apart: int
    folds: list[Rows]
    suspects: list[Suspect]


def plan_fit(
    source: Source,
    config: Config,
    history: History | None,
    prints: NDArray[np.uint8],
    known: list[Suspect],
) -> Plan:
    """Decide on a fit; InputError or ConfigError for whatever settings, shapes and numbers tell.

    ``known`` are the suspects of a run that is continued.
    """
    validate(config)
    if source.imprecise:
        raise InputError(source.imprecise)
    # That a series repeats itself is what is normal of it: its windows are no copies.
    is_series = source.series is not None
    groups = (
        np.arange(len(source)) if is_series else groups_of(source, config.group or None, prints)
    )
    suspects = known if known and config.contamination else find_suspects(source, config)
    kept = np.setdiff1d(np.arange(len(source)), [one.row for one in suspects])
    trains = which_kind(source.samples, config).trains(config)
    reach = source.reach
    # A promise rests on samples that differ: ten copies say no more than one.
    once = kept if is_series else kept[firsts(prints[kept])]

    def with_copies(part: Rows) -> Rows:
        return kept[np.isin(groups[kept], groups[once[part]])]

    n_folds = number_of_folds(len(once), config, trains=trains, reach=reach)
    folds: list[Rows] = []
    with counting_copies(len(kept), len(once)):
        if n_folds > 1:
            parts = split_folds(len(once), n_folds, config, groups[once], reach)
            folds = [with_copies(part) for part in parts]
            train, held_out = kept, once
            config = dataclasses.replace(config, folds=len(folds))
        else:
            part, rest = split_rows(len(once), config, groups[once], reach)
            train, held_out = with_copies(part), once[rest]
        rate = promised_rate(config, len(held_out) // reach)
    config = resolve(dataclasses.replace(config, false_positive_rate=rate), len(train))
    if history is not None and as_dict(history.config) != as_dict(config):
        raise ConfigError("the history has other settings than the fit: give it those of the fit")
    kind = choose_kind(source.samples, config, train)
    n_apart = len(np.unique(groups[held_out]))
    return Plan(config, kind, train, groups[train], held_out, n_apart, folds, suspects)


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


def as_samples(source: Source, config: Config) -> tuple[Source, Config]:
    """Return what is fitted on, and the settings: of a series, its windows and their length.

    Raises InputError for a window of images, or of a series that is shorter than it.
    """
    if source.series is not None:
        found = source.series
        return source, dataclasses.replace(config, window=found.length, stride=found.stride)
    if config.window == "auto":
        refuse_images(source)
        config = dataclasses.replace(config, window=usual_window(source.samples))
    assert isinstance(config.window, int)
    return in_windows(source, config.window, config.stride), config
