"""Measure how the toy of figures 3 and 4 depends on its settings: docs/rows/choices/toy.jsonl.

    python -m benchmarks.choices.toy [--seeds 1 2 3]

Some seconds a row, with D_TV trained at quick size; all of them are measured anew.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.choices.measure import momenta
from benchmarks.measuring import keep, parser_for
from benchmarks.pages import ROWS
from historyad.research.reproduce.toy import reproduce_toy

OUT = ROWS / "choices" / "toy.jsonl"
SETTINGS: dict[str, dict[str, Any]] = {
    "as taken": {},
    "momenta (.5, .9) in step 1": momenta(0.5, 0.9),
    "a generator with the critic's rate": {"generator_learning_rate": 0.0},
    "first outputs as wide as the data": {"width": 1.0},
    "a penalty of weight 10": {"gradient_penalty_weight": 10.0},
    "half the hidden units": {"hidden": 128},
}


def main() -> None:
    """Measure the toy with all settings and seeds."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in SETTINGS.items():
            for seed in arguments.seeds:
                row = reproduce_toy(Path(folder), seed=seed, size="quick", **settings)
                keep(arguments.out, {**row, "settings": name})


if __name__ == "__main__":
    main()
