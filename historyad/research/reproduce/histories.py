"""The paper's future work: several independent histories, pooled or each with its own detector."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from historyad.method.history import effective_snapshots
from historyad.research.reproduce import mnist
from historyad.research.reproduce.drawing import BLUE, GREEN, VERMILLION, new_figure, note_size
from historyad.research.reproduce.figure import Figure, Row, Scores, separation
from historyad.research.reproduce.runs import Recipe, Runs, Size, default

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

COUNTS = (1, 2, 4)
SPLITS = {mnist.KMNIST: "KMNIST", mnist.FASHION: "Fashion-MNIST"}
_COLOURS = {"pooled": BLUE, "averaged": GREEN}


def _recipes(size: Size, unit: Row) -> dict[str, Recipe]:
    """Return the detector of each seed, and those of histories that are pooled from several."""
    seeds = [unit["seed"] + i for i in range(max(COUNTS))]
    single = {f"single, {seed}": mnist.of_paper(size, seed) for seed in seeds}
    pooled = {
        f"pooled, {k}": mnist.of_paper(size, seeds[0], pooled=tuple(seeds[1:k])) for k in COUNTS[1:]
    }
    return {**single, **pooled, "default": default(size, mnist.KMNIST, seeds[0])}


def _measure(runs: Runs, unit: Row, recipes: dict[str, Recipe]) -> Iterator[Row]:
    seed = unit["seed"]
    scores = {name: _score(runs, seed, recipe) for name, recipe in recipes.items()}
    singles = [name for name in recipes if name.startswith("single")]
    for k in COUNTS:
        pooled = f"pooled, {k}" if k > 1 else singles[0]
        effective = effective_snapshots(runs.history(recipes[pooled]).weights)
        facts = {"histories": k, "effective_snapshots": effective}
        yield from _judge(scores[pooled], {"method": "pooled", **facts})
        together = [scores[name] for name in singles[:k]]
        averaged = {
            name: np.mean([each[name] for each in together], axis=0) for name in together[0]
        }
        yield from _judge(averaged, {"method": "averaged", **facts})
    yield from _judge(scores["default"], {"method": "default", "histories": 1})


def _score(runs: Runs, seed: int, recipe: Recipe) -> dict[str, Scores]:
    model = runs.model(recipe)
    samples = {"normal": runs.split(mnist.KMNIST, seed).normal.samples}
    samples |= {name: runs.split(name, seed).anomalous.samples for name in SPLITS}
    return {name: model.anomaly_score(part) for name, part in samples.items()}


def _judge(scores: dict[str, Scores], facts: Row) -> Iterator[Row]:
    for split in SPLITS:
        yield {**facts, "split": split, **separation(scores["normal"], scores[split])}


def _draw(rows: list[Row]) -> Picture:
    figure = new_figure(3.0)
    for ax, (split, title) in zip(figure.subplots(1, 2), SPLITS.items(), strict=True):
        _draw_split(ax, [row for row in rows if row["split"] == split])
        ax.set(title=f"MNIST against {title}", xlabel="histories", ylabel="AUPRC")
        ax.set_xticks(COUNTS)
    named = figure.axes[0].get_legend_handles_labels()
    figure.legend(*named, loc="outside upper center", ncols=3)
    note_size(figure, rows)
    return figure


def _draw_split(ax: Axes, rows: list[Row]) -> None:
    for method, colour in _COLOURS.items():
        chosen = [row for row in rows if row["method"] == method]
        by_count = {k: [r["auprc"] for r in chosen if r["histories"] == k] for k in COUNTS}
        label = "one detector, pooled" if method == "pooled" else "detectors, averaged"
        means = [statistics.fmean(values) for values in by_count.values()]
        ax.plot(COUNTS, means, color=colour, label=label)
        for k, values in by_count.items():
            ax.plot([k] * len(values), values, "o", color=colour, markersize=3.5, alpha=0.7)
    ours = statistics.fmean(row["auprc"] for row in rows if row["method"] == "default")
    ax.axhline(ours, color=VERMILLION, linestyle="--", linewidth=1, label="our default")


FIGURE = Figure("histories", _recipes, _measure, _draw)
