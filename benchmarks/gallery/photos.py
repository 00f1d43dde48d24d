"""Draw what a detector of photos says of cookies: `python -m benchmarks.gallery.photos`.

Learns from `industrial/cookies/train/good` under HISTORYAD_DATA, with the extra backbone, and
prints how long that took, how much memory, and what becomes of all test photos. The photos shown
are chosen by rank alone: of either kind, the typical one and the one that is most wrongly judged.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.gallery.pictures import BLUE, VERMILLION, save_figure, show
from historyad import HistoryAD, open_source
from historyad.data.images import Pixels
from historyad.judge.explain import anomaly_map, overlay
from historyad.model.model import Model
from historyad.score.result import Scored

COOKIES = Path(os.environ["HISTORYAD_DATA"]) / "industrial" / "cookies"
RATE = 0.1  # of false alarms: at the lowest that 31 promise, one odd photo decides
_FULL = 2.0  # times that threshold
_KINDS = ("good", "defective")
# Kind, quantile of its scores, and what stands above the photo.
_SHOWN = (
    ("good", 0.5, "a typical good one"),
    ("defective", 0.5, "a typical broken one"),
    ("good", 1.0, "the good one\nthat looks worst"),
    ("defective", 0.0, "the broken one\nthat looks best"),
)


def main() -> None:
    """Fit, say what it took, and draw four photos above their maps."""
    started = time.process_time()  # other work may share the cores
    detector = HistoryAD(backbone="lite0", false_positive_rate=RATE)
    detector.fit(str(COOKIES / "train" / "good"))
    seconds = time.process_time() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    print(f"fitted in {seconds:.0f} s of CPU time, {memory:.1f} GB at most")
    photos = {kind: open_source(str(COOKIES / "test" / kind)).samples for kind in _KINDS}
    found = {kind: detector.model_(np.asarray(photos[kind])) for kind in _KINDS}
    highest = max(detector.model_.calibration.scores)  # the threshold for the lowest rate
    for kind in _KINDS:
        scores = found[kind].anomaly_score
        n_called, n_beyond = (int((scores > one).sum()) for one in (detector.threshold_, highest))
        print(
            f"{kind}: {n_called} of {len(scores)} called anomalous, {n_beyond} at the lowest rate"
        )
    figure = Figure(figsize=(7.2, 5.6), layout="compressed")
    axes: Any = figure.subplots(2, len(_SHOWN))
    for (top, bottom), (kind, quantile, title) in zip(axes.T, _SHOWN, strict=True):
        row = _at(found[kind], quantile)
        show(top, photos[kind][row])
        top.set_title(title, size=9)
        _show_map(bottom, detector.model_, np.asarray(photos[kind][row]))
        _write_verdict(bottom, found[kind], row, detector.threshold_)
    save_figure(figure, "photos")


def _at(found: Scored, quantile: float) -> int:
    """Return the row whose score is at a quantile of all."""
    order: NDArray[np.intp] = np.argsort(found.anomaly_score, kind="stable")
    return int(order[round(quantile * (len(order) - 1))])


def _show_map(ax: Any, model: Model, image: Pixels) -> None:
    """Show a photo in grey, the more in colour the higher its map; a line is where it is anomalous.

    The hue is full at twice the value from which a place is anomalous, in all photos alike.
    """
    values = anomaly_map(model, image)
    _, threshold = model.map_scale
    assert threshold is not None
    show(ax, overlay(image, values, full=_FULL * threshold))
    if values.max() > threshold:
        ax.contour(values, levels=[threshold], colors=[VERMILLION], linewidths=1.5)


def _write_verdict(ax: Any, found: Scored, row: int, threshold: float) -> None:
    """Write the verdict on a row and its p-value beneath a map."""
    assert found.p_value is not None
    is_above = found.anomaly_score[row] > threshold
    verdict, colour = ("anomalous", VERMILLION) if is_above else ("normal", BLUE)
    place = {"ha": "center", "va": "top", "transform": ax.transAxes, "color": colour}
    ax.text(0.5, -0.03, verdict, size=11, weight="bold", **place)
    ax.text(0.5, -0.12, f"p-value {found.p_value[row]:.2f}", size=9, **place)


if __name__ == "__main__":
    main()
