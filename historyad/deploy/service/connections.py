"""Connections that end: uvicorn bounds only the wait between an answer and the next request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 512


class BoundedConnection(H11Protocol):
    """A connection of ``seconds_per_step``: for the headers of a request, and then its answer.

    Whoever is slower, or does not read the answer, is cut off. Where all connections are taken, a
    new one takes the place of the one that has been without a request for longest.
    """

    seconds_per_step: float
    _end: asyncio.TimerHandle

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the headers of a request."""
        super().connection_made(transport)
        self._end = self._step()
        if len(self.connections) > MOST_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._end.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; once the headers are complete, the answer has its time."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._next_step()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._next_step()

    @property
    def is_idle(self) -> bool:
        """Whether there is no request to be answered."""
        return self.cycle is None or self.cycle.response_complete

    def _step(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.seconds_per_step, self._cut_off)

    def _next_step(self) -> None:
        self._end.cancel()
        self._end = self._step()

    def _cut_off(self) -> None:
        # Not closed, which would wait until the client has read what is left.
        self.transport.abort()

    def _make_room(self) -> None:
        idle = [c for c in self.connections if isinstance(c, BoundedConnection) and c.is_idle]
        oldest = min(idle, key=lambda connection: connection._end.when())  # of which this is one
        oldest._cut_off()
        self.connections.discard(oldest)
