"""What is known of some samples once they are scored: one type for all who ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]

# The columns that every table, answer and graph has, in this order.
FIGURES = ("anomaly_score", "p_value", "is_anomalous")


@dataclass(frozen=True)
class Scored:
    """Scores of N samples, and what goes with them; None is what was not asked for.

    ``views`` are what each view says of each sample, {name: (N,)}, 0 for what is typical and above
    1 for what is rare; ``maps`` are one value for each pixel of each image, (H, W) each.
    """

    anomaly_score: NDArray[np.float32]
    p_value: NDArray[np.float64] | None = None
    is_anomalous: NDArray[np.bool_] | None = None
    views: dict[str, NDArray[np.float32]] | None = None
    maps: list[Map] | None = None

    def __len__(self) -> int:
        return len(self.anomaly_score)

    def columns(self) -> Columns:
        """Return what is one value for each sample, by name: `FIGURES`, then the views."""
        found = {name: getattr(self, name) for name in FIGURES}
        return {n: v for n, v in found.items() if v is not None} | (self.views or {})


def rows_of(columns: Columns) -> Iterator[dict[str, Any]]:
    """Yield the rows of columns, as JSON can hold them."""
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, values, strict=True))
