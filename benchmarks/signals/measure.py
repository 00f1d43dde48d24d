"""Measure detectors of series: rows for docs/rows/signals.

    python -m benchmarks.signals.measure [--set 'nab/*' ...] [--method NAME ...] [--seeds 0 1 2]

Series of NAB and SKAB: AUROC, AUPRC and VUS-PR over the steps that were not learnt from. Bearings:
normal windows of .2 s against those of each fault, as loud as they are and all of one loudness;
with --stride, of windows that begin so many steps apart. Steady: a series that goes on as it was,
and how uniform the p-values of windows are that share no step. Every method has the same windows,
and its scores are averaged over steps in the same way. A row that is there is not measured again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from benchmarks.signals.data import (
    BEARING_WINDOW,
    Array,
    Bearings,
    Labelled,
    bearings_of,
    series_of,
    steady,
)
from benchmarks.signals.peers import DRAWING, PEERS, z_normalised
from benchmarks.signals.vus import vus_pr
from historyad import Source, fit_model, open_source
from historyad.config import make_config
from historyad.data.series import in_windows, over_steps, usual_window
from historyad.files import read_rows
from historyad.judge.metrics import auprc, auroc
from historyad.model.run import RunDirectory

OUT = ROWS / "signals" / "rows.jsonl"
OURS: dict[str, dict[str, Any]] = {
    "historyad": {},
    "historyad, with its history": {"preset": "quick", "views": "all"},
}
METHODS = (*OURS, *PEERS)
LOUDNESS = ("as recorded", "equal")


def main() -> None:
    """Measure whatever is not there yet."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--set", nargs="+", default=["*"])
    parser.add_argument("--method", nargs="+", default=["historyad", *PEERS], choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--stride", type=int, default=0, help="0: as ours does by itself")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("HISTORYAD_DATA"))
    options = parser.parse_args()
    known = read_rows(options.out) if options.out.exists() else []
    done = {(row["set"], row["method"], row["seed"]) for row in known}

    def measure(name: str, call: Callable[[str, int], list[Row]]) -> None:
        for method in options.method:
            for seed in options.seeds if method in (*OURS, *DRAWING) else options.seeds[:1]:
                if (name, method, seed) in done or not any(
                    fnmatchcase(name, wanted) for wanted in options.set
                ):
                    continue
                for row in call(method, seed):
                    keep(options.out, {"set": name, "method": method, "seed": seed, **row})

    for one in series_of(options.data_root):
        measure(one.name, partial(measure_series, one))
    signals = bearings_of(options.data_root)
    apart = f", {options.stride} steps apart" if options.stride else ""
    for loudness in LOUDNESS:
        measure(
            f"bearings, {loudness}{apart}",
            partial(measure_bearings, signals, loudness, options.stride),
        )
    if "historyad" in options.method:
        options.method = ["historyad"]
        measure("steady", measure_steady)


def measure_series(data: Labelled, method: str, seed: int) -> list[Row]:
    """Return how well ``method`` finds the anomalous steps that it has not learnt from."""
    rest = slice(data.n_train, None)
    window = usual_window(data.steps[: data.n_train])
    train = in_windows(open_source(data.steps[: data.n_train]), window, 0, to_learn=True)
    every = in_windows(open_source(data.steps), window, 0)
    started = time.perf_counter()
    scores_of, settings = scorer(method, train, seed)
    seconds = time.perf_counter() - started
    assert every.series is not None
    of_windows = scores_of(every.samples)
    scores = over_steps(of_windows, every.series)[rest]
    labels = data.labels[rest]
    found = {
        "window": window,
        "n_train": data.n_train,
        "n_steps": len(data.steps),
        "prevalence": float(labels.mean()),
        "auroc": auroc(labels, scores),
        "auprc": auprc(labels, scores),
        "vus_pr": vus_pr(labels, scores, window),
        "seconds": seconds,
    }
    if "threshold" in settings:
        above = scores > settings["threshold"]
        found["false_positive_rate"] = float(above[labels == 0].mean())
        found["found"] = float(above[labels == 1].mean())
        found["asked_for"] = settings["asked_for"]
        odd = np.cumsum(np.concatenate([[0], data.labels]))
        starts = every.series.starts
        is_new = (starts >= data.n_train) & (odd[starts + window] == odd[starts])
        found |= uniformity(settings["p_value"](of_windows[is_new]), starts[is_new], window)
    return [found]


def uniformity(p_values: Array, starts: Array, window: int) -> Row:
    """Return the p-values of windows that share no step, in ten equal parts of 0 to 1.

    And how far their distribution is from the uniform one, at most (Kolmogorov and Smirnov).
    """
    chosen, last = [], -window
    for place, start in enumerate(starts.tolist()):
        if start >= last + window:
            chosen.append(place)
            last = start
    found = np.sort(p_values[chosen])
    if not len(found):
        return {}
    n = len(found)
    # p-values have steps: they are uniform where no more of them are below each than it says.
    above = float((np.arange(1, n + 1) / n - found).max())
    parts = np.histogram(found, 10, (0, 1))[0].tolist()
    return {"p_parts": parts, "p_above": above}


def measure_steady(method: str, seed: int) -> list[Row]:
    """Return how uniform p-values are of a series that goes on as what was learnt from."""
    learnt, new = steady(seed)
    window = usual_window(learnt)
    started = time.perf_counter()
    train = in_windows(open_source(learnt), window, 0, to_learn=True)
    scores_of, settings = scorer(method, train, seed)
    seconds = time.perf_counter() - started
    windows = in_windows(open_source(new), window, window)
    assert windows.series is not None
    p_values = settings["p_value"](scores_of(windows.samples))
    below = {f"{rate:g}": float((p_values <= rate).mean()) for rate in (0.01, 0.05, 0.1, 0.5)}
    return [
        {
            "window": window,
            "n_train": len(learnt),
            "n_apart": len(p_values),
            "below": below,
            "asked_for": settings["asked_for"],
            "seconds": seconds,
            **uniformity(p_values, windows.series.starts, window),
        }
    ]


def measure_bearings(
    signals: Bearings, loudness: str, stride: int, method: str, seed: int
) -> list[Row]:
    """Return how well ``method`` tells windows of each fault from normal ones."""

    def opened(signal: Array, *, to_learn: bool = False) -> Source:
        source = in_windows(open_source(signal), BEARING_WINDOW, stride, to_learn=to_learn)
        if loudness == "equal":
            equal = z_normalised(source.samples).astype(np.float32)
            return source.__class__(**{**vars(source), "samples": equal})
        return source

    scores_of, settings = scorer(method, opened(signals.train, to_learn=True), seed)
    normal = scores_of(opened(signals.normal).samples)
    rows = []
    for fault, signal in signals.faults.items():
        scores = scores_of(opened(signal).samples)
        labels = np.repeat([0, 1], [len(normal), len(scores)])
        row = {
            "fault": fault,
            "n_normal": len(normal),
            "n_anomalous": len(scores),
            "auroc": auroc(labels, np.concatenate([normal, scores])),
            "found_at_1_percent": float((scores > np.quantile(normal, 0.99)).mean()),
        }
        if "threshold" in settings:
            row["found"] = float((scores > settings["threshold"]).mean())
            row["false_positive_rate"] = float((normal > settings["threshold"]).mean())
            row["asked_for"] = settings["asked_for"]
        rows.append(row)
    return rows


def scorer(method: str, train: Source, seed: int) -> tuple[Callable[[Array], Array], Row]:
    """Return what scores windows, fitted on those of ``train``, and its threshold if it has one."""
    if method not in OURS:
        series = train.series
        assert series is not None
        center = train.samples.mean((0, 1), dtype=np.float64)
        spread = np.maximum(train.samples.std((0, 1), dtype=np.float64), 1e-9)
        scores_of = PEERS[method]((train.samples - center) / spread, seed)
        return lambda windows: scores_of((windows - center) / spread), {}
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(**OURS[method], seed=seed)
        model = fit_model(train, config, RunDirectory(folder))
    calibration = model.calibration
    return model.anomaly_score, {
        "p_value": calibration.p_value,
        "threshold": calibration.threshold,
        "asked_for": calibration.false_positive_rate,
    }


if __name__ == "__main__":
    main()
