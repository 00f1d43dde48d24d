"""Write docs/performance.md from the rows in docs/rows/speed; `--check` only compares."""

from __future__ import annotations

import statistics
import sys

from benchmarks.pages import DOCS, ROWS, Row, average, commands, grouped, write_or_check
from historyad.files import read_rows
from historyad.research.markdown import table

HEAD = """# Performance

<!-- Written by `python -m benchmarks.performance.page` from the rows in docs/rows/speed; do not
edit. -->

**In short.** On two cores, without an accelerator, 60,000 images of 28 x 28 are learned from in
{default} by default and in {quick} with `--preset quick`, with at most {memory} of memory.
{speed} images a second are scored, with all views. The paper's recipe took {ratio} times the CPU
time of the default.

Every section names the command that gave it; data are looked for under `HISTORYAD_DATA`. Machine:
{machines}, no accelerator. Where steps or scoring are compared, they were measured in turns, in one
run.
"""

FITS = """## Whole fits

MNIST, 60,000 images, of which 51,000 are trained on. The reference is the paper's recipe at the
size of a plain WGAN-GP: `--preset paper --width 64 --hidden 1100`, about 5 M parameters a network,
float32, all epochs of both steps, the penalty in every critic step. It shares this library's
networks, so that the folded pooling (below) already halves its time. Anomalies: 10,000 images each
of KMNIST and of Fashion-MNIST; prevalence .50. Times are seconds of the clock; CPU time adds up the
threads, and is what to compare between rows with another number of threads. The fits of the
reference ran side by side and beside other work, which slows both; the paired steps below do not
suffer from that. Reference and default differ in their score, too: the first is D_TV alone, as in
the paper, the second has all views. The default
trains for a tenth of the steps, and with smaller networks.
"""

LEADS = """## What each lead brings

The cost of a fit on MNIST, from the number of its steps of each kind and the median time of one.
From the top, each line changes one thing and keeps the changes before it. Operations count the
multiplications and additions of convolutions and matrix products; the peak is that of a
2048 x 2048 float32 matrix product in the same run. From "stop" on, and for the penalty, the
result changes, and the quality above is the check; the others compute the same numbers. What
is called the default here is an earlier one, of longer training.
"""

OTHERS = """### Tried on top of the default, and dropped

Measured in the same way in a run of their own. Batches of 128 and 256 cost less per image but halve
and quarter the number of steps, and a GAN's history is made of steps. This processor has no
bfloat16 arithmetic, and emulates it.
"""

SHAPES = """### Other images

The default, for the same number of images of another size or with colour.
"""

GROWTH = """## As the work grows

The `quick` preset on images in a memory-mapped file: MNIST, repeated and shifted. One epoch is here
at least 50,000 images, which sets the time of small sets. Memory is the peak of the whole process.
The rows of 10,000 images are from before the bank of neighbours grew, which costs memory on all
sets.
"""

SCORING = """## Scoring

10,000 grey images of 28 x 28 pixels, on a grid of 32 x 32, by a detector of the default's size,
with full banks of neighbours, on the Intel Xeon; everything above is from the AMD EPYC. onnxruntime
runs the same model, exported by `historyad export`, on as many threads. Here batches are scored
side by side, each on a thread of its own, since many operations of one batch are too small to share
two cores. The two round differently, and where two candidates are as near, that decides which is
compared: the likely cause of the largest difference, which is above the 1e-4 that `export` allows
on the images it is given to compare. Kernels for 8 rows round otherwise on this processor than
those for 16, to which batches are filled up. `python -X importtime -m historyad --help` lists what
the start consists of. The speed of this machine, which others share, changes from hour to hour.
"""


def build() -> str:
    """Return the page."""
    rows = read_rows(ROWS / "speed" / "rows.jsonl")
    parts = {part: [r for r in rows if r["part"] == part] for part in ("fits", "growth", "scoring")}
    steps = {
        group: [r for r in rows if r["part"] == "steps" and r["group"] == group]
        for group in ("ladder", "others", "shapes")
    }
    sections = [
        HEAD.format(
            machines="; ".join(sorted({row["machine"] for row in rows})),
            **in_short(parts["fits"], parts["scoring"]),
        ),
        FITS + commands(parts["fits"]) + _fits(parts["fits"]),
        LEADS + commands(steps["ladder"]) + _ladder(steps["ladder"]),
        OTHERS + "\n" + _variants(steps["others"]),
        SHAPES + "\n" + _variants(steps["shapes"]),
        GROWTH + commands(parts["growth"]) + _growth(parts["growth"]),
        SCORING + commands(parts["scoring"]) + _scoring(parts["scoring"]),
    ]
    return "\n".join(sections)


def in_short(fits: list[Row], scoring: list[Row]) -> dict[str, str]:
    """Return the figures that README has, too: seconds, memory and speed, with their units."""
    of = {recipe: group for (recipe,), group in grouped(fits, "recipe").items()}
    fastest = max(row["images_per_second"] for row in scoring if row["what"] == "memory")
    cpu = {recipe: _median(group, "cpu_seconds") for recipe, group in of.items()}
    return {
        "default": f"{_median(of['default'], 'seconds'):.0f} s",
        "quick": f"{_median(of['quick'], 'seconds'):.0f} s",
        "memory": f"{_median(of['default'], 'peak_memory_mb') / 1000:.1f} GB",
        "quick_memory": f"{_median(of['quick'], 'peak_memory_mb') / 1000:.1f} GB",
        "speed": f"{fastest:,.0f}",
        "ratio": f"{cpu['reference'] / cpu['default']:.0f}",
    }


def _fits(rows: list[Row]) -> str:
    lines = []
    for (recipe, threads), group in grouped(rows, "recipe", "threads").items():
        quality = [
            f"{average([r[split] for r in group], 'auprc')}"
            for split in ("mnist-vs-kmnist", "mnist-vs-fashion")
        ]
        lines.append(
            [recipe, str(threads), ", ".join(str(row["seed"]) for row in group)]
            + [f"{_median(group, key):,.0f}" for key in _FIT_COLUMNS]
            + quality
        )
    head = (
        "recipe|threads|seeds|fit, s|step 1, s|step 3, s|CPU, s|peak MB|KMNIST AUPRC|Fashion AUPRC"
    )
    return table(head.split("|"), lines) + "\n" + _ratio(rows)


_FIT_COLUMNS = ("seconds", "step1_seconds", "step3_seconds", "cpu_seconds", "peak_memory_mb")


def _ratio(rows: list[Row]) -> str:
    cpu = {
        recipe: _median([row for row in rows if row["recipe"] == recipe], "cpu_seconds")
        for recipe in ("reference", "default")
    }
    ratio = cpu["reference"] / cpu["default"]
    return f"CPU time of the reference over that of the default: {ratio:.1f}.\n"


def _ladder(rows: list[Row]) -> str:
    first, last = rows[0], rows[-1]
    ratios = [
        a / b
        for a, b in zip(first["fit_seconds_of_rounds"], last["fit_seconds_of_rounds"], strict=True)
    ]
    return (
        _variants(rows)
        + f"\nReference over default, median of {len(ratios)} paired rounds: "
        + f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}).\n"
    )


def _variants(rows: list[Row]) -> str:
    lines = []
    for before, row in zip([None, *rows], rows, strict=False):
        same = before is not None and before["group"] == row["group"] == "ladder"
        gain = before["fit_seconds"] / row["fit_seconds"] if before is not None and same else None
        lines.append(
            [
                _name(row),
                f"{row['fit_seconds']:,.0f}",
                f"x {gain:.2f}" if gain else "",
                *(f"{1000 * seconds:,.0f}" for seconds in row["step_seconds"].values()),
                f"{row['flops'] / 1e12:,.1f}",
                f"{100 * row['share_of_peak']:.0f} %",
            ]
        )
    head = "variant|fit, s|gain|critic, ms|penalised, ms|generator, ms|D_TV, ms|10^12 op.|of peak"
    return table(head.split("|"), lines)


def _name(row: Row) -> str:
    if row["group"] != "shapes":
        return str(row["variant"])
    channels, side, _ = row["shape"]
    return f"{side} x {side}, {channels} channel{'s' * (channels > 1)}"


def _growth(rows: list[Row]) -> str:
    lines = [
        [
            f"{row['n_images']:,}",
            str(row["saves_per_epoch"]),
            f"{row['fit_seconds']:,.0f}",
            f"{row['peak_memory_mb']:,.0f}",
        ]
        for row in rows
    ]
    return table(["images", "snapshots per epoch", "fit, s", "peak MB"], lines)


def _scoring(rows: list[Row]) -> str:
    by_kind = grouped(rows, "what")
    lines = [
        [
            str(row["threads"]),
            f"{row['images_per_second']:,.0f}",
            f"{row['onnxruntime_images_per_second']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['largest_difference']:.0e}",
            f"{row['largest_difference_between_batches']:.0e}",
        ]
        for row in by_kind[("memory",)]
    ]
    head = "threads|images / s|onnxruntime, images / s|ratio|largest difference|between batch sizes"
    folder, start = by_kind[("folder",)][-1], by_kind[("start",)][-1]
    return (
        table(head.split("|"), lines)
        + "\nA folder of 10,000 PNG files: "
        + f"{folder['decoded_per_second']:,.0f} a second are decoded, "
        + f"{folder['scored_per_second']:,.0f} decoded and scored (ratio {folder['ratio']:.2f}, "
        + f"{folder['threads']} threads). `historyad --help` takes {start['help_seconds']:.2f} s, "
        + f"`historyad score` of one image {start['score_one_seconds']:.1f} s.\n"
    )


def _median(rows: list[Row], key: str) -> float:
    return float(statistics.median(row[key] for row in rows))


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "performance.md", build()))
