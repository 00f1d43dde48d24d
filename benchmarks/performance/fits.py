"""Whole fits of the reference recipe and of the default, side by side, with their quality.

The reference is the paper's recipe on the plain WGAN-GP of a public tutorial's size: convolutions
of width 64, about 5 M parameters a network, every epoch, the penalty in every critic step.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measuring import Row, peak_memory_mb
from historyad.config import make_config
from historyad.data.sources import Source
from historyad.judge.evaluation import judge
from historyad.method.networks import count_parameters
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.research.splits import load_split

RECIPES: dict[str, dict[str, Any]] = {
    "reference": {"preset": "paper", "width": 64, "hidden": 1100},
    "default": {"preset": "default"},
    "quick": {"preset": "quick"},
}
ANOMALIES = ("mnist-vs-kmnist", "mnist-vs-fashion")


def fit_whole(recipe: str, seed: int, threads: int) -> Row:
    """Fit ``recipe`` on MNIST in this process; return seconds, memory and quality."""
    torch.set_num_threads(threads)
    splits = {name: load_split(name, seed, None) for name in ANOMALIES}
    train = splits[ANOMALIES[0]].train
    config = make_config(**RECIPES[recipe], seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        started, cpu = time.perf_counter(), time.process_time()
        model = fit_model(train, config, run)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        log = run.read_log()
        run_mb = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 1e6
    ends = {record["step"]: record["seconds"] for record in log}
    row: Row = {
        "recipe": recipe,
        "seed": seed,
        "threads": threads,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "step1_seconds": ends["gan"],
        "step3_seconds": ends["detector"] - ends["gan"],
        "peak_memory_mb": peak_memory_mb(),
        "run_mb": run_mb,
        "detector_parameters": count_parameters(model.score),
    }
    row["n_train"] = len(train)
    normal, normal_seconds = _timed(model, splits[ANOMALIES[0]].normal)
    row["false_positive_rate"] = float((normal > model.calibration.threshold).mean())
    for name, split in splits.items():
        anomalous, anomalous_seconds = _timed(model, split.anomalous)
        row[name] = judge(normal, anomalous) | {"score_seconds": normal_seconds + anomalous_seconds}
    return row


def _timed(model: Model, source: Source) -> tuple[NDArray[np.float32], float]:
    started = time.perf_counter()
    scores = model.anomaly_score(source.samples)
    return scores, time.perf_counter() - started
