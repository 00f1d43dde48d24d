"""Try what D_TV of cells can be trained against, on development data: rows for docs/rows/features.

    python -m benchmarks.features.choose [--set tiles screw] [--cells FOLDER]

Tiles: half of the test groups, with seed 0. Screws: good ones of the training part alone. 70 of
them are not fitted on, and are scored as they are and with a spot of a few pixels, a piece of
another screw. Every variant has the same good cells, whitened alike, and the same network.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from benchmarks.features.measure import beside_of, views_of
from benchmarks.features.sets import RATES, SETS, Data, kind_of, read
from benchmarks.measuring import keep, parser_for
from benchmarks.pages import ROWS
from historyad.backbones.cells import cells_of
from historyad.backbones.defects import damaged
from historyad.config import Config, make_config
from historyad.data.rows import ShuffledSamples
from historyad.files import read_rows
from historyad.judge.metrics import auroc
from historyad.kinds.cells import CellBatches
from historyad.kinds.features import Features
from historyad.method.batches import Batches
from historyad.method.detector import random_detector
from historyad.method.gan import make_adam, record_history, set_learning_rate
from historyad.method.history import History, resolve
from historyad.method.losses import detector_loss
from historyad.method.networks import Critic, VectorNetworks, WideVectorNetworks, initialise
from historyad.model.split import split_rows
from historyad.score.features import FeatureScore
from historyad.score.places import Places
from historyad.score.scale import Scale

_SCREWS_TESTED, _SCREWS_HELD_OUT = 70, 50
_DAMAGED = 200  # images that defects are drawn on
_PARTS = 3  # of the images, each of which is whitened by the others
_HIDDEN, _BATCH, _RATE = 128, 256, 1e-3  # of D_TV
_BOUND_WEIGHT = 10.0
_HISTORY = 20_000  # samples of it
_NOISE = (0.3, 1.5)  # deviations, of whitened cells


@dataclass(frozen=True)
class Variant:
    """Shares of what D_TV is trained against, and how."""

    damaged: float = 1.0
    history: float = 0.0
    noise: float = 0.0
    change: float = 2.0  # mean square by which damage has moved a cell, at least
    steps: int = 1000
    loss: str = "eq. 10"


VARIANTS = {
    "damaged": Variant(),
    "damaged, 400 steps": Variant(steps=400),
    "damaged, 3000 steps": Variant(steps=3000),
    "damaged, moved by .5": Variant(change=0.5),
    "damaged, logistic loss": Variant(loss="logistic"),
    "history": Variant(0, history=1),
    "half history, half damaged": Variant(0.5, history=0.5),
    "noise": Variant(0, noise=1),
    "half noise, half damaged": Variant(0.5, noise=0.5),
    "history, logistic loss": Variant(damaged=0.0, history=1.0, loss="logistic"),
    "half history, half damaged, logistic loss": Variant(0.5, history=0.5, loss="logistic"),
    "half noise, half damaged, logistic loss": Variant(0.5, noise=0.5, loss="logistic"),
    "damaged, 3000 steps, logistic loss": Variant(steps=3000, loss="logistic"),
}


@dataclass(frozen=True)
class Developed:
    """A detector without D_TV, the cells that D_TV can be trained on, and what is scored."""

    score: FeatureScore
    good: Tensor
    bad: tuple[Tensor, Tensor]  # cells of damaged images, and how far damage has moved each
    history: Tensor
    views: list[Tensor]  # of held-out images and of each tested part, (views, n, places)
    whole: list[Tensor]
    placed: list[Tensor]  # their cells on the components of the bank


def main() -> None:
    """Measure each variant on each development set."""
    parser = parser_for(__doc__, ROWS / "features" / "choose.jsonl")
    parser.add_argument("--set", nargs="+", choices=("tiles", "screw"), default=["tiles", "screw"])
    parser.add_argument("--cells", type=Path, default=Path("cells"), help="folder to keep them in")
    root = Path(os.environ.get("HISTORYAD_DATA", "."))
    arguments = parser.parse_args()
    done = {(row["set"], row["variant"]) for row in read_rows(arguments.out)}
    for name in arguments.set:
        wanted = [variant for variant in VARIANTS if (name, variant) not in done]
        if not wanted:
            continue
        config = make_config(
            "default", backbone="lite0", false_positive_rate=RATES[name], calibration_share=0.2
        )
        data = read(name, root / "industrial" / SETS[name], arguments.cells, config)
        found = developed(data, config)
        for variant in wanted:
            row = judged(found, trained(found, VARIANTS[variant], config.seed))
            keep(arguments.out, {"set": name, "variant": variant, "seed": config.seed, **row})


def developed(data: Data, config: Config) -> Developed:
    """Fit all but D_TV."""
    cells, images = data.train.cells, data.train.source.samples
    kind = kind_of(data.train.source, config, "lite0")
    groups = np.unique(data.train.groups, return_inverse=True)[1]
    if data.name == "screw":
        order = np.random.default_rng(0).permutation(len(cells))
        ends = np.cumsum([_SCREWS_TESTED, _SCREWS_HELD_OUT])
        tested, held_out, train = np.split(order, ends)
        spotted = np.stack([with_a_spot(images, row) for row in tested.tolist()])
        parts = [cells[tested], kind.extract(spotted, np.arange(len(tested)))]
    else:
        train, held_out = split_rows(len(cells), config, groups)
        parts = [part.cells[_half(part.groups)] for part in data.tested]
    batches = CellBatches(cells[train], kind.networks(config), 0, "cpu", trains=False)
    d_tv = random_detector(batches.networks, config)
    fitted = batches.standard, batches.cells, config.seed
    score = FeatureScore.fit(kind, d_tv, *fitted).eval()
    assert score.bank is not None
    of = np.random.default_rng(1).permutation(len(train))[:_DAMAGED]
    struck = damaged_cells(kind, images, train[of])
    good, bad = (_placed(score, one) for one in (batches.cells, struck))
    whites, moved = apart(good, bad, of, groups[train])
    parts = [cells[held_out], *parts]
    return Developed(
        score,
        whites,
        moved,
        history_of(whites, config),
        [torch.from_numpy(views_of(score, part)) for part in parts],
        [beside_of(score, part)[0] for part in parts],
        [_placed(score, part) for part in parts],
    )


def damaged_cells(
    kind: Features, images: NDArray[np.uint8], rows: NDArray[np.intp]
) -> NDArray[np.float16]:
    """Return the cells of ``rows`` of images with defects, (n, places, features)."""
    found = []
    for row in rows.tolist():
        (square,) = kind.prepare(images[row][None])
        struck = damaged(square, np.random.default_rng((6, row)))
        maps = kind.backbone(torch.from_numpy(struck)[None])
        found.append(cells_of(maps)[0].flatten(1).T.numpy().astype(np.float16))
    return np.stack(found)


def apart(
    good: Tensor, bad: Tensor, of: NDArray[np.intp], groups: NDArray[np.intp]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return whitened cells of good images; those of damaged ones, and how far each was moved.

    Each part of the good images (n, places, values), of whole ``groups`` (n,), is whitened by the
    others, so that they are as far out as new ones. ``of`` says which of them each of the damaged
    ones was.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    part_of = np.random.default_rng(3).permutation(len(names))[numbers] % _PARTS
    whites, struck, moved = [], [], []
    for part in range(_PARTS):
        own, rows = (torch.from_numpy(x == part) for x in (part_of, part_of[of]))
        law = Places.fit(good[~own])
        before, after = (law.turned(x) for x in (good[torch.from_numpy(of)[rows]], bad[rows]))
        whites.append(law.turned(good[own]).flatten(0, 1))
        struck.append(after.flatten(0, 1))
        moved.append((after - before).square().mean(2).flatten())
    return torch.cat(whites), (torch.cat(struck), torch.cat(moved))


def history_of(x: Tensor, config: Config) -> Tensor:
    """Return samples of the history of a GAN of cells (N, values), (n, values)."""
    config = resolve(config, len(x))
    networks = WideVectorNetworks((x.shape[1],), config.hidden, config.latent_dim)
    some = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:30_000]].numpy()
    reader = ShuffledSamples(some, np.arange(len(some)), config.seed)
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "history", config, networks)
        record_history(Batches(reader, networks, seed=config.seed), history)
        return torch.from_numpy(history.sample(_HISTORY, 0))


def trained(found: Developed, variant: Variant, seed: int) -> Critic:
    """Return a D_TV that was trained as the variant says."""
    d_tv = VectorNetworks((found.good.shape[1],), _HIDDEN, 1).critic()
    random = torch.Generator().manual_seed(seed)
    initialise(d_tv, random)
    optimizer = make_adam(d_tv, _RATE, (0.9, 0.999))

    def drawn(x: Tensor, share: float) -> Tensor:
        n = round(share * _BATCH)
        return x[torch.randint(len(x), (n,), generator=random)]

    def noised(share: float) -> Tensor:
        x = drawn(found.good, share)
        low, high = _NOISE
        sigma = low + (high - low) * torch.rand(len(x), 1, generator=random)
        return x + sigma * torch.randn(x.shape, generator=random)

    cells, moved = found.bad
    struck = cells[moved > variant.change]
    for step in range(variant.steps):
        set_learning_rate(optimizer, _RATE * (1 - step / variant.steps))
        bad = [
            drawn(struck, variant.damaged),
            drawn(found.history, variant.history),
            noised(variant.noise),
        ]
        good, others = d_tv(torch.cat([drawn(found.good, 1), *bad])).chunk(2)
        loss = LOSSES[variant.loss](good, others)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return d_tv.eval()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "eq. 10": lambda good, bad: detector_loss(good, bad, _BOUND_WEIGHT),
    "logistic": lambda good, bad: (
        functional.softplus(good).mean() + functional.softplus(-bad).mean()
    ),
}


@torch.inference_mode()
def judged(found: Developed, d_tv: Critic) -> dict[str, float]:
    """Return the AUROC of images by D_TV alone, and by the sum with it and without."""
    score, law = found.score, found.score.gaussian
    assert isinstance(law, Places)
    outputs = [d_tv(law.turned(x).flatten(0, 1)).view(x.shape[:2]) for x in found.placed]
    told = [score.worst_of(one[:, None]) for one in outputs]
    scale = Scale(len(score.cell_views))
    scale.fit(found.views[0].flatten(1))
    maps = [scale(one.flatten(1)).view(one.shape).sum(0) for one in found.views]
    worst = [score.worst_of(one[:, None]) for one in maps]
    y = np.repeat([0, 1], [len(told[1]), sum(map(len, told[2:]))])

    def of(*views: list[Tensor]) -> float:
        totals = [torch.stack(both) for both in zip(*views, strict=True)]
        last = Scale(len(views))
        last.fit_tail(totals[0])
        return auroc(y, torch.cat([last(one).sum(0) for one in totals[1:]]).numpy())

    whole = found.whole
    return {"alone": of(told), "sum": of(worst, told, whole), "without": of(worst, whole)}


def with_a_spot(images: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
    """Return a screw (H, W, C) with a small piece of another one somewhere on it."""
    random = np.random.default_rng((5, row))
    image, other = images[row], images[int(random.integers(len(images)))]
    height, width = image.shape[:2]
    (y, x), (from_y, from_x) = (random.choice(_on_screw(one)) for one in (image, other))
    long, short, angle = random.uniform(4, 9), random.uniform(3, 6), random.uniform(0, np.pi)
    down, right = np.mgrid[:height, :width] - np.array([y, x])[:, None, None]
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    share = 2 * np.clip(1.5 - np.hypot(along / long, across / short), 0, 0.5)[..., None]
    moved = np.roll(other.astype(float), (y - from_y, x - from_x), (0, 1))
    mixed: NDArray[np.float64] = np.rint(image * (1 - share) + moved * share)
    return mixed.clip(0, 255).astype(np.uint8)


def _on_screw(image: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the places (n, 2) that are unlike the background."""
    grey = image[..., 0].astype(float)
    return np.argwhere(np.abs(ndimage.gaussian_filter(grey, 2) - np.median(grey)) > 25)


def _half(groups: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return which images (N,) are of one half of the groups, for development."""
    names = np.unique(groups)
    some = np.random.default_rng(7).permutation(names)[: len(names) // 2]
    return np.isin(groups, some)


def _placed(score: FeatureScore, cells: NDArray[np.float16]) -> Tensor:
    """Return cells (N, places, features) on the components of the bank."""
    assert score.bank is not None
    parts = []
    for start in range(0, len(cells), 64):
        x = torch.from_numpy(cells[start : start + 64].astype(np.float32))
        flat = score.standard(x.flatten(0, 1).T).T
        parts.append(score.bank.place(flat).view(*x.shape[:2], -1))
    return torch.cat(parts)


if __name__ == "__main__":
    main()
