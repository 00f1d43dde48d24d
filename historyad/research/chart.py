"""The chart of a benchmark: how well each method does, on one axis for each split or family."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panels = Mapping[str, Mapping[str, float]]  # by title, the AUROC of each method

_ORANGE, _BLUE, _GREEN = "#d55e00", "#0072b2", "#009e73"  # Okabe and Ito
_LABELS = {_ORANGE: "ours", _BLUE: "peer that trains a network", _GREEN: "peer that does not"}
WITHOUT_NETWORK = (
    *("pca-residual", "mahalanobis", "neighbours", "neighbours-pca-cosine"),
    *("isolation-forest", "one-class-svm", "mean-gradient", "png-size"),
    *("gradient+neighbours", "pca+neighbours+forest"),
)
_MOST_COLUMNS, _IN_A_COLUMN = 4, 5  # panels of the chart
# In inches: what is beside each other in a column, and what is above each other.
_NAMES, _AXIS, _VALUES = 1.6, 1.75, 0.45
_LEGEND, _TITLE, _LINE, _ROW, _TICKS = 0.3, 0.25, 0.15, 0.155, 0.22


def draw(panels: Panels, ours: Collection[str], file: Path) -> None:
    """Write `draw_standings` to ``file``."""
    # Lines and text pack better without loss.
    options = {"lossless": True} if file.suffix == ".webp" else None
    draw_standings(panels, ours).savefig(file, dpi=140, pil_kwargs=options)


def draw_standings(panels: Panels, ours: Collection[str]) -> Figure:
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


def _draw_panel(axes: Axes, title: str, means: Mapping[str, float], ours: Collection[str]) -> None:
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
