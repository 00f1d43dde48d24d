"""Orders of rows: shuffled, a function of the position alone; and stretches that are held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from historyad.constants import CONSTANTS
from historyad.randomness import Stream, numpy_generator


@dataclass(frozen=True)
class Windows:
    """How to read a disk where neighbours are, with little memory.

    Blocks of neighbouring rows are shuffled, and then the rows within windows of some blocks.
    """

    block: int = 256  # rows
    n_blocks: int = 64  # of a window, which is shuffled as a whole: 16,384 rows


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


def stretches(n: int, size: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Return ``size`` of ``n`` rows in blocks, one at a random place in each equal stretch of them.

    Samples that were stored together are often related: digits of one writer, parts of one batch.
    Held out one by one, they would find their relatives among the training samples and look more
    normal than what will come, from other writers and batches.
    """
    n_blocks = min(CONSTANTS.held_out_blocks, size)
    stretches = np.array_split(np.arange(n), n_blocks)
    sizes = [len(part) for part in np.array_split(np.arange(size), n_blocks)]
    starts = [random.integers(len(s) - m + 1) for s, m in zip(stretches, sizes, strict=True)]
    parts = [s[at : at + m] for s, m, at in zip(stretches, sizes, starts, strict=True)]
    return np.concatenate(parts)
