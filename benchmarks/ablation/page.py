"""Write docs/ablation.md from the rows in docs/rows/ablation; `--check` only compares."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Sequence

from benchmarks.ablation.measure import CHOSEN_ON, FEW, PRESETS, STANDARDISED
from benchmarks.ablation.vectors import NAMES
from benchmarks.pages import DOCS, ROWS, Row, commands, grouped, write_or_check
from historyad.files import read_rows
from historyad.research.markdown import table

# Families of splits, and how their names begin.
FAMILIES = {
    "a digit left out": "mnist-without",
    "one digit": "mnist-only",
    "one kind of clothing": "fashion-only",
    "house numbers": "svhn-vs",
    "photos": ".*-vs-svhn",
    "tiles": "magnetic-tile",
    "small digits, one left out": "digits:",
}
BY_HAND = "eight views with weights by hand"
HEAD = """# What was tried for the score

<!-- Written by `python -m benchmarks.ablation.page` from the rows in docs/rows/ablation; do not
edit. -->

**In short.** No view is good everywhere, and so there are several. Their plain sum, without any
weight, is as good as every way to weigh them that was tried, with damaged samples or without.

## Images seen whole

AUROC of every view alone, and of ways to make one score of all. At most 2,000 normal and as many
anomalous test images are scored, by the detector of one seed. Views, and how they count, were
chosen on the splits of one mean, here or in earlier versions; the other mean is of splits on which
nothing was chosen, though they had been seen. *Eight views with weights by hand* is the score of
the version before, on the same samples; the command below no longer makes its row. `smoothness` was
added knowing that the mean gradient alone finds a digit 1 and house numbers among photos.

Weights by damage are learnt in each fit from held-out samples, as they are and with every damage of
[`probe`](guide.md#ask-what-it-can-see) in two strengths: by Fisher's discriminant, or in proportion
to how far the AUROC of a view is above chance.
"""
READING = """
### What it says, and what it does not

* **The sum without weights is as good as any way that was tried.** Weights by what each view finds
  of damaged samples come next, .002 below it where views were chosen and .002 above it elsewhere;
  covariances, p-values and the largest view do not come near. Against weights set by hand it wins
  .012 where a digit is left out, and loses .005 on clothing, before any training.
* **Each view is needed somewhere**: blocks for clothing, edges for digits, the Gaussian for house
  numbers, simplicity and smoothness for what is plainer than all that is normal.
* How a view counts matters more than its weight: with every view as it is, clothing and digits lose
  several hundredths, for within the range of normal images a Gaussian, or how plain they are, says
  nothing.
* **The history pays** on clothing, by .007; digits and photos neither gain nor lose in the mean,
  and house numbers lose .001. Counted half, no mean of what is trained on changes by more than
  .0013. By itself it is no match for blocks or edges.
* **Of a few hundred images it costs more than it brings**: small digits, none of which needs to be
  held out where nothing is trained, lose .006 with it, and tiles .04. Hence fewer than 2,000 images
  train no network unless they are asked to.
* **What plainness says of the other views cannot be taken out of them**: tiles gain .07 and digits
  .003, and clothing and house numbers lose .03.
* Whole tiles would do better with every view as it is: there a Gaussian tells more than all others.
"""
STARTS = """
### Why a stronger history adds less

Step 3 may [start](choices.md#step-3-at-full-size) from the average critic as it is, as the default
does, or standardised, as the preset `paper` does. Then the history is stronger alone, and the sum
is not.
"""
GOES_WITH = """
How the standardised one goes together with each other view on held-out normal images, the mean
correlation:

"""
SAME = """
It calls odd what is far from other normal images in grey values and edges, and what is not plain:
it sees what `blocks` and `edges` see, and errs where they err.
"""

VECTORS = """
## Vectors

The companions of vectors without D<sub>TV</sub>, others in their place, and sums; AUROC on the
tables where settings are chosen, mean over seeds 0 to 2, each of which draws its own halves. Small
tables leave some twenty rows to set scales by.
"""
READING_OF_VECTORS = """
* The sum beats each of its parts on the mean, and what was tried in their place does not beat it.
  Single tables disagree: Ionosphere wants plain or city-block distances, optdigits cosines,
  mammography a forest, and no weight serves all.
* What says how well a sample can be put together, from its neighbours (the residual) or from the
  principal functions of a kernel (the variance of a Gaussian process), is about as good alone as
  the neighbours are; besides the default's sum it brings .0007 at most, too little for a view.
* Distances relative to the root of the gap are between the plain ones and the ratio of the local
  outlier factor, and above both on the mean.
"""


def build() -> str:
    """Return the page."""
    rows = read_rows(ROWS / "ablation" / "rows.jsonl")
    by_preset = {preset: group for (preset,), group in grouped(rows, "preset").items()}
    images = "".join(_section(name, by_preset[name]) for name in PRESETS if name != STANDARDISED)
    vectors = _vectors(read_rows(ROWS / "ablation" / "vectors.jsonl"))
    return HEAD + images + READING + _starts(by_preset) + vectors


def _section(preset: str, rows: list[Row]) -> str:
    """Return the tables of a preset, by family of splits."""
    said = commands([row for row in rows if row["what"] != BY_HAND])
    return f"\n### Preset `{preset}`\n{said}{_table(rows, 'view')}\n{_table(rows, 'way')}"


def _starts(rows: dict[str, list[Row]]) -> str:
    """Return the section on the history with either start of step 3, on the same splits."""
    anew = rows.get(STANDARDISED, [])
    if not anew:  # not measured yet
        return ""
    splits = {row["split"] for row in anew}
    before = [row for row in rows["default"] if row["split"] in splits]
    told = [
        {**row, "what": f"{name}, {start}"}
        for name, what in (("the history alone", "history"), ("the sum", "the score: a sum"))
        for start, some in (("as it is", before), ("standardised", anew))
        for row in some
        if row["what"] == what and "auroc" in row
    ]
    told += [row for row in before if row["what"] == "without history"]
    told = [{**row, "of": "AUROC"} for row in told]
    return (
        STARTS
        + commands(anew)
        + _table(told, "AUROC")
        + GOES_WITH
        + _table(anew, "correlation")
        + SAME
    )


def _table(rows: list[Row], of: str) -> str:
    key = "value" if of == "correlation" else "auroc"
    found = {(row["what"], row["split"]): row[key] for row in rows if row["of"] == of}
    splits = list(dict.fromkeys(row["split"] for row in rows))
    columns = {
        **{name: [s for s in splits if _family(s) == name] for name in FAMILIES},
        "chosen on": [s for s in splits if s in CHOSEN_ON],
        "others": [s for s in splits if s not in CHOSEN_ON and s not in FEW],
    }
    columns = {name: some for name, some in columns.items() if some}
    lines = [
        [what, *(_mean([found.get((what, s)) for s in some]) for some in columns.values())]
        for what in dict.fromkeys(what for what, _ in found)
    ]
    heads = [f"{name} ({len(some)})" for name, some in columns.items()]
    return table([f"{of}", *heads], lines)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.4f}" if len(known) == len(values) else "–"


def _family(split: str) -> str:
    return next((name for name, start in FAMILIES.items() if re.match(start, split)), "")


def _vectors(rows: list[Row]) -> str:
    """Return the section on the companions of vectors."""
    found = {
        key: statistics.fmean(row["auroc"] for row in group)
        for key, group in grouped(rows, "what", "split").items()
    }
    lines = []
    for what in dict.fromkeys(row["what"] for row in rows):
        values = [found[what, name] for name in NAMES]
        lines.append([what, *(f"{value:.4f}" for value in [*values, statistics.fmean(values)])])
    return (
        VECTORS
        + commands(rows)
        + table(["view or sum", *NAMES, "mean"], lines)
        + READING_OF_VECTORS
    )


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "ablation.md", build()))
