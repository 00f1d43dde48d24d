"""Measure whether few samples keep their promise: rows for docs/rows/calibration.

    python -m benchmarks.calibration.measure [--data digits ...] [--n 30 60 100] [--seeds 40]

Normal samples are drawn at random, a detector of the preset instant is fitted on the first n of
them, and the others are scored: a share of them is called anomalous at each level of the p-value.
Thresholds come from a held-out share, from folds and one detector of all samples, or from folds and
the detectors of the others that scored them (cross-conformal). A row that is there is not measured
again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contamination.measure import load_normal
from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.files import read_rows
from historyad.judge.drift import detect_drift
from historyad.judge.metrics import auroc
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.model.split import split_folds
from historyad.model.untrained import of_others
from historyad.score.views import Views

Array = NDArray[Any]

OUT = ROWS / "calibration" / "rows.jsonl"
DATA = ("digits-0", "table-mammography", "table-optdigits")
NUMBERS = (30, 60, 100)
HELD_OUT, FOLDS, CROSS = "held out", "folds", "folds, each by the detectors of the others"
LEVEL = 0.1  # of a p-value, beside the lowest that there is
N_FRESH = 800
KEYS = ("data", "n", "seed")


def main() -> None:
    """Measure each data set, number and seed."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--n", type=int, nargs="+", default=NUMBERS)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("HISTORYAD_DATA", "."))
    arguments = parser.parse_args()
    there = {tuple(row[key] for key in KEYS) for row in read_rows(arguments.out)}
    for seed, name, n in product(range(arguments.seeds), arguments.data, arguments.n):
        if (name, n, seed) not in there:
            for row in list(measure(name, n, seed, Path(arguments.data_root))):  # all or none
                keep(arguments.out, {"data": name, "n": n, "seed": seed, **row})


def measure(name: str, n: int, seed: int, root: Path) -> Iterator[Row]:
    """Yield a row for each way to a threshold."""
    normal, anomalous = load_normal(name, root)
    random = np.random.default_rng(seed)
    normal = normal[random.permutation(len(normal))[: n + N_FRESH]]
    train, fresh = normal[:n], normal[n:]
    for way, folds in ((HELD_OUT, 1), (FOLDS, 10)):
        model = fit(train, seed, folds)
        good, bad = model.anomaly_score(fresh), model.anomaly_score(anomalous)
        y = np.repeat([0, 1], [len(good), len(bad)])
        yield {
            "way": way,
            **_rates(model.calibration.p_value(good), len(model.calibration.scores)),
            "auroc": auroc(y, np.concatenate([good, bad])),
            "drift": detect_drift(model.calibration, good, seed=seed).since is not None,
        }
    yield {"way": CROSS, **_rates(cross_conformal(model, train, fresh), n)}


def fit(train: Array, seed: int, folds: int) -> Model:
    """Fit what trains no network, in ``folds``, or with a held-out share for 1."""
    config = make_config("instant", seed=seed, folds=folds, device="cpu")
    with tempfile.TemporaryDirectory(prefix="historyad-") as folder:
        return fit_model(open_source(train), config, RunDirectory(folder))


def cross_conformal(model: Model, train: Array, fresh: Array) -> NDArray[np.float64]:
    """Return the p-value of each sample by the detectors of all folds, whose scale is that of one.

    It counts the samples whose score, by the detector of the other folds, is as high as that
    detector's score of the new one.
    """
    whole = model.score
    assert isinstance(whole, Views)
    folds = split_folds(len(train), model.config.folds, model.config, np.arange(len(train)))
    n_above = np.zeros(len(fresh))
    for score, rows in of_others(train, folds, model.config, whole):
        assert isinstance(score, Views)
        known, new = (
            whole.score(torch.from_numpy(score.raw_of(some).T)).numpy()
            for some in (train[rows], fresh)
        )
        n_above += (known[None] >= new[:, None]).sum(1)
    p_values: NDArray[np.float64] = (1 + n_above) / (len(train) + 1)
    return p_values


def _rates(p_values: NDArray[np.float64], n_held_out: int) -> Row:
    """Return the shares of fresh normal samples at the lowest p-value, and at `LEVEL`."""
    smallest = 1 / (n_held_out + 1)
    return {
        "n_held_out": n_held_out,
        "n_fresh": len(p_values),
        "lowest": float((p_values <= smallest).mean()),
        "level": float((p_values <= LEVEL).mean()),
    }


if __name__ == "__main__":
    main()
