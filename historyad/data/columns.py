"""Columns by name: what is scored has those that were fitted on, in their order."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from historyad.constants import CONSTANTS
from historyad.data.sources import Source
from historyad.data.tables import Levels, listed, similar
from historyad.errors import InputError


def align(source: Source, names: Sequence[str], levels: Levels = ()) -> Source:
    """Return ``source`` with the columns ``names``, in that order, and their texts numbered alike.

    It is returned as it is where it has them so, where its columns have no names, and their number
    is right, and where ``names`` is empty, as of images or of arrays that were fitted on. A text
    that is not among ``levels`` gets the number after theirs. Raises InputError for columns that
    are missing or too many, and says which name may be a slip, and for texts in place of numbers.
    """
    names = tuple(names)
    if names and source.columns != names:
        if not source.columns:
            _check_number(source, names)
        else:
            source = _in_order(source, names)
    return _numbered(source, levels) if source.levels != levels else source


def _in_order(source: Source, names: tuple[str, ...]) -> Source:
    _check_names(source, names)
    places = [source.columns.index(name) for name in names]
    levels = tuple(source.levels[place] for place in places) if source.levels else ()
    return replace(source, samples=source.samples[..., places], columns=names, levels=levels)


def _numbered(source: Source, levels: Levels) -> Source:
    """Return ``source`` with its texts numbered as ``levels`` are."""
    samples = source.samples
    for place, texts in enumerate(source.levels):
        if not texts:
            continue
        if place >= len(levels) or not levels[place]:
            name = f"'{source.columns[place]}'" if source.columns else f"{place} (from 0)"
            raise InputError(
                f"{source.description}: column {name} holds text, such as '{texts[0][:40]}', and "
                "the detector was fitted on numbers there: give numbers, or fit again"
            )
        if texts != levels[place]:
            samples = np.array(samples) if samples is source.samples else samples
            numbers = {text: number for number, text in enumerate(levels[place])}
            to = np.array([numbers.get(text, len(numbers)) for text in texts], np.float32)
            known = ~np.isnan(samples[:, place])
            samples[known, place] = to[samples[known, place].astype(np.intp)]
    return replace(source, samples=samples, levels=levels)


def check_usable(source: Source) -> None:
    """Raise InputError for columns of which nothing can be learnt.

    Those are empty ones, and texts that tell rows apart, as their names do.
    """
    for place in range(source.samples.shape[1] if source.kind == "vector" else 0):
        values = source.samples[:, place]
        name = f"'{source.columns[place]}'" if source.columns else f"{place} (from 0)"
        known = int((~np.isnan(values)).sum())
        if not known:
            raise InputError(
                f"{source.description}: column {name} is empty in all {len(source):,} rows: leave "
                "it out"
            )
        n_texts = len(source.levels[place]) if source.levels else 0
        if 2 * n_texts > known or n_texts > CONSTANTS.most_levels:
            raise InputError(
                f"{source.description}: column {name} holds {n_texts:,} different texts in "
                f"{known:,} rows, too many to be categories: if it says what the rows are called, "
                "name it with --id, and else leave it out"
            )


def _check_number(source: Source, names: Sequence[str]) -> None:
    shape = tuple(source.samples.shape[1:])
    if shape != (len(names),):
        found = f"{shape[0]} columns" if len(shape) == 1 else "images"
        raise InputError(
            f"{source.description} holds {found}, and the detector takes the {len(names)} columns "
            f"{listed(names)}: give these"
        )


def _check_names(source: Source, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in source.columns]
    others = [name for name in source.columns if name not in names]
    if missing:
        found = "; ".join(f"'{name}'{similar(name, others)}" for name in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(
            f"{source.description} lacks columns that the detector was fitted on: {found}{more}. "
            f"It has {listed(source.columns)}"
        )
    if others:
        raise InputError(
            f"{source.description} has columns that the detector was not fitted on: "
            f"{listed(others)}. Leave them out; one that says what the rows are called is named "
            "with --id"
        )
