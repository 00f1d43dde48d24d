"""Fig. 9 of the paper: what more snapshots per epoch bring, by thinning one recorded history."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING

from historyad.method.history import effective_snapshots
from historyad.research.reproduce import mnist
from historyad.research.reproduce.drawing import (
    BLACK,
    BLUE,
    GREY,
    VERMILLION,
    new_figure,
    note_size,
)
from historyad.research.reproduce.figure import Figure, Row, separation
from historyad.research.reproduce.runs import Recipe, Runs, Size, default

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

SAVES = (1, 2, 5, 10, 20, 50, 100)


def _recipes(size: Size, unit: Row) -> dict[str, Recipe]:
    seed = unit["seed"]
    thinned = {f"paper, {saves}": mnist.of_paper(size, seed, saves) for saves in SAVES}
    return {**thinned, "default": default(size, mnist.KMNIST, seed)}


def _measure(runs: Runs, unit: Row, recipes: dict[str, Recipe]) -> Iterator[Row]:
    split = runs.split(mnist.KMNIST, unit["seed"])
    for name, recipe in recipes.items():
        model, history = runs.model(recipe), runs.history(recipe)
        scores = [model.anomaly_score(part.samples) for part in (split.normal, split.anomalous)]
        yield {
            "method": name.partition(",")[0],
            "saves_per_epoch": recipe.config.saves_per_epoch // recipe.every,
            "snapshots": len(history),
            "effective_snapshots": effective_snapshots(history.weights),
            **separation(*scores),
            **runs.seconds(recipe),
        }


def _draw(rows: list[Row]) -> Picture:
    figure = new_figure(3.2)
    quality, diversity = figure.subplots(1, 2)
    _draw_quality(quality, rows)
    _draw_diversity(diversity, rows)
    for ax in (quality, diversity):
        ax.set_xscale("log")
        ax.set_xticks(SAVES, map(str, SAVES))
        ax.minorticks_off()
        ax.set_xlabel("snapshots per epoch")
    figure.legend(*quality.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    note_size(figure, rows)
    return figure


def _draw_quality(ax: Axes, rows: list[Row]) -> None:
    for seed in sorted({row["seed"] for row in rows}):
        points = {r["saves_per_epoch"]: r["auprc"] for r in _of_paper(rows) if r["seed"] == seed}
        ax.plot(list(points), list(points.values()), "o", color=BLUE, markersize=3, alpha=0.6)
    means = [
        statistics.fmean(r["auprc"] for r in _of_paper(rows) if r["saves_per_epoch"] == saves)
        for saves in SAVES
    ]
    ax.plot(SAVES, means, color=BLUE, label="the paper's detector")
    ours = statistics.fmean(row["auprc"] for row in rows if row["method"] == "default")
    ax.axhline(ours, color=VERMILLION, linestyle="--", linewidth=1, label="our default (50)")
    ax.set(title="MNIST against KMNIST", ylabel="AUPRC")


def _draw_diversity(ax: Axes, rows: list[Row]) -> None:
    first = [row for row in _of_paper(rows) if row["seed"] == rows[0]["seed"]]
    for key, colour, label in (
        ("snapshots", GREY, "in the history"),
        ("effective_snapshots", BLACK, "effective: 1 / Σ w²"),
    ):
        ax.plot(SAVES, [r[key] for r in first], "o-", color=colour, markersize=3, label=label)
    ax.legend(loc="upper left")
    ax.set(title="Snapshots", yscale="log", ylabel="number")


def _of_paper(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["method"] == "paper"]


FIGURE = Figure("fig9", _recipes, _measure, _draw)
