"""Measure detectors in the features of lite0: rows for docs/rows/features.

    python -m benchmarks.features.measure [--set tiles cookies screw] [--seeds 1 2 3]
        [--method ours PatchCore ...] [--cells FOLDER]

All see the same cells of the same images, which are kept in a folder. Ours is what `historyad fit
--backbone lite0` makes, its sum of views as it is, without some of them, and each view alone; with
all views, what `--views all` adds to these. Peers see the features of the network alone, as they
were published, and no wavelets. "No network" is `--backbone wavelets`, and "random weights" are
those of a lite0 that learnt nothing. Good training images are split as a fit splits them: peers are
fitted on those that ours trains on. One number of an image is measured both ways: what is more of
it, and what is less. A row that is there is not measured again. Tiles are split by tile, their
training images held out by it, and the interval of their AUROC draws tiles again, not images.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.features.judging import judged, pixel_aurocs
from benchmarks.features.peers import PEERS
from benchmarks.features.sets import RATES, SETS, Data, Images, kind_of, read
from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from historyad.config import Config, make_config
from historyad.constants import CONSTANTS
from historyad.files import read_rows
from historyad.kinds.cells import CellBatches
from historyad.kinds.features import Features
from historyad.method.detector import random_detector, train_detector
from historyad.method.gan import record_history
from historyad.method.history import History, resolve
from historyad.method.networks import Critic
from historyad.model.split import split_rows
from historyad.score.calibration import Calibration
from historyad.score.features import FeatureScore
from historyad.score.scale import Scale
from historyad.score.spread import sums_of

OURS = {  # the backbone, and what makes the score
    "ours": ("lite0", "auto"),
    "ours, all views": ("lite0", "all"),
    "no network": ("wavelets", "auto"),
    "random weights": ("random", "auto"),
}
NUMBERS = "one number"  # of an image, which knows nothing of training
METHODS = [*OURS, *PEERS, NUMBERS]
_ALL = slice(None)


def main() -> None:
    """Measure each method on each set with each seed."""
    parser = parser_for(__doc__, ROWS / "features" / "rows.jsonl")
    parser.add_argument("--set", nargs="+", choices=[*SETS], default=[*SETS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--preset", choices=("default", "quick"), default="default")
    parser.add_argument("--side", type=int, default=CONSTANTS.backbone_side)
    parser.add_argument("--cells", type=Path, default=Path("cells"), help="folder to keep them in")
    root = os.environ.get("HISTORYAD_DATA", ".")
    parser.add_argument("--data-root", type=Path, default=Path(root))
    arguments = parser.parse_args()
    done = {
        (r["set"], r["fit"], r["seed"], r["side"])
        for r in read_rows(arguments.out)
        if r["fit"] not in OURS or r["preset"] == arguments.preset
    }
    for name, seed in itertools.product(arguments.set, arguments.seeds):
        wanted = [m for m in arguments.method if (name, m, seed, arguments.side) not in done]
        if not wanted:
            continue
        for method in wanted:
            backbone, views = OURS.get(method, ("lite0", "auto"))
            config = make_config(
                arguments.preset,
                backbone="lite0" if backbone == "random" else backbone,
                backbone_side=arguments.side,
                views=views,
                seed=seed,
                false_positive_rate=RATES[name],
                calibration_share=0.2,
            )
            root = arguments.data_root / "industrial" / SETS[name]
            data = read(name, root, arguments.cells, config, backbone)
            for row in measured(method, data, config):
                facts = {"set": name, "fit": method, "seed": seed, "side": arguments.side}
                facts["preset"] = arguments.preset
                keep(arguments.out, {**facts, **row})


def measured(method: str, data: Data, config: Config) -> list[Row]:
    """Return a row for each score that a method makes."""
    groups = np.unique(data.train.groups, return_inverse=True)[1]
    train, held_out = split_rows(len(data.train.cells), config, groups)
    if method in OURS:
        kind = kind_of(data.train.source, config, OURS[method][0])
        return ours(kind, data, config, groups, train, held_out)
    if method == NUMBERS:
        return of_numbers(data, config, held_out)
    kind = kind_of(data.train.source, config, "lite0")
    n_learnt = sum(part.n_features for part in kind.parts if not part.of_filters)

    def cells(images: Images, rows: NDArray[np.intp] | slice = _ALL) -> Tensor:
        return _floats(images.cells[rows, :, :n_learnt])

    started = time.perf_counter()
    detector = PEERS[method](config.seed).fit(cells(data.train, train))
    fit_seconds = time.perf_counter() - started
    calibrated = detector.scores(cells(data.train, held_out)).numpy()
    threshold = Calibration.fit(calibrated, config.false_positive_rate).threshold
    started = time.perf_counter()
    scores = [detector.scores(cells(part)).numpy() for part in data.tested]
    seconds = time.perf_counter() - started
    maps = [detector.maps(cells(part)).numpy() for part in data.tested]
    row = {**judged(data, scores, threshold), **pixel_aurocs(data, maps)}
    return [{"method": method, **row, "fit_seconds": fit_seconds, "score_seconds": seconds}]


def ours(
    kind: Features,
    data: Data,
    config: Config,
    groups: NDArray[np.intp],
    train: NDArray[np.intp],
    held_out: NDArray[np.intp],
) -> list[Row]:
    """Return a row for our sum of views, and for parts of it: of those that this fit is for."""
    config = resolve(config, len(train))
    trains = kind.trains(config)
    started = time.perf_counter()
    batches = CellBatches(
        data.train.cells[train],
        kind.networks(config),
        config.seed,
        "cpu",
        trains=trains,
        groups=groups[train],
        damaged=kind.damage_some(data.train.source.samples, train, config),
    )
    d_tv = _trained(batches, config) if trains else random_detector(batches.networks, config)
    train_seconds = time.perf_counter() - started
    started = time.perf_counter()
    score = kind.fit_score(d_tv, batches, config).eval()
    assert isinstance(score, FeatureScore)
    fit_seconds = time.perf_counter() - started
    names = score.cell_views
    parts = [data.train.cells[held_out], *(part.cells for part in data.tested)]
    views = [views_of(score, cells) for cells in parts]
    scale = Scale(len(names))
    scale.fit(torch.from_numpy(views[0]).flatten(1), smallest=score.smallest_spreads())
    both = [beside_of(score, cells) for cells in parts]
    beside = {name: [one[n] for one in both] for n, name in enumerate(score.beside)}

    def row(some: Sequence[int], beside: Mapping[str, Sequence[Tensor]]) -> Row:
        maps = [_total(scale, values, some) for values in views]
        worst = [[score.worst_of(torch.from_numpy(m)[:, None])] * bool(some) for m in maps]
        images = zip(*beside.values(), strict=True) if beside else [()] * len(maps)
        totals = [torch.stack([*w, *i]) for w, i in zip(worst, images, strict=True)]
        on_scale = Scale(len(totals[0]))
        on_scale.fit_tail(totals[0])
        calibrated, *scores = (on_scale(one).sum(0).numpy() for one in totals)
        threshold = Calibration.fit(calibrated, config.false_positive_rate).threshold
        return {
            "method": " + ".join([*(names[i] for i in some), *beside]),
            **judged(data, scores, threshold),
            **pixel_aurocs(data, maps[1:]),
            "train_seconds": train_seconds,
            "fit_seconds": fit_seconds,
        }

    numbers = range(len(names))
    rows = [row(one, {}) for one in ((0,), numbers)] if trains else []
    if not trains:
        rows += [row(one, {}) for one in ((0,), (1,), numbers)]
        rows += [row((), {name: found}) for name, found in beside.items()]
        alone = beside if len(beside) > 1 else {}
        rows += [row(numbers, {name: found}) for name, found in alone.items()]
    return [*rows, row(numbers, beside)]


def of_numbers(data: Data, config: Config, held_out: NDArray[np.intp]) -> list[Row]:
    """Return a row for each single number of an image, and for each direction of it."""
    parts = [one.numbers for one in (data.train, *data.tested)]
    rows = []
    for (name, sign), column in zip(
        itertools.product(("brightness", "mean gradient", "file size"), (1, -1)),
        np.repeat(range(3), 2),
        strict=True,
    ):
        held, *scores = (sign * part[:, column] for part in parts)
        threshold = Calibration.fit(held[held_out], config.false_positive_rate).threshold
        row = {**judged(data, scores, threshold), "pixel_auroc": None}
        rows.append({"method": f"{name}, {'more' if sign > 0 else 'less'}", **row})
    return rows


def _trained(batches: CellBatches, config: Config) -> Critic:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "history", config, batches.networks)
        record_history(batches, history)
        return train_detector(batches, history)


def _total(scale: Scale, values: NDArray[np.float32], some: Sequence[int]) -> NDArray[np.float32]:
    """Return the sum of some views of cells (views, N, places) on their scale, (N, places)."""
    flat = torch.from_numpy(values).flatten(1)
    summed: NDArray[np.float32] = scale(flat)[list(some)].sum(0).numpy()
    return summed.reshape(values.shape[1:])


@torch.inference_mode()
def beside_of(score: FeatureScore, cells: NDArray[np.float16]) -> Tensor:
    """Return what the views beside the map say of images (N, places, features), (views, N)."""
    found = []
    for x in standardised(score, cells):
        views = {"damage": lambda x=x: score.worst_of(score.damage_of(x)[:, None])}
        views["whole"] = lambda x=x: score.whole_of(*sums_of(x), x.shape[1])
        found.append(torch.stack([views[name]() for name in score.beside]))
    return torch.cat(found, 1)


@torch.inference_mode()
def views_of(score: FeatureScore, cells: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the views of cells (N, places, features), (views, N, places)."""
    parts = [score.views_of(x) for x in standardised(score, cells)]
    found: NDArray[np.float32] = torch.cat(parts, 1).numpy()
    return found


def standardised(score: FeatureScore, cells: NDArray[np.float16]) -> Iterator[Tensor]:
    """Yield cells (N, places, features) on their scale, of some images at a time."""
    for start in range(0, len(cells), 64):
        x = _floats(cells[start : start + 64]).transpose(1, 2)[..., None]
        yield score.standardised(x)


def _floats(cells: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(cells.astype(np.float32))


if __name__ == "__main__":
    main()
