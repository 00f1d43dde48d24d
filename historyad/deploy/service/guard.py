"""Requests that are refused by their headers alone, before anything of theirs is read."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from historyad.names import shown

_HOST = re.compile(r"(\[(?P<address>[^][]*)\]|(?P<name>[^:]*?)\.?)(:\d*)?")


class Guard:
    """ASGI middleware against requests that two servers would read differently, or a page sends.

    ``hosts`` are the names that the service answers to, all where it is None. A page of another
    site can make its own name point here, and then read what a browser gets from here
    (DNS rebinding); it cannot change the Host header, which holds that name. An address is no name.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None) -> None:
        self._app = app
        self._hosts = None if hosts is None else {_name_of(host) for host in (*hosts, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400 or 421."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        names = {name for name, _ in headers}
        if {b"content-length", b"transfer-encoding"} <= names:
            reason = "give Content-Length or Transfer-Encoding, not both"
            await _refuse(400, reason)(scope, receive, send)
            return
        strange = [value for name, value in headers if name == b"host" and not self._knows(value)]
        if strange:
            host = shown(strange[0].decode("latin-1"))[:200]
            reason = (
                f"this service does not answer for the host {host}: start it with "
                "--allowed-host NAME, or with a token"
            )
            await _refuse(421, reason)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, value: bytes) -> bool:
        if self._hosts is None:
            return True
        name = _name_of(value.decode("latin-1"))
        return name in self._hosts or _is_address(name)


def _refuse(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"detail": reason}, status, {"Connection": "close"})


def _name_of(host: str) -> str:
    """Return a host without its port, brackets and the dot of a full name; else as it is."""
    host = host.strip().lower()
    found = _HOST.fullmatch(host)
    return (found["address"] or found["name"] or "") if found else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
