"""A series with the intervals that are anomalous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from historyad.data.sources import Source
from historyad.judge import charts
from historyad.model.model import Model
from historyad.model.steps import find_intervals, rows_of_intervals, score_source

_CHANNELS, _INTERVALS = 6, 10  # shown


def series_of(model: Model, sources: Sequence[Source | None]) -> list[dict[str, Any]]:
    """Return a picture of each source that is a series, and its worst intervals."""
    given = [source for source in sources if source is not None and source.series is not None]
    return [_series(model, source, f"series-{i}") for i, source in enumerate(given)]


def _series(model: Model, source: Source, name: str) -> dict[str, Any]:
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
    return {
        "name": source.description,
        "chart": chart,
        "n_steps": len(series.steps),
        "n": len(found),
        "n_hidden": series.steps.shape[1] - n_channels,
        "intervals": rows_of_intervals(found[:_INTERVALS], series),
    }
