"""Images are decoded in a few threads before they are asked for, as far ahead as memory is."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from historyad.data.images import Pixels

N_THREADS = min(4, os.cpu_count() or 1)


def ahead(
    decode: Callable[[int], Pixels | None], numbers: Sequence[int], look_ahead: int, most_bytes: int
) -> Iterator[Pixels | None]:
    """Yield what ``decode`` returns for each of ``numbers``, in order, decoded ahead of time.

    At most ``look_ahead`` are, of about ``most_bytes`` together.
    """
    room = _Room(most_bytes)

    def work(turn: int, number: int) -> Pixels | None:
        if not room.wait_for(turn):
            return None
        image = decode(number)
        room.take(_bytes_of(image))
        return image

    def next_one() -> Pixels | None:
        image = pending.popleft().result()
        room.give_back(_bytes_of(image))
        return image

    pool = ThreadPoolExecutor(N_THREADS, thread_name_prefix="decode")
    pending: deque[Future[Pixels | None]] = deque()
    try:
        for turn, number in enumerate(numbers):
            pending.append(pool.submit(work, turn, number))
            if len(pending) > look_ahead:
                yield next_one()
        while pending:
            yield next_one()
    finally:  # also where the consumer stops early
        room.close()
        pool.shutdown(cancel_futures=True)


def _bytes_of(image: Pixels | None) -> int:
    return 0 if image is None else image.nbytes


class _Room:
    """Room for so many bytes of images that were decoded and not yet asked for.

    The next that will be asked for is always decoded, so that nobody waits for ever.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._next = 0
        self._is_open = True
        self._changed = threading.Condition()

    def wait_for(self, turn: int) -> bool:
        """Return True when there is room for one more, or it is its ``turn``; False once closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._held < self._most or turn <= self._next or not self._is_open
            )
            return self._is_open

    def take(self, n_bytes: int) -> None:
        with self._changed:
            self._held += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Note that an image was taken, and its bytes with it."""
        with self._changed:
            self._held -= n_bytes
            self._next += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
