"""Whole fits of ours and of PyOD's, side by side, phase by phase, with their quality.

The reference is the paper's recipe on the plain WGAN-GP of a public tutorial's size: convolutions
of width 64, about 5 M parameters a network, every epoch, the penalty in every critic step.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measuring import Row, peak_memory_mb
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.data.sources import Source
from historyad.judge.evaluation import judge
from historyad.method.networks import count_parameters
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.phases import COMPARE, KEEP, LEARN_AGAIN, THRESHOLD_AGAIN
from historyad.model.run import RunDirectory
from historyad.research.splits import load_split

RECIPES: dict[str, dict[str, Any]] = {
    "reference": {"preset": "paper", "width": 64, "hidden": 1100},
    "default": {"preset": "default"},
    "quick": {"preset": "quick"},
    "instant": {"preset": "instant"},
}
PEERS = ("pyod-pca", "pyod-knn", "pyod-vae")
AFTER = (LEARN_AGAIN, THRESHOLD_AGAIN, COMPARE, KEEP)  # the phases after training
ANOMALIES = ("mnist-vs-kmnist", "mnist-vs-fashion")


class Phases:
    """A listener that adds up the seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._phase, self._since = "", 0.0

    def __call__(self, record: Row) -> None:
        """Note a phase that begins."""
        if record["phase"] != self._phase:
            now = time.perf_counter()
            if self._phase:
                self.seconds[self._phase] += now - self._since
            self._phase, self._since = record["phase"], now


def fit_peer(recipe: str, seed: int, threads: int, n: int) -> Row:
    """Fit a detector of PyOD, by its own defaults, on the first ``n`` images; return seconds."""
    torch.set_num_threads(threads)
    x = open_source("mnist:train").samples[:n]
    x = (x.reshape(n, -1) / 255).astype(np.float32)
    name = recipe.removeprefix("pyod-")
    options: dict[str, dict[str, Any]] = {
        "pca": {"random_state": seed},
        "knn": {"n_jobs": threads},
        "vae": {"random_state": seed, "verbose": 0},
    }
    model = getattr(import_module(f"pyod.models.{name}"), name.upper())(**options[name])
    started, cpu = time.perf_counter(), time.process_time()
    model.fit(x)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_memory_mb": peak_memory_mb(),
        "pyod": version("pyod"),
    }


def fit_whole(recipe: str, seed: int, threads: int, n: int) -> Row:
    """Fit ``recipe`` on ``n`` images of MNIST in this process; return seconds, memory and quality.

    The first, and all of them as the split has them.
    """
    torch.set_num_threads(threads)
    splits = {name: load_split(name, seed, None) for name in ANOMALIES}
    train = splits[ANOMALIES[0]].train
    if n < len(train):
        train = replace(train, samples=train.samples[:n], names=train.names[:n], labels=None)
    phases = Phases()
    config = make_config(**RECIPES[recipe], seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        started, cpu = time.perf_counter(), time.process_time()
        model = fit_model(train, config, run, on_progress=phases)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        log = run.read_log()
        run_mb = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 1e6
    ends = {record["step"]: record["seconds"] for record in log} or {"gan": 0.0, "detector": 0.0}
    row: Row = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "step1_seconds": ends["gan"],
        "step3_seconds": ends["detector"] - ends["gan"],
        "phases": dict(phases.seconds),
        "after_training": sum(phases.seconds.get(name, 0.0) for name in AFTER) / seconds,
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
