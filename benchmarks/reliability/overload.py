"""Twice the load that can be scored: what is accepted, how fast, and whether it is right."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import re
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import Row
from benchmarks.reliability.process import (
    MULTIPART,
    TOLERANCE,
    Service,
    encode,
    form,
    service,
)
from historyad.data.datasets import open_stream
from historyad.model.model import Model
from historyad.score.calibration import Calibration


def score_rate(run: Path, folder: Path) -> tuple[float, float]:
    """Return images per second, and CPU seconds per image, of what ``historyad score`` does."""
    model = Model.load(run)
    for _ in range(3):  # of which the last counts
        started, cpu = time.monotonic(), time.process_time()
        n = sum(
            len(model.anomaly_score(chunk)) for _, chunk in open_stream(str(folder)).chunks(1024)
        )
    return n / (time.monotonic() - started), (time.process_time() - cpu) / n


Request = tuple[bytes, str, np.ndarray[Any, Any]]  # body, content type, scores


def requests_of(files: list[bytes], scores: np.ndarray[Any, Any], size: int) -> list[Request]:
    """Return requests of ``size`` files each, and the scores (size,) that they should get."""
    parts = [slice(i, i + size) for i in range(0, len(files) - size + 1, size)]
    if size == 1:
        return [(files[part][0], "image/png", scores[part]) for part in parts]
    return [(form(files[part]), MULTIPART, scores[part]) for part in parts]


@dataclasses.dataclass
class Answer:
    """What came of a request: when it was sent, how long it took, all that was received."""

    request: Request
    seconds: float
    received: bytes

    @property
    def is_refused(self) -> bool:
        """Whether the service was busy."""
        return self.received.startswith(b"HTTP/1.1 503 ")

    def is_wrong(self, calibration: Calibration) -> bool:
        """Whether it is anything but the right verdicts."""
        head, _, body = self.received.partition(b"\r\n\r\n")
        results = json.loads(body)["results"] if head.startswith(b"HTTP/1.1 200 ") else []
        return not is_right(results, self.request[2], calibration)


class Caller:
    """A connection that is kept, and opened again when the service closed it."""

    def __init__(self, running: Service, due: float) -> None:
        self._address = running.host, running.port
        self._socket: socket.socket | None = None
        self.due = due
        self.request: Request | None = None

    def send(self, request: Request) -> None:
        """Send a request, to which `receive` has the answer."""
        body, kind, _ = request
        head = f"POST /score HTTP/1.1\r\nHost: {self._address[0]}\r\nContent-Type: {kind}\r\n"
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request, self._started, self._received = request, time.monotonic(), b""
        self._socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def fileno(self) -> int:
        """Return what to wait for while there is a request."""
        assert self._socket is not None
        return self._socket.fileno()

    def receive(self) -> Answer | None:
        """Return the answer once all of it is there."""
        assert self._socket is not None
        assert self.request is not None
        part = self._socket.recv(1 << 16)
        self._received += part
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if part and (length is None or len(body) < int(length[1])):
            return None
        if not part or b"connection: close" in head.lower():
            self._socket.close()
            self._socket = None
        answer = Answer(self.request, time.monotonic() - self._started, self._received)
        self.request = None
        return answer


def drive(
    running: Service, requests: list[Request], n_callers: int, gap: float, seconds: float
) -> list[Answer]:
    """Let each caller send one of the requests each ``gap`` seconds or, when late, at once.

    All are in one thread, and what they hear is looked at later: they share the cores with the
    service, and are not what is measured.
    """
    rng = random.Random(0)
    end = time.monotonic() + seconds
    callers = [Caller(running, time.monotonic() + gap * rng.random()) for _ in range(n_callers)]
    answers: list[Answer] = []
    while True:
        now = time.monotonic()
        idle = [caller for caller in callers if caller.request is None and now < end]
        for caller in idle:
            if caller.due <= now:
                caller.send(rng.choice(requests))
                caller.due += gap
        waiting = [caller for caller in callers if caller.request is not None]
        if not waiting and now >= end:
            return answers
        next_due = min((caller.due for caller in idle if caller.request is None), default=end)
        ready, _, _ = select.select(waiting, [], [], max(0.0, min(next_due, end) - now) or None)
        answers += filter(None, [caller.receive() for caller in ready])


def is_right(results: list[Row], scores: np.ndarray[Any, Any], calibration: Calibration) -> bool:
    """Whether the scores are those of Python, and p-values and verdicts follow from them."""
    found = np.array([result["anomaly_score"] for result in results], np.float32)
    return (
        len(found) == len(scores)
        and bool((np.abs(found - scores) < TOLERANCE).all())
        and [result["p_value"] for result in results] == calibration.p_value(found).tolist()
        and [r["is_anomalous"] for r in results] == (found > calibration.threshold).tolist()
    )


def check_load(options: argparse.Namespace, images: np.ndarray[Any, Any]) -> Iterator[Row]:
    """Ask the service for twice what it can score, in large requests and in single ones."""
    files = [encode(image) for image in images]
    model = Model.load(options.run)
    scores, calibration = model.anomaly_score(images), model.calibration
    with tempfile.TemporaryDirectory() as folder:
        for i, file in enumerate(files):
            (Path(folder) / f"{i:06}.png").write_bytes(file)
        capacity, score_cpu = score_rate(options.run, Path(folder))
    for size in (32, 1):
        requests = requests_of(files, scores, size)
        with service(options.run) as running:
            yield {
                "clients": options.clients,
                "images in a request": size,
                "score's rate, images/s": round(capacity),
                "score's CPU, ms/image": round(1000 * score_cpu, 2),
                **overload(running, requests, size, calibration, capacity, options),
                "exit status after SIGTERM": running.stop(),
            }


def overload(
    running: Service,
    requests: list[Request],
    size: int,
    calibration: Calibration,
    capacity: float,
    options: argparse.Namespace,
) -> Row:
    """Ask for twice the ``capacity``, in images per second, and return what came of it."""
    gap = options.clients * size / (2 * capacity)
    drive(running, requests, 1, 0.0, 3.0)
    before, running.peak = running.memory(), 0.0
    started, cpu = time.monotonic(), running.cpu()
    answers = drive(running, requests, options.clients, gap, options.seconds)
    seconds, cpu = time.monotonic() - started, running.cpu() - cpu
    accepted = [answer for answer in answers if not answer.is_refused]
    latencies = [answer.seconds for answer in accepted]
    refused = len(answers) - len(accepted)
    rate = len(latencies) * size / seconds
    p50, p99 = np.quantile(latencies, (0.5, 0.99))
    return {
        "offered, images/s": round((len(latencies) + refused) * size / seconds),
        "accepted, images/s": round(rate),
        "accepted / score's rate": round(rate / capacity, 2),
        "service's CPU, ms/image": round(1000 * cpu / (len(latencies) * size), 2),
        "answered": len(latencies),
        "answered 503": refused,
        "wrong answers": sum(answer.is_wrong(calibration) for answer in accepted),
        "median of the accepted, s": round(float(p50), 3),
        "p99 of the accepted, s": round(float(p99), 3),
        "memory growth at its peak, MB": round(running.peak - before),
        "seconds": round(seconds, 1),
    }
