"""Write docs/calibration.md from the rows in docs/rows/calibration; `--check` only compares."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable

from benchmarks.calibration.measure import CROSS, FOLDS, HELD_OUT, LEVEL
from benchmarks.pages import DOCS, ROWS, Row, commands, grouped, write_or_check
from historyad.files import read_rows
from historyad.research.markdown import table
from historyad.score.calibration import lowest_rate

CONFIDENCE = 0.95
WAYS = {HELD_OUT: "held out", FOLDS: "folds, one score (taken)", CROSS: "folds, ten scores"}

HEAD = """# What few samples can promise

<!-- Written by `python -m benchmarks.calibration.page` from the rows in docs/rows/calibration; do
not edit. -->

A [p-value](decision.md) of at most a should come to a normal sample with a probability of at most
a. Here this is counted, for detectors of 30, 60 and 100 samples with the preset `instant`, over
draws of the samples and fresh normal samples for each. Three ways to a threshold are compared:

* **held out**: 40 % of the samples are held out; views are put on one scale by them, too. So it was
  for all fits, and so it is where a network is trained.
* **folds, one score**: in ten folds, each scored by a detector of the nine others; the final
  detector is fitted on all samples. It is what `--folds` does, and the default of few samples.
* **folds, ten scores**: cross-conformal p-values, for which a new sample is scored by the detectors
  of all ten folds. It takes ten times as long to score.

Of each, the share of fresh normal samples that have the *lowest* p-value, 1 / (n + 1) of n scores,
and that have one of at most {level:g}; both as multiples of what is promised, with the standard
error over draws: **1 is nominal, less is on the safe side.** The rows are of an earlier version of
the score; what is promised does not depend on it.
"""

READING = """
## What the detector gains

AUROC on the anomalies of each set, and in brackets the lowest rate that can be promised. *Kept* is
the share of detectors whose rate, at the highest of the scores, is at most what `--confidence
{confidence:g}` promises of them; *drift* the share of streams of fresh normal samples on which the
monitor raises its alarm, of which 1 % may.

"""


def build() -> str:
    """Return the page."""
    rows = read_rows(ROWS / "calibration" / "rows.jsonl")
    text = HEAD.format(level=LEVEL) + commands(rows)
    text += _promises(rows) + READING.format(confidence=CONFIDENCE) + _gains(rows) + WORDS
    return text


def _promises(rows: list[Row]) -> str:
    lines = []
    for (name, n), group in grouped(rows, "data", "n").items():
        by_way = {way: found for (way,), found in grouped(group, "way").items()}
        cells = [
            _multiple(by_way[way], key, promised)
            for key, promised in (("lowest", _lowest), ("level", _level))
            for way in WAYS
        ]
        lines.append([f"`{name}`", str(n), str(len(by_way[FOLDS])), *cells])
    head = [f"{what}, {way}" for what in ("lowest", f"p ≤ {LEVEL:g}") for way in WAYS.values()]
    return table(["set", "samples", "draws", *head], lines)


def _gains(rows: list[Row]) -> str:
    lines = []
    for (name, n), group in grouped(rows, "data", "n").items():
        by_way = {way: found for (way,), found in grouped(group, "way").items()}
        cells = [
            f"{_mean(by_way[way], 'auroc'):.3f} ({_lowest(by_way[way][0]):.1%})"
            for way in (HELD_OUT, FOLDS)
        ]
        cells += [f"{_kept(by_way[way]):.0%}" for way in (HELD_OUT, FOLDS)]
        cells += [f"{_mean(by_way[way], 'drift'):.0%}" for way in (HELD_OUT, FOLDS)]
        lines.append([f"`{name}`", str(n), *cells])
    head = [
        f"{what}, {way}" for what in ("AUROC", "kept", "drift") for way in ("held out", "folds")
    ]
    return table(["set", "samples", *head], lines)


def _lowest(row: Row) -> float:
    return lowest_rate(row["n_held_out"])


def _level(row: Row) -> float:
    """Return the highest p-value that is at most `LEVEL`."""
    n: int = row["n_held_out"] + 1
    return math.floor(LEVEL * n) / n


def _multiple(rows: list[Row], key: str, promised: Callable[[Row], float]) -> str:
    """Return the mean of a rate, as a multiple of what is promised, and its standard error."""
    found = [row[key] / promised(row) for row in rows]
    error = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return f"{statistics.fmean(found):.2f} ± {error:.2f}"


def _kept(rows: list[Row]) -> float:
    """Return the share of detectors that keep what is promised with `CONFIDENCE`."""
    kept = [row["lowest"] <= lowest_rate(row["n_held_out"], CONFIDENCE) for row in rows]
    return statistics.fmean(kept)


def _mean(rows: list[Row], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


WORDS = """
## What it says, and what it does not

* **One score of all samples keeps the promise**, within the noise, and is somewhat on the safe
  side: it knows a tenth more samples than the detectors that scored the folds. Ten scores are
  nearer to nominal and at times above it, and take ten times as long. Hence one.
* **Nothing held out is the better detector**: with 30 digits a zero is found with an AUROC of .95
  in place of .87, and the rate that can be promised is less than half.
* **Where a held-out part sets the scales, too**, its lowest p-values come more often than promised:
  of digits, some 1.3 times. With as few as 12 or 40 samples this is the larger error.
* **Copies make it careful.** In `mammography` one row is there 3,322 times, 30 % of all. Copies are
  kept in one fold, as they are kept on one side of a held-out part, so that none is scored by a
  detector that knows its twin; but what comes next has twins, and looks more normal. The promise is
  kept, at half the rate or less, and the drift monitor sees the difference, with folds and without.
* **Drift is to be sought after `calibrate`.** The monitor tests whether a stream is like the
  samples that were calibrated on; those of folds were scored by detectors of fewer samples, and a
  long stream shows it now and then. `drift` says so.
"""

if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "calibration.md", build()))
