"""Measure one class of CIFAR-10 against the others in the features of lite0: docs/rows/features.

    python -m benchmarks.features.cifar [--seeds 1] [--cells FOLDER]

Of the test images of CIFAR-10, 200 of a class are fitted on and 100 of each class tested with,
drawn by the seed. All see the same cells: ours is the sum of views of `fit --backbone lite0`, with
40 of the 200 held out for its scales; the others see the mean cell of each image.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.features.measure import beside_of, views_of
from benchmarks.features.peers import PooledNeighbours
from benchmarks.measuring import keep, parser_for
from benchmarks.pages import ROWS
from historyad.config import make_config
from historyad.constants import CONSTANTS
from historyad.data.images import Pixels
from historyad.files import read_rows
from historyad.judge.metrics import auroc
from historyad.kinds.cells import CellBatches
from historyad.kinds.features import Features
from historyad.method.detector import random_detector
from historyad.score.features import FeatureScore
from historyad.score.gaussian import Gaussian
from historyad.score.scale import Scale

FITTED, TESTED, HELD_OUT = 200, 100, 40
Cells = NDArray[np.float16]


def main() -> None:
    """Measure each class that is not there."""
    parser = parser_for(__doc__, ROWS / "features" / "cifar.jsonl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--cells", type=Path, default=Path("cells"), help="folder to keep them in")
    root = os.environ.get("HISTORYAD_DATA", ".")
    parser.add_argument("--data-root", type=Path, default=Path(root))
    arguments = parser.parse_args()
    done = {
        (row["class"], row["seed"])
        for row in read_rows(arguments.out)
        if row["side"] == CONSTANTS.backbone_side
    }
    for seed, number in itertools.product(arguments.seeds, range(10)):
        if (number, seed) in done:
            continue
        images = drawn(arguments.data_root / "cifar10" / "test.npz", seed)
        cells = read(images, arguments.cells, seed)
        fitted = cells[number, :FITTED]
        tested = cells[:, FITTED:].reshape(-1, *cells.shape[2:])
        y = np.repeat(np.arange(10) != number, TESTED)
        for method, scores in measured(images[number, :FITTED], fitted, tested, seed).items():
            row = {"class": number, "seed": seed, "side": CONSTANTS.backbone_side, "method": method}
            keep(arguments.out, {**row, "auroc": auroc(y, scores)})


def measured(
    images: Pixels, fitted: Cells, tested: Cells, seed: int
) -> dict[str, NDArray[np.float32]]:
    """Return the scores that each method gives, by cells (N, places, features) of ``images``."""
    pooled, others = (cells.mean(1, dtype=np.float32) for cells in (fitted, tested))
    mean, deviation = pooled.mean(0), pooled.std(0)
    scaled = [torch.from_numpy((x - mean) / deviation) for x in (pooled, others)]
    neighbours = PooledNeighbours(seed).fit(torch.from_numpy(pooled)[:, None])
    return {
        "ours": ours(images, fitted, tested, seed),
        "5 neighbours, pooled": neighbours.scores(torch.from_numpy(others)[:, None]).numpy(),
        "Gaussian, pooled": Gaussian.fit(scaled[0], ridge=CONSTANTS.map_ridge)(scaled[1]).numpy(),
    }


def ours(images: Pixels, fitted: Cells, tested: Cells, seed: int) -> NDArray[np.float32]:
    """Return the scores of the default."""
    config = make_config(backbone="lite0", seed=seed)
    kind = Features.choose((32, 32, 3), config)
    held_out, cells = fitted[:HELD_OUT], fitted[HELD_OUT:]
    damaged = kind.damage_some(images, np.arange(HELD_OUT, FITTED), config)
    networks = kind.networks(config)
    batches = CellBatches(cells, networks, seed, "cpu", trains=False, damaged=damaged)
    score = kind.fit_score(random_detector(networks, config), batches, config).eval()
    assert isinstance(score, FeatureScore)
    views = _views(score, held_out)
    scale = Scale(len(views))
    scale.fit(views.flatten(1))
    totals = _totals(score, scale, held_out)
    on_scale = Scale(len(totals))
    on_scale.fit_tail(totals)
    found: NDArray[np.float32] = on_scale(_totals(score, scale, tested)).sum(0).numpy()
    return found


def _views(score: FeatureScore, cells: Cells) -> Tensor:
    return torch.from_numpy(views_of(score, cells))


def _totals(score: FeatureScore, scale: Scale, cells: Cells) -> Tensor:
    """Return the worst cells of images, and the views beside them, (views, N)."""
    views = _views(score, cells)
    maps = scale(views.flatten(1)).view(views.shape).sum(0)
    return torch.cat([score.worst_of(maps[:, None])[None], beside_of(score, cells)])


def drawn(path: Path, seed: int) -> Pixels:
    """Return as many images of each class as are used, (10, n, 32, 32, 3)."""
    with np.load(path) as content:
        images, labels = content["images"], content["labels"]
    random, n = np.random.default_rng(seed), FITTED + TESTED
    rows = [random.permutation(np.flatnonzero(labels == number))[:n] for number in range(10)]
    found: Pixels = images[np.stack(rows)]
    return found


def read(images: Pixels, folder: Path, seed: int) -> Cells:
    """Return the cells of images (10, n, H, W, C), (10, n, places, features)."""
    file = folder / f"cifar10-{seed}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = Features.choose(images.shape[2:], make_config(backbone="lite0"))
        flat = images.reshape(-1, *images.shape[2:])
        found = kind.extract(flat, np.arange(len(flat)))
        np.save(file, found.reshape(*images.shape[:2], *found.shape[1:]))
    return np.asarray(np.load(file, mmap_mode="r"))


if __name__ == "__main__":
    main()
