"""Charts of the report, as inline SVG that takes the page's colours and needs no network."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

# matplotlib wants numbers for colours: each of these stands for a variable of the page's CSS.
_INK, _MUTED, _NORMAL, _OTHER = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _NORMAL: "normal", _OTHER: "other"}
_STYLE: Any = {
    "font.size": 11,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 11,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
}
_WIDTH, _HEIGHT = 4.6, 3.0  # inches of 72 units: the width of a phone, where text keeps its size
_BINS = 60
_POINTS = 500  # of a curve, as many as one can see
_PARTS = 600  # of a series, of which two points each are drawn


@dataclass(frozen=True)
class Chart:
    """``svg`` is what the page shows; ``scale`` the units of it in one of the axes, right and up.

    What was drawn with a gid that starts with "live-" can be found by it, and moved.
    """

    svg: str
    scale: tuple[float, float]


def curve(
    name: str,
    label: str,
    x: Array,
    y: Array,
    axes: tuple[str, str],
    span: tuple[float, float] | None = None,
) -> Chart:
    """Draw one line over time, and a ``span`` of time behind it."""

    def paint(ax: Axes) -> None:
        if span is not None:
            ax.axvspan(*span, color=_NORMAL, alpha=0.12, linewidth=0, label="recorded history")
            _legend_above(ax)
        ax.plot(x, y, color=_NORMAL)
        ax.set(xlabel=axes[0], ylabel=axes[1], xlim=(0, x.max()), ylim=(min(0, y.min()), None))

    return _render(name, label, paint)


def densities(
    name: str, label: str, normal: Array, other: Array, titles: tuple[str, str], threshold: float
) -> Chart:
    """Draw how two sets of scores are distributed, and the threshold between them."""
    low, high = score_range(normal, other, threshold)
    edges = np.linspace(low, high, _BINS + 1)

    def paint(ax: Axes) -> None:
        for scores, color, title in ((normal, _NORMAL, titles[0]), (other, _OTHER, titles[1])):
            shares = np.histogram(np.clip(scores, low, high), edges)[0] / len(scores)
            ax.stairs(shares, edges, fill=True, color=color, alpha=0.25, linewidth=0)
            ax.stairs(shares, edges, color=color, label=title)
        ax.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (4, 2)), gid=f"live-{name}")
        ax.set(xlabel="anomaly score", ylabel="share of samples", xlim=(low, high))
        ax.locator_params(axis="x", nbins=6)
        _legend_above(ax)

    return _render(name, label, paint)


def score_range(normal: Array, other: Array, threshold: float) -> tuple[float, float]:
    """Return the scores between which nearly all samples lie; the few beyond go to the edges."""
    both = [np.quantile(scores, [0.002, 0.998]) for scores in (normal, other)]
    low, high = min(threshold, *both[0], *both[1]), max(threshold, *both[0], *both[1])
    margin = 0.03 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def rates(
    name: str, label: str, x: Array, y: Array, axes: tuple[str, str], at: tuple[float, float]
) -> Chart:
    """Draw a ROC or precision-recall curve, and the point ``at`` which the threshold is."""

    def paint(ax: Axes) -> None:
        few = np.unique(np.linspace(0, len(x) - 1, _POINTS).round().astype(int))
        ax.plot(x[few], y[few], color=_NORMAL, clip_on=False)
        ax.plot(*at, "o", color=_OTHER, markersize=7, clip_on=False, gid=f"live-{name}")
        ax.set(xlabel=axes[0], ylabel=axes[1], xlim=(0, 1), ylim=(0, 1))

    return _render(name, label, paint)


def uniformity(name: str, label: str, p_values: Array, n_held_out: int) -> Chart:
    """Draw the distribution function of p-values, and where it would be by chance (95 %)."""
    n = len(p_values)
    ordered = np.sort(p_values)[np.unique(np.linspace(0, n - 1, _POINTS).round().astype(int))]
    level = np.linspace(0, 1, 101)
    spread = 1.96 * np.sqrt(level * (1 - level) * (1 / n + 1 / n_held_out))

    def paint(ax: Axes) -> None:
        ax.fill_between(
            level, level - spread, level + spread, color=_NORMAL, alpha=0.15, linewidth=0
        )
        share = np.searchsorted(np.sort(p_values), ordered, side="right") / n
        ax.step([0, *ordered, 1], [0, *share, 1], color=_NORMAL, where="post")
        ax.set(xlabel="p-value", ylabel="share of normals at or below", xlim=(0, 1), ylim=(0, 1))

    return _render(name, label, paint)


def scatters(
    name: str, label: str, titles: Sequence[str], clouds: Sequence[Array], behind: Array | None
) -> Chart:
    """Draw clouds of points (N, 2) side by side, three in a row, over another ``behind`` each."""
    n_rows = -(-len(clouds) // 3)
    every = np.concatenate([*clouds, *([] if behind is None else [behind])])
    low, high = np.quantile(every, [0.005, 0.995], axis=0)
    margin = np.where(high > low, 0, 1)  # where all points are on a line
    (left, bottom), (right, top) = low - margin, high + margin

    def paint(axes: Any) -> None:
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, title, cloud in zip(axes.flat, titles, clouds, strict=False):
            if behind is not None:
                ax.scatter(*behind.T, s=5, color=_MUTED, alpha=0.5, linewidths=0)
            ax.scatter(*cloud.T, s=4, color=_NORMAL, alpha=0.8, linewidths=0)
            ax.set(title=title, xlim=(left, right), ylim=(bottom, top))

    return _render(name, label, paint, grid=(n_rows, 3), height=1.6 * n_rows)


def channels(
    name: str,
    label: str,
    columns: Sequence[tuple[str, Array]],
    spans: Sequence[tuple[int, int]],
) -> Chart:
    """Draw the channels of a series, (steps,) each, one below the other, and ``spans`` of steps."""

    def paint(axes: Any) -> None:
        for ax, (title, values) in zip(np.ravel(axes), columns, strict=True):
            for start, end in spans:
                ax.axvspan(start - 0.5, end + 0.5, color=_OTHER, alpha=0.3, linewidth=0)
            ax.plot(*_thinned(values), color=_NORMAL, linewidth=0.8)
            ax.set(title=title, xlim=(0, len(values)))
            ax.locator_params(axis="y", nbins=4)
        ax.set(xlabel="step")

    height = 0.5 + 1.2 * len(columns)
    return _render(name, label, paint, grid=(len(columns), 1), height=height, width=2 * _WIDTH)


def over(name: str, label: str, columns: Sequence[tuple[str, Array, Array]]) -> Chart:
    """Draw channels of a window, (steps,) each, over the same of other windows, (n, steps)."""

    def paint(axes: Any) -> None:
        for ax, (title, values, others) in zip(np.ravel(axes), columns, strict=True):
            for i, other in enumerate(others):
                ax.plot(other, color=_MUTED, linewidth=0.8, label="nearest normal" if not i else "")
            ax.plot(values, color=_OTHER, linewidth=1.4, label="this window")
            ax.set_title(title, loc="right")
            ax.locator_params(axis="y", nbins=4)
        ax.set(xlabel="step of the window")
        _legend_above(np.ravel(axes)[0])

    height = 0.8 + 1.2 * len(columns)
    return _render(name, label, paint, grid=(len(columns), 1), height=height)


def _thinned(values: Array) -> tuple[Array, Array]:
    """Return steps and values of a series: of a long one, the lowest and highest of each part."""
    parts = np.array_split(np.arange(len(values)), min(len(values), _PARTS))
    ends = [(part[values[part].argmin()], part[values[part].argmax()]) for part in parts]
    steps = np.unique(np.sort(np.ravel(ends)))
    return steps, values[steps]


def _legend_above(ax: Axes) -> None:
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0,
        ncols=2,
        columnspacing=1.2,
        handlelength=1.2,
    )


def _render(
    name: str,
    label: str,
    paint: Callable[[Any], None],
    *,
    grid: tuple[int, int] = (1, 1),
    height: float = _HEIGHT,
    width: float = _WIDTH,
) -> Chart:
    import matplotlib as mpl
    from matplotlib.figure import Figure  # not pyplot: it needs no display and no global state

    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
        axes = figure.subplots(*grid)
        paint(axes)
        svg = _inline(figure, label)
        first = np.ravel(axes)[0].transData  # after drawing, which settles the layout
        origin, one = first.transform([(0, 0), (1, 1)])
    return Chart(svg, (float(one[0] - origin[0]), float(one[1] - origin[1])))


def _inline(figure: Figure, label: str) -> str:
    """Return the figure as an SVG element for HTML, in the colours and the font of the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href")
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(\.\d\d)\d{3,}", r"\1", svg)  # of coordinates, not of the numbers at ticks
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    used = set(re.findall(r"(?:url\(|href=\")#([\w-]+)", svg))
    svg = re.sub(
        r' id="([^"]*)"',
        lambda id: id[0] if id[1] in used or id[1].startswith("live-") else "",
        svg,
    )
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    attributes = f'role="img" aria-label="{label}"'
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf"<svg \1 {attributes}>", svg, count=1)
