"""A series, step by step: scores, verdicts, and the intervals that anomalies make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from historyad.data.series import over_steps
from historyad.data.shards import printable
from historyad.data.sources import Series, Source
from historyad.model.model import Model
from historyad.score.result import Scored

COLUMNS = ("start", "end", "steps", "peak", "anomaly_score", "p_value")  # of a table of intervals


@dataclass(frozen=True)
class Interval:
    """Steps from ``start`` to ``end``, both included, that are anomalous; ``peak`` is most so."""

    start: int
    end: int
    peak: int
    anomaly_score: float
    p_value: float


def score_source(model: Model, source: Source, *, views: bool = False) -> Scored:
    """Score the samples of a source that ``model`` takes; of a series, its steps.

    A step has the mean score of the windows that it is in, and the p-value that a window of that
    score has: a mean is rarely further out than a window is, so that it errs to the safe side.
    """
    chunks = source.chunks(check=model.kind.check)
    parts = [model.score.of(samples, views=views) for _, samples in chunks]
    scores = np.concatenate([part.anomaly_score for part in parts])
    found = [part.views or {} for part in parts]
    of_views = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    if source.series is not None:
        scores = over_steps(scores, source.series)
        of_views = {name: over_steps(view, source.series) for name, view in of_views.items()}
    return model.calibration.decide(Scored(scores, views=of_views if views else None))


def find_intervals(scored: Scored, series: Series) -> list[Interval]:
    """Return the anomalous intervals of a series whose steps are ``scored``, the worst first.

    Those less than a window apart are one, for a window that reaches into both cannot tell them.
    """
    assert scored.p_value is not None
    assert scored.is_anomalous is not None
    steps = np.flatnonzero(scored.is_anomalous)
    if not len(steps):
        return []
    ends = np.flatnonzero(np.diff(steps) >= series.length)
    found = []
    for part in np.split(steps, ends + 1):
        start, end = int(part[0]), int(part[-1])
        peak = start + int(scored.anomaly_score[start : end + 1].argmax())
        score, p_value = float(scored.anomaly_score[peak]), float(scored.p_value[peak])
        found.append(Interval(start, end, peak, score, p_value))
    return sorted(found, key=lambda interval: -interval.anomaly_score)


def rows_of_intervals(intervals: Sequence[Interval], series: Series) -> list[dict[str, Any]]:
    """Return the rows of a table of intervals, whose ends and peaks are called as the steps are."""
    return [
        {
            "start": printable(series.names[found.start]),
            "end": printable(series.names[found.end]),
            "steps": found.end - found.start + 1,
            "peak": printable(series.names[found.peak]),
            "anomaly_score": found.anomaly_score,
            "p_value": found.p_value,
        }
        for found in intervals
    ]
