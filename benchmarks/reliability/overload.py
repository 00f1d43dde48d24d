"""Twice the load that can be scored: what is accepted, how fast, and whether it is right."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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


@dataclasses.dataclass
class Load:
    """What one client saw."""

    latencies: list[float] = dataclasses.field(default_factory=list)
    refused: int = 0
    wrong: int = 0


Request = tuple[bytes, str, np.ndarray[Any, Any]]  # body, content type, scores


def requests_of(files: list[bytes], scores: np.ndarray[Any, Any], size: int) -> list[Request]:
    """Return requests of ``size`` files each, and the scores (size,) that they should get."""
    parts = [slice(i, i + size) for i in range(0, len(files) - size + 1, size)]
    if size == 1:
        return [(files[part][0], "image/png", scores[part]) for part in parts]
    return [(form(files[part]), MULTIPART, scores[part]) for part in parts]


def drive(
    running: Service, requests: list[Request], calibration: Calibration, gap: float, end: float
) -> Load:
    """Send one of the requests each ``gap`` seconds or, when late, at once."""
    seen, client = Load(), Client(running)
    rng = random.Random(threading.get_ident())
    due = time.monotonic() + gap * rng.random()
    while (now := time.monotonic()) < end:
        if now < due:
            time.sleep(due - now)
        due += gap
        body, kind, scores = rng.choice(requests)
        started = time.monotonic()
        status, answer = client.post(body, kind)
        if status == 503:
            seen.refused += 1
        else:
            seen.latencies.append(time.monotonic() - started)
            results = json.loads(answer).get("results", []) if status == 200 else []
            seen.wrong += not is_right(results, scores, calibration)
    return seen


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
    drive(running, requests, calibration, 0.0, time.monotonic() + 3)
    before, running.peak = running.memory(), 0.0
    started, cpu = time.monotonic(), running.cpu()
    end = started + options.seconds
    with ThreadPoolExecutor(options.clients) as pool:
        clients = [
            pool.submit(drive, running, requests, calibration, gap, end)
            for _ in range(options.clients)
        ]
    seen = [client.result() for client in clients]
    seconds, cpu = time.monotonic() - started, running.cpu() - cpu
    latencies = np.concatenate([load.latencies for load in seen])
    refused = sum(load.refused for load in seen)
    rate = len(latencies) * size / seconds
    p50, p99 = np.quantile(latencies, (0.5, 0.99))
    return {
        "offered, images/s": round((len(latencies) + refused) * size / seconds),
        "accepted, images/s": round(rate),
        "accepted / score's rate": round(rate / capacity, 2),
        "service's CPU, ms/image": round(1000 * cpu / (len(latencies) * size), 2),
        "answered": len(latencies),
        "answered 503": refused,
        "wrong answers": sum(load.wrong for load in seen),
        "median of the accepted, s": round(float(p50), 3),
        "p99 of the accepted, s": round(float(p99), 3),
        "memory growth at its peak, MB": round(running.peak - before),
        "seconds": round(seconds, 1),
    }
