"""Measure anomaly maps on magnetic tiles: rows for docs/rows/tiles.

    python -m benchmarks.tiles.measure [--seeds 1 2 3] [--method NAME ...]
        [--half report|development]

Settings were chosen on the development half of the test images alone: of each kind, good tiles
among them, the files in the order of their names, permuted by numpy's default_rng(7), the first
half. What is reported is measured on the other half. Six `uneven` masks are empty; those images
count where images are scored, not where pixels are. A row that is there is not measured again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from benchmarks.tiles.peers import PEERS, Maps, Pixels, fit_windows, window_maps, worst_of
from benchmarks.tiles.picture import draw
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.data.sources import Source
from historyad.files import read_rows
from historyad.judge.evaluation import judge, judge_maps, read_masks
from historyad.kinds.crops import Crops
from historyad.method.networks import initialise
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.model.split import split_rows
from historyad.randomness import Stream, torch_generator
from historyad.score.decide import decide
from historyad.score.maps import MapScore

KINDS = ("blowhole", "break", "crack", "fray", "uneven")
SETTINGS: dict[str, Any] = {
    "patch": 32,
    "scales": 2,
    "contrast": "local",
    "augment": "flip,flip-vertical",
    "calibration_share": 0.2,  # the 100 images that a false-positive rate of 1 % needs
}
EPOCH_IMAGES = 12_500  # a quarter of the default's, to save time
ELSEWHERE = 24  # pixels from a defect: three cells
OURS = ("historyad", "history alone", "untrained networks")


@dataclass(frozen=True)
class Fitted:
    """What a method makes of images: a score for each, and a map for each."""

    score: Callable[[Pixels], NDArray[np.floating]]
    maps: Callable[[Pixels], Maps]
    threshold: float | None = None


def main() -> None:
    """Measure each method with each seed."""
    parser = parser_for(__doc__, ROWS / "tiles" / "rows.jsonl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--method", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    parser.add_argument("--half", choices=("report", "development"), default="report")
    parser.add_argument("--epoch-images", type=int, default=EPOCH_IMAGES)
    parser.add_argument("--runs", type=Path, help="keep fitted detectors here, and find them again")
    data = os.environ.get("HISTORYAD_DATA", ".")
    parser.add_argument("--data-root", type=Path, default=Path(data))
    parser.add_argument("--picture", type=Path, help="draw found and missed defects, seed 1")
    arguments = parser.parse_args()
    root = arguments.data_root / "industrial" / "magnetic_tile"
    there = {(row["seed"], row["method"], row["half"]) for row in read_rows(arguments.out)}
    with tempfile.TemporaryDirectory(prefix="historyad-") as folder:
        runs = arguments.runs or Path(folder)
        for seed, method in product(arguments.seeds, arguments.method):
            if (seed, method, arguments.half) not in there:
                keep(arguments.out, measure(method, root, seed, runs, arguments))


def measure(method: str, root: Path, seed: int, runs: Path, arguments: argparse.Namespace) -> Row:
    """Fit on the good tiles and judge one half of the test tiles, all defects and each kind."""
    started = time.perf_counter()
    fitted = fit(method, root, seed, runs, arguments.epoch_images)
    fit_seconds = time.perf_counter() - started
    normal, defects = halves(root, arguments.half)
    started = time.perf_counter()
    good = fitted.score(normal.samples)
    score_seconds = time.perf_counter() - started
    scores = {kind: fitted.score(source.samples) for kind, source in defects.items()}
    truth = root / "ground_truth"
    masks = {k: np.stack(read_masks(truth / k, source)) for k, source in defects.items()}
    if arguments.picture and method == OURS[0] and seed == 1:
        draw(fitted.maps, normal, good, defects, scores, masks, arguments.picture)
    return {
        "method": method,
        "seed": seed,
        "half": arguments.half,
        "settings": SETTINGS | {"epoch_images": arguments.epoch_images} if method in OURS else None,
        "fit_seconds": fit_seconds,
        "images_per_second": len(good) / score_seconds,
        "all": judge(good, np.concatenate(list(scores.values()))),
        **{kind: judge(good, found) for kind, found in scores.items()},
        "pixels": _pixels(fitted, normal, defects, masks),
        "threshold": fitted.threshold,
        "false_positives": None
        if fitted.threshold is None
        else int((good > fitted.threshold).sum()),
        "n_good": len(good),
    }


def fit(method: str, root: Path, seed: int, runs: Path, epoch_images: int) -> Fitted:
    """Fit a method on the good tiles of the training folder."""
    train = open_source(root / "train" / "good")
    if method in PEERS:
        detector = PEERS[method](seed)
        fit_windows(detector, train.samples)
        maps = partial(window_maps, detector)
        return Fitted(lambda images: worst_of(maps(images)), maps)
    config = make_config(**SETTINGS, epoch_images=epoch_images, seed=seed)
    model = fit_model(train, config, RunDirectory(runs / f"tiles-{seed}"))
    if method != OURS[0]:
        model = varied(method, model, train)
    return Fitted(
        model.anomaly_score,
        lambda images: np.stack(model.maps(images)),
        model.calibration.threshold,
    )


def halves(root: Path, half: str) -> tuple[Source, dict[str, Source]]:
    """Return one half of the good test tiles, and of those with each kind of defect."""
    test = root / "test"
    defects = {kind: half_of(open_source(test / kind), half) for kind in KINDS}
    return half_of(open_source(test / "good"), half), defects


def half_of(source: Source, half: str) -> Source:
    """Return the rows of one half of a folder, as the rule above has it."""
    order = np.random.default_rng(7).permutation(len(source))
    middle = len(source) // 2
    rows = np.sort(order[:middle] if half == "development" else order[middle:])
    names = [source.names[row] for row in rows.tolist()]
    return Source("image", source.samples[rows], names, source.description)


def _pixels(
    fitted: Fitted, normal: Source, defects: dict[str, Source], masks: dict[str, NDArray[np.bool_]]
) -> Row:
    """Judge the maps, of all defects and of each kind, and what they say away from a defect."""
    good = fitted.maps(normal.samples)
    marked = {kind: mask.any((1, 2)) for kind, mask in masks.items()}
    maps = {kind: fitted.maps(defects[kind].samples[marked[kind]]) for kind in KINDS}
    truth = {kind: masks[kind][marked[kind]] for kind in KINDS}
    all_maps, all_truth = (np.concatenate(list(found.values())) for found in (maps, truth))
    return {
        "all": judge_maps(good, all_maps, [*all_truth]),
        **{kind: judge_maps(good, maps[kind], [*truth[kind]]) for kind in KINDS},
        "elsewhere": elsewhere(good, all_maps, all_truth),
    }


def elsewhere(good: Maps, maps: Maps, masks: NDArray[np.bool_]) -> float:
    """Return how often a tile looks worse than a good one where it has no defect either.

    Both are compared by the 98th percentile over the same pixels, at least 24 from the mask; tiles
    that have no half of their pixels there are left out. It is 0.5 when only the defect is seen.
    """
    wins = []
    for values, mask in zip(maps, masks, strict=True):
        away = ~binary_dilation(mask, np.ones((3, 3)), iterations=ELSEWHERE)
        if away.mean() > 0.5:
            worst = np.quantile(good[:, away], 0.98, axis=1)
            wins.append((worst < np.quantile(values[away], 0.98)).mean())
    return float(np.mean(wins))


def varied(method: str, model: Model, train: Source) -> Model:
    """Return ``model`` with D_TV's own maps, or with networks of random weights.

    The second tells what training adds to comparing features with those of good tiles.
    """
    config, kind = model.config, model.kind
    assert isinstance(kind, Crops)
    rows, held_out = split_rows(len(train), config)
    if method == "history alone":
        score = MapScore(kind, model.score.d_tv)
    else:
        critic = kind.networks(config).critic()
        initialise(critic, torch_generator(config.seed, Stream.WEIGHTS))
        critic.eval().requires_grad_(False)
        score = MapScore.fit(kind, critic, train.samples, rows, config.seed)
    calibration = decide(score.eval(), train.samples, [(score, held_out)], config)
    return replace(model, score=score, calibration=calibration)


if __name__ == "__main__":
    main()
