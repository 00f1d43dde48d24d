"""Answers that hold memory until the client has read them."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_PORTION = 1 << 18  # bytes sent at a time


class HeldAnswer(Response):
    """JSON that is sent in portions, and closes ``held`` when the client has taken all of it."""

    media_type = "application/json"

    def __init__(self, content: str, status: int, held: ExitStack) -> None:
        super().__init__(content, status)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; each portion waits until the client has read those before."""
        start = {"type": "http.response.start", "status": self.status_code}
        with self._held:
            await send({**start, "headers": self.raw_headers})
            for i in range(0, len(self.body), _PORTION):
                more = i + _PORTION < len(self.body)
                body = self.body[i : i + _PORTION]
                await send({"type": "http.response.body", "body": body, "more_body": more})
