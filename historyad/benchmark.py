"""Methods side by side on the same splits: one row of JSON for each (split, method, seed).

No label is used in fitting or in choosing; every method gets the same training samples. A row
that is there already is not computed again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.config import PRESETS, make_config
from historyad.datasets import Source, open_source
from historyad.errors import InputError
from historyad.estimator import fit_model
from historyad.evaluation import judge
from historyad.networks import count_parameters
from historyad.peers import PEERS
from historyad.randomness import Stream, numpy_generator
from historyad.storage import RunDirectory, versions

Row = dict[str, Any]
Scorer = Callable[[NDArray[Any]], NDArray[np.floating]]

OURS = {"historyad": "default"} | {f"historyad-{p}": p for p in PRESETS if p != "default"}

_SETS = {
    "mnist-vs-kmnist": ("mnist:train", "mnist:test", "kmnist:test"),
    "mnist-vs-fashion": ("mnist:train", "mnist:test", "fashion-mnist:test"),
    "svhn-vs-cifar10": ("svhn:train", "svhn:test", "cifar10:test"),
    "svhn-vs-celeba": ("svhn:train", "svhn:test", "celeba:test"),
    "svhn-vs-tiny-imagenet": ("svhn:train", "svhn:test", "tiny-imagenet:test"),
    "digits-without-0": ("digits:train:!0", "digits:test:!0", "digits:test:0"),
}
_SVHN_ANOMALIES = 3000  # as many as there are normal test images


@dataclass(frozen=True)
class Split:
    """Normal samples to train on, and normal and anomalous ones to test on."""

    train: Source
    normal: Source
    anomalous: Source


def split_names() -> list[str]:
    """Return the names that `load_split` knows, tables by their pattern."""
    digits = [f"mnist-without-{digit}" for digit in range(10)]
    return [*_SETS, *digits, "vectors-NAME"]


def load_split(name: str, seed: int, data_root: Path | None) -> Split:
    """Open a split by name; only that of a table depends on ``seed``.

    Raises InputError for an unknown name or absent data.
    """

    def source(text: str) -> Source:
        return open_source(text, data_root=data_root)

    if name in _SETS:
        train, normal, anomalous = map(source, _SETS[name])
        if name.startswith("svhn"):
            anomalous = _take(anomalous, np.arange(min(_SVHN_ANOMALIES, len(anomalous))))
        return Split(train, normal, anomalous)
    if match := re.fullmatch(r"mnist-without-(\d)", name):
        digit = match[1]
        held_out = [source(f"mnist:{part}:{digit}") for part in ("train", "test")]
        return Split(
            source(f"mnist:train:!{digit}"), source(f"mnist:test:!{digit}"), _join(*held_out)
        )
    if match := re.fullmatch(r"vectors-(.+)", name):
        return _halve(source(str(_find_table(match[1], data_root))), seed)
    raise InputError(f"unknown split '{name}': choose one of {', '.join(split_names())}")


def run_benchmark(
    splits: Iterable[str],
    methods: Iterable[str],
    seeds: Iterable[int],
    out: Path,
    *,
    data_root: Path | None = None,
    command: str = "",
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Measure every method on every split for every seed, appending rows to ``out/rows.jsonl``.

    Splits with the same training samples share a fit. Each fit has a process of its own, so that
    its peak memory is its own; interrupted, it continues. Return all rows asked for, those of
    earlier calls included.
    """
    out.mkdir(parents=True, exist_ok=True)
    table = out / "rows.jsonl"
    rows = {(r["split"], r["method"], r["seed"]): r for r in read_rows(table)}
    splits, methods, seeds = list(splits), list(methods), list(seeds)
    for seed, method, together in product(seeds, methods, _by_training_set(splits)):
        missing = [split for split in together if (split, method, seed) not in rows]
        if not missing:
            continue
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            measured = pool.apply(measure, (missing, method, seed, out / "runs", data_root))
        for row in measured:
            row["command"] = command
            with table.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows[row["split"], method, seed] = row
            if on_row is not None:
                on_row(row)
    shutil.rmtree(out / "runs", ignore_errors=True)
    return [rows[key] for key in product(splits, methods, seeds)]


def measure(
    splits: list[str], method: str, seed: int, runs: Path, data_root: Path | None
) -> list[Row]:
    """Fit ``method`` once on splits that share their training samples; return a row for each."""
    opened = {name: load_split(name, seed, data_root) for name in splits}
    train = opened[splits[0]].train
    started = time.perf_counter()
    if method in OURS:
        score, facts = _fit_ours(method, train, seed, runs / f"{method}-{splits[0]}-{seed}")
    else:
        score, facts = _fit_peer(method, train, seed)
    facts["fit_seconds"] = time.perf_counter() - started
    facts["n_train"] = len(train)
    facts["versions"] = versions()
    return [
        {"split": name, "method": method, "seed": seed, **_score(score, split, facts)}
        for name, split in opened.items()
    ]


def read_rows(table: Path) -> list[Row]:
    """Return the rows of a JSONL file, none when it is not there."""
    return [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []


def _score(score: Scorer, split: Split, facts: Row) -> Row:
    started = time.perf_counter()
    normal, anomalous = score(split.normal.samples), score(split.anomalous.samples)
    seconds = time.perf_counter() - started
    row = {**judge(normal, anomalous), **facts, "score_seconds": seconds}
    row["images_per_second"] = (len(normal) + len(anomalous)) / seconds
    row["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if "threshold" in facts:
        row["false_positive_rate"] = float((normal > facts["threshold"]).mean())
        row["detection_rate"] = float((anomalous > facts["threshold"]).mean())
    return row


def _fit_ours(method: str, train: Source, seed: int, path: Path) -> tuple[Scorer, Row]:
    config = make_config(OURS[method], seed=seed)
    # A small table holds out too few rows for the rate of the preset: take the lowest it allows.
    lowest = 1 / (int(config.calibration_share * len(train)) + 1)
    config.false_positive_rate = max(config.false_positive_rate, lowest)
    model = fit_model(train, config, RunDirectory(path))
    facts = {
        "threshold": model.calibration.threshold,
        "held_out": len(model.calibration.scores),
        "parameters": count_parameters(model.detector),
        "run_mb": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6,
    }
    return model.anomaly_score, facts


def _fit_peer(method: str, train: Source, seed: int) -> tuple[Scorer, Row]:
    if method not in PEERS:
        raise InputError(f"unknown method '{method}': choose {', '.join([*OURS, *PEERS])}")
    return PEERS[method](seed).fit(train.samples).anomaly_score, {}


def _by_training_set(splits: list[str]) -> list[list[str]]:
    """Group the splits whose training samples are the same."""
    groups: dict[str, list[str]] = {}
    for name in splits:
        groups.setdefault(_SETS[name][0] if name in _SETS else name, []).append(name)
    return list(groups.values())


def _halve(table: Source, seed: int) -> Split:
    """Train on a seeded half of a table's normal rows, test on the other half and all anomalies."""
    assert table.labels is not None
    normal = numpy_generator(seed, Stream.SPLIT).permutation(np.flatnonzero(table.labels == 0))
    half = len(normal) // 2
    parts = (normal[:half], normal[half:], np.flatnonzero(table.labels == 1))
    return Split(*(_take(table, np.sort(rows)) for rows in parts))


def _find_table(name: str, data_root: Path | None) -> Path:
    root = Path(data_root or os.environ.get("HISTORYAD_DATA", ".")) / "vectors"
    found = sorted(root.glob(f"*/{name}.npz"))
    if not found:
        raise InputError(f"no table {name}.npz in a folder of {root}: check --data-root")
    return found[0]


def _take(source: Source, rows: NDArray[np.intp]) -> Source:
    names = [source.names[row] for row in rows.tolist()]
    return replace(source, samples=source.samples[rows], names=names, labels=None)


def _join(first: Source, second: Source) -> Source:
    samples = np.concatenate([first.samples, second.samples])
    names = [*first.names, *second.names]
    return replace(first, samples=samples, names=names, labels=None)
