"""Measure score and map of one large image: `python benchmarks/tiles_large.py RUN [--rounds 5]`.

RUN is a detector of crops, for instance one that `tiles.py --runs` keeps. The image is made of
tiles laid side by side, and the measurement has this process to itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed_growth import peak_memory_mb

from historyad.data.datasets import open_source
from historyad.environment import machine, versions
from historyad.model.model import Model

ROWS = Path(__file__).parent.parent / "docs" / "rows" / "tiles" / "large.jsonl"
SIDE = 2048


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    data = os.environ.get("HISTORYAD_DATA", ".")
    parser.add_argument("--data-root", type=Path, default=Path(data))
    arguments = parser.parse_args()
    row = {
        **measure(arguments.run, arguments.data_root, arguments.rounds, arguments.threads),
        "versions": versions(),
        "machine": machine(),
        "command": f"python benchmarks/tiles_large.py RUN --rounds {arguments.rounds}",
    }
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


def measure(run: Path, data_root: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Return the median seconds of score and of map, and the peak memory of this process."""
    torch.set_num_threads(threads)
    model = Model.load(run)
    tiles = open_source(data_root / "industrial" / "magnetic_tile" / "test" / "good").samples
    across = -(-SIDE // tiles.shape[1])
    chosen = np.resize(tiles, (across**2, *tiles.shape[1:]))
    grid = chosen.reshape(across, across, *tiles.shape[1:]).swapaxes(1, 2)
    image = grid.reshape(across * tiles.shape[1], -1, 1)[:SIDE, :SIDE]
    before = peak_memory_mb()
    seconds: dict[str, list[float]] = {"score": [], "map": []}
    for _ in range(rounds):
        for what, compute in (
            ("score", lambda: model.anomaly_score(image[None])),
            ("map", lambda: model.maps(image[None])),
        ):
            started = time.perf_counter()
            compute()
            seconds[what].append(time.perf_counter() - started)
    return {
        "side": SIDE,
        "threads": threads,
        "rounds": rounds,
        **{f"{what}_seconds": statistics.median(values) for what, values in seconds.items()},
        "peak_memory_mb": peak_memory_mb(),
        "peak_memory_before_mb": before,
    }


if __name__ == "__main__":
    main()
