"""Write docs/results.md from the measured rows in docs/rows; `--check` only compares."""

from __future__ import annotations

import re
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from historyad.benchmark import read_rows

Row = dict[str, Any]
ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
ROWS = ROOT / "docs" / "rows"

HEAD = """# Results

Written by `python benchmarks/results.py` from the rows in `docs/rows`; do not edit. Every section
names the command that gave it. Data are looked for under `HISTORYAD_DATA`. Scores are better when
higher; the anomalous class is the positive one of AUPRC, and its share is the prevalence. Settings
were [chosen on seed 0](how-it-works.md#several-views-one-score) of some of these sets, on the same
test images; what is reported here comes from other seeds. One choice is an exception: see the
false-positive rate. How the default compares with other methods, there and on data that had no part
in the choice, is [a page of its own](comparison.md).

Machine: two cores of an x86-64 server processor with AVX-512 (Intel Xeon), 24 GB, no accelerator.
"""

FPR = """## The false-positive rate that was asked for

MNIST: the share of the 10,000 test normals above the threshold, which was set on 9,000 held-out
training images for a rate of 1 %. The band holds 99 % of binomial draws of 10,000 at exactly 1 %;
the threshold's own error, from 9,000 images, comes on top of it. The held-out images are blocks of
neighbours: MNIST's training images lie in the order of their writers, who are others than those of
the test images, and images held out one by one would share their writers with the training images.

This was found on these three seeds with an earlier default: with images held out one by one they
gave 0.0134, 0.0128 and 0.0118, two of them outside the band, and blocks were introduced then. The
rates below are therefore not a test on data that had no part in the choice.
"""


def main() -> int:
    """Write the page, or with --check return 1 when it is not what the rows say."""
    return write_or_check(PAGE, build())


def build() -> str:
    """Return the page."""
    from results_paper import sections as of_paper  # it imports from here

    ours = read_rows(ROWS / "comparison" / "ours.jsonl")
    on_mnist = [row for row in ours if row["split"] == "mnist-vs-kmnist"]
    sections = [HEAD, FPR + commands(on_mnist) + _false_positives(on_mnist)]
    return "\n".join([*sections, *of_paper(ROWS / "paper")])


def commands(rows: list[Row]) -> str:
    """Return the commands that gave ``rows``, as a block."""
    lines: Iterable[str] = {row["command"] for row in rows}
    for option in ("--split", "--method"):
        lines = merged(lines, option)
    return "\n```\n" + "\n".join(lines) + "\n```\n\n"


def merged(lines: Iterable[str], option: str) -> list[str]:
    """Return commands that do what ``lines`` do: those that differ in ``option`` alone as one."""
    values_of: dict[str, dict[str, None]] = {}
    for line in sorted(lines):
        words: dict[bool, list[str]] = {True: [], False: []}  # by whether they follow the option
        follows = False
        for word in shlex.split(line):
            follows = word == option if word.startswith("-") else follows
            words[follows].append(word)
        values = dict.fromkeys(word for word in words[True] if word != option)
        values_of.setdefault(shlex.join(words[False]), {}).update(values)
    return [
        f"{command} {option} {shlex.join(_with_wildcards(values))}" if values else command
        for command, values in values_of.items()
    ]


def _with_wildcards(names: Iterable[str]) -> list[str]:
    """Return ``names`` with NAME-* for all ten from NAME-0 to NAME-9."""
    names = list(names)
    for stem in dict.fromkeys(re.sub(r"\d$", "", name) for name in names):
        ten = [f"{stem}{digit}" for digit in range(10)]
        if set(ten) <= set(names):
            names = [f"{stem}*", *(name for name in names if name not in ten)]
    return names


def _false_positives(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        half_width = 2.576 * (0.01 * 0.99 / row["n_normal"]) ** 0.5
        inside = abs(row["false_positive_rate"] - 0.01) <= half_width
        band = f"{0.01 - half_width:.4f} to {0.01 + half_width:.4f}"
        rate = f"{row['false_positive_rate']:.4f}"
        lines.append([str(row["seed"]), rate, band, "yes" if inside else "no"])
    return "\n" + table(["seed", "false-positive rate", "99 % band", "inside"], lines)


def write_or_check(path: Path, page: str) -> int:
    """Write ``page``; with --check among the arguments, return 1 when the file says otherwise."""
    if "--check" in sys.argv:
        return int(page != path.read_text())
    path.write_text(page)
    return 0


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Return rows by the values of ``keys``, in order."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return dict(sorted(groups.items()))


def _mean(rows: list[Row], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def average(rows: list[Row], key: str) -> str:
    """Return the mean of ``key``, as text."""
    return f"{_mean(rows, key):.4f}" if rows else ""


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
