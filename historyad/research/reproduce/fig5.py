"""Fig. 5 of the paper: trained on MNIST, and judged on KMNIST; beside it, on Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from historyad.data.sources import Source
from historyad.research.reproduce import mnist
from historyad.research.reproduce.drawing import (
    BLUE,
    VERMILLION,
    Images,
    draw_shares,
    new_figure,
    note_size,
    pack_images,
    show_images,
)
from historyad.research.reproduce.figure import EDGES, Figure, Row, histogram, separation
from historyad.research.reproduce.runs import Recipe, Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

TITLES = {
    "paper": "The paper's detector",
    "default": "Our default",
}


def _measure(runs: Runs, unit: Row, recipes: dict[str, Recipe]) -> Iterator[Row]:
    normal = runs.split(mnist.KMNIST, unit["seed"]).normal
    for method, recipe in recipes.items():
        model = runs.model(recipe)
        of_normal = model.anomaly_score(normal.samples)
        for name in (mnist.KMNIST, mnist.FASHION):
            anomalous = runs.split(name, unit["seed"]).anomalous
            of_anomalous = model.anomaly_score(anomalous.samples)
            yield {
                "method": method,
                "split": name,
                **separation(of_normal, of_anomalous),
                "false_positive_rate": float((of_normal > model.calibration.threshold).mean()),
                "histograms": {
                    "normal": histogram(of_normal),
                    "anomalous": histogram(of_anomalous),
                },
                "samples": pack_images([_one_of_each(normal), _one_of_each(anomalous)]),
                **runs.seconds(recipe),
            }


def _one_of_each(source: Source) -> Images:
    assert source.labels is not None
    _, first = np.unique(source.labels, return_index=True)
    return source.samples[first]


def _draw(rows: list[Row]) -> Picture:
    shown = [row for row in rows if row["split"] == mnist.KMNIST and row["seed"] == rows[0]["seed"]]
    figure = new_figure(3.9)
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.2, 1))
    for ax, row in zip(top.subplots(1, len(shown), sharey=True), shown, strict=True):
        _draw_scores(ax, row)
    ax = bottom.subplots()
    height, _ = show_images(ax, shown[0]["samples"])
    for y, name, colour in ((0.25, "MNIST", BLUE), (0.75, "KMNIST", VERMILLION)):
        ax.text(-4, y * height, name, size=8, ha="right", va="center", color=colour)
    note_size(figure, shown)
    return figure


def _draw_scores(ax: Axes, row: Row) -> None:
    for name, colour, label in (
        ("normal", BLUE, "MNIST (normal)"),
        ("anomalous", VERMILLION, "KMNIST (anomalous)"),
    ):
        draw_shares(ax, EDGES, row["histograms"][name], colour, label)
    title = f"{TITLES[row['method']]}: AUPRC {row['auprc']:.4f}"
    ax.set(title=title, xlabel="anomaly score", xlim=(EDGES[0], EDGES[-1]))
    ax.set_ylabel("share of images")
    ax.label_outer()
    ax.legend(loc="upper center")


FIGURE = Figure("fig5", mnist.both, _measure, _draw)
