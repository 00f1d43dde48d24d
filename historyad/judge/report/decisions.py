"""What a detector decides: its threshold, its errors on labelled samples, and what it can see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.data.sources import Source
from historyad.judge import charts
from historyad.judge.evaluation import judge
from historyad.judge.probe import probe_model
from historyad.judge.report.beside import rows_beside
from historyad.judge.report.samples import Entry, Seen, look_through, show
from historyad.model.examples import Examples
from historyad.model.model import Model

Array = NDArray[Any]

Entries = Sequence[Entry]

_ROWS = 3  # of a table, from either end
_SLIDER_SCORES = 1000  # quantiles that stand for the scores behind the slider


def decision_of(model: Model) -> dict[str, Any]:
    """Return what the threshold is worth, given how many held-out samples it was set on."""
    low, high = model.calibration.rate_quantiles([0.025, 0.975])
    return {"smallest_p": model.calibration.smallest_p_value, "low": low, "high": high}


def trial_of(
    model: Model, normal: Source, anomalous: Source, examples: Examples | None = None
) -> dict[str, Any]:
    """Return figures, charts and examples of samples whose labels are known."""
    good, bad = look_through(model, normal), look_through(model, anomalous)
    negatives, positives = good.scores, bad.scores
    threshold, is_picture = model.calibration.threshold, model.kind.is_picture
    n_false, n_found = int((negatives > threshold).sum()), int((positives > threshold).sum())
    at = {
        "falsePositives": n_false / len(negatives),
        "found": n_found / len(positives),
        "precision": n_found / max(1, n_false + n_found),
    }

    def show_all(entries: Entries) -> list[dict[str, Any]]:
        return show(model, entries, examples)

    def rows(entries: Entries) -> list[dict[str, Any]]:
        return rows_beside(model, examples, entries[:_ROWS])

    drawn = {
        "trial": charts.densities(
            "trial",
            "Distribution of the scores of normal and of anomalous samples",
            negatives,
            positives,
            ("normal", "anomalous"),
            threshold,
        ),
        **_rates(negatives, positives, at),
        "uniformity": charts.uniformity(
            "uniformity",
            "Distribution of the p-values of normal samples against the uniform one",
            model.calibration.p_value(negatives),
            model.calibration.n_apart,
        ),
    }
    return {
        **judge(negatives, positives),
        "at": at,
        "names": (normal.description, anomalous.description),
        "reused": n_used_of(normal, model) > 0,
        "charts": drawn,
        "examples": _examples(good, bad, show_all) if is_picture else [],
        "rows": [] if is_picture or normal.series is not None else _examples(good, bad, rows),
        "slider": _slider(model.calibration.threshold, at, negatives, positives, drawn),
    }


def _examples(
    good: Seen, bad: Seen, shown: Callable[[Entries], list[dict[str, Any]]]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return samples that say most of a detector, (what they are, samples)."""
    return [
        ("Anomalous, with the highest scores", shown(bad.highest)),
        ("Anomalous, with the lowest scores", shown(bad.lowest)),
        ("Normal, with the highest scores", shown(good.highest)),
    ]


def n_used_of(source: Source, model: Model) -> int:
    """Return how many samples the detector was fitted or calibrated on, and so finds normal."""
    used = (model.source, model.calibration_source or {})
    if source.fingerprint in {one.get("fingerprint") for one in used}:
        return len(source)
    return int(model.was_trained_on(source).sum())


def _rates(negatives: Array, positives: Array, at: dict[str, float]) -> dict[str, charts.Chart]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    y = np.repeat([0, 1], [len(negatives), len(positives)])
    fpr, tpr, _ = roc_curve(y, np.concatenate([negatives, positives]))
    precision, recall, _ = precision_recall_curve(y, np.concatenate([negatives, positives]))
    return {
        "roc": charts.rates(
            "roc",
            "Share of anomalies found against the share of normals called anomalous",
            fpr,
            tpr,
            ("false positives", "anomalies found"),
            (at["falsePositives"], at["found"]),
        ),
        "precision-recall": charts.rates(
            "precision-recall",
            "Precision against the share of anomalies found",
            recall,
            precision,
            ("anomalies found", "precision"),
            (at["found"], at["precision"]),
        ),
    }


def _slider(
    threshold: float,
    at: dict[str, float],
    normal: Array,
    anomalous: Array,
    drawn: dict[str, charts.Chart],
) -> dict[str, Any]:
    """Return what the page's script needs to show the errors at any threshold."""
    low, high = charts.score_range(normal, anomalous, threshold)
    return {
        "low": low,
        "high": high,
        "threshold": threshold,
        "own": at,
        "normal": _quantiles(normal),
        "anomalous": _quantiles(anomalous),
        "counts": [len(normal), len(anomalous)],
        "scales": {name: chart.scale for name, chart in drawn.items()},
    }


def _quantiles(scores: Array) -> list[float]:
    """Return sorted scores, or as many quantiles as a slider can tell apart."""
    if len(scores) > _SLIDER_SCORES:
        scores = np.quantile(scores, (np.arange(_SLIDER_SCORES) + 0.5) / _SLIDER_SCORES)
    return [round(float(score), 5) for score in np.sort(scores)]


def probe_of(model: Model, normal: Source | None) -> dict[str, Any] | None:
    """Return which damage to normal samples the detector sees."""
    if normal is None:
        return None
    found = probe_model(model, normal.samples)
    return {
        "name": normal.description,
        "n": found["n_samples"],
        "power": found["power"],
        "curves": [
            {**curve, "cells": list(zip(curve["strengths"], curve["rate"], strict=True))}
            for curve in found["corruptions"]
        ],
    }
