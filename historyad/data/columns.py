"""Columns by name: what is scored has those that were fitted on, in their order."""

from collections.abc import Sequence
from dataclasses import replace

from historyad.data.sources import Source
from historyad.data.tables import listed, similar
from historyad.errors import InputError


def align(source: Source, names: Sequence[str]) -> Source:
    """Return ``source`` with the columns ``names``, in that order.

    It is returned as it is where it has them so, where its columns have no names, and their number
    is right, and where ``names`` is empty, as of images or of arrays that were fitted on. Raises
    InputError for columns that are missing or too many, and says which name may be a slip.
    """
    names = tuple(names)
    if not names or source.columns == names:
        return source
    if not source.columns:
        _check_number(source, names)
        return source
    _check_names(source, names)
    places = [source.columns.index(name) for name in names]
    return replace(source, samples=source.samples[..., places], columns=names)


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
