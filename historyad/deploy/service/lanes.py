"""Threads that work for the event loop, and how long what waits for them has waited."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class Lane:
    """A few threads of one purpose: what is slow in one lane does not hold up another."""

    def __init__(self, n_threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(n_threads, name)
        self._numbers = itertools.count()
        self._waiting: dict[int, float] = {}  # since when, the oldest first

    async def run(self, function: Callable[[], _T]) -> _T:
        """Return what ``function`` returns; cancelled before its turn, it is not called."""
        number = next(self._numbers)
        self._waiting[number] = time.monotonic()

        def begin() -> _T:
            self._waiting.pop(number, None)
            return function()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, begin)
        finally:
            self._waiting.pop(number, None)

    @property
    def waited(self) -> float:
        """Seconds that the next in turn has waited; what comes now will wait about as long."""
        oldest = next(iter(list(self._waiting.values())), None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
