"""A Ray cluster to work on: one that is there, or one on this machine for as long as it takes."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from historyad.errors import InputError, RunError
from historyad.extras import require

# RFC 9113: what a client begins with, an empty frame of settings at its end.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEADER, _SETTINGS = 9, b"\4"  # bytes, the fourth of which is the kind of frame


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Be connected to the Ray cluster at ``address``, or to a new one on this machine for None.

    A connection that is there already is used, and left open. Raises RunError, within 10 seconds
    when nobody answers, with the address and the reason.
    """
    ray = require("ray", "the engine ray", "ray")
    if address is not None:
        reach(address)
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"include_dashboard": False}
    try:
        ray.init(address=address or "local", **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise RunError(_unreachable(address or "this machine", str(error))) from error
    try:
        yield
    finally:
        ray.shutdown()


def reach(address: str, seconds: float = 8.0) -> None:
    """Raise RunError unless a Ray cluster answers in time; `ray.init` tries for minutes.

    Of ``seconds``, half are to connect and half for an answer.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            f"'{address}' is no address of a Ray cluster: write HOST:PORT, as `ray start --head` "
            "prints it"
        )
    failures = [f"no answer within {seconds:g} s"]

    def probe() -> None:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), seconds / 2) as link:
                failures[:] = [] if _answers_as_ray(link) else ["what listens there is no Ray"]
        except OSError as error:
            failures[:] = [error.strerror or str(error)]

    # In a thread, since the look-up of a name has no time limit of its own.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise RunError(_unreachable(address, failures[0]))


def _answers_as_ray(link: socket.socket) -> bool:
    """Whether the other end speaks gRPC: asked in HTTP/2, it begins with a frame of settings."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True  # it waits for a handshake, which is Ray's to make
    link.sendall(_HTTP2_PREFACE)
    try:
        with link.makefile("rb") as answer:
            return answer.read(_FRAME_HEADER)[3:4] == _SETTINGS
    except TimeoutError:
        return False


def _unreachable(address: str, reason: str) -> str:
    return (
        f"cannot reach a Ray cluster at {address}: {reason}. Is `ray start --head` running there, "
        "is the port right and open? Finished parts are kept; the same command continues"
    )
