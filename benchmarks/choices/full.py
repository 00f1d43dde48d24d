"""Measure the momenta of the paper's method at full size, on house numbers: docs/rows/choices.

    python -m benchmarks.choices.full [--seeds 0] [--momenta paper earlier ...] [--work FOLDER]

House numbers are normal, and photos are not, as in table 1; ten CPU minutes a row. The preset
'paper' was chosen on seed 0. A row that is there is not measured again, and rows that differ in
step 3 alone share a history.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.choices.measure import momenta
from benchmarks.measuring import keep, parser_for
from benchmarks.pages import ROWS
from historyad.files import read_rows
from historyad.research.reproduce import table1
from historyad.research.reproduce.runs import Runs

OUT = ROWS / "choices" / "full.jsonl"
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


def main() -> None:
    """Measure each pair of momenta with each seed."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--momenta", nargs="+", default=list(MOMENTA), choices=list(MOMENTA))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "choices")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("HISTORYAD_DATA", "."))
    arguments = parser.parse_args()
    runs = Runs(arguments.work, Path(arguments.data_root))
    there = {(row["momenta"], row["seed"]) for row in read_rows(arguments.out)}
    for seed in arguments.seeds:
        for name in arguments.momenta:
            if (name, seed) in there:
                continue
            recipe = table1.method_of_paper("full", seed, **MOMENTA[name])
            model = runs.model(recipe)
            for row in table1.judge(runs, seed, model.anomaly_score):
                del row["histograms"]
                facts = {"momenta": name, "seed": seed, **runs.seconds(recipe)}
                keep(arguments.out, {**facts, **row})


if __name__ == "__main__":
    main()
