"""What a service takes on under twice the load, beside what `historyad score` manages."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.measuring import Row
from benchmarks.reliability.overload import overload, requests_of, score_rate
from benchmarks.reliability.process import encode, service
from historyad.data.datasets import open_source
from historyad.model.model import Model

_FILES, _CLIENTS, _SECONDS = 2000, 16, 10.0


def measure_service(run: Path, size: int, rounds: int) -> Row:
    """Ask for twice what is scored, ``size`` images in a request, in turns with `score`.

    Figures are medians of the rounds; ``ratios`` has what was accepted over the rate of `score`.
    """
    images = open_source("mnist:test").samples[:_FILES]
    files = [encode(image) for image in images]
    model = Model.load(run)
    requests = requests_of(files, model.anomaly_score(images), size)
    options = argparse.Namespace(clients=_CLIENTS, seconds=_SECONDS)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for i, file in enumerate(files):
            (Path(folder) / f"{i:06}.png").write_bytes(file)
        for _ in range(rounds):
            capacity, cpu = score_rate(run, Path(folder))
            with service(run) as running:
                row = overload(running, requests, size, model.calibration, capacity, options)
                row["exit status after SIGTERM"] = running.stop()
            row |= {"score's rate, images/s": capacity, "score's CPU, ms/image": 1000 * cpu}
            found.append(row)
    return {
        **{key: statistics.median(row[key] for row in found) for key in found[0]},
        "wrong answers": sum(row["wrong answers"] for row in found),
        "clients": _CLIENTS,
        "rounds": rounds,
        "ratios": [row["accepted / score's rate"] for row in found],
    }
