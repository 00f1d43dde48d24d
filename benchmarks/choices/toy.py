"""Measure how the toy of figures 3 and 4 depends on its settings: docs/rows/choices/toy.jsonl.

    python -m benchmarks.choices.toy [--seeds 1 2 3]

Some seconds a row; all of them are measured anew.
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
_STRONG: dict[str, Any] = {"gradient_penalty_weight": 10.0, "learning_rate": 1e-3}
_SWINGING: dict[str, Any] = {
    **{"gradient_penalty_weight": 5.0, "learning_rate": 2e-3, "critic_steps": 1, "width": 3.0}
}
SETTINGS: dict[str, dict[str, Any]] = {
    "as taken": {},
    "Adam's own momenta, (.9, .999), in step 1": momenta(0.9, 0.999),
    "penalty 10 and rate 1e-3": _STRONG,
    "the same, Adam's own": {**_STRONG, **momenta(0.9, 0.999)},
    "one critic step, penalty 5, rate 2e-3, a wide start, Adam's own": {
        **_SWINGING,
        **momenta(0.9, 0.999),
    },
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
                row = reproduce_toy(Path(folder), seed=seed, **settings)
                keep(arguments.out, {**row, "settings": name})


if __name__ == "__main__":
    main()
