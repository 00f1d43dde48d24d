"""Requests that are no requests: mutated, truncated, oversized, mislabelled."""

from __future__ import annotations

import argparse
import collections
import json
import random
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.measuring import Row
from benchmarks.reliability.process import (
    MULTIPART,
    TOLERANCE,
    Client,
    Service,
    encode,
    form,
    service,
)
from historyad.model.model import Model

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or insert some bytes."""
    altered = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        i = rng.randrange(len(altered) + 1)
        n = rng.choice((1, 1, 4, 100))
        action = rng.randrange(4)
        if action == 0:
            altered[i : i + n] = rng.randbytes(n)
        elif action == 1:
            del altered[i : i + n]
        elif action == 2:
            altered[i:i] = altered[max(0, i - n) : i]
        else:
            altered[i:i] = rng.randbytes(n)
    return bytes(altered)


def bomb(rng: random.Random) -> bytes:
    """A small PNG that unpacks to as many pixels as it says, or says so only."""
    width, height = rng.choice(((6000, 6000), (40_000, 40_000), (1, 2**31 - 1), (30_000, 900)))
    rows = min(height, 2000)
    packed = zlib.compress(bytes((width // 8 + 1) * rows)) if width * rows < 10**9 else b""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def post(body: bytes, kind: str = "image/png", length: int | None = None, more: str = "") -> bytes:
    """Return a request to score ``body``, whose length and type it may lie about."""
    length = len(body) if length is None else length
    head = f"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{more}"
    return f"{head}Content-Length: {length}\r\nConnection: close\r\n\r\n".encode() + body


def mutated_json(rng: random.Random) -> bytes:
    """Return vectors as JSON, mutated."""
    return mutate(b'{"vectors": [[1.5, -2e3, null], [0, true, "x"]]}', rng)


NO_IMAGES = (b"", b"%!PS", b"<svg/>", b"GIF89a", b"\0" * 99, b"\xff\xd8\xff\xe0", bytes(5000))
NO_TYPES = ("", "text/html", "multipart/form-data", "a" * 3000, "/;=\x01", "image", "application/")

# What makes a malformed request out of a valid image.
MALFORMED: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "mutated image": lambda image, rng: post(mutate(image, rng)),
    "truncated image": lambda image, rng: post(image[: rng.randrange(len(image))]),
    "not an image": lambda _, rng: post(rng.choice((*NO_IMAGES, rng.randbytes(5000)))),
    "bomb": lambda _, rng: post(bomb(rng)),
    "mutated form": lambda image, rng: post(mutate(form([image] * 3), rng), MULTIPART),
    "mutated JSON": lambda _, rng: post(mutated_json(rng), "application/json"),
    "wrong type": lambda image, rng: post(image, rng.choice(NO_TYPES)),
    "wrong length": lambda image, rng: post(
        image, length=rng.choice((0, 1, len(image) + 9, 10**12, 10**30, -1))
    ),
    "huge headers": lambda image, rng: post(
        image, more="".join(f"X-{i}: {'x' * 900}\r\n" for i in range(rng.choice((30, 300))))
    ),
    "broken HTTP": lambda image, rng: mutate(post(image), rng),
}
INCOMPLETE = ("wrong length", "broken HTTP")  # the service would wait for more


def send(running: Service, request: bytes, half_close: bool) -> str:
    """Return the status of the answer, or that the service closed without one."""
    with socket.create_connection((running.host, running.port), timeout=60) as raw:
        try:
            raw.sendall(request)
            if half_close:
                raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(4096)
        except TimeoutError:
            return "no answer in 60 s"
        except OSError:
            return "closed"
    return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"


def check_requests(options: argparse.Namespace, images: np.ndarray[Any, Any]) -> Iterator[Row]:
    """Send malformed requests of each kind; count the answers, and watch the memory."""
    valid = {kind: encode(images[0], kind) for kind in FORMATS}
    counts: dict[str, collections.Counter[str]] = {
        kind: collections.Counter() for kind in MALFORMED
    }
    with service(options.run) as running:
        expected = Model.load(options.run).anomaly_score(images[:1])[0]
        for _ in range(300):
            Client(running).post(valid["PNG"], "image/png")
        before, running.peak = running.memory(), 0.0

        def one(i: int) -> None:
            rng = random.Random(i)
            kind = list(MALFORMED)[i % len(MALFORMED)]
            request = MALFORMED[kind](valid[rng.choice(FORMATS)], rng)
            counts[kind][send(running, request, kind in INCOMPLETE)] += 1

        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(options.requests)))
        seconds = time.monotonic() - started
        status, body = Client(running).post(valid["PNG"], "image/png")
        right = abs(json.loads(body)["results"][0]["anomaly_score"] - expected) < TOLERANCE
        total: collections.Counter[str] = sum(counts.values(), collections.Counter())
        yield {
            "check": f"{options.requests:,} malformed requests",
            "statuses": dict(sorted(total.items())),
            **{kind: dict(sorted(count.items())) for kind, count in counts.items()},
            "5xx other than 503": sum(n for s, n in total.items() if s[0] == "5" and s != "503"),
            "right answer afterwards": bool(status == 200 and right),
            "memory before, MB": round(before),
            "memory growth, MB": round(running.memory() - before),
            "memory growth at its peak, MB": round(running.peak - before),
            "seconds": round(seconds, 1),
            "exit status after SIGTERM": running.stop(),
        }
