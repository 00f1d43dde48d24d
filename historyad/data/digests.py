"""Digests of samples, by which equal ones are known."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.data.any_size import Images
from historyad.data.streams import in_parts

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
    return np.isin(as_items(some), as_items(others))


def firsts(prints: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the rows of digests (N, 16) that are no copy of one before, (M,), rising."""
    _, rows = np.unique(as_items(prints), return_index=True)
    return np.sort(rows)


def as_items(prints: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return digests (N, 16) as (N,), each one value."""
    items: NDArray[np.void] = np.ascontiguousarray(prints).view(f"V{_BYTES}")[:, 0]
    return items


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
