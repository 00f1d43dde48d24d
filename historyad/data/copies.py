"""Samples that belong together: copies of each other, and what names or a column say.

A held-out sample whose twin was trained on looks too normal, and so does one of a part that was
photographed twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.data.any_size import Images
from historyad.data.sources import Source
from historyad.data.streams import in_parts
from historyad.errors import InputError

_BYTES = 16
_LARGE = 1 << 16  # bytes of a sample that is worth a thread, which Python's lock lets go on


def digests(samples: Any) -> NDArray[np.uint8]:
    """Return a digest of each sample, (N, 16): equal for equal samples of one shape and type alone.

    ``samples`` are those of a `Source`. It is the same on every machine and in every version, so
    that it may be kept. What is on the disk is read once, a few samples at a time.
    """
    rows = np.arange(len(samples))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="digest") as pool:
        parts: Iterable[NDArray[Any]] = (
            (image[None] for part in samples.in_parts(rows) for image in part)
            if isinstance(samples, Images)
            else in_parts(samples, rows)
        )
        found = b"".join(digest for part in parts for digest in _digests(part, pool))
    return np.frombuffer(found, np.uint8).reshape(-1, _BYTES)


def are_among(some: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which of ``some`` digests (N, 16) are among ``others`` (M, 16), (N,)."""
    return np.isin(_as_items(some), _as_items(others))


def firsts(prints: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the rows of digests (N, 16) that are no copy of one before, (M,), rising."""
    _, rows = np.unique(_as_items(prints), return_index=True)
    return np.sort(rows)


def groups_of(
    source: Source, pattern: str | None = None, prints: NDArray[np.uint8] | None = None
) -> NDArray[np.intp]:
    """Return the number of the group of each sample, (N,), in the order in which they appear.

    Samples share a group when they are equal, when ``source.groups`` have one key for them, or when
    their names do: what the first group of the regular expression ``pattern`` matches in them or,
    where it has no group, all that it matches. So do those that belong together by way of others.
    A name that ``pattern`` does not match says nothing. ``prints`` are the `digests` of the source,
    where they are known.

    Raises InputError for a pattern that is none, or that no name matches.
    """
    prints = digests(source.samples) if prints is None else prints
    keys: list[Sequence[Any]] = [_as_items(prints).tolist()]
    if source.groups:
        keys.append(source.groups)
    if pattern is not None:
        keys.append(_keys_in(source, pattern))
    return _merged([_numbered(key) for key in keys])


def n_unmatched(source: Source, pattern: str) -> int:
    """Return of how many samples the name says nothing to ``pattern``; errors of `groups_of`."""
    return _keys_in(source, pattern).count(None)


def _digests(samples: NDArray[Any], pool: Executor) -> Iterable[bytes]:
    """Return the digests of an array of samples, large ones in the threads of ``pool``."""
    values = np.ascontiguousarray(samples)
    if values.dtype.kind == "f":
        values = values + values.dtype.type(0)  # -0.0 is 0.0
    # The salt tells shapes and types apart whose bytes are alike.
    form = f"{values.shape[1:]}{values.dtype.str}".encode()
    salt = blake2b(form, digest_size=blake2b.SALT_SIZE).digest()
    data, size = values.data.cast("B"), values[0].nbytes

    def digest(start: int) -> bytes:
        return blake2b(data[start : start + size], digest_size=_BYTES, salt=salt).digest()

    starts = range(0, len(data), size)
    return pool.map(digest, starts) if size >= _LARGE else map(digest, starts)


def _as_items(prints: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return digests (N, 16) as (N,), each one value."""
    items: NDArray[np.void] = np.ascontiguousarray(prints).view(f"V{_BYTES}")[:, 0]
    return items


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
