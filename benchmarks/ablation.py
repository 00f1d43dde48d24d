"""Measure every view of a fitted detector alone, and sums of views, for docs/ablation.md.

    python benchmarks/ablation.py [--split mnist-without-0 ...] [--seeds 0] [--preset default]

It fits the detector of ``preset`` on each split, puts companions on every layer of D_TV and of the
averaged critic (eq. 14), and appends one row for each view and each sum to --out; splits that have
rows are skipped, and with --runs, so are fits that are there. `ablation_page.py` writes the page.
Only splits and seeds on which settings are chosen belong here.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pages import ROWS
from torch import Tensor

from historyad.batches import Batches
from historyad.benchmark import read_rows
from historyad.blocks import CANDIDATES, Blocks, Edges, Grey
from historyad.companions import Gaussian, Neighbours, samples_to_fit
from historyad.config import Config, make_config
from historyad.detector import Detector, in_batches
from historyad.environment import versions
from historyad.estimator import fit_model, split_rows
from historyad.history import History
from historyad.metrics import auprc, auroc
from historyad.model import VERSION, Model
from historyad.preprocessing import Preprocessing
from historyad.splits import Split, load_split
from historyad.storage import RunDirectory, load_json
from historyad.views import (
    IMAGE_RIDGE,
    RANGE,
    SMALLEST_SPREAD,
    SMALLEST_SPREAD_OF_HISTORY,
    ImageCompanions,
    Views,
    raw_views,
)

Row = dict[str, Any]
Scores = dict[str, NDArray[np.float32]]  # of held-out, normal and anomalous samples

MOST = 3000  # held-out, normal and anomalous samples that are scored, each, evenly spread

OUT = ROWS / "ablation" / "rows.jsonl"
SPLITS = (
    "mnist-vs-kmnist",
    *(f"mnist-without-{digit}" for digit in range(5)),
    *("fashion-only-0", "fashion-only-1", "mnist-only-3", "svhn-vs-celeba"),
    *("celeba-vs-svhn", "cifar10-vs-svhn"),
)
# Weights of views in sums; of "view > a" what exceeds a, on the scale of the score.
HISTORY, PATTERN, ALL_NEAR = "history", "features cosine", "hidden euclid"
NEAR = "hidden euclid, near by features"
PLAIN = ", plain"  # distances that are not relative to the gaps between normal samples
UNEQUAL = ", components as they vary"
GAUSSIAN = "pixels gaussian"
LESS = {times: f"{GAUSSIAN}, less {times} x its neighbours'" for times in (1, 2)}
LESS_FEATURES = {times: f"features gaussian, less {times} x its neighbours'" for times in (1, 2)}
FAR = f"{LESS[2]} > {ImageCompanions.rules['gaussian'][1]:g}"
SIMPLICITY = "simplicity"
PLAINER = f"{SIMPLICITY} > {ImageCompanions.rules['simplicity'][1]:g}"
BLOCKS = "blocks, near by features"
EDGES = "edges of blocks, near by features"
# Steps of blocks in each variant; that of the score is measured as one of its views.
MOVES = {", none moved": 0, ", moved by a pixel": 1, ", moved by two": 2}
STAY, BY_ONE, BY_TWO = MOVES
SUM = "sum: "
# The terms of sums that are views of the score.
TERMS = {
    **{"history": HISTORY, "pattern": PATTERN, "neighbours": NEAR},
    **{"blocks": BLOCKS, "edges": EDGES},
    **{"gaussian": FAR, "simplicity": PLAINER, "features": LESS_FEATURES[1]},
}
DEFAULT = {TERMS[view]: weight for view, (weight, _) in ImageCompanions.rules.items()}


def _default(**changes: float) -> dict[str, float]:
    """Return the default's weights with others for some views; 0 leaves one out."""
    changed = DEFAULT | {TERMS[view]: weight for view, weight in changes.items()}
    return {name: weight for name, weight in changed.items() if weight}


SUMS: dict[str, dict[str, float]] = {
    "default": DEFAULT,
    "without history": _default(history=0),
    "without pattern": _default(pattern=0),
    "without neighbours": _default(neighbours=0),
    "without blocks": _default(blocks=0),
    "without gaussian": _default(gaussian=0),
    "without simplicity": _default(simplicity=0),
    "without features": _default(features=0),
    "history 1": _default(history=1),
    "pattern 2": _default(pattern=2),
    "without edges": _default(edges=0),
    "without edges and simplicity, and the weights that were best then": {
        **{HISTORY: 0.5, PATTERN: 1, NEAR: 6, BLOCKS: 12, f"{LESS[2]} > 1.5": 8},
        **{LESS_FEATURES[1]: 2},
    },
    "neighbours 6": _default(neighbours=6),
    "neighbours 14": _default(neighbours=14),
    "blocks 8": _default(blocks=8),
    "blocks 16": _default(blocks=16),
    "edges 12": _default(edges=12),
    "edges 20": _default(edges=20),
    "features 2": _default(features=2),
    "features 6": _default(features=6),
    "gaussian 10": _default(gaussian=10),
    "gaussian 18": _default(gaussian=18),
    "gaussian always": _default(gaussian=0) | {LESS[2]: 14},
    "gaussian beyond 1.5": _default(gaussian=0) | {f"{LESS[2]} > 1.5": 14},
    "gaussian beyond 2": _default(gaussian=0) | {f"{LESS[2]} > 2": 14},
    "gaussian less its neighbours' once": _default(gaussian=0) | {f"{LESS[1]} > 1": 14},
    "gaussian by itself": _default(gaussian=0) | {f"{GAUSSIAN} > 1": 14},
    "simplicity 20": _default(simplicity=20),
    "simplicity 40": _default(simplicity=40),
    "simplicity always": _default(simplicity=0) | {SIMPLICITY: 30},
    "simplicity beyond 0.5": _default(simplicity=0) | {f"{SIMPLICITY} > 0.5": 30},
    "simplicity beyond 1": _default(simplicity=0) | {f"{SIMPLICITY} > 1": 30},
    "simplicity beyond 1, and 50": _default(simplicity=0) | {f"{SIMPLICITY} > 1": 50},
    "features by themselves": _default(features=0) | {"features gaussian": 4},
    "features less their neighbours' twice": _default(features=0) | {LESS_FEATURES[2]: 4},
    "neighbours among all": _default(neighbours=0) | {ALL_NEAR: 10},
    "blocks that stay": _default(blocks=0) | {BLOCKS + STAY: 12},
    "blocks that move by two pixels": _default(blocks=0) | {BLOCKS + BY_TWO: 12},
    "edges that stay": _default(edges=0) | {EDGES + STAY: 16},
    "edges that move by a pixel": _default(edges=0) | {EDGES + BY_ONE: 16},
    "edges instead of blocks": _default(blocks=0, edges=28),
    "pixels besides": DEFAULT | {"pixels cosine": 5},
    "pixels instead of blocks": _default(blocks=0) | {"pixels cosine": 5},
    "features by euclid besides": DEFAULT | {"features euclid": 3},
    "averaged critic besides": DEFAULT | {"averaged critic's features euclid": 2},
    "blocks, edges, gaussian and simplicity": {BLOCKS: 12, EDGES: 16, FAR: 14, PLAINER: 30},
    "history and pixels gaussian": {HISTORY: 1, GAUSSIAN: 1},
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", nargs="+", default=SPLITS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--runs", type=Path, help="folder in which fits are kept")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for split in arguments.split:
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as temporary:
                runs = arguments.runs or Path(temporary)
                _measure(split, seed, arguments.preset, runs, arguments.out)
    return 0


def _measure(split: str, seed: int, preset: str, runs: Path, out: Path) -> None:
    keys = {"split": split, "seed": seed, "preset": preset}
    if any(keys.items() <= row.items() for row in read_rows(out)):
        return
    started = time.process_time()
    config = make_config(preset, seed=seed)
    views, prevalence = views_of(load_split(split, seed, None), config, runs / f"{split}-{seed}")
    with out.open("a") as file:
        for name, scores in [*views.items(), *sums_of(views)]:
            y = np.repeat([0, 1], [len(scores["normal"]), len(scores["anomalous"])])
            score = np.concatenate([scores["normal"], scores["anomalous"]])
            row = {**keys, "what": name, "auroc": auroc(y, score), "auprc": auprc(y, score)}
            row |= {"prevalence": prevalence, "versions": versions(), "model_version": VERSION}
            row["command"] = shlex.join(["python", "benchmarks/ablation.py", *sys.argv[1:]])
            file.write(json.dumps(row) + "\n")
    print(
        f"{split} seed {seed}: {time.process_time() - started:.0f} s of processor time", flush=True
    )


def views_of(split: Split, config: Config, folder: Path) -> tuple[dict[str, Scores], float]:
    """Return what every view says of the split's samples, and the share of anomalous ones."""
    run = RunDirectory(folder)
    model = Model.load(folder) if run.is_finished else fit_model(split.train, config, run)
    resolved = make_config(**load_json(run.config)["config"])
    prepare = model.preprocessing
    critic = History(run.history, resolved, prepare.network_shape).average_critic().eval()
    train, held_out = split_rows(len(split.train), config)
    samples = {
        "held out": split.train.samples[held_out],
        "normal": split.normal.samples,
        "anomalous": split.anomalous.samples,
    }
    batches = Batches(split.train.samples, prepare=prepare, seed=config.seed, rows=train)
    normal = batches.at(0, min(len(batches), samples_to_fit(batches.shape)))
    assert isinstance(model.detector, Views)
    detector = model.detector.detector
    score_views = {"history": detector, **_companions(detector, normal, "")}
    score_views |= _companions(Detector([critic]), normal, "averaged critic's ")
    score_views |= _blocks(model.detector, normal)
    samples = {key: some(x) for key, x in samples.items()}
    found = _of_the_score(model.detector, samples, prepare)
    with torch.inference_mode():
        for name, view in score_views.items():
            found[name] = {key: in_batches(view, x, prepare) for key, x in samples.items()}
    n_normal, n_anomalous = len(split.normal), len(split.anomalous)
    return found, n_anomalous / (n_normal + n_anomalous)


def some(samples: NDArray[Any]) -> NDArray[Any]:
    """Return at most ``MOST`` of the samples (N, ...), evenly spread."""
    return samples[np.linspace(0, len(samples) - 1, min(len(samples), MOST)).astype(int)]


def _companions(
    detector: Detector, normal: Tensor, prefix: str
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return each companion on each layer, fitted on ``normal``."""
    layers: dict[str, Callable[[Tensor], Tensor]] = {
        "features": lambda x: detector.scores_and_features(x)[1],
        "hidden": lambda x: detector.scores_and_features(x)[2],
    }
    if not prefix:
        layers["pixels"] = lambda x: x.flatten(1)
    views: dict[str, Callable[[Tensor], Tensor]] = {}
    for layer_name, layer in layers.items():
        with torch.inference_mode():
            x = torch.cat([layer(part) for part in torch.split(normal, 512)])
        fitted: dict[str, torch.nn.Module] = {"gaussian": Gaussian.fit(x, ridge=IMAGE_RIDGE)}
        for metric in ("cosine", "euclid"):
            relative = Neighbours.fit(x, cosine=metric == "cosine", project=True)
            fitted |= {metric: relative, metric + PLAIN: _plain(relative)}
            if metric == "cosine":
                fitted[metric + UNEQUAL] = _as_they_vary(relative, x)
        for name, companion in fitted.items():
            views[f"{prefix}{layer_name} {name}"] = _after(layer, companion)
    return views


def _of_the_score(
    views: Views, samples: dict[str, NDArray[Any]], prepare: Preprocessing
) -> dict[str, Scores]:
    """Return what the score makes of the companions that it has."""
    companions = views.companions
    assert isinstance(companions, ImageCompanions)

    def gaussians(x: Tensor) -> Tensor:
        features = views.detector.scores_and_features(x)[1]
        return torch.stack([companions.gaussian(x), companions.features(features)], 1)

    found: dict[str, Scores] = defaultdict(dict)
    for key, x in samples.items():
        raw = dict(zip(views.names, raw_views(views, x, prepare).T, strict=True))
        with torch.inference_mode():
            of_pixels, of_features = in_batches(gaussians, x, prepare).T
        found[NEAR][key] = raw["neighbours"]
        found[BLOCKS][key] = raw["blocks"]
        found[EDGES][key] = raw["edges"]
        found[SIMPLICITY][key] = raw["simplicity"]
        found[LESS[1]][key] = (of_pixels + raw["gaussian"]) / 2
        found[LESS[2]][key] = raw["gaussian"]
        found[LESS_FEATURES[1]][key] = raw["features"]
        found[LESS_FEATURES[2]][key] = 2 * raw["features"] - of_features
    return found


def _moving(steps: int) -> type[Blocks]:
    """Return blocks that move by so many steps, by grey values and by edges."""

    class Moving(Blocks):
        def __init__(self, side: int, n_bank: int) -> None:
            super().__init__(side, n_bank)
            for name, look in (("grey", Grey), ("edges", Edges)):
                kind = type(look.__name__, (look,), {"steps": steps})
                setattr(self, name, kind(self.n_cells // 2))

    return Moving


def _blocks(views: Views, normal: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return variants of the blocks of the score, by grey values and by edges."""
    companions = views.companions
    assert isinstance(companions, ImageCompanions)
    pattern = companions.pattern
    plain = copy.deepcopy(companions.blocks)
    plain.gaps.fill_(1)
    variants = {PLAIN: plain}
    with torch.inference_mode():
        others = copy.deepcopy(pattern).fit_gaps(pattern.candidates_of_bank(), CANDIDATES)
        for name, steps in MOVES.items():
            variants[name] = _moving(steps).fit(normal[: len(others)], others)

    def after(blocks: Blocks, look: int) -> Callable[[Tensor], Tensor]:
        def view(x: Tensor) -> Tensor:
            places = pattern.place(views.detector.scores_and_features(x)[1])
            others = pattern.nearest(places, pattern.candidates(places), CANDIDATES)[1]
            return blocks(x, others)[look]  # type: ignore[no-any-return]

        return view

    return {
        f"{view}{name}": after(blocks, look)
        for look, (view, kind) in enumerate(((BLOCKS, Grey), (EDGES, Edges)))
        for name, blocks in variants.items()
        if MOVES.get(name) != kind.steps
    }


def _as_they_vary(neighbours: Neighbours, x: Tensor) -> Neighbours:
    """Return neighbours on principal components that were not brought closer in variance."""
    other = copy.deepcopy(neighbours)
    other.components /= other.components.norm(dim=1, keepdim=True)
    other.bank.copy_(other.place(x[: len(other.bank)]))
    other.fit_gaps(other.candidates_of_bank())
    return other


def _plain(neighbours: Neighbours) -> Neighbours:
    """Return the same neighbours, whose distances are relative to nothing."""
    plain = copy.deepcopy(neighbours)
    plain.gaps.fill_(1)
    return plain


def _after(
    layer: Callable[[Tensor], Tensor], companion: torch.nn.Module
) -> Callable[[Tensor], Tensor]:
    return lambda x: companion(layer(x))  # type: ignore[no-any-return]


def sums_of(views: dict[str, Scores]) -> Iterator[tuple[str, Scores]]:
    """Yield each weighted sum of `SUMS`, of views standardised as the score does it."""
    scale = {name: _standardised(name, scores) for name, scores in views.items()}
    for title, weights in SUMS.items():
        total: Scores = {}
        for term, weight in weights.items():
            name, _, floor = term.partition(" > ")
            for key, values in scale[name].items():
                counted = np.maximum(values, float(floor)) if floor else values
                total[key] = total.get(key, np.float32(0)) + weight * counted
        yield SUM + title, total


def _standardised(name: str, scores: Scores) -> Scores:
    held_out = scores["held out"]
    center = np.median(held_out)
    smallest = SMALLEST_SPREAD_OF_HISTORY if name == HISTORY else SMALLEST_SPREAD
    spread = max(np.quantile(held_out, RANGE) - center, smallest)
    return {key: (values - center) / spread for key, values in scores.items()}


if __name__ == "__main__":
    sys.exit(main())
