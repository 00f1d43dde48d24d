"""Weighted sums of the views of `ablation_views.py`: the score's, and others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ablation_views import (
    ALL_NEAR,
    BLOCKS,
    BY_ONE,
    BY_TWO,
    EDGES,
    GAUSSIAN,
    HISTORY,
    LESS,
    LESS_FEATURES,
    NEAR,
    PATTERN,
    SIMPLICITY,
    STAY,
    Scores,
)

from historyad.views import RANGE, SMALLEST_SPREAD, SMALLEST_SPREAD_OF_HISTORY, ImageCompanions

# A term "view > a" counts what exceeds a, on the scale of the score.
FAR = f"{LESS[2]} > {ImageCompanions.rules['gaussian'][1]:g}"
PLAINER = f"{SIMPLICITY} > {ImageCompanions.rules['simplicity'][1]:g}"
SUM = "sum: "
# The terms of sums that are views of the score.
TERMS = {
    **{"history": HISTORY, "pattern": PATTERN, "neighbours": NEAR},
    **{"blocks": BLOCKS, "edges": EDGES},
    **{"gaussian": FAR, "simplicity": PLAINER, "features": LESS_FEATURES[1]},
}
DEFAULT = {TERMS[view]: weight for view, (weight, _) in ImageCompanions.rules.items()}


def _default(**changes: float) -> dict[str, float]:
    """Return the default's weights with others for some views; 0 leaves one out."""
    changed = DEFAULT | {TERMS[view]: weight for view, weight in changes.items()}
    return {name: weight for name, weight in changed.items() if weight}


SUMS: dict[str, dict[str, float]] = {
    "default": DEFAULT,
    "without history": _default(history=0),
    "without pattern": _default(pattern=0),
    "without neighbours": _default(neighbours=0),
    "without blocks": _default(blocks=0),
    "without gaussian": _default(gaussian=0),
    "without simplicity": _default(simplicity=0),
    "without features": _default(features=0),
    "history 1": _default(history=1),
    "pattern 2": _default(pattern=2),
    "without edges": _default(edges=0),
    "without edges and simplicity, and the weights that were best then": {
        **{HISTORY: 0.5, PATTERN: 1, NEAR: 6, BLOCKS: 12, f"{LESS[2]} > 1.5": 8},
        **{LESS_FEATURES[1]: 2},
    },
    "neighbours 6": _default(neighbours=6),
    "neighbours 14": _default(neighbours=14),
    "blocks 8": _default(blocks=8),
    "blocks 16": _default(blocks=16),
    "edges 12": _default(edges=12),
    "edges 20": _default(edges=20),
    "features 2": _default(features=2),
    "features 6": _default(features=6),
    "gaussian 10": _default(gaussian=10),
    "gaussian 18": _default(gaussian=18),
    "gaussian always": _default(gaussian=0) | {LESS[2]: 14},
    "gaussian beyond 1.5": _default(gaussian=0) | {f"{LESS[2]} > 1.5": 14},
    "gaussian beyond 2": _default(gaussian=0) | {f"{LESS[2]} > 2": 14},
    "gaussian less its neighbours' once": _default(gaussian=0) | {f"{LESS[1]} > 1": 14},
    "gaussian by itself": _default(gaussian=0) | {f"{GAUSSIAN} > 1": 14},
    "simplicity 20": _default(simplicity=20),
    "simplicity 40": _default(simplicity=40),
    "simplicity always": _default(simplicity=0) | {SIMPLICITY: 30},
    "simplicity beyond 0.5": _default(simplicity=0) | {f"{SIMPLICITY} > 0.5": 30},
    "simplicity beyond 1": _default(simplicity=0) | {f"{SIMPLICITY} > 1": 30},
    "simplicity beyond 1, and 50": _default(simplicity=0) | {f"{SIMPLICITY} > 1": 50},
    "features by themselves": _default(features=0) | {"features gaussian": 4},
    "features less their neighbours' twice": _default(features=0) | {LESS_FEATURES[2]: 4},
    "neighbours among all": _default(neighbours=0) | {ALL_NEAR: 10},
    "blocks that stay": _default(blocks=0) | {BLOCKS + STAY: 12},
    "blocks that move by two pixels": _default(blocks=0) | {BLOCKS + BY_TWO: 12},
    "edges that stay": _default(edges=0) | {EDGES + STAY: 16},
    "edges that move by a pixel": _default(edges=0) | {EDGES + BY_ONE: 16},
    "edges instead of blocks": _default(blocks=0, edges=28),
    "pixels besides": DEFAULT | {"pixels cosine": 5},
    "pixels instead of blocks": _default(blocks=0) | {"pixels cosine": 5},
    "features by euclid besides": DEFAULT | {"features euclid": 3},
    "averaged critic besides": DEFAULT | {"averaged critic's features euclid": 2},
    "blocks, edges, gaussian and simplicity": {BLOCKS: 12, EDGES: 16, FAR: 14, PLAINER: 30},
    "history and pixels gaussian": {HISTORY: 1, GAUSSIAN: 1},
}


def sums_of(views: dict[str, Scores]) -> Iterator[tuple[str, Scores]]:
    """Yield each weighted sum of `SUMS`, of views standardised as the score does it."""
    scale = {name: _standardised(name, scores) for name, scores in views.items()}
    for title, weights in SUMS.items():
        total: Scores = {}
        for term, weight in weights.items():
            name, _, floor = term.partition(" > ")
            for key, values in scale[name].items():
                counted = np.maximum(values, float(floor)) if floor else values
                total[key] = total.get(key, np.float32(0)) + weight * counted
        yield SUM + title, total


def _standardised(name: str, scores: Scores) -> Scores:
    held_out = scores["held out"]
    center = np.median(held_out)
    smallest = SMALLEST_SPREAD_OF_HISTORY if name == HISTORY else SMALLEST_SPREAD
    spread = max(np.quantile(held_out, RANGE) - center, smallest)
    return {key: (values - center) / spread for key, values in scores.items()}
