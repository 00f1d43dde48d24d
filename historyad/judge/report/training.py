"""The curves of a training."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from historyad.config import Config
from historyad.judge import charts
from historyad.method.history import recorded_interval


def training_of(records: list[dict[str, Any]], config: Config) -> dict[str, Any] | None:
    """Return the curves of steps 1 and 3, if there is a log."""
    gan = [record for record in records if record["step"] == "gan"]
    detector = [record for record in records if record["step"] == "detector"]
    if not gan or not detector:
        return None
    return {
        "wasserstein": charts.curve(
            "wasserstein",
            "Wasserstein distance between data and generator over the epochs of step 1",
            np.array([record["epoch"] for record in gan]),
            np.array([record["wasserstein_distance"] for record in gan]),
            ("epoch of step 1", "Wasserstein distance"),
            span=recorded_interval(config),
        ),
        "total_variation": charts.curve(
            "total-variation",
            "Estimated total variation between data and history over the epochs of step 3",
            np.array([record["epoch"] for record in detector]),
            np.array([record["total_variation"] for record in detector]),
            ("epoch of step 3", "total variation"),
        ),
        "last_wasserstein": gan[-1]["wasserstein_distance"],
        "last_total_variation": detector[-1]["total_variation"],
        "seconds": seconds_of([record["seconds"] for record in records]),
    }


def seconds_of(clock: list[float]) -> float:
    """Return the time in all of a clock that starts again wherever a run was continued."""
    return sum(now for now, later in pairwise([*clock, 0.0]) if later < now)
