"""Measure detectors of tables, whole and with holes: rows for docs/rows/signals/tables.jsonl.

    python -m benchmarks.signals.tables [--set 'vectors-*'] [--method NAME ...] [--seeds 0 1 2]

A seeded half of the normal rows of each table trains; the others and all anomalies are scored. With
holes, one cell in ten is missing at random, on both sides. Peers are given columns of mean 0 and
deviation 1, and the median in place of what is missing. A row that is there is not measured again.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from benchmarks.signals.data import Array
from historyad import fit_model
from historyad.config import make_config
from historyad.data.in_memory import from_table
from historyad.data.tables import Table
from historyad.files import read_rows
from historyad.model.run import RunDirectory
from historyad.research.reproduce.figure import separation
from historyad.research.splits import find_splits, load_split

OUT = ROWS / "signals" / "tables.jsonl"
OURS = "historyad"
METHODS = (OURS, "KNN", "LUNAR", "ECOD", "isolation forest")
HOLES = (0.0, 0.1)
_MOST_LUNAR = 5000  # rows that it is trained on, for the sake of time


def main() -> None:
    """Measure whatever is not there yet."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--set", nargs="+", default=["vectors-*"])
    parser.add_argument("--method", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--holes", nargs="+", type=float, default=HOLES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("HISTORYAD_DATA"))
    options = parser.parse_args()
    known = read_rows(options.out) if options.out.exists() else []
    keys = ("set", "method", "seed", "holes")
    done = {tuple(row[key] for key in keys) for row in known}
    for method in options.method:
        for name in find_splits(options.set, options.data_root):
            for seed in options.seeds:
                for holes in options.holes:
                    key = (name.removeprefix("vectors-"), method, seed, holes)
                    if key not in done:
                        row = measure(name, method, seed, holes, options.data_root)
                        keep(options.out, {**dict(zip(keys, key, strict=True)), **row})


def measure(name: str, method: str, seed: int, holes: float, root: Path | None) -> Row:
    """Return how well ``method`` tells the anomalies of a table, of which some cells are lost."""
    split = load_split(name, seed, root)
    random = np.random.default_rng(seed)
    sources = (split.train, split.normal, split.anomalous)
    train, normal, anomalous = (source.samples.astype(np.float64) for source in sources)
    for part in (train, normal, anomalous):
        part[random.random(part.shape) < holes] = np.nan
    started = time.perf_counter()
    scores_of = scorer(method, train, seed)
    seconds = time.perf_counter() - started
    return {
        "n_train": len(train),
        "n_columns": train.shape[1],
        **separation(scores_of(normal), scores_of(anomalous)),
        "seconds": seconds,
    }


def scorer(method: str, train: Array, seed: int) -> Callable[[Array], Array]:
    """Return what scores rows (N, F), fitted on those of ``train``, NaN being missing."""
    if method == OURS:
        source = from_table(Table(train, tuple(f"c{i}" for i in range(train.shape[1]))), "table")
        with tempfile.TemporaryDirectory() as folder:
            config = make_config("instant", seed=seed)
            model = fit_model(source, config, RunDirectory(folder))
        return lambda rows: model.anomaly_score(rows.astype(np.float32))
    # A column that is empty by chance stays one.
    scaling = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    ).fit(train)
    peer = _peer(method, seed)
    rows = scaling.transform(train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        peer.fit(rows[:_MOST_LUNAR] if method == "LUNAR" else rows)

    def scores_of(rows: Array) -> Array:
        scaled = scaling.transform(rows)
        if method == "isolation forest":
            return np.asarray(-peer.score_samples(scaled))
        return np.asarray(peer.decision_function(scaled))

    return scores_of


def _peer(method: str, seed: int) -> Any:
    """Return a detector with the settings that its authors gave it."""
    if method == "isolation forest":
        return IsolationForest(random_state=seed)
    return getattr(importlib.import_module(f"pyod.models.{method.lower()}"), method)()


if __name__ == "__main__":
    main()
