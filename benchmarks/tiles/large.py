"""Measure score and map of one large image: `python -m benchmarks.tiles.large RUN [--rounds 5]`.

RUN is a detector of crops, for instance one that `benchmarks.tiles.measure --runs` keeps. The image
is made of tiles laid side by side, and the measurement has this process to itself.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import Row, keep, parser_for, peak_memory_mb, seconds_of
from benchmarks.pages import ROWS
from historyad.data.datasets import open_source
from historyad.model.model import Model

SIDE = 2048


def main() -> None:
    """Measure, and append a row."""
    parser = parser_for(__doc__, ROWS / "tiles" / "large.jsonl")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    data = os.environ.get("HISTORYAD_DATA", ".")
    parser.add_argument("--data-root", type=Path, default=Path(data))
    arguments = parser.parse_args()
    keep(
        arguments.out,
        measure(arguments.run, arguments.data_root, arguments.rounds, arguments.threads),
    )


def measure(run: Path, data_root: Path, rounds: int, threads: int) -> Row:
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
        seconds["score"].append(seconds_of(lambda: model.anomaly_score(image[None])))
        seconds["map"].append(seconds_of(lambda: model.maps(image[None])))
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
