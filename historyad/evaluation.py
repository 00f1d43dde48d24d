"""Judge a fitted model on labelled sources. Labels are used here and nowhere else."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.explain import anomaly_map
from historyad.metrics import auprc, aupro, auroc, bootstrap_interval, check_pixels, fpr_at_tpr
from historyad.model import Model
from historyad.sources import Source

AUPRO_LIMIT = 0.3  # false-positive rate up to which region overlap is averaged


def judge(normal: NDArray[np.floating], anomalous: NDArray[np.floating]) -> dict[str, Any]:
    """Return what the scores of normal (n,) and anomalous (m,) samples are worth.

    AUROC and AUPRC come with their 95 % bootstrap intervals; the anomalous class is the positive
    one, and its share, the prevalence, stands beside them.
    """
    y = np.repeat([0, 1], [len(normal), len(anomalous)])
    score = np.concatenate([normal, anomalous])
    auroc_low, auroc_high = bootstrap_interval(auroc, y, score)
    auprc_low, auprc_high = bootstrap_interval(auprc, y, score)
    return {
        "auroc": auroc(y, score),
        "auroc_low": auroc_low,
        "auroc_high": auroc_high,
        "auprc": auprc(y, score),
        "auprc_low": auprc_low,
        "auprc_high": auprc_high,
        "prevalence": float(y.mean()),
        "fpr_at_95_tpr": fpr_at_tpr(y, score),
        "n_normal": len(normal),
        "n_anomalous": len(anomalous),
    }


def evaluate_model(model: Model, normal: Source, anomalous: Source) -> dict[str, Any]:
    """Return the figures of `judge`, the error rates at the model's own threshold, and the speed.

    The threshold was set without seeing either source.
    """
    started = time.perf_counter()
    scores = [model.anomaly_score(source.samples) for source in (normal, anomalous)]
    seconds = time.perf_counter() - started
    threshold = model.calibration.threshold
    return {
        **judge(*scores),
        "threshold": threshold,
        "false_positive_rate": float((scores[0] > threshold).mean()),
        "requested_false_positive_rate": model.calibration.false_positive_rate,
        "detection_rate": float((scores[1] > threshold).mean()),
        "seconds": seconds,
        "images_per_second": (len(normal) + len(anomalous)) / seconds,
    }


def judge_pixels(
    model: Model, normal: Source, anomalous: Source, masks: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return what the maps of a model are worth, against the ``masks`` (m, H, W) of anomalies.

    All pixels of normal images count as normal. Anomalous images whose mask is empty are left out.
    """
    marked = masks.any((1, 2))
    images = [*normal.samples, *anomalous.samples[marked]]
    good, bad = np.split(np.stack([anomaly_map(model, x) for x in images]), [len(normal)])
    return {**judge_maps(good, bad, masks[marked]), "n_empty_masks": int((~marked).sum())}


def judge_maps(
    normal: NDArray[np.floating], anomalous: NDArray[np.floating], masks: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return pixel AUROC, AUPRC and AUPRO of maps (n, H, W) and (m, H, W), with ``masks`` of the m.

    No mask may be empty. Raises InputError where there are none, or their shape is another.
    """
    truth = np.concatenate([np.zeros(normal.shape, bool), masks])
    found = np.concatenate([normal, anomalous])
    y, score = check_pixels(truth, found)
    return {
        "pixel_auroc": auroc(y, score),
        "pixel_auprc": auprc(y, score),
        "pixel_prevalence": float(y.mean()),
        "aupro": aupro(truth, found, fpr_limit=AUPRO_LIMIT),
        "aupro_fpr_limit": AUPRO_LIMIT,
        "n_masks": len(masks),
    }


def table_of(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures of `evaluate_model` as the rows that a person reads."""
    f = figures
    return [
        ("AUROC", f"{f['auroc']:.4f}  ({f['auroc_low']:.4f} to {f['auroc_high']:.4f})"),
        (
            "AUPRC",
            f"{f['auprc']:.4f}  ({f['auprc_low']:.4f} to {f['auprc_high']:.4f}), "
            f"prevalence {f['prevalence']:.3f}",
        ),
        ("FPR at 95 % TPR", f"{f['fpr_at_95_tpr']:.4f}"),
        (
            "false positives",
            f"{f['false_positive_rate']:.4f} at the threshold {f['threshold']:+.3f}, "
            f"{f['requested_false_positive_rate']:g} was asked for",
        ),
        ("anomalies found", f"{f['detection_rate']:.4f} at that threshold"),
        ("samples", f"{f['n_normal']:,} normal, {f['n_anomalous']:,} anomalous"),
        ("speed", f"{f['images_per_second']:,.0f} per second"),
        *(_pixel_rows(f) if "pixel_auroc" in f else ()),
    ]


def _pixel_rows(f: dict[str, Any]) -> list[tuple[str, str]]:
    empty = f", {f['n_empty_masks']} empty left out" if f["n_empty_masks"] else ""
    return [
        ("pixel AUROC", f"{f['pixel_auroc']:.4f}"),
        ("pixel AUPRC", f"{f['pixel_auprc']:.4f}, prevalence {f['pixel_prevalence']:.3f}"),
        ("AUPRO", f"{f['aupro']:.4f} up to a false-positive rate of {f['aupro_fpr_limit']:g}"),
        ("masks", f"{f['n_masks']:,}{empty}"),
    ]
