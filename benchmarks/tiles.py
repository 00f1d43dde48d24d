"""Measure anomaly maps on magnetic tiles: rows for docs/rows/tiles.

    python benchmarks/tiles.py [--seeds 1 2 3] [--half report|development] [--views all|history]

Settings were chosen on the development half of the test images alone: of each kind, good tiles
among them, the files in the order of their names, permuted by numpy's default_rng(7), the first
half. What is reported is measured on the other half. Six `uneven` masks are empty; those images
count where images are scored, not where pixels are.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from speed import machine

from historyad.config import make_config
from historyad.datasets import Source, open_source, read_masks
from historyad.estimator import fit_model
from historyad.evaluation import judge, judge_pixels
from historyad.model import Model
from historyad.storage import RunDirectory, versions

Row = dict[str, Any]

ROWS = Path(__file__).parent.parent / "docs" / "rows" / "tiles" / "rows.jsonl"
KINDS = ("blowhole", "break", "crack", "fray", "uneven")
SETTINGS = {
    "patch": 32,
    "scales": 2,
    "contrast": "local",
    "augment": "flip,flip-vertical",
    "calibration_share": 0.2,  # the 100 images that a false-positive rate of 1 % needs
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--half", choices=("report", "development"), default="report")
    parser.add_argument("--views", choices=("all", "history"), default="all")
    parser.add_argument("--epoch-images", type=int, default=0, help="0: that of the default")
    data = os.environ.get("HISTORYAD_DATA", ".")
    parser.add_argument("--data-root", type=Path, default=Path(data))
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    root = arguments.data_root / "industrial" / "magnetic_tile"
    for seed in arguments.seeds:
        row = {
            **measure(root, seed, arguments),
            "versions": versions(),
            "machine": machine(),
            "command": shlex.join(["python", "benchmarks/tiles.py", *sys.argv[1:]]),
        }
        with arguments.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def measure(root: Path, seed: int, arguments: argparse.Namespace) -> Row:
    """Fit on the good tiles and judge one half of the test tiles, all defects and each kind."""
    settings = {**SETTINGS, "views": arguments.views, "epoch_images": arguments.epoch_images}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="historyad-") as folder:
        train = open_source(root / "train" / "good")
        model = fit_model(train, make_config(**settings, seed=seed), RunDirectory(folder))
    fit_seconds = time.perf_counter() - started
    normal = half_of(open_source(root / "test" / "good"), arguments.half)
    defects = {k: half_of(open_source(root / "test" / k), arguments.half) for k in KINDS}
    scores = {kind: model.anomaly_score(source.samples) for kind, source in defects.items()}
    good = model.anomaly_score(normal.samples)
    return {
        "method": "historyad",
        "seed": seed,
        "half": arguments.half,
        "settings": settings,
        "fit_seconds": fit_seconds,
        "all": judge(good, np.concatenate(list(scores.values()))),
        **{kind: judge(good, found) for kind, found in scores.items()},
        "pixels": _pixels(model, root, normal, defects),
        "false_positive_rate": float((good > model.calibration.threshold).mean()),
        "requested_false_positive_rate": model.calibration.false_positive_rate,
    }


def half_of(source: Source, half: str) -> Source:
    """Return the rows of one half of a folder, as the rule above has it."""
    order = np.random.default_rng(7).permutation(len(source))
    middle = len(source) // 2
    rows = np.sort(order[:middle] if half == "development" else order[middle:])
    names = [source.names[row] for row in rows.tolist()]
    return Source("image", source.samples[rows], names, source.description)


def _pixels(model: Model, root: Path, normal: Source, defects: dict[str, Source]) -> Row:
    sources = list(defects.values())
    masks = [read_masks(root / "ground_truth" / kind, source) for kind, source in defects.items()]
    samples = np.concatenate([source.samples for source in sources])
    names = [name for source in sources for name in source.names]
    return judge_pixels(
        model, normal, Source("image", samples, names, "defects"), np.concatenate(masks)
    )


if __name__ == "__main__":
    main()
