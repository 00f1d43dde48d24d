"""What runs in a process of `historyad.data.decoders`: images are decoded within limits.

It imports what decoding needs and no more: a quarter of a second of the processor, once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import math
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from historyad.data.images import Pixels, read_image, unreadable
from historyad.errors import InputError
from historyad.regular import open_regular

MOST_ANSWER = 1 << 16  # bytes of JSON
_FREE_BYTES = 1 << 27  # for any image, besides what its size explains
_BYTES_PER_PIXEL = 24  # of the decoder, of turning and converting, and of the result
_COPIES_OF_FILE = 3


def packed(content: dict[str, Any]) -> bytes:
    """Return a message of either side, after its length."""
    data = json.dumps(content).encode()
    return struct.pack("<I", len(data)) + data


def main() -> None:
    """Decode what comes through standard input, a socket, until its other end closes."""
    # Before the first image: importing them within its limits would count as its own time.
    Image.preinit()
    for plugin in ("MpoImagePlugin", "TiffImagePlugin", "WebPImagePlugin"):
        importlib.import_module(f"PIL.{plugin}")
    with contextlib.suppress(ImportError):  # who has recordings is told
        importlib.import_module("soundfile")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # of one that the system ends
    with socket.socket(fileno=0) as connection, contextlib.suppress(OSError):
        messages = connection.makefile("rwb")
        _tell(messages, {})
        while True:
            _serve_one(messages)


def _serve_one(messages: Any) -> None:
    size = struct.unpack("<I", _read(messages, 4))[0]
    wanted = json.loads(_read(messages, size))
    data = None if "path" in wanted else _read(messages, wanted["bytes"])
    try:
        pixels = _decode(messages, wanted, data)
    except InputError as error:
        _tell(messages, {"error": str(error)[: MOST_ANSWER // 8]})
        return
    _tell(messages, {"shape": pixels.shape, "is_ready": True})
    messages.write(np.ascontiguousarray(pixels).data.cast("B"))
    messages.flush()


def _decode(messages: Any, wanted: dict[str, Any], data: bytes | None) -> Pixels:
    accepted: set[tuple[int, ...]] = set()

    def check(shape: tuple[int, ...]) -> None:
        if shape in accepted:
            return
        _tell(messages, {"shape": shape, "is_ready": False})
        if _read(messages, 1) != b"\1":
            raise InputError("refused")  # the one who asked knows why
        accepted.add(shape)

    stream, size = _content(wanted, data)
    free = _FREE_BYTES + _COPIES_OF_FILE * size
    # Some formats make room for the pixels before they tell how many there are.
    with stream, _limited(wanted["cpu_seconds"], free + 8 * wanted["max_pixels"]) as limit_memory:
        return read_image(
            stream,
            wanted["name"],
            max_pixels=wanted["max_pixels"],
            side=wanted["side"],
            channels=wanted["channels"],
            check=check if wanted["has_check"] else None,
            before_decoding=lambda n: limit_memory(free + _BYTES_PER_PIXEL * n),
        )


def _content(wanted: dict[str, Any], data: bytes | None) -> tuple[BinaryIO, int]:
    if data is not None:
        return io.BytesIO(data), len(data)
    try:
        stream = open_regular(Path(wanted["path"]))
    except OSError as error:
        raise unreadable(wanted["name"], error) from error
    return stream, os.fstat(stream.fileno()).st_size


@contextlib.contextmanager
def _limited(seconds: int, n_bytes: int) -> Iterator[Callable[[int], None]]:
    """Let the system refuse more bytes than now and ``n_bytes``, and end us after ``seconds``.

    Yields a function that sets another number of bytes.
    """
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds)
    if (now := _address_space()) is None:
        yield lambda _: None
        return
    limit = functools.partial(_limit, resource.RLIMIT_AS)
    limit(now + n_bytes)
    try:
        yield lambda n: limit(now + n)
    finally:
        limit(resource.RLIM_INFINITY)


def _address_space() -> int | None:
    """Return the bytes that are reserved, or None on a system where no limit of them is kept."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None
    try:
        return int(os.read(descriptor, 100).split()[0]) * resource.getpagesize()
    finally:
        os.close(descriptor)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY and not 0 <= value <= hard:
        value = hard
    resource.setrlimit(kind, (value, hard))


def _tell(messages: Any, content: dict[str, Any]) -> None:
    messages.write(packed(content))
    messages.flush()


def _read(messages: Any, n: int) -> bytes:
    data: bytes = messages.read(n)
    if len(data) < n:
        raise ConnectionError
    return data
