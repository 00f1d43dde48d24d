"""The server below the service: its address, its connections, and how it ends."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import threading
import warnings
from types import FrameType

import uvicorn

from historyad.deploy.service.app import create_app
from historyad.deploy.service.connections import MOST_CONNECTIONS, Connections
from historyad.deploy.service.limits import Limits
from historyad.errors import InputError
from historyad.model.examples import Examples
from historyad.model.model import Model

_MOST_HEADER_BYTES = 32 * 2**10


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Return a listening socket, and its URL; InputError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not 0 <= port < 2**16:
        raise InputError(f"there is no port {port}: choose one below 65536, or 0 for a free one")
    try:
        listener = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port} ({error}): choose another --host or --port"
        ) from error
    # Inherited by the connections: asyncio sets it only where the protocol is named, which it is
    # not here, and without it each answer waits 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host, port = listener.getsockname()[:2]
    return listener, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(model: Model, limits: Limits, examples: Examples | None = None) -> uvicorn.Server:
    """Return a server of `create_app` that ends gracefully: it answers what it accepted."""
    # Twice the deadline, so that its answer comes first.
    connections = Connections(create_app(model, limits, examples), 2 * limits.deadline)
    config = uvicorn.Config(
        connections,
        http=connections.protocol(),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
        timeout_graceful_shutdown=math.ceil(limits.deadline),
    )
    return _Server(config, limits.deadline)


class _Server(uvicorn.Server):
    """A server that ends soon after the deadline, whatever still runs."""

    def __init__(self, config: uvicorn.Config, deadline: float) -> None:
        super().__init__(config)
        self._deadline = deadline

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end. All requests that were accepted are answered at their deadline."""
        super().handle_exit(sig, frame)
        end = threading.Timer(self._deadline + 0.5, os._exit, [0])
        end.daemon = True
        end.start()


def run_server(
    model: Model,
    limits: Limits,
    listener: socket.socket,
    examples: Examples | None = None,
) -> None:
    """Serve on ``listener`` until SIGTERM or Ctrl-C, and exit with status 0."""
    # What is odd about a request is answered to the one who sent it, and must not fill the log.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    # The server ends gracefully on both signals, and then raises them again.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    make_server(model, limits, examples).run(sockets=[listener])
