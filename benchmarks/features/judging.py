"""How well the scores and the maps of photos tell good ones from defects, as rows have it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.features.sets import Data, Images
from benchmarks.measuring import Row
from historyad.judge.dataset import count_pixels
from historyad.judge.metrics import auprc, auroc
from historyad.score.features import stretched

_RESAMPLES = 200
_UNIT = 1.0


def judged(data: Data, scores: Sequence[NDArray[np.floating]], threshold: float) -> Row:
    """Judge the scores (n,) of all parts of a set."""
    good, *bad = scores
    kinds = {
        kind: auroc(np.repeat([0, 1], [len(good), len(one)]), np.concatenate([good, one]))
        for kind, one in zip(data.defects, bad, strict=True)
    }
    y = np.repeat([0, 1], [len(good), sum(map(len, bad))])
    values = np.concatenate(scores)
    groups = np.concatenate([part.groups for part in data.tested])
    low, high = by_groups(y, values, groups)
    return {
        "auroc": auroc(y, values),
        "auroc_low": low,
        "auroc_high": high,
        "auprc": auprc(y, values),
        "prevalence": float(y.mean()),
        "kinds": kinds,
        "false_alarms": int((good > threshold).sum()),
        "n_good": len(good),
        "false_alarm_groups": len(np.unique(data.good.groups[good > threshold])),
        "n_good_groups": len(np.unique(data.good.groups)),
        "found": float((np.concatenate(bad) > threshold).mean()),
    }


def by_groups(
    y: NDArray[np.intp], values: NDArray[np.floating], groups: NDArray[np.str_]
) -> tuple[float, float]:
    """Return the 95 % interval of the AUROC, by drawing groups of either class again."""
    random = np.random.default_rng(0)
    members = [
        [np.flatnonzero((y == label) & (groups == g)) for g in np.unique(groups[y == label])]
        for label in (0, 1)
    ]
    found = []
    for _ in range(_RESAMPLES):
        drawn = [
            np.concatenate([m[i] for i in random.integers(len(m), size=len(m))]) for m in members
        ]
        rows = np.concatenate(drawn)
        found.append(auroc(y[rows], values[rows]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def pixel_aurocs(data: Data, maps: Sequence[NDArray[np.floating]]) -> Row:
    """Return the AUROC over the pixels of good images and of those with a mask; None: no masks.

    Of all kinds of defect together, and of each alone.
    """
    spread = float(np.std(maps[0])) or _UNIT
    center = float(np.median(maps[0]))
    good, *kinds = (
        _counted(part, (values - center) / spread, every=part is data.good)
        for part, values in zip(data.tested, maps, strict=True)
    )
    return {
        "pixel_auroc": _of_counts(good + sum(kinds)),
        "pixel_kinds": {
            name: _of_counts(good + kind) for name, kind in zip(data.defects, kinds, strict=True)
        },
    }


def _counted(part: Images, maps: NDArray[np.floating], *, every: bool) -> NDArray[np.float64]:
    """Count the normal and anomalous pixels of images by their value: of all, or with a mask."""
    found = np.zeros((2, 1))
    for row, cells in enumerate(maps):
        height, width = part.source.samples[row].shape[:2]
        mask = part.masks.get(row, np.zeros((height, width), bool))
        if every or mask.any():
            side = round(len(cells) ** 0.5)
            square = torch.from_numpy(cells.reshape(1, side, side)).float()
            shown = stretched(square, height, width)[0].numpy()
            found = found + np.stack(count_pixels(shown, mask, _UNIT)[:2])
    return found


def _of_counts(counts: NDArray[np.float64]) -> float | None:
    normal, anomalous = counts
    if not anomalous.sum():
        return None
    below = np.cumsum(normal) - normal / 2
    return float(anomalous @ below / (anomalous.sum() * normal.sum()))
