"""Measure momenta, start and length of the paper's method at full size.

    python -m benchmarks.choices.full [--normal house-numbers digits] [--seeds 0]
        [--momenta "(.9, .999); (.9, .999)" ...] [--work FOLDER]

The rows are docs/rows/choices/full.jsonl. House numbers against photos, as in table 1, and digits
against other signs and clothing, as in figure 5; ten to fifteen CPU minutes a detector. What is
there is not measured again, and detectors that differ in step 3 alone share a history.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.choices.measure import momenta
from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from historyad.files import read_rows
from historyad.research.reproduce import table1
from historyad.research.reproduce.figure import separation
from historyad.research.reproduce.runs import Recipe, Runs, paper

OUT = ROWS / "choices" / "full.jsonl"
KMNIST = "mnist-vs-kmnist"
_BETAS = {"(.5, .9)": (0.5, 0.9), "(.9, .9)": (0.9, 0.9), "(.9, .999)": (0.9, 0.999)}


def _way(
    step_1: str, step_3: str, start: str = "average", epochs: float = 5.0
) -> tuple[str, dict[str, Any]]:
    """Return the name of a way, and its settings: momenta, and start and length of step 3."""
    of_both = {**momenta(*_BETAS[step_1]), **momenta(*_BETAS[step_3], "detector_")}
    name = f"{step_1}; {step_3}"
    if start != "average":
        name += f"; {start}"
    if epochs != 5.0:
        name += f"; {epochs:g} epoch{'s' * (epochs != 1)}"
    return name, {**of_both, "detector_start": start, "detector_epochs": epochs}


MOMENTA: dict[str, dict[str, Any]] = dict(
    [
        _way("(.5, .9)", "(.5, .9)"),
        _way("(.5, .9)", "(.9, .9)"),
        _way("(.5, .9)", "(.9, .999)"),
        _way("(.9, .999)", "(.9, .999)"),
        _way("(.9, .999)", "(.9, .999)", "standardised"),
        _way("(.9, .999)", "(.5, .9)", "standardised"),
        _way("(.9, .999)", "(.9, .9)", "standardised"),
        _way("(.9, .999)", "(.5, .9)", "standardised", 1.5),
        _way("(.9, .999)", "(.9, .9)", "standardised", 1.5),
        _way("(.9, .999)", "(.9, .9)", "standardised", 2.0),
        _way("(.9, .999)", "(.9, .9)", "standardised", 1.0),
        _way("(.9, .999)", "(.9, .9)", "standardised", 0.5),
    ]
)
NORMAL: dict[str, tuple[Callable[..., Recipe], tuple[str, ...]]] = {
    "house-numbers": (table1.method_of_paper, tuple(table1.SPLITS)),
    "digits": (partial(paper, split=KMNIST), (KMNIST, "mnist-vs-fashion")),
}


def main() -> None:
    """Measure each pair of momenta with each seed."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--normal", nargs="+", default=list(NORMAL), choices=list(NORMAL))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--momenta", nargs="+", default=list(MOMENTA), choices=list(MOMENTA))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "choices")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("HISTORYAD_DATA", "."))
    arguments = parser.parse_args()
    runs = Runs(arguments.work, Path(arguments.data_root))
    there = {(row["normal"], row["momenta"], row["seed"]) for row in read_rows(arguments.out)}
    asked = itertools.product(arguments.normal, arguments.seeds, arguments.momenta)
    for normal, seed, name in asked:
        if (normal, name, seed) not in there:
            for row in _measured(runs, normal, seed, name):
                keep(arguments.out, row)


def _measured(runs: Runs, normal: str, seed: int, name: str) -> list[Row]:
    method, splits = NORMAL[normal]
    recipe = method(size="full", seed=seed, **MOMENTA[name])
    score = runs.model(recipe).anomaly_score
    of_normal = score(runs.split(splits[0], seed).normal.samples)
    facts = {"normal": normal, "momenta": name, "seed": seed, **runs.seconds(recipe)}
    return [
        {
            **facts,
            "split": split,
            **separation(of_normal, score(runs.split(split, seed).anomalous.samples)),
        }
        for split in splits
    ]


if __name__ == "__main__":
    main()
