"""The order of rows: shuffled, a function of the position alone; and stretches that are held out.

Samples are read in the shuffled order row by row, those of a stream ahead of time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.constants import CONSTANTS
from historyad.data import streams
from historyad.randomness import Stream, numpy_generator

_BATCHES_AHEAD = 3  # read while the networks train


@dataclass(frozen=True)
class Windows:
    """How to read a disk where neighbours are, with little memory.

    Blocks of neighbouring rows are shuffled, and then the rows within windows of some blocks.
    """

    block: int = 256  # rows
    n_blocks: int = 64  # of a window, which is shuffled as a whole: 16,384 rows


WINDOWS = Windows()


class ShuffledRows:
    """``rows`` in a random order of its own for every pass, each a function of the position alone.

    They are shuffled as a whole, or within ``windows``.
    """

    def __init__(self, rows: NDArray[np.intp], seed: int, windows: Windows | None = None) -> None:
        self._rows = rows
        self._seed = seed
        self._windows = windows
        self._current: tuple[int, int, NDArray[np.intp]] = (-1, 0, rows[:0])

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, position: int, size: int) -> NDArray[np.intp]:
        """Return the ``size`` rows that follow the first ``position`` ones, pass after pass."""
        found = np.empty(size, np.intp)
        filled = 0
        while filled < size:
            turn, offset = divmod(position + filled, len(self))
            start, rows = self._window(turn, offset)
            some = rows[offset - start :][: size - filled]
            found[filled : filled + len(some)] = some
            filled += len(some)
        return found

    def _window(self, turn: int, offset: int) -> tuple[int, NDArray[np.intp]]:
        """Return the window of a pass that holds ``offset``: where it starts, and its rows."""
        its_turn, start, rows = self._current
        if its_turn != turn or not start <= offset < start + len(rows):
            start, rows = self._shuffled(turn, offset)
            self._current = (turn, start, rows)
        return start, rows

    def _shuffled(self, turn: int, offset: int) -> tuple[int, NDArray[np.intp]]:
        random = numpy_generator(self._seed, Stream.SHUFFLE, turn)
        if self._windows is None:
            return 0, random.permutation(self._rows)
        size, n_blocks = self._windows.block, self._windows.n_blocks
        blocks = random.permutation(-(-len(self) // size))
        short = np.flatnonzero(blocks == len(blocks) - 1)[0]  # where the last block, a rest, went
        rest = len(self) - (len(blocks) - 1) * size
        starts = np.arange(0, len(blocks), n_blocks)
        starts = starts * size - (starts > short) * (size - rest)
        window = int(np.searchsorted(starts, offset, side="right")) - 1
        chosen = blocks[window * n_blocks :][:n_blocks]
        rows = np.concatenate([self._rows[block * size :][:size] for block in chosen])
        random = numpy_generator(self._seed, Stream.SHUFFLE, turn, window + 1)
        return int(starts[window]), random.permutation(rows)


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
        windows: Windows = WINDOWS,
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
        streams.let_go(self._samples)
        return self._prepare(samples) if self._prepare else samples


def rows_between(rows: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how far each row is from the nearest of ``others``: 0 where it is one of them."""
    places = np.unique(others)
    after = np.clip(np.searchsorted(places, rows), 1, max(1, len(places) - 1))
    found = np.minimum(np.abs(places[after - 1] - rows), np.abs(places[after % len(places)] - rows))
    return np.asarray(found, np.intp)


def stretches(n: int, size: int, random: np.random.Generator, reach: int = 1) -> NDArray[np.intp]:
    """Return ``size`` of ``n`` rows in blocks, one at a random place in each equal stretch of them.

    Samples that were stored together are often related: digits of one writer, parts of one batch.
    Held out one by one, they would find their relatives among the training samples and look more
    normal than what will come, from other writers and batches. Where samples less than ``reach``
    rows apart share a part, the blocks are few and long: what is near one is lost to training.
    """
    n_blocks = min(CONSTANTS.held_out_blocks, size)
    if reach > 1:
        n_blocks = min(n_blocks, max(1, size // (CONSTANTS.reaches_of_a_block * reach)))
    stretches = np.array_split(np.arange(n), n_blocks)
    sizes = [len(part) for part in np.array_split(np.arange(size), n_blocks)]
    starts = [random.integers(len(s) - m + 1) for s, m in zip(stretches, sizes, strict=True)]
    parts = [s[at : at + m] for s, m, at in zip(stretches, sizes, starts, strict=True)]
    return np.concatenate(parts)


def whole_groups(
    chosen: NDArray[np.bool_], groups: NDArray[np.intp], random: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the rows chosen (n,) such that no group is divided, and about as many as before.

    ``groups`` (n,) number what each row belongs to. A group goes where more of it is, and then
    others at random until enough are chosen.
    """
    sizes = np.bincount(groups)
    taken = np.bincount(groups, chosen) > sizes / 2
    missing = int(chosen.sum()) - int(sizes[taken].sum())
    for group in random.permutation(np.flatnonzero(~taken)).tolist():
        if missing <= 0:
            break
        if sizes[group] <= max(missing, 2):
            taken[group] = True
            missing -= int(sizes[group])
    found: NDArray[np.bool_] = taken[groups]
    return found
