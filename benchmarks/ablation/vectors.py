"""Measure the companions of vectors and what might take their place, alone and in sums.

    python -m benchmarks.ablation.vectors

They are fitted without D_TV, in a minute or two, on the tables and seeds on which settings are
chosen, and written to docs/rows/ablation/vectors.jsonl.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from torch import Tensor

from benchmarks.measuring import command_line
from benchmarks.pages import ROWS
from historyad.config import make_config
from historyad.constants import CONSTANTS
from historyad.environment import machine, versions
from historyad.files import append_rows
from historyad.judge.metrics import auroc
from historyad.kinds.choose import choose_kind
from historyad.model.split import split_rows
from historyad.research.splits import load_split
from historyad.score.gaussian import Gaussian
from historyad.score.neighbours import Neighbours
from historyad.score.scale import Scale

View = Callable[[Tensor], Tensor]
Scores = dict[str, NDArray[np.float32]]  # of held-out, normal and anomalous samples

OUT = ROWS / "ablation" / "vectors.jsonl"
NAMES = ("Ionosphere", "bottle", "cable", "cardio", "carpet", "mammography", "optdigits", "shuttle")
SEEDS = (0, 1, 2)
_MIXED = 8  # neighbours
_SEEN = 1_500  # rows, by a Gaussian process
NEAR, GAUSSIAN = "neighbours", "gaussian"
RESIDUAL, PROCESS = "residual of a mixture of neighbours", "variance of a gaussian process"
DEFAULT = {NEAR: 1, GAUSSIAN: 0.5}
SUMS: dict[str, dict[str, float]] = {
    "neighbours + 1/2 gaussian (the default's)": DEFAULT,
    "neighbours + gaussian": {NEAR: 1, GAUSSIAN: 1},
    "neighbours + 1/2 gaussian + 1/2 isolation forest": {**DEFAULT, "isolation forest": 0.5},
    "neighbours + 1/2 gaussian + 1/2 cosine": {**DEFAULT, "neighbours, cosine": 0.5},
    "neighbours + 1/2 gaussian + 1/2 residual": {**DEFAULT, RESIDUAL: 0.5},
    "neighbours + 1/2 gaussian + 1/2 gaussian process": {**DEFAULT, PROCESS: 0.5},
    "city-block neighbours + 1/2 gaussian": {"neighbours, city block": 1, GAUSSIAN: 0.5},
    "plain neighbours + 1/2 gaussian": {"neighbours, plain": 1, GAUSSIAN: 0.5},
}


def main() -> None:
    """Measure on each table with each seed."""
    facts = {"command": command_line(), "versions": versions(), "machine": machine()}
    rows = []
    for name in NAMES:
        for seed in SEEDS:
            views = _views_of(f"vectors-{name}", seed)
            sums = {title: _sum(views, weights) for title, weights in SUMS.items()}
            rows += [
                {"split": name, "seed": seed, "what": what, "auroc": _auroc(scores), **facts}
                for what, scores in {**views, **sums}.items()
            ]
    OUT.unlink(missing_ok=True)  # the older rows stay until all new ones are there
    append_rows(OUT, rows)


def _views_of(name: str, seed: int) -> dict[str, Scores]:
    """Return what every view says of the split's samples, on the scale of the score."""
    split = load_split(name, seed, None)
    # The threshold is of no account here, and small tables hold out too few rows for a low one.
    config = make_config(seed=seed, false_positive_rate=0.2)
    train, held_out = split_rows(len(split.train), config)
    kind = choose_kind(split.train.samples, config, train)
    samples = {
        "held out": split.train.samples[held_out],
        "normal": split.normal.samples,
        "anomalous": split.anomalous.samples,
    }
    tensors = {key: torch.from_numpy(kind.prepare(x)) for key, x in samples.items()}
    found = {}
    normal = torch.from_numpy(kind.prepare(split.train.samples[train]))
    for what, view in _fit(normal, seed).items():
        with torch.inference_mode():
            raw = {key: view(x) for key, x in tensors.items()}
        scale = Scale(1)
        scale.fit(raw["held out"][None])
        found[what] = {key: scale(values[None])[0].numpy() for key, values in raw.items()}
    return found


def _fit(x: Tensor, seed: int) -> dict[str, View]:
    """Return the companions and what was tried in their place, fitted to normal rows (N, F)."""
    near = Neighbours.of_vectors(x)
    by_cosine = Neighbours.keep(x, len(near.bank), cosine=True)
    by_cosine.fit_gaps(by_cosine.candidates_of_bank())
    forest = IsolationForest(n_estimators=200, random_state=seed).fit(x.numpy())
    return {
        NEAR: partial(_neighbours, near, exponent=0.5),
        "neighbours, plain": partial(_neighbours, near, exponent=0.0),
        "neighbours, by the fourth root of the gap": partial(_neighbours, near, exponent=0.25),
        "neighbours, by the gap": partial(_neighbours, near, exponent=1.0),
        "neighbours, cosine": by_cosine,
        "neighbours, city block": partial(_city_block, x),
        GAUSSIAN: Gaussian.fit(x, ridge=1.0),
        "gaussian, ridge 0.1": Gaussian.fit(x, ridge=0.1),
        "gaussian, ridge 0.01": Gaussian.fit(x, ridge=0.01),
        "isolation forest": lambda rows: torch.from_numpy(-forest.score_samples(rows.numpy())),
        RESIDUAL: partial(_residual, x),
        PROCESS: partial(_log_variance, _process(x, seed)),
    }


def _neighbours(near: Neighbours, rows: Tensor, exponent: float) -> Tensor:
    """Return the mean distance to neighbours by a power of their mean gap, (B,)."""
    places = near.place(rows)
    distances, others = near.nearest(places, near.candidates(places), CONSTANTS.neighbours)
    return distances.mean(1) / near.gaps[others].mean(1) ** exponent


def _city_block(bank: Tensor, rows: Tensor) -> Tensor:
    distances = torch.cdist(rows, bank, p=1).topk(CONSTANTS.neighbours, largest=False).values
    return distances.mean(1)


def _residual(bank: Tensor, rows: Tensor) -> Tensor:
    """Return how far rows (B, F) are from the nearest mixtures of eight of the bank (N, F), (B,).

    The weights sum to 1, as in locally linear embedding (Roweis and Saul, 2000), with its ridge.
    """
    nearest = torch.cdist(rows, bank).topk(min(_MIXED, len(bank)), largest=False).indices
    mean = bank[nearest].mean(1, keepdim=True)
    around, gap = bank[nearest] - mean, rows[:, None] - mean
    products = around @ around.mT
    ridge = 0.1 * products.diagonal(dim1=1, dim2=2).mean(1) + 1e-9
    products += ridge[:, None, None] * torch.eye(products.shape[1])
    weights = torch.linalg.solve(products, around @ gap.mT)
    rest: Tensor = gap - weights.mT @ around
    distances: Tensor = rest.squeeze(1).norm(dim=1)
    return distances


def _process(x: Tensor, seed: int) -> GaussianProcessRegressor:
    """Return a process on a part of the rows (N, F), whose scale is half their median distance."""
    random = torch.Generator().manual_seed(seed)
    part = x[torch.randperm(len(x), generator=random)[:_SEEN]]
    kernel = RBF(float(torch.pdist(part).median()) / 2, "fixed")
    return GaussianProcessRegressor(kernel, alpha=0.1).fit(part, torch.zeros(len(part)))


def _log_variance(process: GaussianProcessRegressor, rows: Tensor) -> Tensor:
    """Return the logarithm of how unsure the process is of each row, (B,)."""
    deviation = process.predict(rows, return_std=True)[1]
    return 2 * torch.from_numpy(deviation).clamp(min=1e-5).log()


def _sum(views: dict[str, Scores], weights: dict[str, float]) -> Scores:
    keys = next(iter(views.values()))
    return {
        key: np.sum([weight * views[name][key] for name, weight in weights.items()], axis=0)
        for key in keys
    }


def _auroc(scores: Scores) -> float:
    y = np.repeat([0, 1], [len(scores["normal"]), len(scores["anomalous"])])
    return float(auroc(y, np.concatenate([scores["normal"], scores["anomalous"]])))


if __name__ == "__main__":
    main()
