"""Draw what an anomaly map finds and what it misses on magnetic tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from historyad.data.sources import Source

Maps = NDArray[np.float32]

VERMILLION = "#d55e00"  # Okabe and Ito
_WIDTH, _SIDE, _HEADS = 7.2, 1.7, 0.45  # inches
_HEADS_OF_PAIR = ("highest score", "lowest score")


def draw(
    maps_of: Callable[[NDArray[np.uint8]], Maps],
    normal: Source,
    good: NDArray[np.floating],
    defects: dict[str, Source],
    scores: dict[str, NDArray[np.floating]],
    masks: dict[str, NDArray[np.bool_]],
    file: Path,
) -> None:
    """Draw, of each kind, the tile with the highest and the one with the lowest score.

    Each is drawn with its mask, as a contour, and its map. Of good tiles: the false alarm that is
    worst, and the tile that looks best. The scale of the maps is one for all.
    """
    blank = np.zeros(normal.samples.shape[:3], bool)
    kinds = {
        **{k: (defects[k], scores[k], masks[k]) for k in defects},
        "good": (normal, good, blank),
    }
    rows = {kind: _extremes(found, mask) for kind, (_, found, mask) in kinds.items()}
    maps = {kind: maps_of(kinds[kind][0].samples[chosen]) for kind, chosen in rows.items()}
    full = float(np.quantile(np.concatenate(list(maps.values())), 0.995))
    layout = ConstrainedLayoutEngine(compress=True, w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure((_WIDTH, _SIDE * len(kinds) + _HEADS), layout=layout)
    # The narrow column in the middle keeps the pairs apart.
    grid = figure.subplots(len(kinds), 5, width_ratios=(1, 1, 0.06, 1, 1))
    for line, (kind, (source, found, mask)) in zip(grid, kinds.items(), strict=True):
        line[0].set_ylabel(kind, fontsize=9)
        for pair, image, values in zip((line[:2], line[3:]), rows[kind], maps[kind], strict=True):
            _draw_pair(pair, source.samples[image, :, :, 0], mask[image], values / full)
            _write_in_corner(pair[1], f"{found[image]:+.2f}")
        line[2].set_axis_off()
    for pair, head in zip((grid[0, :2], grid[0, 3:]), _HEADS_OF_PAIR, strict=True):
        pair[0].set_title(f"{head}: tile, mask", fontsize=9)
        pair[1].set_title("map, score", fontsize=9)
    figure.savefig(file, dpi=140)


def _extremes(scores: NDArray[np.floating], masks: NDArray[np.bool_]) -> list[int]:
    """Return the images of the highest and the lowest score, of those that have a mask, if any."""
    marked = masks.any((1, 2))
    rows = np.flatnonzero(marked | ~marked.any())
    return [int(rows[scores[rows].argmax()]), int(rows[scores[rows].argmin()])]


def _draw_pair(
    pair: Any, picture: NDArray[np.uint8], mask: NDArray[np.bool_], values: Maps
) -> None:
    """Draw a tile with the contour of its mask, and beside it with its map."""
    for axes in pair:
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
    tile, heat = pair
    heat.imshow(values, cmap="Oranges", vmin=0, vmax=1, alpha=np.clip(values, 0, 0.85))
    if mask.any():
        tile.contour(mask, levels=[0.5], colors=[VERMILLION], linewidths=0.9)


def _write_in_corner(axes: Axes, text: str) -> None:
    box = {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 2}
    corner = axes.text(0.98, 0.02, text, color="white", fontsize=8, bbox=box, ha="right")
    corner.set(transform=axes.transAxes, va="bottom")
