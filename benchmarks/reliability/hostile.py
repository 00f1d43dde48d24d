"""Requests that are made to cost much: what they take of time and memory, and who waits for it."""

from __future__ import annotations

import argparse
import io
import json
import signal
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from benchmarks.measuring import Row
from benchmarks.reliability.process import MULTIPART, Client, Service, encode, form, service

_MOST_BODY = 33 * 10**6  # just below what is taken


def many_pages(n: int) -> bytes:
    """Return a TIFF of ``n`` pages of one pixel each, all of which share that pixel."""
    tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (279, 1))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    step = 2 + len(entries) + 4
    pages = (
        struct.pack("<H", len(tags)) + entries + struct.pack("<I", 12 + i * step if i < n else 0)
        for i in range(1, n + 1)
    )
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + b"".join(pages)


def many_scans(side: int, n: int) -> bytes:
    """Return a progressive JPEG whose last scan comes ``n`` times."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * n + data[-2:]


def large_png(side: int) -> bytes:
    """Return a grey PNG of ``side`` x ``side`` pixels in a few kB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packed = zlib.compress((b"\0" + bytes(range(200)) * (side // 200 + 1))[: side + 1] * side)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def ready(running: Service) -> int:
    """Return the status of /readyz; 0 where there is no answer within five seconds."""
    try:
        with socket.create_connection((running.host, running.port), timeout=5) as raw:
            raw.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return int(raw.recv(100)[9:12] or 0)
    except OSError:
        return 0


def check_hostile(options: argparse.Namespace, images: np.ndarray) -> Iterator[Row]:
    """Yield a row for each kind of request."""
    valid = encode(images[0])
    kinds = {
        "TIFF of 100,000 pages": many_pages(100_000),
        "JPEG of 20,000 scans": many_scans(4900, 20_000),
    }
    for name, data in kinds.items():
        with service(options.run) as running:
            yield {"check": name, **occupied(running, [data] * 4, valid, options.seconds)}
    with service(options.run) as running:
        yield {"check": "64 images of 4900 x 4900 in a request", **one(running, large_png(4900))}
    with service(options.run) as running:
        yield {"check": "32 bodies whose end is withheld", **withheld(running, valid)}


def occupied(running: Service, hostile: list[bytes], valid: bytes, seconds: float) -> Row:
    """Send ``hostile`` at once, ask for a valid image meanwhile, and end the service during it."""
    Client(running).post(valid, "image/png")
    before, running.peak = running.memory(), 0.0
    with ThreadPoolExecutor(len(hostile)) as pool:
        asked = [pool.submit(_quiet_post, running, data) for data in hostile]
        time.sleep(0.5)
        statuses, readiness, slowest = [], [], 0.0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.monotonic()
            statuses.append(Client(running).post(valid, "image/png")[0])
            slowest = max(slowest, time.monotonic() - started)
            readiness.append(ready(running))
            time.sleep(0.2)
        asked += [pool.submit(_quiet_post, running, data) for data in hostile]
        time.sleep(0.5)
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        try:
            status: int | str = running.process.wait(60)
        except Exception:
            status = "alive after 60 s"
            running.process.kill()
        ended = time.monotonic() - started
        answers = [answer.result() for answer in asked[: len(hostile)]]
    return {
        "size, MB": round(len(hostile[0]) / 1e6, 1),
        "its answers": [str(answer)[:150] for answer in answers],
        "valid requests": _counts(statuses),
        "slowest of them, s": round(slowest, 2),
        "/readyz": _counts(readiness),
        "memory growth at its peak, MB": round(running.peak - before),
        "SIGTERM to the end, s": round(ended, 1),
        "exit status": status,
    }


def _quiet_post(running: Service, data: bytes) -> str:
    try:
        status, body = Client(running).post(data, "image/tiff")
        return f"{status} {body[:200].decode()}"
    except OSError as error:
        return type(error).__name__


def _counts(values: list[int]) -> dict[int, int]:
    return {value: values.count(value) for value in sorted(set(values))}


def one(running: Service, image: bytes) -> Row:
    """Send 64 images at once and see how the memory grows."""
    Client(running).post(image, "image/png")
    before, running.peak = running.memory(), 0.0
    started = time.monotonic()
    status, body = Client(running).post(form([image] * 64), MULTIPART)
    seconds = time.monotonic() - started
    peak = running.peak - before
    time.sleep(2)
    return {
        "status": status,
        "answer": body[:150].decode(),
        "seconds": round(seconds, 1),
        "memory growth at its peak, MB": round(peak),
        "memory growth 2 s later, MB": round(running.memory() - before),
    }


def withheld(running: Service, valid: bytes) -> Row:
    """Send all of 32 bodies but their ends, and see what is held, and what is given back."""
    Client(running).post(valid, "image/png")
    before, running.peak = running.memory(), 0.0
    head = "POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {_MOST_BODY}\r\n\r\n"

    def send(_: int) -> bytes:
        try:
            with socket.create_connection((running.host, running.port), timeout=30) as raw:
                raw.sendall(head.encode() + bytes(_MOST_BODY - 1))
                return raw.recv(100)[9:12]
        except OSError:
            return b"closed"

    with ThreadPoolExecutor(32) as pool:
        sent: list[Future[bytes]] = [pool.submit(send, i) for i in range(32)]
        time.sleep(3)
        started = time.monotonic()
        meanwhile = Client(running).post(valid, "image/png")[0]
        waited = time.monotonic() - started
        answers = [answer.result().decode() for answer in sent]
    peak = running.peak - before
    time.sleep(2)
    return {
        "answers": {answer: answers.count(answer) for answer in sorted(set(answers))},
        "a valid request meanwhile": meanwhile,
        "which took, s": round(waited, 2),
        "memory growth at its peak, MB": round(peak),
        "memory growth 2 s later, MB": round(running.memory() - before),
    }


def main() -> None:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    for row in check_hostile(options, np.zeros((1, 8, 8), np.uint8)):
        print(json.dumps(row, indent=1), flush=True)


if __name__ == "__main__":
    main()
