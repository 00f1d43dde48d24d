"""Measure the momenta of the paper's method at full size: docs/rows/choices/full.jsonl.

    python -m benchmarks.choices.full [--normal house-numbers digits] [--seeds 0]
        [--momenta "(.9, .999); (.9, .999)" ...] [--work FOLDER]

House numbers against photos, as in table 1, and digits against other signs and clothing, as in
figure 5; ten to fifteen CPU minutes a detector. What is there is not measured again, and detectors
that differ in step 3 alone share a history.
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
# Of step 1 and of step 3.
MOMENTA: dict[str, dict[str, Any]] = {
    f"{one}; {three}": {**momenta(*first), **momenta(*second, "detector_")}
    for one, first, three, second in (
        ("(.5, .9)", (0.5, 0.9), "(.5, .9)", (0.5, 0.9)),
        ("(.5, .9)", (0.5, 0.9), "(.9, .9)", (0.9, 0.9)),
        ("(.5, .9)", (0.5, 0.9), "(.9, .999)", (0.9, 0.999)),
        ("(.9, .999)", (0.9, 0.999), "(.9, .999)", (0.9, 0.999)),
    )
}


ADAMS_OWN = "(.9, .999); (.9, .999)"
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
