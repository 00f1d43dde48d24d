"""Judge a fitted model on a whole data set: on each kind of defect by itself, and on all together.

Images are looked at once, one after the other. Of a map only counts are kept: how many pixels are
how anomalous, normal and anomalous ones, and of each region which share. That is enough for the
curves, and for their intervals, for which images are drawn again, not pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from historyad.data.any_size import parts_of
from historyad.data.sources import Source
from historyad.errors import InputError
from historyad.judge.evaluation import AUPRO_LIMIT, Mask, judge
from historyad.judge.probe import wilson_interval
from historyad.model.model import Model
from historyad.score.result import Map

_BINS = 2048  # into which the values of maps are sorted
_RESAMPLES = 200
_LEVEL = 0.95
ALL = "all"


@dataclass(frozen=True)
class Defects:
    """Anomalous images of one kind, and the masks of those that have one, by row."""

    source: Source
    masks: Mapping[int, Mask]


@dataclass(frozen=True)
class Counts:
    """Of n images: normal and anomalous pixels, and shares of regions, in bins of rising value.

    Each (n, bins), and the number of regions, (n,).
    """

    normal: NDArray[np.float64]
    anomalous: NDArray[np.float64]
    regions: NDArray[np.float64]
    n_regions: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.normal)

    def sums(self, times: NDArray[np.intp]) -> tuple[NDArray[np.float64], ...]:
        """Return the sums over images, each taken so many times (n,)."""
        parts = (self.normal, self.anomalous, self.regions, self.n_regions)
        return tuple(np.asarray(times @ part, np.float64) for part in parts)


def judge_dataset(
    model: Model, normal: Source, defects: Mapping[str, Defects], *, pixels: bool = True
) -> dict[str, dict[str, Any]]:
    """Return what a model is worth on each kind of defect and on "all", {kind: figures}.

    The figures are those of `judge`, and ``detection_rate`` with its interval at the model's own
    threshold; where images have masks and the model makes maps, ``pixel_auroc`` and ``aupro``, too.
    Raises InputError where nothing can be scored.
    """
    good, good_counts = _looked(model, normal, {}, pixels=pixels, every=True)
    looked = {
        kind: _looked(model, its.source, its.masks, pixels=pixels) for kind, its in defects.items()
    }
    looked[ALL] = (
        np.concatenate([scores for scores, _ in looked.values()]),
        _together([counts for _, counts in looked.values()]),
    )
    threshold = model.calibration.threshold
    false_alarms = float((good > threshold).mean())
    found: dict[str, dict[str, Any]] = {}
    for kind, (scores, counts) in looked.items():
        caught = scores > threshold
        low, high = wilson_interval(np.array([caught.sum()]), len(caught))
        found[kind] = {
            **judge(good, scores),
            "detection_rate": float(caught.mean()),
            "detection_rate_low": low[0],
            "detection_rate_high": high[0],
            "threshold": threshold,
            "false_positive_rate": false_alarms,
            "requested_false_positive_rate": model.calibration.false_positive_rate,
            "n_masks": len(counts),
            **(judge_counts(good_counts, counts) if len(counts) else {}),
        }
    return found


def judge_counts(normal: Counts, anomalous: Counts, seed: int = 0) -> dict[str, float]:
    """Return pixel AUROC and AUPRO with their 95 % bootstrap intervals over images."""
    found: dict[str, float] = {}
    measures: dict[str, Callable[..., float]] = {"pixel_auroc": _pixel_auroc, "aupro": _aupro}
    for name, measure in measures.items():
        random = np.random.default_rng(seed)
        once = [np.ones(len(counts), np.intp) for counts in (normal, anomalous)]
        draws = [
            [_redrawn(len(counts), random) for counts in (normal, anomalous)]
            for _ in range(_RESAMPLES)
        ]
        value, *others = (
            measure(*_added(normal.sums(some), anomalous.sums(others)))
            for some, others in (once, *draws)
        )
        low, high = np.quantile(others, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        found |= {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def count_pixels(values: Map, mask: Mask, unit: float) -> tuple[NDArray[np.float64], ...]:
    """Return the `Counts` of one map (H, W), whose values are compared in some ``unit``."""
    t = values.astype(np.float64) / unit
    places = ((t / (1 + np.abs(t)) + 1) / 2 * _BINS).astype(np.intp).clip(0, _BINS - 1)
    numbers, n_regions = label(mask, structure=np.ones((3, 3)))
    shares = 1 / np.bincount(numbers[mask], minlength=n_regions + 1).clip(1)
    return (
        np.bincount(places[~mask], minlength=_BINS).astype(np.float64),
        np.bincount(places[mask], minlength=_BINS).astype(np.float64),
        np.bincount(places[mask], shares[numbers[mask]], minlength=_BINS).astype(np.float64),
        np.array(n_regions, np.float64),
    )


def _looked(
    model: Model, source: Source, masks: Mapping[int, Mask], *, pixels: bool, every: bool = False
) -> tuple[NDArray[np.float32], Counts]:
    """Return the score of each image, and what its map holds: of ``every`` one, or with a mask."""
    scores, counts, row = [], [], 0
    with_maps = pixels and model.kind.is_picture and (every or bool(masks))
    for part in parts_of(source.samples, np.arange(len(source))):
        unreadable = getattr(source.samples, "unreadable_rows", ())
        scored = model(part, maps=with_maps)
        for number, score in enumerate(scored.anomaly_score):
            if row not in unreadable:
                scores.append(score)
                mask = masks.get(row)
                if scored.maps is not None and (every or (mask is not None and mask.any())):
                    values = scored.maps[number]
                    mask = np.zeros(values.shape, bool) if mask is None else mask
                    counts.append(count_pixels(values, mask, model.map_scale[0]))
            row += 1
    if not scores:
        raise InputError(f"no image of {source.description} can be scored: give some that can")
    return np.array(scores), _stacked(counts)


def _stacked(found: list[tuple[NDArray[np.float64], ...]]) -> Counts:
    if not found:
        nothing = np.empty((0, _BINS))
        return Counts(nothing, nothing, nothing, np.empty(0))
    normal, anomalous, regions, n_regions = (np.stack(part) for part in zip(*found, strict=True))
    return Counts(normal, anomalous, regions, n_regions)


def _together(parts: list[Counts]) -> Counts:
    return Counts(
        np.concatenate([part.normal for part in parts]),
        np.concatenate([part.anomalous for part in parts]),
        np.concatenate([part.regions for part in parts]),
        np.concatenate([part.n_regions for part in parts]),
    )


def _redrawn(n: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Return how often each of n images is drawn when n are, with replacement."""
    return np.bincount(random.integers(n, size=n), minlength=n)


def _added(
    some: tuple[NDArray[np.float64], ...], others: tuple[NDArray[np.float64], ...]
) -> list[NDArray[np.float64]]:
    return [one + other for one, other in zip(some, others, strict=True)]


def _pixel_auroc(normal: NDArray[Any], anomalous: NDArray[Any], *_: Any) -> float:
    """Return the area under the ROC curve of pixels in bins; those of one bin are ties."""
    below = np.cumsum(normal) - normal / 2
    return float(anomalous @ below / (anomalous.sum() * normal.sum()))


def _aupro(normal: NDArray[Any], _: Any, regions: NDArray[Any], n_regions: NDArray[Any]) -> float:
    """Return the area under the mean overlap of regions, up to a rate of false positives."""
    rate = np.append(0, np.cumsum(normal[::-1]) / normal.sum())
    overlap = np.append(0, np.cumsum(regions[::-1]) / n_regions)
    inside = rate < AUPRO_LIMIT
    x = np.append(rate[inside], AUPRO_LIMIT)
    y = np.append(overlap[inside], np.interp(AUPRO_LIMIT, rate, overlap))
    return float(np.trapezoid(y, x) / AUPRO_LIMIT)


def columns_of(figures: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    """Return the figures of `judge_dataset` as the lines that a person reads, the head first."""
    with_maps = any("aupro" in found for found in figures.values())
    head = ["defect", "images", "AUROC", "AUPRC", "prevalence", "found"]
    lines = [head + ["masks", "pixel AUROC", "AUPRO"] * with_maps]
    for kind, found in figures.items():
        line = [kind, f"{found['n_anomalous']:,}", _with_interval(found, "auroc")]
        line += [_with_interval(found, "auprc"), f"{found['prevalence']:.3f}"]
        line += [_with_interval(found, "detection_rate")]
        if with_maps:
            line += [f"{found['n_masks']:,}"]
            line += [_with_interval(found, name) for name in ("pixel_auroc", "aupro")]
        lines.append(line)
    return lines


def _with_interval(found: dict[str, Any], name: str) -> str:
    if name not in found:
        return "-"
    return f"{found[name]:.3f} ({found[f'{name}_low']:.3f} to {found[f'{name}_high']:.3f})"
