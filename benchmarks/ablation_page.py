"""Write docs/ablation.md from the rows in docs/rows/ablation; `--check` only compares."""

from __future__ import annotations

import sys

from ablation import OUT, SUM
from ablation_vectors import OUT as VECTORS
from ablation_vectors import section as of_vectors
from pages import ROOT, Row, commands, of_before, table, write_or_check

from historyad.benchmark import read_rows

PAGE = ROOT / "docs" / "ablation.md"

HEAD = """# What was tried for the score

Written by `python benchmarks/ablation_page.py` from the rows in `docs/rows/ablation`; do not
edit. AUROC of every view alone, and of sums of views, on splits and on the seed where settings are
chosen; [the results](results.md) come from the default on other seeds. Of held-out, normal and
anomalous samples, at most 3,000 each are scored.

A view is a distance to normal samples: to the nearest five by cosine or by Euclid (on 64 principal
components), or to a Gaussian. It is taken on pixels, on the features after the last convolution of
D<sub>TV</sub>, or on its last hidden layer; or on those of the averaged critic of eq. 14. In sums,
views are standardised as in [the score](how-it-works.md#several-views-one-score).
"""
READING = """
A dash is what a split has no row of.

## What it says, and what it does not

* **Blocks that may move are the best view in most columns**, and the largest step that was found:
  without them the default loses .067 on a digit 3 among the others and .015 where one digit alone
  is normal. Where blocks stay in their place they overlook a 1 (.60, and .86 when they may move),
  and the sum with them does, too (.79, .90). On clothing, moving gains nothing.
* **Blocks and a Gaussian alone are strong**, and need D<sub>TV</sub> only to choose candidates and
  neighbours: above the default on a 3, level with it on house numbers, .04 behind it on a 1 and
  .008 behind on one kind of clothing. That is what the layers trained against the history add.
* **Training against the history pays most for a 1**: the last hidden layer of D<sub>TV</sub> is far
  above the pixels, and above that of the averaged critic from which it started.
* **D<sub>TV</sub>'s own output adds next to nothing to the sum**: .0004 at most. Its layers carry
  the score; the output alone is strong where the history reaches, and weak for a digit 0 or 1,
  which it takes for good data.
* **Relative distances find what lies near.** Divided by the root of the gap between normal samples,
  distances find the digits 4 and 1 better than plain ones. Clothing is found as well without.
* **The Gaussian of an image says more beside those of its neighbours**, and only house numbers need
  it (.994 without).
* A lead: the features' Gaussian less *twice* that of its neighbours finds a 1 better (+.016), and
  clothing worse (-.009).
* One seed each: differences of a hundredth mean nothing here, and weights were chosen on a plateau.
"""


def main() -> int:
    """Write the page, or with --check return 1 when it is not what the rows say."""
    return write_or_check(PAGE, build())


def build() -> str:
    """Return the page."""
    rows = read_rows(OUT)
    presets = list(dict.fromkeys(row["preset"] for row in rows))
    sections = [_section(rows, preset) for preset in presets]
    return HEAD + "".join(sections) + READING + of_vectors(read_rows(VECTORS))


def _section(rows: list[Row], preset: str) -> str:
    rows = [row for row in rows if row["preset"] == preset]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    found = {(row["what"], row["split"]): row["auroc"] for row in rows}
    lines = {
        name: [f"{found[name, split]:.4f}" if (name, split) in found else "–" for split in splits]
        for name in dict.fromkeys(row["what"] for row in rows)
    }
    views = [[name, *cells] for name, cells in lines.items() if not name.startswith(SUM)]
    sums = [[name[len(SUM) :], *cells] for name, cells in lines.items() if name.startswith(SUM)]
    tables = table(["view", *splits], views) + "\n" + table(["sum of views", *splits], sums)
    said = "\nMeasured before the view `simplicity` was added; *default* is the sum of then.\n"
    earlier = said if of_before(rows) else ""
    return f"\n## Preset `{preset}`\n" + earlier + commands(rows) + tables


if __name__ == "__main__":
    sys.exit(main())
