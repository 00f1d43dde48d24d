"""A sample beside the normal ones that are nearest to it: what it was compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.data.sources import Series, Source
from historyad.judge import charts
from historyad.judge.explain import feature_contributions
from historyad.judge.objections import as_line, nearest, objections
from historyad.model.examples import Examples
from historyad.model.model import Model

_COLUMNS = 8  # of a row that are shown, those that make it anomalous first
_CHANNELS = 3  # of a window

Array = NDArray[Any]


def against(model: Model, sample: Array) -> str:
    """Return which views object to a sample, as a line."""
    return as_line(objections(model, sample))


def rows_beside(
    model: Model, examples: Examples | None, entries: Sequence[tuple[float, str, Array]]
) -> list[dict[str, Any]]:
    """Return rows of a table, each with the columns that speak against it, beside normal rows."""
    return [_row_beside(model, examples, *entry) for entry in entries]


def _row_beside(
    model: Model, examples: Examples | None, score: float, name: str, row: Array
) -> dict[str, Any]:
    near = nearest(model, examples, row, name)
    order = np.argsort(-feature_contributions(model, row), kind="stable")[:_COLUMNS].tolist()
    titles = model.feature_names or [f"column {i}" for i in range(len(row))]
    kept = None if examples is None else examples.values
    values = np.empty((0, len(row))) if kept is None else kept[near]
    return {
        "name": name,
        "score": score,
        "p_value": float(model.calibration.p_value(np.array([score]))[0]),
        "against": against(model, row),
        "near": [examples.names[one] for one in near] if examples is not None else [],
        "columns": [
            (titles[i], [model.kind.called(i, float(one[i])) for one in [row, *values]])
            for i in order
        ],
        "n_hidden": len(row) - len(order),
    }


def window_beside(
    model: Model, examples: Examples | None, source: Source, peak: int, name: str
) -> dict[str, Any] | None:
    """Return a chart of the window of a series around a step, over those nearest to it."""
    series = source.series
    assert series is not None
    window = source.samples[_window_at(series, peak)]
    near = nearest(model, examples, window, None)
    if examples is None or examples.values is None or not near:
        return None
    titles = source.columns or [f"channel {i}" for i in range(window.shape[1])]
    shown = range(min(_CHANNELS, window.shape[1]))
    return {
        "chart": charts.over(
            name,
            f"The window around {series.names[peak]}, over the nearest normal ones",
            [(titles[i], window[:, i], examples.values[near][:, :, i]) for i in shown],
        ),
        "against": against(model, window),
        "step": str(series.names[peak]),
    }


def _window_at(series: Series, step: int) -> int:
    """Return which window has a step nearest to its middle."""
    return int(np.abs(series.starts + series.length / 2 - step).argmin())
