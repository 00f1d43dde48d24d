"""Draw how well each method does on each family of splits."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from matplotlib.figure import Figure

BLUE, VERMILLION = "#0072b2", "#d55e00"  # Okabe and Ito
_LOWEST = 0.45  # a little below chance: what is worse is drawn at the edge
_IN_A_ROW = 4


def draw(families: dict[str, dict[str, float]], ours: Collection[str], file: Path) -> None:
    """Draw a row of dots for each method: AUROC on each of ``families``, a panel for each.

    Methods come in the order of the first family that has them. Dots of ``ours`` are red.
    """
    families = {title: means for title, means in families.items() if means}
    methods = list(dict.fromkeys(method for means in families.values() for method in means))
    n_rows = max(1, -(-len(families) // _IN_A_ROW))
    figure = Figure((9.6, n_rows * (0.9 + 0.19 * len(methods))), layout="constrained")
    grid = figure.subplots(n_rows, _IN_A_ROW, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (title, means) in zip(grid, families.items(), strict=False):
        for method, value in means.items():
            x, y = max(value, _LOWEST), methods.index(method)
            colour = VERMILLION if method in ours else BLUE
            axes.plot([_LOWEST, x], [y, y], color=colour, linewidth=0.8, alpha=0.4)
            axes.plot(x, y, "o", color=colour, markersize=4.5, clip_on=False)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set(xlim=(_LOWEST, 1), ylim=(len(methods) - 0.4, -0.6))
        axes.set_yticks(range(len(methods)), methods, fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.axvline(0.5, color="black", linewidth=0.6, linestyle=":")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(families) :]:
        axes.set_visible(False)
    figure.supxlabel("AUROC; dotted: chance", fontsize=9)
    figure.savefig(file, dpi=120)
