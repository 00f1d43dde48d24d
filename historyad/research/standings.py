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

from historyad.research.benchmark import OURS, Row
from historyad.research.peers import PEERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cells = dict[tuple[str, str], list[Row]]  # by method and split, a row for each seed

_ORANGE, _BLUE, _GREEN = "#d55e00", "#0072b2", "#009e73"  # Okabe and Ito
_LABELS = {_ORANGE: "ours", _BLUE: "peer that trains a network", _GREEN: "peer that does not"}
WITHOUT_NETWORK = (
    *("pca-residual", "mahalanobis", "neighbours", "neighbours-pca-cosine"),
    *("isolation-forest", "one-class-svm"),
)
_MOST_COLUMNS, _IN_A_COLUMN = 4, 5  # panels of the chart
# In inches: what is beside each other in a column, and what is above each other.
_NAMES, _AXIS, _VALUES = 1.6, 1.75, 0.45
_LEGEND, _TITLE, _LINE, _ROW, _TICKS = 0.3, 0.25, 0.15, 0.155, 0.22


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
    """Write `draw_standings` to ``file``."""
    # Lines and text pack better without loss.
    options = {"lossless": True} if file.suffix == ".webp" else None
    draw_standings(panels, ours).savefig(file, dpi=140, pil_kwargs=options)


def draw_standings(panels: dict[str, dict[str, float]], ours: Collection[str]) -> Figure:
    """Draw the AUROC of each method, a dot, on each of ``panels``, the best on top.

    A panel holds the methods that were measured there, on an axis that is the same for all. In
    their order, panels go into the column that is shortest so far. Raises ImportError without
    matplotlib, of the extra ``report``.
    """
    from matplotlib.figure import Figure

    panels = {title: means for title, means in panels.items() if means}
    n_columns = min(_MOST_COLUMNS, math.ceil(len(panels) / _IN_A_COLUMN)) or 1
    ends, places = [_LEGEND] * n_columns, []
    for title, means in panels.items():
        column = ends.index(min(ends))
        # The name of three sources has three lines.
        top = ends[column] + _TITLE + _LINE * title.count("|")
        places.append((column, top))
        ends[column] = top + _ROW * len(means) + _TICKS
    column_width = _NAMES + _AXIS + _VALUES
    width, height = n_columns * column_width, max(ends) + _LINE
    figure = Figure((width, height))
    for (title, means), (column, top) in zip(panels.items(), places, strict=True):
        left, bottom = column * column_width + _NAMES, height - top - _ROW * len(means)
        box = (left / width, bottom / height, _AXIS / width, _ROW * len(means) / height)
        _draw_panel(figure.add_axes(box), title.replace("|", "\n"), means, ours)
    _add_legend(figure)
    return figure


def _draw_panel(axes: Axes, title: str, means: dict[str, float], ours: Collection[str]) -> None:
    methods = sorted(means, key=lambda method: -means[method])
    for y, method in enumerate(methods):
        value, colour = means[method], _colour(method, ours)
        axes.plot([0, value], [y, y], color=colour, linewidth=0.8, alpha=0.4)
        axes.plot(value, y, "o", color=colour, markersize=4.5, clip_on=False)
        axes.text(1.05, y, f"{value:.3f}", color=colour, fontsize=7, va="center")
    axes.set_title(title, fontsize=9, loc="left", pad=3)
    axes.set(xlim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1], ylim=(len(methods) - 0.5, -0.5))
    axes.set_xticklabels(["0", "", "0.5", "", "1"])
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.tick_params(axis="x", labelsize=7, length=2, pad=2)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0.5, color="black", linewidth=0.6, linestyle=":")
    axes.spines[["top", "right"]].set_visible(False)


def _colour(method: str, ours: Collection[str]) -> str:
    if method in ours:
        return _ORANGE
    return _GREEN if method in WITHOUT_NETWORK else _BLUE


def _add_legend(figure: Figure) -> None:
    """Name the colours at the top, and the axis at the bottom."""
    from matplotlib.lines import Line2D

    dots = [
        Line2D([], [], color=colour, marker="o", markersize=4.5, linewidth=0.8, label=label)
        for colour, label in _LABELS.items()
    ]
    figure.legend(handles=dots, loc="upper center", ncols=3, frameon=False, fontsize=8)
    figure.text(0.5, 0, "AUROC; dotted: chance", fontsize=8, ha="center", va="bottom")
