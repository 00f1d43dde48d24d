"""Samples read row by row in a shuffled order, those of a stream ahead of time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.data import streams
from historyad.data.order import ShuffledRows, Windows

_BATCHES_AHEAD = 3  # read while the networks train
_WINDOWS = Windows()


class ShuffledSamples:
    """``rows`` of ``samples``, prepared, in a shuffled order; each read is of its position alone.

    ``samples`` are an array, in memory or memory-mapped, or an `ImageStream`; only the rows of a
    batch are ever read, and those of a stream ahead of time. ``seed`` decides the order, which is
    one of ``windows`` where samples are not all in memory.
    """

    def __init__(
        self,
        samples: NDArray[Any],
        rows: NDArray[np.intp],
        seed: int,
        prepare: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
        windows: Windows = _WINDOWS,
    ) -> None:
        self._samples = samples
        self._prepare = prepare
        is_stream = isinstance(samples, streams.ImageStream)
        is_large = is_stream or samples.nbytes > streams.IN_MEMORY_BYTES
        self._order = ShuffledRows(rows, seed, windows if is_large else None)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read") if is_stream else None
        self._ahead: dict[tuple[int, int, int, int], Future[NDArray[Any]]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def read(self, position: int, size: int, part: slice) -> NDArray[Any]:
        """Return ``part`` of the ``size`` samples that follow the first ``position`` ones.

        Of a stream, the batches that follow are read meanwhile.
        """
        first, last, _ = part.indices(size)
        if self._reader is None:
            return self._read_now(position, size, first, last)
        keys = [(position + n * size, size, first, last) for n in range(1 + _BATCHES_AHEAD)]
        self._ahead = {
            key: self._ahead.get(key) or self._reader.submit(self._read_now, *key) for key in keys
        }
        return self._ahead[keys[0]].result()

    def _read_now(self, position: int, size: int, first: int, last: int) -> NDArray[Any]:
        samples = self._samples[self._order.at(position, size)[first:last]]
        return self._prepare(samples) if self._prepare else samples
