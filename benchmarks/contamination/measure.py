"""Measure what wrong samples among the normal ones cost: rows for docs/rows/contamination.

    python -m benchmarks.contamination.measure [--data digits-6 ...] [--seeds 1]
        [--method NAME ...] [--shares 0 0.01 0.05 0.1]

A share of the training samples is anomalous: of digits, images of one that is no other's; of tables
and magnetic tiles, anomalies as they come. Samples that were not trained on are scored. Every
method gets the same samples, holds out as many of them, and sets its threshold for false alarms of
1 % by their scores. Settings were chosen on digit 0 and on seed 0. A row that is there is not
measured again.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import LocalOutlierFactor

from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from historyad.config import Config, make_config
from historyad.data.datasets import open_source
from historyad.files import read_rows
from historyad.judge.metrics import auroc
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory
from historyad.model.split import split_rows
from historyad.research.peers import PEERS, Peer
from historyad.research.peers.features import Features
from historyad.research.peers.neighbours import Neighbours
from historyad.score.calibration import Calibration

Array = NDArray[Any]

OUT = ROWS / "contamination" / "rows.jsonl"
N_TRAIN, N_TILES, MOST_TESTED = 700, 500, 1000
SHARES = (0.0, 0.01, 0.05, 0.1)
OURS = ("historyad", "historyad, contamination given")
EPOCH_IMAGES = 5_000  # a quarter of the preset's, to save time
TILES: dict[str, Any] = {"patch": 32, "scales": 2, "contrast": "local"}
KINDS = ("blowhole", "break", "crack", "fray", "uneven")
DATA = (
    *(f"digits-{digit}" for digit in (0, 3, 6, 8)),
    *(f"table-{name}" for name in ("cardio", "mammography", "optdigits", "shuttle")),
    "tiles",
)


@dataclass(frozen=True)
class Data:
    """Samples to train on, of which the last ``n_wrong`` are anomalous, and others to test on."""

    train: Array
    n_wrong: int
    normal: Array
    anomalous: Array


class LocalOutliers:
    """scikit-learn's local outlier factor of new samples, with its default of 20 neighbours."""

    def fit(self, samples: Array) -> Self:
        """Keep the samples."""
        self._features = Features().fit(samples)
        self._factor = LocalOutlierFactor(novelty=True).fit(self._features(samples))
        return self

    def anomaly_score(self, samples: Array) -> NDArray[np.floating]:
        """Return the factor of each sample, (N,)."""
        return np.asarray(-self._factor.score_samples(self._features(samples)))


def peer(name: str, seed: int) -> Peer:
    """Return one of the peers of the page."""
    if name == "20-nearest neighbours":
        return Neighbours(metric="euclidean", k=20)
    if name == "local outlier factor":
        return LocalOutliers()
    return PEERS[name](seed)


METHODS = (
    *OURS,
    "isolation-forest",
    "20-nearest neighbours",
    "one-class-svm",
    "local outlier factor",
)


def main() -> None:
    """Measure each method on each data set, share and seed."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--method", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("HISTORYAD_DATA", "."))
    arguments = parser.parse_args()
    there = {tuple(row[key] for key in KEYS) for row in read_rows(arguments.out)}
    for values in product(arguments.data, arguments.seeds, arguments.shares, arguments.method):
        name, seed, share, method = values
        if values in there or (method == OURS[1] and not share):
            continue
        data = load(name, seed, share, Path(arguments.data_root))
        started = time.process_time()
        found = measure(method, data, config_of(name, seed, share if method == OURS[1] else 0.0))
        seconds = time.process_time() - started
        keep(arguments.out, {**dict(zip(KEYS, values, strict=True)), **found, "seconds": seconds})


KEYS = ("data", "seed", "share", "method")


def config_of(name: str, seed: int, contamination: float) -> Config:
    """Return the settings of a fit: the preset quick, or crops for tiles."""
    own: dict[str, Any] = {
        "seed": seed,
        "contamination": contamination,
        "epoch_images": EPOCH_IMAGES,
        "false_positive_rate": 0.01,
    }
    # What is left of 500 tiles without a tenth must hold out the 99 that 1 % needs.
    share = 0.25 if name == "tiles" else 0.17
    return make_config(
        "quick", **(TILES if name == "tiles" else {}), **own, calibration_share=share
    )


def load(name: str, seed: int, share: float, root: Path) -> Data:
    """Return the samples of a data set, drawn by the seed, the same for every share."""
    kind = name.partition("-")[0]
    normal, anomalous = load_normal(name, root)
    random = np.random.default_rng(seed)
    normal, anomalous = (part[random.permutation(len(part))] for part in (normal, anomalous))
    n = N_TILES if kind == "tiles" else N_TRAIN
    n_wrong, n_most = round(share * n), round(max(SHARES) * n)
    train = np.concatenate([normal[: n - n_wrong], anomalous[:n_wrong]])
    fresh = _good_tiles(root) if kind == "tiles" else normal[n : n + MOST_TESTED]
    return Data(train, n_wrong, fresh, anomalous[n_most : n_most + MOST_TESTED])


def load_normal(name: str, root: Path) -> tuple[Array, Array]:
    """Return all normal and all anomalous samples of a data set."""
    kind, _, which = name.partition("-")
    return {"digits": _digits, "table": _table, "tiles": _tiles}[kind](which, root)


def _digits(which: str, root: Path) -> tuple[Array, Array]:
    parts = [open_source(f"digits:{part}") for part in ("train", "test")]
    images = np.concatenate([part.samples for part in parts])
    labels = np.concatenate([part.labels for part in parts if part.labels is not None])
    return images[labels != int(which)], images[labels == int(which)]


def _table(which: str, root: Path) -> tuple[Array, Array]:
    (path,) = root.glob(f"vectors/*/{which}.npz")
    table = open_source(path)
    assert table.labels is not None
    return table.samples[table.labels == 0], table.samples[table.labels == 1]


def _tiles(which: str, root: Path) -> tuple[Array, Array]:
    folder = root / "industrial" / "magnetic_tile"
    defects = [open_source(folder / "test" / kind).samples for kind in KINDS]
    return open_source(folder / "train" / "good").samples, np.concatenate(defects)


def _good_tiles(root: Path) -> Array:
    good: Array = open_source(root / "industrial" / "magnetic_tile" / "test" / "good").samples
    return good


def measure(method: str, data: Data, config: Config) -> Row:
    """Fit one method, and return how well it tells fresh samples apart."""
    score, calibration, aside = (
        _ours(data, config) if method in OURS else _peer(method, data, config)
    )
    good, bad = score(data.normal), score(data.anomalous)
    y = np.repeat([0, 1], [len(good), len(bad)])
    return {
        "auroc": auroc(y, np.concatenate([good, bad])),
        "found": float(calibration.is_anomalous(bad).mean()),
        "false_alarms": float(calibration.is_anomalous(good).mean()),
        "n_wrong": data.n_wrong,
        "n_train": len(data.train),
        "n_normal": len(good),
        "n_anomalous": len(bad),
        **aside,
    }


def _ours(data: Data, config: Config) -> tuple[Any, Calibration, Row]:
    with tempfile.TemporaryDirectory(prefix="historyad-") as folder:
        run = RunDirectory(folder)
        model = fit_model(open_source(data.train), config, run)
        suspects = run.read_suspects()
    first_wrong = len(data.train) - data.n_wrong
    aside = {"wrong_set_aside": sum(one.row >= first_wrong for one in suspects)}
    return model.anomaly_score, model.calibration, aside


def _peer(method: str, data: Data, config: Config) -> tuple[Any, Calibration, Row]:
    rows, held_out = split_rows(len(data.train), config)
    fitted = peer(method, config.seed).fit(data.train[rows])
    scores = np.asarray(fitted.anomaly_score(data.train[held_out]), np.float32)
    return fitted.anomaly_score, Calibration.fit(scores, config.false_positive_rate), {}


if __name__ == "__main__":
    main()
