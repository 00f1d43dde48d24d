"""Write docs/cured.md from the rows in docs/rows/cured; `--check` only compares."""

from __future__ import annotations

import sys

from benchmarks.pages import DOCS, ROWS, commands, write_or_check
from historyad.files import read_rows
from historyad.research.markdown import table

HEAD = """# What once went wrong

<!-- Written by `python -m benchmarks.cured.page` from the rows in docs/rows/cured; do not edit. -->

**In short.** Six faults that users would have met, each with what it did then and what it does now.

Things that an earlier version got wrong without a word, and what is measured now, with the preset
`quick` and short fits.
"""
# Of each: what it is, what it was, and how it is said now.
CASES = {
    "copies": (
        "false alarms where every digit is given twice; 1 % asked for",
        "7.0 %",
        "{false_alarms:.1%}",
    ),
    "grown": (
        "false alarms after `calibrate` on the training digits and some more; in brackets, before",
        "6 % (0.7 %)",
        "{after:.1%} ({before:.1%})",
    ),
    "own": (
        "images called anomalous of 200 that a whole-image detector was given; in brackets, of "
        "fresh ones",
        "all that it was trained on",
        "{own:.1%} ({fresh:.1%})",
    ),
    "suspects": (
        "places of seven zeros among 693 other digits in the list of suspects",
        "none among the first 24",
        "{first:.0f} to {last:.0f}",
    ),
    "scratches": (
        "AUROC of scratches on images of 700 x 900",
        "0.711",
        "{auroc:.3f}",
    ),
    "memory": (
        "memory of a fit on 60 colour photos of 1500 x 2000, besides their pixels",
        "1,750 MB",
        "{peak_mb:,.0f} MB in all, {before_mb:,.0f} MB before the fit",
    ),
}


def build() -> str:
    """Return the page."""
    rows = {row["what"]: row for row in read_rows(ROWS / "cured" / "rows.jsonl")}
    lines = [
        [what, before, now.format(**rows[name])]
        for name, (what, before, now) in CASES.items()
        if name in rows
    ]
    return HEAD + commands([*rows.values()]) + table(["what", "then", "now"], lines)


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "cured.md", build()))
