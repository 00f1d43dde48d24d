"""The detectors of MNIST that figures 5, 6, 8, 9 and the pooled histories share."""

from __future__ import annotations

from typing import Any

from historyad.research.reproduce.figure import Row
from historyad.research.reproduce.runs import Recipe, Size, default, paper

KMNIST, FASHION = "mnist-vs-kmnist", "mnist-vs-fashion"
RECORDED = 100  # snapshots per epoch, of which any smaller number is a thinning
_SAVES = 50  # snapshots per epoch of the paper


def of_paper(size: Size, seed: int, saves: int = _SAVES, **choices: Any) -> Recipe:
    """Return the paper's detector of MNIST that sees so many snapshots per epoch."""
    recorded = paper(size, KMNIST, seed, saves_per_epoch=RECORDED)
    return Recipe(KMNIST, recorded.config, every=RECORDED // saves, **choices)


def both(size: Size, unit: Row) -> dict[str, Recipe]:
    """Return the paper's detector and our default."""
    seed = unit["seed"]
    return {"paper": of_paper(size, seed), "default": default(size, KMNIST, seed)}
