"""Samples that belong together: copies of each other, and what names or a column say.

A held-out sample whose twin was trained on looks too normal, and so does one of a part that was
photographed twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.data.digests import as_items
from historyad.data.sources import Source
from historyad.errors import InputError


def groups_of(source: Source, pattern: str | None = None) -> NDArray[np.intp]:
    """Return the number of the group of each sample, (N,), in the order in which they appear.

    Samples share a group when they are equal, when ``source.groups`` have one key for them, or when
    their names do: what the first group of the regular expression ``pattern`` matches in them or,
    where it has no group, all that it matches. So do those that belong together by way of others.
    A name that ``pattern`` does not match says nothing. That a series repeats itself is what is
    normal of it: its windows are no copies.

    Raises InputError for a pattern that is none, or that no name matches.
    """
    if source.series is not None:
        return np.arange(len(source))
    keys: list[Sequence[Any]] = [as_items(source.digests).tolist()]
    if source.groups:
        keys.append(source.groups)
    if pattern is not None:
        keys.append(_keys_in(source, pattern))
    return _merged([_numbered(key) for key in keys])


def n_unmatched(source: Source, pattern: str) -> int:
    """Return of how many samples the name says nothing to ``pattern``; errors of `groups_of`."""
    return _keys_in(source, pattern).count(None)


def _keys_in(source: Source, pattern: str) -> list[str | None]:
    """Return what ``pattern`` finds in each name; None where it finds nothing."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"'{pattern}' is no regular expression ({error}): write one whose brackets hold what "
            r"the names of samples that belong together share, as in '^(part\d+)_'"
        ) from error
    matches = [expression.search(name) for name in source.names]
    if not any(matches):
        raise InputError(
            f"'{pattern}' matches no name of {source.description}, of which the first is "
            f"'{source.names[0]}'"
        )
    group = 1 if expression.groups else 0
    return [match and match[group] for match in matches]


def _numbered(keys: Sequence[Any]) -> NDArray[np.intp]:
    """Return the number of each key, in the order in which they appear; -1 for None."""
    numbers: dict[Any, int] = {None: -1}
    return np.array([numbers.setdefault(key, len(numbers) - 1) for key in keys], np.intp)


def _merged(keys: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Return the groups of samples that share a number of any of ``keys``, each (N,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A graph of samples and keys, in which each sample is linked to its keys.
    n = len(keys[0])
    starts = n + np.cumsum([0, *(key.max() + 1 for key in keys)])
    links = [
        (np.flatnonzero(key >= 0), start + key[key >= 0])
        for key, start in zip(keys, starts, strict=False)
    ]
    samples, nodes = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_array((np.ones(len(samples), np.bool_), (samples, nodes)), (starts[-1],) * 2)
    _, labels = connected_components(graph, directed=False)
    return _numbered(labels[:n].tolist())
