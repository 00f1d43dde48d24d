"""Fig. 7 of the paper: each digit of MNIST as the anomaly, with one history for three detectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from historyad.judge.metrics import auprc
from historyad.research.reproduce.drawing import COLOURS, new_figure, note_size
from historyad.research.reproduce.figure import Figure, Row, separation
from historyad.research.reproduce.runs import Recipe, Runs, Size, default, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

DIGITS = tuple(range(10))
METHODS = ("case 1", "case 2", "no training", "default")
_REPEATED = (1, 4, 7, 9)  # digits that are measured with every seed; the others, with the first
_OFFICIAL = "mnist-vs-kmnist"  # its normal test images are MNIST's official test set
_LABELS = {
    "case 1": "case 1",
    "case 2": "case 2 (half the latents wider)",
    "no training": "no training (eq. 14)",
    "default": "our default",
}


def _units(seeds: list[int]) -> list[Row]:
    return [
        {"seed": seed, "digit": digit}
        for seed in seeds
        for digit in DIGITS
        if seed == seeds[0] or digit in _REPEATED
    ]


def _recipes(size: Size, unit: Row) -> dict[str, Recipe]:
    split, seed = f"mnist-80-20-without-{unit['digit']}", unit["seed"]
    return {
        "case 1": paper(size, split, seed),
        "case 2": paper(size, split, seed, wide_share=0.5),
        "no training": paper(size, split, seed, detector_start="untrained"),
        "default": default(size, split, seed),
    }


def _measure(runs: Runs, unit: Row, recipes: dict[str, Recipe]) -> Iterator[Row]:
    labels = runs.split(_OFFICIAL, unit["seed"]).normal.labels
    official = float(np.mean(labels == unit["digit"]))
    for method, recipe in recipes.items():
        split = runs.split(recipe.split, unit["seed"])
        model = runs.model(recipe)
        normal, anomalous = (
            model.anomaly_score(part.samples) for part in (split.normal, split.anomalous)
        )
        y = np.repeat([0, 1], [len(normal), len(anomalous)])
        scores = np.concatenate([normal, anomalous])
        yield {
            "method": method,
            **separation(normal, anomalous),
            "official_prevalence": official,
            "auprc_at_official": auprc(y, scores, prevalence=official),
            **runs.seconds(recipe),
        }


def _draw(rows: list[Row]) -> Picture:
    figure = new_figure(3.4)
    ax = figure.subplots()
    digits = sorted({row["digit"] for row in rows})
    for i, method in enumerate(METHODS):
        chosen = [row for row in rows if row["method"] == method]
        x = {digit: digit + (i - (len(METHODS) - 1) / 2) * 0.19 for digit in digits}
        means = [np.mean([r["auprc"] for r in chosen if r["digit"] == digit]) for digit in digits]
        colour, label = COLOURS[method], _LABELS[method]
        ax.bar(list(x.values()), means, 0.17, color=colour, alpha=0.8, label=label)
        if len({row["seed"] for row in chosen}) > 1:
            of_seeds = [x[row["digit"]] for row in chosen], [row["auprc"] for row in chosen]
            ax.plot(*of_seeds, "_", color="black", markersize=4)
    known = {row["digit"]: row["prevalence"] for row in rows}
    lines = [known[digit] for digit in digits]
    left, right = ([digit + side for digit in digits] for side in (-0.42, 0.42))
    ax.hlines(lines, left, right, "black", "dotted", label="prevalence: knowing nothing")
    ax.set(xlabel="digit that is the anomaly", ylabel="AUPRC", ylim=(0, 1))
    ax.set_xticks(digits)
    figure.legend(loc="outside upper center", ncols=3)
    note_size(figure, rows)
    return figure


FIGURE = Figure("fig7", _recipes, _measure, _draw, _units, shares_histories=False)
