"""What the figures have in common: from the detectors that one needs, through rows, to a picture.

Rows are kept in OUT/NAME.jsonl, and a picture is a function of rows alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from historyad.environment import machine, versions
from historyad.files import read_rows, save_rows
from historyad.judge.metrics import auprc, auroc
from historyad.model.files import VERSION
from historyad.research.reproduce.drawing import draw_figure
from historyad.research.reproduce.runs import Recipe, Runs, Size

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

Row = dict[str, Any]
Scores = NDArray[np.floating]

EDGES = np.linspace(-1.5, 1.5, 76)  # of score histograms; the few scores beyond go to the ends


@dataclass(frozen=True)
class Figure:
    """A figure or table of the paper.

    Attributes:
        units: for seeds, what is measured as one and kept as one: its seed and whatever else.
        recipes: for a size and a unit, the detectors that it needs, by the name of the method.
        measure: for runs, a unit and its recipes, the rows.
        draw: for all rows of a size, the picture.
        shares_histories: whether other figures use the same ones; else they are deleted once used.
    """

    name: str
    recipes: Callable[[Size, Row], dict[str, Recipe]]
    measure: Callable[[Runs, Row, dict[str, Recipe]], Iterator[Row]]
    draw: Callable[[list[Row]], Picture]
    units: Callable[[list[int]], list[Row]] = lambda seeds: [{"seed": seed} for seed in seeds]
    shares_histories: bool = True


def reproduce_figure(
    figure: Figure, out: Path, runs: Runs, *, seeds: list[int], size: Size
) -> list[Row]:
    """Measure what is missing in ``out/NAME.jsonl``, draw NAME.png and NAME.svg, return the rows.

    Rows of earlier calls count when they come from detectors of the same settings and data.
    """
    table = out / f"{figure.name}.jsonl"
    rows = []
    for unit in figure.units(seeds):
        recipes = figure.recipes(size, unit)
        keys = {name: runs.key(recipe) for name, recipe in recipes.items()}
        same = {"what": figure.name, "size": size, **unit, "detectors": keys}
        found = [row for row in read_rows(table) if same.items() <= row.items()]
        if not found:
            found = _measure(figure, runs, unit, recipes, same)
            # At once, not row by row: a unit that is there has all its rows.
            save_rows(table, [*read_rows(table), *found])
        if not figure.shares_histories:
            for recipe in recipes.values():
                runs.forget_history(recipe)
        rows += found
    draw_figure(figure.draw, rows, out / figure.name)
    return rows


def _measure(
    figure: Figure, runs: Runs, unit: Row, recipes: dict[str, Recipe], same: Row
) -> list[Row]:
    wall, cpu = time.perf_counter(), time.process_time()
    first = next(iter(recipes.values()))
    train = runs.split(first.split, first.config.seed).train
    rows = list(figure.measure(runs, unit, recipes))
    fits: Row = {}
    for recipe in recipes.values():
        fits |= runs.fits(recipe)
    facts = {
        "fits": fits,
        "train": {
            "source": train.description,
            "n": len(train),
            "fingerprint": train.fingerprint,
        },
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "command": runs.command,
        **environment(),
    }
    return [{**same, **row, **facts} for row in rows]


def environment() -> Row:
    """Return what a measurement may depend on besides settings and data."""
    return {
        "versions": versions(),
        "model_version": VERSION,
        "machine": {"name": machine(), "threads": torch.get_num_threads()},
    }


def separation(normal: Scores, anomalous: Scores) -> Row:
    """Return AUPRC with its prevalence, anomalies being the positive class, and AUROC."""
    y = np.repeat([0, 1], [len(normal), len(anomalous)])
    scores = np.concatenate([normal, anomalous])
    return {
        "auprc": auprc(y, scores),
        "auroc": auroc(y, scores),
        "prevalence": float(y.mean()),
        "n_normal": len(normal),
        "n_anomalous": len(anomalous),
    }


def histogram(scores: Scores) -> list[float]:
    """Return the share of the scores in each cell of `EDGES`."""
    counts = np.histogram(np.clip(scores, EDGES[0], EDGES[-1]), EDGES)[0]
    return [round(share, 6) for share in (counts / len(scores)).tolist()]
