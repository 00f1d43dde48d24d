"""Write docs/results.md from the measured rows in docs/rows; `--check` only compares."""

from __future__ import annotations

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
higher; the anomalous class is the positive one of AUPRC, and its share is the prevalence. A
number after ± is the standard deviation over the seeds. Settings were chosen on seed 0, on
the same test images, of MNIST against KMNIST and Fashion-MNIST, of the digits 1 and 4, and of SVHN
against CelebA; what is reported here comes from other seeds. One choice is an exception: see the
false-positive rate.

Machine: two cores of an x86-64 server processor with AVX2 (AMD EPYC, third generation), 24 GB, no
accelerator.
"""

FAR = """## MNIST as normal, far anomalies

60,000 training images (15 % of them held out for calibration), 10,000 normal test images,
10,000 anomalous ones. `historyad` is the default, with all its views; its fits had one thread each
and shared the machine with much other work, so that their times say nothing. On the idle machine
the default scores [5,100 images/s](scaling.md).
"""

FPR = """### The false-positive rate that was asked for

Share of the 10,000 test normals above the threshold, which was set on 9,000 held-out training
images for a rate of 1 %. The band holds 99 % of binomial draws of 10,000 at exactly 1 %; the
threshold's own error, from 9,000 images, comes on top of it. The held-out images are blocks of
neighbours: MNIST's training images lie in the order of their writers, who are others than those of
the test images, and images held out one by one would share their writers with the training images.

This was found on these three seeds with the default of that time: with images held out one by one
they gave 0.0134, 0.0128 and 0.0118, two of them outside the band, and blocks were introduced then.
The rates below are therefore not a test on data that had no part in the choice.
"""

SVHN = """## SVHN as normal

The training images are the first 7,000 of the official *test* split and the 3,000 normal test
images the next 3,000, cut between two photos; these are **not** the paper's setting, which trains
on the official 73,257. 3,000 anomalous images each. The paper reports an AUPRC of .941, .976 and
.949 on its own split (table 1). A PCA residual, a few seconds of linear algebra, wins all three by
a wide margin: what tells natural images from SVHN is fine texture, which the first components of
SVHN cannot express, and D_TV never saw such texture as a negative example. `historyad` in this
section is D_TV alone, from both starts: the default before it had other views, today
`--views history --detector-start both`. All views together have not been run here yet at full
length; [at quick scale](#table-1-and-figure-1-svhn-as-normal) they have.
"""

VECTORS = """## Vectors

Eight tables of ADBench and ResNet-18 features of eight MVTec AD categories. A seeded half of the
normal rows trains; the other half and all anomalies test. AUROC, mean over the seeds. Our
detector, here D_TV alone as in the section above, is the weakest of the five. The history of a
table's GAN does not surround its rows on all sides, and far out, where D_TV saw neither data nor
history, its score may have either sign. The other views have not been run here yet: for a table,
use one of the others today. The run was asked for seeds 1, 2 and 3 and stopped after seed 1; the
commands below name what was finished.
"""


def main() -> int:
    """Write the page, or with --check return 1 when it is not what the rows say."""
    return write_or_check(PAGE, build())


def build() -> str:
    """Return the page."""
    from results_paper import sections as of_paper  # it imports from here

    far, svhn, vectors = (read_rows(ROWS / name / "rows.jsonl") for name in _FOLDERS)
    sections = [
        HEAD,
        FAR + commands(far) + _quality(far),
        FPR + _false_positives(far),
        SVHN + commands(svhn) + _quality(svhn),
        VECTORS + commands(vectors) + _vectors(vectors),
        *of_paper(ROWS / "paper"),
    ]
    return "\n".join(sections)


_FOLDERS = ("far", "svhn", "vectors")


def commands(rows: list[Row]) -> str:
    """Return the commands that gave ``rows``, as a block."""
    lines = sorted({row["command"] for row in rows})
    return "\n```\n" + "\n".join(lines) + "\n```\n\n"


def _quality(rows: list[Row]) -> str:
    lines = []
    for (split, method), group in grouped(rows, "split", "method").items():
        lines.append(
            [
                split,
                method,
                _spread(group, "auprc"),
                _spread(group, "auroc"),
                f"{group[0]['prevalence']:.2f}",
                str(len(group)),
                f"{_mean(group, 'fit_seconds'):,.0f}",
                f"{_mean(group, 'images_per_second'):,.0f}",
                f"{max(row['peak_memory_mb'] for row in group):,.0f}",
                f"{_mean(group, 'run_mb'):,.0f}" if "run_mb" in group[0] else "",
            ]
        )
    head = "split|method|AUPRC|AUROC|prevalence|seeds|fit, s|scored / s|peak MB|run MB"
    return table(head.split("|"), lines)


def _false_positives(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        if row["method"] != "historyad" or row["split"] != "mnist-vs-kmnist":
            continue
        half_width = 2.576 * (0.01 * 0.99 / row["n_normal"]) ** 0.5
        inside = abs(row["false_positive_rate"] - 0.01) <= half_width
        band = f"{0.01 - half_width:.4f} to {0.01 + half_width:.4f}"
        rate = f"{row['false_positive_rate']:.4f}"
        lines.append([str(row["seed"]), rate, band, "yes" if inside else "no"])
    return "\n" + table(["seed", "false-positive rate", "99 % band", "inside"], lines)


def _vectors(rows: list[Row]) -> str:
    by_split = grouped(rows, "split")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = []
    for (split,), group in by_split.items():
        cells = [_where(group, method) for method in methods]
        lines.append([split.removeprefix("vectors-"), *(average(c, "auroc") for c in cells)])
    means = [average(_where(rows, method), "auroc") for method in methods]
    return table(["set", *methods], [*lines, ["**mean**", *means]])


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


def _where(rows: list[Row], method: str) -> list[Row]:
    return [row for row in rows if row["method"] == method]


def _mean(rows: list[Row], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def average(rows: list[Row], key: str) -> str:
    """Return the mean of ``key``, as text."""
    return f"{_mean(rows, key):.4f}" if rows else ""


def _spread(rows: list[Row], key: str) -> str:
    deviation = statistics.stdev(row[key] for row in rows) if len(rows) > 1 else 0.0
    return f"{_mean(rows, key):.4f} ± {deviation:.4f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
