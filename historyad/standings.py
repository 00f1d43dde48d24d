"""Who stands where: what the rows of a benchmark amount to, as a table and as a chart.

A mean over seeds is taken first, then one over splits. Only a method that was measured on every
split has a mean over them, and a rank.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from historyad.benchmark import OURS, Row
from historyad.peers import PEERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cells = dict[tuple[str, str], list[Row]]  # by method and split, a row for each seed

_BLUE, _VERMILLION = "#0072b2", "#d55e00"  # Okabe and Ito
_LOWEST = 0.45  # a little below chance; where something is worse, the axis begins at 0
_IN_A_ROW = 4


def cells_of(rows: Iterable[Row]) -> Cells:
    """Return the rows by method and split; of several for one seed, the last.

    A row of all test samples goes before one of a part of them.
    """
    last = {
        (row["method"], row["split"], row["seed"]): row
        for row in sorted(rows, key=lambda row: "most" not in row)
    }
    cells: Cells = defaultdict(list)
    for (method, split, _), row in sorted(last.items()):
        cells[method, split].append(row)
    return dict(cells)


def on(cells: Cells, splits: Iterable[str]) -> Cells:
    """Return what was measured on some splits."""
    splits = set(splits)
    return {(method, split): g for (method, split), g in cells.items() if split in splits}


def methods_in(cells: Cells) -> list[str]:
    """Return the methods that have rows, in the order of the package."""
    present = {method for method, _ in cells}
    return [method for method in (*OURS, *PEERS) if method in present]


def mean(cells: Cells, method: str, splits: Iterable[str], key: str) -> float | None:
    """Return the mean over splits of the mean over seeds; None when a split was not measured.

    Where some seeds were measured on all splits, only those count.
    """
    of_splits = _by_seed(cells, method, splits, key)
    if not all(of_splits):
        return None
    seeds = set.intersection(*map(set, of_splits))
    return statistics.fmean(
        statistics.fmean(values[seed] for seed in seeds or values) for values in of_splits
    )


def spread(cells: Cells, method: str, splits: Iterable[str], key: str) -> float | None:
    """Return the standard deviation over seeds of the mean over splits; None for one seed.

    A seed counts that all splits have.
    """
    of_splits = _by_seed(cells, method, splits, key)
    means = [
        statistics.fmean(values[seed] for values in of_splits)
        for seed in sorted(set.intersection(*map(set, of_splits)))
    ]
    return statistics.stdev(means) if len(means) > 1 else None


def _by_seed(cells: Cells, method: str, splits: Iterable[str], key: str) -> list[dict[int, float]]:
    return [{row["seed"]: row[key] for row in cells.get((method, split), [])} for split in splits]


def means_of_all(cells: Cells, splits: tuple[str, ...]) -> dict[str, float]:
    """Return the mean AUROC of the methods that were measured on all splits, the best first."""
    means = {method: mean(cells, method, splits, "auroc") for method in methods_in(cells)}
    known = {method: value for method, value in means.items() if value is not None}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def mean_ranks(cells: Cells, splits: Iterable[str]) -> dict[str, float]:
    """Return each method's rank by AUROC, 1 for the best, as a mean over ``splits``.

    Only methods that were measured on all of them are ranked: a rank among others on each split
    would depend on what happens to be measured. Methods that tie share the mean of their ranks.
    """
    splits = list(splits)
    of_method = {m: [mean(cells, m, [s], "auroc") for s in splits] for m in methods_in(cells)}
    complete = {m: values for m, values in of_method.items() if None not in values}
    if not complete:
        return {}
    ranks = rankdata(-np.array([*complete.values()], float), axis=0).mean(axis=1)
    return dict(zip(complete, ranks.tolist(), strict=True))


def write_standings(cells: Cells, out: Path) -> list[Path]:
    """Write ``out/standings.md`` and a chart, ``out/standings.png``; return what was written.

    Without matplotlib, of the extra ``report``, there is no chart.
    """
    written = [out / "standings.md", out / "standings.png"]
    written[0].write_text(
        f"# Standings\n\nAUROC on each split, mean over the seeds.\n\n"
        f"{markdown(auroc_of_splits(cells))}\n"
        "Means over all splits, of the methods that were measured on every one; time and memory\n"
        f"are those of this machine.\n\n{markdown(overview(cells))}"
    )
    try:
        panels = {split: means_of_all(cells, (split,)) for split in _splits_in(cells)}
        draw(panels, [*OURS], written[1])
    except ImportError:
        return written[:1]
    return written


def overview(cells: Cells) -> list[list[str]]:
    """Return a table, its head first: rank, quality and cost of methods, the best rank first."""
    splits = _splits_in(cells)
    ranks = mean_ranks(cells, splits)
    head = ["method", "seeds", "mean rank", "AUROC", "AUPRC", "fit, s", "images / s", "peak MB"]
    lines = []
    for method in sorted(ranks, key=lambda name: ranks[name]):
        groups = [cells[method, split] for split in splits]
        rows = [row for group in groups for row in group]
        fits = [row["fit_seconds"] for row in rows if "fit_seconds" in row]
        lines.append(
            [
                method,
                str(min(map(len, groups))),
                f"{ranks[method]:.1f}",
                *(_with_spread(cells, method, splits, key) for key in ("auroc", "auprc")),
                f"{statistics.median(fits):.1f}" if fits else "–",
                f"{statistics.median(row['images_per_second'] for row in rows):,.0f}",
                f"{max(row['peak_memory_mb'] for row in rows):,.0f}",
            ]
        )
    return [head, *lines]


def auroc_of_splits(cells: Cells) -> list[list[str]]:
    """Return a table, its head first: AUROC of each method on each split."""
    splits = _splits_in(cells)
    lines = [
        [method, *(_with_spread(cells, method, [split], "auroc") for split in splits)]
        for method in methods_in(cells)
    ]
    return [["method", *splits], *lines]


def _splits_in(cells: Cells) -> list[str]:
    return sorted({split for _, split in cells})


def _with_spread(cells: Cells, method: str, splits: list[str], key: str) -> str:
    value, deviation = mean(cells, method, splits, key), spread(cells, method, splits, key)
    if value is None:
        return "–"
    return f"{value:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def markdown(table: list[list[str]]) -> str:
    """Return a table, whose first row is its head, in Markdown, its columns below each other."""
    table = [[cell.replace("|", "\\|") for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table = [table[0], ["-" * width for width in widths], *table[1:]]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def draw(panels: dict[str, dict[str, float]], ours: Collection[str], file: Path) -> None:
    """Draw the AUROC of each method, a dot, on each of ``panels``; dots of ``ours`` are red.

    Methods come in the order of the first panel that has them. Raises ImportError without
    matplotlib, of the extra ``report``.
    """
    from matplotlib.figure import Figure

    panels = {title: means for title, means in panels.items() if means}
    order = list(dict.fromkeys(method for means in panels.values() for method in means))
    n_rows = max(1, math.ceil(len(panels) / _IN_A_ROW))
    n_columns = max(1, math.ceil(len(panels) / n_rows))
    pairs = list(panels.items())
    rows = [dict(pairs[i : i + n_columns]) for i in range(0, max(1, len(pairs)), n_columns)]
    methods = [[m for m in order if any(m in means for means in row.values())] for row in rows]
    heights = [
        0.7 + 0.19 * len(shown) + 0.15 * max((title.count("|") for title in row), default=0)
        for shown, row in zip(methods, rows, strict=True)
    ]
    figure = Figure((1.6 + 2 * n_columns, 0.3 + sum(heights)), layout="constrained")
    grid = figure.subplots(len(rows), n_columns, sharey="row", squeeze=False, height_ratios=heights)
    for line, row, shown in zip(grid, rows, methods, strict=True):
        for axes, (title, means) in zip(line, row.items(), strict=False):
            # The name of three sources has three lines.
            _draw_panel(axes, title.replace("|", "\n"), means, shown, ours)
        for axes in line[len(row) :]:
            axes.set_visible(False)
    figure.supxlabel("AUROC; dotted: chance", fontsize=9)
    figure.savefig(file, dpi=120)


def _draw_panel(
    axes: Axes, title: str, means: dict[str, float], methods: list[str], ours: Collection[str]
) -> None:
    lowest = _LOWEST if min(means.values()) > _LOWEST else 0.0
    for method, value in means.items():
        y = methods.index(method)
        colour = _VERMILLION if method in ours else _BLUE
        axes.plot([lowest, value], [y, y], color=colour, linewidth=0.8, alpha=0.4)
        axes.plot(value, y, "o", color=colour, markersize=4.5, clip_on=False)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set(xlim=(lowest, 1), ylim=(len(methods) - 0.4, -0.6))
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0.5, color="black", linewidth=0.6, linestyle=":")
    axes.spines[["top", "right"]].set_visible(False)
