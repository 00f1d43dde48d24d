"""The common look of the figures, and pictures of samples as text that a row can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from historyad.extras import require
from historyad.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Images = NDArray[np.uint8]

# Okabe and Ito: eyes of all kinds tell them apart.
BLACK, VERMILLION, BLUE, ORANGE, GREEN, PURPLE = (
    *("#000000", "#d55e00", "#0072b2"),
    *("#e69f00", "#009e73", "#cc79a7"),
)
GREY = "0.55"
COLOURS = {
    "paper": BLUE,
    "case 1": BLUE,
    "case 2": GREEN,
    "no training": PURPLE,
    "default": VERMILLION,
    "pca-residual": GREY,
}
WIDTH = 7.2  # inches: two columns of a paper
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "historyad",  # the same run writes the same bytes
}
_GAP = 2  # pixels between two samples


def new_figure(height: float) -> Figure:
    """Return an empty figure of ``height`` inches."""
    from matplotlib.figure import Figure  # not pyplot: it needs no display and no global state

    return Figure(figsize=(WIDTH, height), layout="constrained")


def draw_figure(draw: Callable[[Any], Figure], what: Any, path: Path) -> None:
    """Write what ``draw`` makes of ``what`` to ``path`` with the suffixes .png and .svg.

    Needs matplotlib, of the extra ``report``.
    """
    mpl = require("matplotlib", "drawing", "report")
    with mpl.rc_context(_STYLE):
        figure = draw(what)
        for suffix, options in ((".png", {"dpi": 200}), (".svg", {"metadata": {"Date": None}})):
            drawn = io.BytesIO()
            figure.savefig(drawn, format=suffix[1:], **options)
            write_atomic(path.with_suffix(suffix), drawn.getvalue())


def note_size(figure: Figure, rows: Sequence[dict[str, Any]]) -> None:
    """Say on the picture what size and seeds it is from."""
    seeds = sorted({row["seed"] for row in rows})
    named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    if rows[0]["size"] == "quick":
        named = f"quick size (small networks, short training), {named}"
    figure.supxlabel(named, x=0.995, ha="right", size=7, color=GREY)


def draw_shares(
    ax: Axes, edges: NDArray[np.float64], shares: Sequence[float], colour: str, label: str
) -> None:
    """Draw a histogram of scores."""
    ax.stairs(shares, edges, fill=True, color=colour, alpha=0.25, linewidth=0)
    ax.stairs(shares, edges, color=colour, label=label, linewidth=1.2)


def pack_images(rows: Iterable[Images]) -> str:
    """Return rows of equally many images (n, H, W, C) as one picture: PNG, in base64."""
    pad = ((0, 0), (0, _GAP), (0, _GAP), (0, 0))
    padded = [np.pad(images, pad, constant_values=128) for images in rows]
    tiled = np.concatenate([np.concatenate(list(images), 1) for images in padded])
    tiled = tiled[:-_GAP, :-_GAP]
    packed = io.BytesIO()
    picture = Image.fromarray(tiled[..., 0] if tiled.shape[-1] == 1 else tiled)
    picture.save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def unpack_images(packed: str) -> Images:
    """Return the picture of `pack_images`, (H, W) or (H, W, C)."""
    with Image.open(io.BytesIO(base64.b64decode(packed)), formats=["PNG"]) as picture:
        return np.asarray(picture)


def show_images(ax: Axes, packed: str) -> tuple[int, int]:
    """Show the picture of `pack_images` without axes; return its height and width in pixels."""
    pixels = unpack_images(packed)
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.axis("off")
    return pixels.shape[:2]
