"""Write what was measured into docs/features.md from the rows in docs/rows/features.

It is the section "Measured"; with `--check`, the page is only compared.
"""

from __future__ import annotations

import re
import statistics
import sys

from benchmarks.features.measure import RATES, SETS
from benchmarks.pages import DOCS, ROWS, Row, commands, grouped, write_or_check
from historyad.files import read_rows
from historyad.research.markdown import table

PAGE = DOCS / "features.md"

HEAD = """## Measured

Written by `python -m benchmarks.features.page` from the rows in `docs/rows/features`. All methods
see the same cells of the same images, at 224 pixels, and are fitted on the same part of the good
ones; the rest of these sets the threshold. AUROC of images, mean over the seeds, and its 95 %
interval with the first seed; of tiles, whole groups of pictures of one tile are drawn again for
it. Alarms are false ones on good test images. Tiles are a development set: blocks of the network
and the worst ten cells were chosen on part of their test images. No setting was chosen on cookies
or screws, but that D_TV is left out by default was decided on the figures of all three sets.
SimpleNet was not measured.
"""

PEERS = """
The sums of views are those of one fit, the best first. The default is the sum of
`neighbours` and `place` or `gaussian`, and `--views all` that with `history`. `residual`, which
neither has, is the distance to a Gaussian of what is left of a cell beside its nearest.

PatchCore, PaDiM and SimpleNet are written anew here after their papers, on these cells and without
their own networks and sizes, so that published figures of theirs are not comparable.
"""


def build() -> str:
    """Return the page, its section anew."""
    rows = read_rows(ROWS / "features" / "rows.jsonl")
    section = HEAD + "".join(_of_set(name, rows) for name in SETS) + PEERS + commands(rows)
    return re.sub(
        r"## Measured\n.*?(?=^## )", lambda _: section, PAGE.read_text(), flags=re.S | re.M
    )


def _of_set(name: str, rows: list[Row]) -> str:
    found = grouped([row for row in rows if row["set"] == name], "fit", "method")
    order = sorted(found.values(), key=lambda group: (group[0]["fit"] != "ours", -_mean(group)))
    lines = [_line(group) for group in order]
    asked = f"{RATES[name]:g}"
    head = [
        "method",
        "seeds",
        "AUROC",
        "interval",
        "pixel AUROC",
        f"alarms, {asked} asked",
        "found",
    ]
    return f"\n### {name.capitalize()}\n\n{table(head, lines)}" if lines else ""


def _line(group: list[Row]) -> list[str]:
    first = min(group, key=lambda row: int(row["seed"]))
    pixels = [row["pixel_auroc"] for row in group if row["pixel_auroc"] is not None]
    alarms = sum(row["false_alarms"] for row in group), sum(row["n_good"] for row in group)
    return [
        first["method"],
        str(len(group)),
        f"{_mean(group):.3f}",
        f"{first['auroc_low']:.3f} to {first['auroc_high']:.3f}",
        f"{statistics.fmean(pixels):.3f}" if pixels else "-",
        f"{alarms[0]} of {alarms[1]}",
        f"{statistics.fmean(row['found'] for row in group):.3f}",
    ]


def _mean(group: list[Row]) -> float:
    return statistics.fmean(row["auroc"] for row in group)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, build()))
