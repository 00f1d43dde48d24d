"""Fig. 7 of the paper: each digit of MNIST as the anomaly, with one history for three detectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from historyad.metrics import auprc
from historyad.reproduce.drawing import COLOURS, new_figure, note_scale
from historyad.reproduce.figure import Figure, Row, separation
from historyad.reproduce.runs import Recipe, Runs, Scale, default, paper

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


def _recipes(scale: Scale, unit: Row) -> dict[str, Recipe]:
    split, seed = f"mnist-80-20-without-{unit['digit']}", unit["seed"]
    return {
        "case 1": paper(scale, split, seed),
        "case 2": paper(scale, split, seed, wide_share=0.5),
        "no training": paper(scale, split, seed, detector_start="untrained"),
        "default": default(scale, split, seed),
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
    for i, method in enumerate(METHODS):
        for digit in DIGITS:
            chosen = [r for r in rows if r["method"] == method and r["digit"] == digit]
            values = [row["auprc"] for row in chosen]
            if not values:
                continue
            x = digit + (i - (len(METHODS) - 1) / 2) * 0.19
            label = _LABELS[method] if digit == 0 else None
            ax.bar(x, np.mean(values), 0.17, color=COLOURS[method], alpha=0.8, label=label)
            ax.plot([x] * len(values), values, "_", color="black", markersize=4)
    for digit in DIGITS:
        prevalence = [row["prevalence"] for row in rows if row["digit"] == digit]
        label = "prevalence: knowing nothing" if digit == 0 else None
        line: Any = {"color": "black", "linestyle": ":", "linewidth": 1, "label": label}
        if prevalence:
            ax.plot([digit - 0.42, digit + 0.42], [prevalence[0]] * 2, **line)
    ax.set(xlabel="digit that is the anomaly", ylabel="AUPRC", ylim=(0, 1))
    ax.set_xticks(range(10))
    figure.legend(loc="outside upper center", ncols=3)
    note_scale(figure, rows)
    return figure


FIGURE = Figure("fig7", _recipes, _measure, _draw, _units, shares_histories=False)
