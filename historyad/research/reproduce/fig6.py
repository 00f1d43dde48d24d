"""Fig. 6 of the paper: trained on MNIST, and shown MNIST with more and more Gaussian noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from historyad.kinds.damages import add_noise
from historyad.randomness import Stream, numpy_generator
from historyad.research.reproduce import mnist
from historyad.research.reproduce.drawing import (
    Images,
    new_figure,
    note_size,
    pack_images,
    show_images,
)
from historyad.research.reproduce.fig5 import TITLES
from historyad.research.reproduce.figure import EDGES, Figure, Row, histogram
from historyad.research.reproduce.runs import Recipe, Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

SIGMAS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # of the range from black to white
_IMAGES = 2000
_HEIGHT = 0.9  # of a density, in the distance of two: none hides the next


def _measure(runs: Runs, unit: Row, recipes: dict[str, Recipe]) -> Iterator[Row]:
    images = runs.split(mnist.KMNIST, unit["seed"]).normal.samples[:_IMAGES]
    noisy = [_noisy(images, sigma, unit["seed"]) for sigma in SIGMAS]
    for method, recipe in recipes.items():
        model = runs.model(recipe)
        scores = [model.anomaly_score(level) for level in noisy]
        means = [float(of_level.mean()) for of_level in scores]
        threshold = model.calibration.threshold
        yield {
            "method": method,
            "sigmas": list(SIGMAS),
            "mean_scores": means,
            "above_threshold": [float((of_level > threshold).mean()) for of_level in scores],
            "spearman": float(spearmanr(SIGMAS, means).statistic),
            "threshold": threshold,
            "n": len(images),
            "histograms": [histogram(of_level) for of_level in scores],
            "samples": pack_images([np.stack([level[0] for level in noisy])]),
            **runs.seconds(recipe),
        }


def _noisy(images: Images, sigma: float, seed: int) -> Images:
    """Add noise; the same noise at every level, only stronger."""
    return add_noise(images, 255 * sigma, numpy_generator(seed, Stream.PROBE))


def _draw(rows: list[Row]) -> Picture:
    shown = [row for row in rows if row["seed"] == rows[0]["seed"]]
    figure = new_figure(4.6)
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(4.6, 1))
    for ax, row in zip(top.subplots(1, len(shown), sharey=True), shown, strict=True):
        _draw_ridges(ax, row)
    figure.legend(*top.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    ax = bottom.subplots()
    height, width = show_images(ax, shown[0]["samples"])
    step = (width + 2) / len(SIGMAS)
    for i, sigma in enumerate(SIGMAS):
        ax.text((i + 0.5) * step, 1.25 * height, f"σ = {sigma:g}", size=7, ha="center")
    note_size(figure, shown)
    return figure


def _draw_ridges(ax: Axes, row: Row) -> None:
    """Draw the densities above each other, all of one height, the strongest noise at the top."""
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.linspace(0.05, 0.85, len(row["sigmas"])))
    for i, shares in enumerate(row["histograms"]):
        ridge = i + _HEIGHT * np.array(shares) / max(shares)
        ax.stairs(ridge, EDGES, baseline=i, fill=True, color=colours[i], alpha=0.75)
        ax.plot(row["mean_scores"][i], i, "o", color="white", markeredgecolor="black", markersize=4)
    ax.axvline(row["threshold"], color="black", linestyle="--", linewidth=0.8, label="threshold")
    ax.plot([], [], "o", color="white", markeredgecolor="black", markersize=4, label="mean score")
    title = f"{TITLES[row['method']]}\nSpearman correlation {row['spearman']:.3f}"
    ax.set(title=title, xlabel="anomaly score", xlim=(EDGES[0], EDGES[-1]))
    ax.set_yticks(range(len(row["sigmas"])), [f"{sigma:g}" for sigma in row["sigmas"]])
    ax.set_ylim(-0.4, len(row["sigmas"]))
    ax.set_ylabel("σ of the noise; each density to its own scale", size=8)
    ax.label_outer()


FIGURE = Figure("fig6", mnist.both, _measure, _draw)
