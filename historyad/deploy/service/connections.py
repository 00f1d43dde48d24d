"""Connections that end: uvicorn bounds only the wait between an answer and the next request."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 512


class Connections:
    """ASGI application around another, and the connections to it, by their clients' addresses.

    Each has ``seconds_per_step``: for the headers of a request, and then its answer. Whoever is
    slower, or does not read the answer, is cut off. Where all connections are taken, a new one
    takes the place of the one that has been without a request for longest.
    """

    def __init__(self, app: ASGIApp, seconds_per_step: float) -> None:
        self._app = app
        self._seconds = seconds_per_step
        self._open: dict[Any, BoundedConnection] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and begin a step of its connection before and after it."""
        connection = self._open.get(scope.get("client"))
        if connection is None:
            await self._app(scope, receive, send)
            return
        connection.begin_step(is_idle=False)
        try:
            await self._app(scope, receive, send)
        finally:
            connection.begin_step(is_idle=True)

    def protocol(self) -> type[asyncio.Protocol]:
        """Return the class of which uvicorn makes one object for each connection."""
        connections, seconds = self._open, self._seconds

        class Connection(BoundedConnection):
            def __init__(self, **arguments: Any) -> None:
                super().__init__(connections, seconds, **arguments)

        return Connection


class BoundedConnection(H11Protocol):
    """A connection with a clock that runs from step to step."""

    def __init__(
        self, others: dict[Any, BoundedConnection], seconds: float, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self._others = others
        self._seconds = seconds
        self._is_idle = True
        self._is_lost = False
        self._end: asyncio.TimerHandle

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the headers of a request."""
        super().connection_made(transport)
        self._end = self._clock()
        self._others[self.client] = self
        if len(self._others) > MOST_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._is_lost = True
        self._end.cancel()
        if self._others.get(self.client) is self:
            del self._others[self.client]
        super().connection_lost(exc)

    def begin_step(self, *, is_idle: bool) -> None:
        """Begin to wait for the answer to a request, or for the next one."""
        if not self._is_lost:
            self._is_idle = is_idle
            self._end.cancel()
            self._end = self._clock()

    def _clock(self) -> asyncio.TimerHandle:
        # Not closed, which would wait until the client has read what is left.
        return asyncio.get_running_loop().call_later(self._seconds, self.transport.abort)

    def _make_room(self) -> None:
        idle = [connection for connection in self._others.values() if connection._is_idle]
        oldest = min(idle, key=lambda connection: connection._end.when())  # of which this is one
        del self._others[oldest.client]
        oldest.transport.abort()
