"""Measure how fast a large table is fitted and scored: rows for docs/rows/signals/speed.jsonl.

    python -m benchmarks.signals.speed [--rows 1000000] [--threads 2]

A made-up table of thirty columns in a Parquet file: the preset instant is fitted on all of it, and
scores it by the command line into a .csv, and, as an array, from Python. Each has a process of its
own. Seconds are those of the clock, and CPU seconds add up the threads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import Row, in_own_process, keep, parser_for, peak_memory_mb
from benchmarks.pages import ROWS
from benchmarks.signals.data import Array
from historyad import HistoryAD, fit_model, open_source
from historyad.cli import main as historyad
from historyad.config import make_config
from historyad.model.run import RunDirectory

OUT = ROWS / "signals" / "speed.jsonl"
_COLUMNS, _FACTORS = 30, 12


def main() -> None:
    """Fit, and score in both ways."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_own_process(write_table, folder / "table.parquet", options.rows)
        for what in (fit, score_file, score_array):
            row = in_own_process(what, folder, options.threads)
            shared = {"rows": options.rows, "columns": _COLUMNS, "threads": options.threads}
            keep(options.out, {"what": what.__name__, **shared, **row})


def write_table(path: Path, n: int) -> None:
    """Write rows of a few factors with noise; some columns are skewed."""
    import pandas

    random = np.random.default_rng(0)
    mix = random.normal(size=(_FACTORS, _COLUMNS)).astype(np.float32)
    values = random.standard_normal((n, _FACTORS), np.float32) @ mix
    values += 0.3 * random.standard_normal((n, _COLUMNS), np.float32)
    values[:, ::5] = np.exp(values[:, ::5] / 4)
    columns = [f"c{i}" for i in range(_COLUMNS)]
    pandas.DataFrame(values, columns=columns).to_parquet(path, index=False)


def fit(folder: Path, threads: int) -> Row:
    """Fit on the file, from opening it to the saved model."""
    torch.set_num_threads(threads)
    config = make_config("instant", seed=1)
    run = RunDirectory(folder / "run")
    return _timed(lambda: fit_model(open_source(folder / "table.parquet"), config, run))


def score_file(folder: Path, threads: int) -> Row:
    """Score the file by the command line."""
    torch.set_num_threads(threads)
    paths = [str(folder / name) for name in ("run", "table.parquet", "scores.csv")]
    return _timed(lambda: historyad(["--quiet", "score", *paths[:2], "--out", paths[2]]))


def score_array(folder: Path, threads: int) -> Row:
    """Score an array that is in memory."""
    torch.set_num_threads(threads)
    detector = HistoryAD.load(folder / "run")
    values: Array = open_source(folder / "table.parquet").samples
    return _timed(lambda: detector.anomaly_score(values))


def _timed(call: Callable[[], object]) -> Row:
    started, cpu = time.perf_counter(), time.process_time()
    call()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_memory_mb": peak_memory_mb()}


if __name__ == "__main__":
    main()
