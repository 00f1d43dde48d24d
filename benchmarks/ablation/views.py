"""Views of a fitted detector that are measured: those of the score, and variants."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.config import Config
from historyad.constants import CONSTANTS, Rule
from historyad.method.history import History
from historyad.method.networks import Critic
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.model.split import split_rows
from historyad.research.splits import Split
from historyad.score.batching import in_batches
from historyad.score.blocks import Blocks, Edges, Grey
from historyad.score.companions import ImageCompanions, samples_to_fit
from historyad.score.gaussian import Gaussian, principal_components
from historyad.score.neighbours import Neighbours
from historyad.score.views import Views, normal_samples

Scores = dict[str, NDArray[np.float32]]  # of held-out, normal and anomalous samples

MOST = 3000  # held-out, normal and anomalous samples that are scored, each, evenly spread

# Names of views.
HISTORY, PATTERN, ALL_NEAR = "history", "features cosine", "hidden euclid"
NEAR = "hidden euclid, near by features"
PLAIN = ", plain"  # distances that are not relative to the gaps between normal samples
UNEQUAL = ", components as they vary"
GAUSSIAN = "pixels gaussian"
LESS = {times: f"{GAUSSIAN}, less {times} x its neighbours'" for times in (1, 2)}
LESS_FEATURES = {times: f"features gaussian, less {times} x its neighbours'" for times in (1, 2)}
SIMPLICITY, OF_FINE = "simplicity", "simplicity, by the fine distance"
BLOCKS = "blocks, near by features"
EDGES = "edges of blocks, near by features"
# Steps of blocks in each variant; that of the score is measured as one of its views.
MOVES = {", none moved": 0, ", moved by a pixel": 1, ", moved by two": 2}
STAY, BY_ONE, BY_TWO = MOVES


def views_of(
    split: Split, config: Config, folder: Path
) -> tuple[dict[str, Scores], dict[str, Rule], float]:
    """Return what every view says of the split's samples, the score's rules, and the prevalence."""
    run = RunDirectory(folder)
    model = Model.load(folder) if run.is_finished else fit_model(split.train, config, run)
    kind, config, score = model.kind, model.config, model.score
    assert isinstance(score, Views)
    critic = History(run.history, config, kind.networks(config)).average_critic().eval()
    train, held_out = split_rows(len(split.train), config)
    samples = {
        "held out": some(split.train.samples[held_out]),
        "normal": some(split.normal.samples),
        "anomalous": some(split.anomalous.samples),
    }
    batches = kind.batches(split.train.samples, config, rows=train)
    normal = normal_samples(batches, samples_to_fit(math.prod(batches.networks.shape)))
    views: dict[str, Callable[[Tensor], Tensor]] = {"history": score.d_tv}
    views |= _companions(score.d_tv, normal, "")
    views |= _companions(critic, normal, "averaged critic's ")
    views |= _blocks(score, normal)
    found = _of_the_score(score, samples)
    with torch.inference_mode():
        for name, view in views.items():
            found[name] = {key: in_batches(view, x, kind) for key, x in samples.items()}
    n_normal, n_anomalous = len(split.normal), len(split.anomalous)
    return found, score.companions.rules, n_anomalous / (n_normal + n_anomalous)


def some(samples: NDArray[Any]) -> NDArray[Any]:
    """Return at most ``MOST`` of the samples (N, ...), evenly spread."""
    rows = np.linspace(0, len(samples) - 1, min(len(samples), MOST)).astype(int)
    chosen: NDArray[Any] = samples[rows]
    return chosen


def _companions(
    critic: Critic, normal: Tensor, prefix: str
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return each companion on each layer, fitted on ``normal``."""
    layers: dict[str, Callable[[Tensor], Tensor]] = {
        "features": lambda x: critic.layers_of(x)[0],
        "hidden": lambda x: critic.layers_of(x)[1],
    }
    if not prefix:
        layers["pixels"] = lambda x: x.flatten(1)
    views: dict[str, Callable[[Tensor], Tensor]] = {}
    ridge = CONSTANTS.image_ridge
    for layer_name, layer in layers.items():
        with torch.inference_mode():
            x = torch.cat([layer(part) for part in torch.split(normal, 512)])
        fitted: dict[str, torch.nn.Module] = {"gaussian": Gaussian.fit(x, ridge=ridge)}
        pca = principal_components(x, CONSTANTS.bank_components)
        for metric in ("cosine", "euclid"):
            relative = Neighbours.of_features(x, pca, cosine=metric == "cosine")
            relative.fit_gaps(relative.candidates_of_bank())
            fitted |= {metric: relative, metric + PLAIN: _plain(relative)}
            if metric == "cosine":
                fitted[metric + UNEQUAL] = _as_they_vary(relative, x)
        for name, companion in fitted.items():
            views[f"{prefix}{layer_name} {name}"] = _after(layer, companion)
    return views


def _of_the_score(views: Views, samples: dict[str, NDArray[Any]]) -> dict[str, Scores]:
    """Return what the score makes of the companions that it has."""
    companions = views.companions
    assert isinstance(companions, ImageCompanions)

    def gaussians(x: Tensor) -> Tensor:
        features, _, _ = views.d_tv.layers_of(x)
        fine, _ = companions.gaussian(x)
        return torch.stack([fine, companions.features(features)], 1)

    found: dict[str, Scores] = defaultdict(dict)
    for key, x in samples.items():
        raw = dict(zip(views.names, views.raw_of(x).T, strict=True))
        with torch.inference_mode():
            of_pixels, of_features = in_batches(gaussians, x, views.kind).T
        found[NEAR][key] = raw["neighbours"]
        found[BLOCKS][key] = raw["blocks"]
        found[EDGES][key] = raw["edges"]
        found[SIMPLICITY][key] = raw["simplicity"]
        found[OF_FINE][key] = -np.log(of_pixels)
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
    pattern, n_others = companions.pattern, CONSTANTS.block_candidates
    plain = copy.deepcopy(companions.blocks)
    plain.gaps.fill_(1)
    variants = {PLAIN: plain}
    with torch.inference_mode():
        others = copy.deepcopy(pattern).fit_gaps(pattern.candidates_of_bank(), n_others)
        for name, steps in MOVES.items():
            variants[name] = _moving(steps).fit(normal[: len(others)], others)

    def after(blocks: Blocks, look: int) -> Callable[[Tensor], Tensor]:
        def view(x: Tensor) -> Tensor:
            places = pattern.place(views.d_tv.layers_of(x)[0])
            others = pattern.nearest(places, pattern.candidates(places), n_others)[1]
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
    return lambda x: companion(layer(x))
