"""Fig. 8 of the paper: images between two latents that are confidently normal, and their scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.model.model import Model
from historyad.randomness import Stream, numpy_generator, torch_generator
from historyad.research.reproduce import mnist
from historyad.research.reproduce.drawing import (
    BLUE,
    VERMILLION,
    Images,
    new_figure,
    note_size,
    pack_images,
    show_images,
    unpack_images,
)
from historyad.research.reproduce.fig5 import TITLES
from historyad.research.reproduce.figure import Figure, Row
from historyad.research.reproduce.runs import Recipe, Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_PAIRS = 6
_STEPS = 11  # t = 0, 0.1, ... 1
_CANDIDATES = 1000
_CONFIDENT = 0.1  # share of the generated images, the most normal ones, that ends are drawn from


def _measure(runs: Runs, unit: Row, recipes: dict[str, Recipe]) -> Iterator[Row]:
    history = runs.history(recipes["paper"])
    generator = history.load_generator(len(history) - 1)

    def generate(latents: Tensor) -> Images:
        with torch.no_grad():
            return history.networks.at_rest(generator(latents))

    models = {method: runs.model(recipe) for method, recipe in recipes.items()}
    for method, model in models.items():
        candidates = _candidates(unit["seed"], history.networks.latent_dim).to(history.device)
        scores = _score(model, generate(candidates))
        ends = _choose(scores, unit["seed"])
        between = interpolate(candidates[ends[:, 0]], candidates[ends[:, 1]], _STEPS)
        images = [generate(path) for path in between]
        of_paths = np.array([_score(model, path) for path in images])
        threshold = model.calibration.threshold
        yield {
            "method": method,
            "scores": of_paths.tolist(),
            "threshold": threshold,
            "mean_at_ends": float(of_paths[:, [0, -1]].mean()),
            "mean_between": float(of_paths[:, 1:-1].mean()),
            "mean_of_highest": float(of_paths[:, 1:-1].max(axis=1).mean()),
            "paths_above_threshold": int((of_paths.max(axis=1) > threshold).sum()),
            "generated_above_threshold": float((scores > threshold).mean()),
            "epoch": float(history.times[-1]),
            "samples": pack_images(images),
            **runs.seconds(recipes[method]),
        }


def interpolate(z1: Tensor, z2: Tensor, steps: int) -> Tensor:
    """Return (1 - t) z1 + t z2 for ``steps`` times t from 0 to 1: (n, d) to (n, steps, d)."""
    t = torch.linspace(0, 1, steps, device=z1.device)[None, :, None]
    return (1 - t) * z1[:, None] + t * z2[:, None]


def _candidates(seed: int, latent_dim: int) -> Tensor:
    random = torch_generator(seed, Stream.PROBE)
    return torch.randn(_CANDIDATES, latent_dim, generator=random)


def _score(model: Model, images: Images) -> NDArray[np.float32]:
    """Score images of the size that the generator makes, to which real ones are padded."""
    scores = model.score.of_prepared(images)
    assert scores is not None
    return scores


def _choose(scores: NDArray[np.float32], seed: int) -> NDArray[np.intp]:
    """Draw pairs (pairs, 2) among the latents whose images look most normal."""
    confident = np.argsort(scores, kind="stable")[: int(_CONFIDENT * len(scores))]
    drawn = numpy_generator(seed, Stream.PROBE).choice(confident, (_PAIRS, 2), replace=False)
    return np.asarray(drawn)


def _draw(rows: list[Row]) -> Picture:
    row = rows[0]  # of the paper's detector, with the first seed
    height, width, *_ = unpack_images(row["samples"]).shape
    step_y, step_x = (height + 2) / _PAIRS, (width + 2) / _STEPS
    figure = new_figure(5.9)
    threshold = row["threshold"]
    title = f"{TITLES[row['method']]}, trained on MNIST; in orange what is above its threshold"
    figure.suptitle(f"{title}, {threshold:+.2f}", x=0.005, ha="left", size=9)
    for i, (ax, scores) in enumerate(zip(figure.subplots(_PAIRS), row["scores"], strict=True)):
        show_images(ax, row["samples"])
        ax.set_ylim((i + 1) * step_y - 2.5, i * step_y - 0.5)  # this row of images alone
        for j, score in enumerate(scores):
            x = (j + 0.5) * step_x - 1
            colour = VERMILLION if score > threshold else BLUE
            text = {"ha": "center", "size": 7.5, "color": colour}
            ax.text(x, (i + 1) * step_y, f"{score:+.2f}", va="top", **text)
            if i == 0:
                ax.text(x, -3, f"t = {j / (_STEPS - 1):.1f}", ha="center", size=7)
    note_size(figure, [row])
    return figure


FIGURE = Figure("fig8", mnist.both, _measure, _draw)
