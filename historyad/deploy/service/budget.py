"""What all requests together may hold, and how memory that was held is given back."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from historyad.deploy.service.batcher import QueueFullError

_FREE = 1 << 16  # bytes of a body that do not count: small requests pass while large ones are held
_WORTH_GIVING_BACK = 1 << 24


class Budget:
    """A number of bytes, or of what else there is, taken and given back in the event loop alone."""

    def __init__(self, most: float) -> None:
        self.most = most
        self._held = 0
        self._highest = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """How many are taken."""
        return self._held

    def check(self, n: int) -> None:
        """Raise QueueFullError unless ``n`` can be taken now."""
        if self._queue or self._held + n > self.most:
            raise QueueFullError

    def take(self, n: int) -> None:
        """Take ``n`` now, or raise QueueFullError."""
        self.check(n)
        self._add(n)

    @contextlib.contextmanager
    def taking(self, n: int) -> Iterator[None]:
        """Hold ``n``, taken now."""
        self.take(n)
        try:
            yield
        finally:
            self.give_back(n)

    async def take_in_turn(self, n: int) -> int:
        """Take ``n``, at most all there are, once they are there; return how many."""
        n = int(min(n, self.most))
        if not self._queue and self._held + n <= self.most:
            self._add(n)
            return n
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((n, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came, but too late
                self.give_back(n)
            elif (n, turn) in self._queue:
                self._queue.remove((n, turn))
                self._admit()
            raise
        return n

    def give_back(self, n: int) -> None:
        """Give ``n`` to those who wait."""
        self._held -= n
        self._admit()
        if self._held == 0 and self._highest >= _WORTH_GIVING_BACK:
            self._highest = 0
            asyncio.get_running_loop().run_in_executor(None, give_memory_back)

    @contextlib.asynccontextmanager
    async def holding(self, n: int) -> AsyncIterator[None]:
        """Hold ``n``, taken in turn."""
        n = await self.take_in_turn(n)
        try:
            yield
        finally:
            self.give_back(n)

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that is told the bytes of one body as they come, and hold them."""
        received = held = 0

        def count(n: int) -> None:
            nonlocal received, held
            received += n
            more = max(0, received - _FREE) - held
            self.take(more)
            held += more

        try:
            yield count
        finally:
            self.give_back(held)

    def _add(self, n: int) -> None:
        self._held += n
        self._highest = max(self._highest, self._held)

    def _admit(self) -> None:
        while self._queue and self._held + self._queue[0][0] <= self.most:
            n, turn = self._queue.popleft()
            if not turn.cancelled():
                self._add(n)
                turn.set_result(None)


def give_memory_back() -> None:
    """Return to the system what was freed: the C library keeps it for later."""
    if (trim := _malloc_trim()) is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return the function of the GNU library, the one that keeps what it could give back."""
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
