"""A series with the intervals that are anomalous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from historyad.data.sources import Source
from historyad.judge import charts
from historyad.judge.report.beside import window_beside
from historyad.model.examples import Examples
from historyad.model.model import Model
from historyad.model.steps import find_intervals, rows_of_intervals, score_source

_CHANNELS, _INTERVALS, _WINDOWS = 6, 10, 3  # shown


def series_of(
    model: Model, sources: Sequence[Source | None], examples: Examples | None = None
) -> list[dict[str, Any]]:
    """Return a picture of each source that is a series, and its worst intervals."""
    given = [source for source in sources if source is not None and source.series is not None]
    return [_series(model, source, f"series-{i}", examples) for i, source in enumerate(given)]


def _series(model: Model, source: Source, name: str, examples: Examples | None) -> dict[str, Any]:
    series = source.series
    assert series is not None
    found = find_intervals(score_source(model, source), series)
    n_channels = min(_CHANNELS, series.steps.shape[1])
    titles = source.columns or [f"channel {i}" for i in range(n_channels)]
    chart = charts.channels(
        name,
        f"The series {source.description}, with what is anomalous behind it",
        [(titles[i], series.steps[:, i]) for i in range(n_channels)],
        [(interval.start, interval.end) for interval in found],
    )
    windows = [
        window_beside(model, examples, source, interval.peak, f"{name}-{i}")
        for i, interval in enumerate(found[:_WINDOWS])
    ]
    return {
        "name": source.description,
        "chart": chart,
        "n_steps": len(series.steps),
        "n": len(found),
        "n_hidden": series.steps.shape[1] - n_channels,
        "windows": [one for one in windows if one is not None],
        "intervals": rows_of_intervals(found[:_INTERVALS], series),
    }
