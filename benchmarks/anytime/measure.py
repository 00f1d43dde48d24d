"""Measure whether damaged normal samples say what training brings: rows for docs/rows/anytime.

    python -m benchmarks.anytime.measure [--split mnist-without-1 ...] [--seeds 0]

Two detectors of each split, which hold out the same samples: of companions in the features of
random weights, and of a trained D_TV and its companions. Of small digits, on which the margin was
chosen, fits are short; of others the default fits at most 4,000 samples. Of either, AUROC with the
anomalies of the split, and with damaged held-out samples. A row that is there is not measured
again.
"""

from __future__ import annotations

import os
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contamination.measure import load_normal
from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.data.sources import Source
from historyad.files import read_rows
from historyad.judge.metrics import auroc
from historyad.model.criterion import damages_seen, some_of
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory
from historyad.model.split import split_rows
from historyad.research.splits import load_split, on_some

Array = NDArray[Any]

OUT = ROWS / "anytime" / "rows.jsonl"
CHOSEN_ON = (*(f"digits-{digit}" for digit in range(10)), "mnist-without-1")  # the margin
SPLITS = (
    *CHOSEN_ON,
    *("fashion-only-0", "svhn-vs-celeba", "mnist-without-7", "cifar10-vs-svhn", "fashion-only-6"),
    *("mnist-only-8", "tiny-imagenet-vs-svhn", "mnist-only-3"),
)
FIRST, TRAINED = "first", "trained"
FEW = 800  # small digits that are fitted on, most of what there is
MOST = 4000  # samples of each part of another split
SETTINGS: dict[str, Any] = {"calibration_share": 0.2, "false_positive_rate": 0.05, "device": "cpu"}
SHORT: dict[str, Any] = {"epoch_images": 6_000}  # with the preset quick


def main() -> None:
    """Measure each split and seed."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--split", nargs="+", default=SPLITS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("HISTORYAD_DATA", "."))
    arguments = parser.parse_args()
    there = {(row["split"], row["seed"]) for row in read_rows(arguments.out)}
    for seed, name in product(arguments.seeds, arguments.split):
        if (name, seed) not in there:
            rows = [
                measure(name, seed, which, Path(arguments.data_root)) for which in (FIRST, TRAINED)
            ]
            for row in rows:
                keep(arguments.out, {"split": name, "seed": seed, **row})


def measure(name: str, seed: int, which: str, root: Path) -> Row:
    """Fit one detector, and return what it sees."""
    train, normal, anomalous = load(name, seed, root)
    views = "companions" if which == FIRST else "all"
    preset, budget = ("quick", SHORT) if name.startswith("digits-") else ("default", {})
    config = make_config(preset, seed=seed, views=views, **SETTINGS, **budget)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="historyad-") as folder:
        model = fit_model(train, config, RunDirectory(folder))
    seconds = time.perf_counter() - started
    _, held_out = split_rows(len(train), config)
    samples = some_of(train.samples, held_out)
    return {
        "which": which,
        "auroc": _auroc(model.anomaly_score, normal, anomalous),
        "seen": damages_seen(model.score, samples, seed),
        "n_held_out": len(samples),
        "fit_seconds": seconds,
    }


def load(name: str, seed: int, root: Path) -> tuple[Source, Array, Array]:
    """Return normal samples to fit on and to test on, and the anomalies of a split."""
    if not name.startswith("digits-"):
        split = on_some(load_split(name, seed, root), MOST, seed)
        return split.train, split.normal.samples, split.anomalous.samples
    normal, anomalous = load_normal(name, root)
    normal = normal[np.random.default_rng(seed).permutation(len(normal))]
    return open_source(normal[:FEW]), normal[FEW:], anomalous


def _auroc(score: Any, normal: Array, anomalous: Array) -> float:
    scores = [score(part) for part in (normal, anomalous)]
    y = np.repeat([0, 1], [len(part) for part in scores])
    return auroc(y, np.concatenate(scores))


if __name__ == "__main__":
    main()
