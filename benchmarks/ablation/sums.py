"""Weighted sums of the views of `benchmarks.ablation.views`: the score's, and others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ablation.views import (
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
    OF_FINE,
    PATTERN,
    SIMPLICITY,
    STAY,
    Scores,
)
from historyad.constants import CONSTANTS, Rule
from historyad.score.scale import Scale

# A term "view > a" counts what exceeds a, on the scale of the score; "squared", by its square.
SUM = "sum: "
AS_OTHERS = f"{SIMPLICITY}, on the scale of other views"
# The terms of sums that are views of the score, and how they are said here.
VIEWS = {
    **{"history": HISTORY, "pattern": PATTERN, "neighbours": NEAR, "blocks": BLOCKS},
    **{"edges": EDGES, "gaussian": LESS[2], "simplicity": SIMPLICITY},
    "features": LESS_FEATURES[1],
}


def term(view: str, rule: Rule) -> str:
    """Return the term for a view that counts by this rule."""
    beyond = "" if rule.floor is None else f" > {rule.floor:g}"
    return VIEWS[view] + beyond + (" squared" if rule.squared else "")


def sums(rules: dict[str, Rule]) -> dict[str, dict[str, float]]:
    """Return the weight of each term in every sum that is tried, that of ``rules`` first."""
    terms = {view: term(view, rule) for view, rule in rules.items()}
    default = {terms[view]: rule.weight for view, rule in rules.items()}

    def with_(**changes: float) -> dict[str, float]:
        """Return the default's weights with others for some views; 0 leaves one out."""
        changed = default | {terms[view]: weight for view, weight in changes.items()}
        return {name: weight for name, weight in changed.items() if weight}

    far, plainer = terms["gaussian"], terms["simplicity"]
    of_gaussian = rules["gaussian"].weight  # grows with the number of colours
    without_gaussian, without_simplicity = with_(gaussian=0), with_(simplicity=0)
    return {
        "default": default,
        **{f"without {view}": with_(**{view: 0}) for view in rules},
        "history 1": with_(history=1),
        "pattern 2": with_(pattern=2),
        "without edges and simplicity": with_(edges=0, simplicity=0),
        "neighbours 6": with_(neighbours=6),
        "neighbours 14": with_(neighbours=14),
        "neighbours up to 2": default | {f"{NEAR} > 2": -rules["neighbours"].weight},
        "blocks 8": with_(blocks=8),
        "blocks 16": with_(blocks=16),
        "edges 12": with_(edges=12),
        "edges 20": with_(edges=20),
        "features 2": with_(features=2),
        "features 6": with_(features=6),
        "gaussian half": with_(gaussian=of_gaussian / 2),
        "gaussian twice": with_(gaussian=2 * of_gaussian),
        "gaussian 14": with_(gaussian=14),
        "gaussian always": without_gaussian | {LESS[2]: of_gaussian},
        "gaussian beyond 0.5": without_gaussian | {f"{LESS[2]} > 0.5": of_gaussian},
        "gaussian beyond 1.5": without_gaussian | {f"{LESS[2]} > 1.5": of_gaussian},
        "gaussian beyond 2": without_gaussian | {f"{LESS[2]} > 2": of_gaussian},
        "gaussian less its neighbours' once": without_gaussian | {f"{LESS[1]} > 1": of_gaussian},
        "gaussian by itself": without_gaussian | {f"{GAUSSIAN} > 1": of_gaussian},
        "simplicity 10": with_(simplicity=10),
        "simplicity 30": with_(simplicity=30),
        "simplicity 15, beyond 0": without_simplicity | {f"{SIMPLICITY} > 0 squared": 15},
        "simplicity 30, beyond 0.5": without_simplicity | {f"{SIMPLICITY} > 0.5 squared": 30},
        "simplicity 30, beyond 0.75, plain": without_simplicity | {f"{SIMPLICITY} > 0.75": 30},
        "simplicity 30, always, plain": without_simplicity | {SIMPLICITY: 30},
        "simplicity on the scale of other views": without_simplicity
        | {f"{AS_OTHERS} > 0.25 squared": rules["simplicity"].weight},
        "simplicity by the fine distance": without_simplicity
        | {f"{OF_FINE} > 0.25 squared": rules["simplicity"].weight},
        "features by themselves": with_(features=0) | {"features gaussian": 4},
        "features less their neighbours' twice": with_(features=0) | {LESS_FEATURES[2]: 4},
        "neighbours among all": with_(neighbours=0) | {ALL_NEAR: 10},
        "blocks that stay": with_(blocks=0) | {BLOCKS + STAY: 12},
        "blocks that move by two pixels": with_(blocks=0) | {BLOCKS + BY_TWO: 12},
        "edges that stay": with_(edges=0) | {EDGES + STAY: 16},
        "edges that move by a pixel": with_(edges=0) | {EDGES + BY_ONE: 16},
        "edges instead of blocks": with_(blocks=0, edges=28),
        "pixels besides": default | {"pixels cosine": 5},
        "pixels instead of blocks": with_(blocks=0) | {"pixels cosine": 5},
        "features by euclid besides": default | {"features euclid": 3},
        "averaged critic besides": default | {"averaged critic's features euclid": 2},
        "blocks, edges, gaussian and simplicity": {
            view: default[view] for view in (BLOCKS, EDGES, far, plainer)
        },
        "history and pixels gaussian": {HISTORY: 1, GAUSSIAN: 1},
    }


def sums_of(views: dict[str, Scores], rules: dict[str, Rule]) -> Iterator[tuple[str, Scores]]:
    """Yield each weighted sum of `sums`, of views standardised as the score does it."""
    views = {**views, AS_OTHERS: views[SIMPLICITY]}
    scale = {name: _standardised(name, scores) for name, scores in views.items()}
    for title, weights in sums(rules).items():
        total: Scores = {}
        for name, weight in weights.items():
            view, _, beyond = name.partition(" > ")
            for key, values in scale[view].items():
                total[key] = total.get(key, np.float32(0)) + weight * _counted(values, beyond)
        yield SUM + title, total


def _counted(values: NDArray[np.float32], beyond: str) -> NDArray[np.float32]:
    if not beyond:
        return values
    floor, _, squared = beyond.partition(" ")
    excess: NDArray[np.float32] = np.maximum(values - np.float32(floor), 0)
    return excess**2 if squared else excess


def _standardised(name: str, scores: Scores) -> Scores:
    scale = Scale(1)
    scale.fit(
        torch.from_numpy(scores["held out"])[None],
        squared=[name in (SIMPLICITY, OF_FINE)],
        smallest={0: CONSTANTS.smallest_history_spread} if name == HISTORY else {},
    )
    return {key: scale(torch.from_numpy(values)[None])[0].numpy() for key, values in scores.items()}
