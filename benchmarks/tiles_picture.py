"""Draw what an anomaly map finds and what it misses on magnetic tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from historyad.sources import Source

Maps = NDArray[np.float32]

VERMILLION = "#d55e00"  # Okabe and Ito


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
    chosen = {
        kind: (
            source,
            found,
            mask,
            _extremes(found, mask),
        )
        for kind, (source, found, mask) in kinds.items()
    }
    maps = {kind: maps_of(source.samples[rows]) for kind, (source, _, _, rows) in chosen.items()}
    full = float(np.quantile(np.concatenate(list(maps.values())), 0.995))
    figure = Figure((7.6, 1.35 * len(kinds) + 0.3), layout="constrained")
    for row, (kind, (source, found, mask, rows)) in enumerate(chosen.items()):
        for side, image in enumerate(rows):
            at = row * 4 + side * 2 + 1
            tile, heat = (figure.add_subplot(len(kinds), 4, at + i) for i in range(2))
            picture = source.samples[image, :, :, 0]
            tile.imshow(picture, cmap="gray", vmin=0, vmax=255)
            heat.imshow(picture, cmap="gray", vmin=0, vmax=255)
            values = maps[kind][side]
            heat.imshow(
                values, cmap="Oranges", vmin=0, vmax=full, alpha=np.clip(values / full, 0, 0.85)
            )
            if mask[image].any():
                tile.contour(mask[image], levels=[0.5], colors=[VERMILLION], linewidths=0.9)
            tile.set_ylabel(kind if side == 0 else "", fontsize=9)
            heat.set_title(f"score {found[image]:+.2f}", fontsize=8, pad=2)
            if row == 0:
                tile.set_title("highest score" if side == 0 else "lowest score", fontsize=9, pad=2)
            for axes in (tile, heat):
                _bare(axes)
    figure.savefig(file, dpi=140)


def _extremes(scores: NDArray[np.floating], masks: NDArray[np.bool_]) -> list[int]:
    """Return the images of the highest and the lowest score, of those that have a mask, if any."""
    marked = masks.any((1, 2))
    rows = np.flatnonzero(marked | ~marked.any())
    return [int(rows[scores[rows].argmax()]), int(rows[scores[rows].argmin()])]


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
