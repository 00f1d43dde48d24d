"""Write docs/performance.md from the rows in docs/rows/speed; `--check` only compares."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.pages import DOCS, ROWS, Row, average, commands, grouped, write_or_check
from benchmarks.speed.fits import AFTER
from historyad.files import read_rows
from historyad.model.phases import IMITATE, LEARN, TELL, THRESHOLD
from historyad.research.markdown import table

HEAD = """# Performance

<!-- Written by `python -m benchmarks.speed.page` from the rows in docs/rows/speed and, of Ray, in
docs/rows/scaling; do not edit. -->

**In short.** On two cores, without an accelerator, 60,000 images of 28 x 28 are learned from in
{default} by default and in {quick} with `--preset quick`, with at most {memory} of memory.
{speed} images a second are scored, with all views. The steps of the paper's recipe take {ratio}
times as long as a whole default fit.

One command measures all of it but the reference's fits and the last section, side by side; data
are looked for under `HISTORYAD_DATA`. What is compared was measured in turns, in one run: figures
are medians, and what stands in brackets after them is the range of the rounds. Machine: {machines}.
**No accelerator could be had: nothing here was measured on one.**

```
python -m benchmarks.speed.measure
python -m benchmarks.speed.page
```
"""

ASKED = """## What was asked for, and what was reached
"""

FITS = """## Whole fits, phase by phase

MNIST, 60,000 images, of which 51,000 are trained on, two threads. Before any training a detector is
saved that trains no network: what it takes is *first*. *After* is all that follows training, with
its share of the fit: companions in the features of the trained network, their scale, the threshold,
and the comparison of both detectors. What does not depend on the network is kept from the first,
and so are the gaps between normal images (below). What is left are the features of 32,768 images,
the scores of 9,000 that are held out, whose number is the promise, and of 4,200 that are damaged: a
quick fit trains for too short a time for that to be a tenth of it.
Anomalies: 10,000 images each of KMNIST and of Fashion-MNIST; prevalence .50.
"""

PEERS = """### Beside PyOD

The first 10,000 images of MNIST, with the same number of threads: PyOD's detectors by their own
defaults, on the 784 pixels, beside `--preset quick` (the ratio is the time of the peer over ours).
A fit of PyOD scores what it was fitted on, too.
"""

GAPS = """### Gaps that are found once

How far apart normal images are from their neighbours could be measured anew once a network is
trained, among the neighbours in its features. AUROC with the gaps of the first detector, and with
these, of one and the same network; all views, seed 0, at most 2,000 images of each side:

```
python -m benchmarks.speed.measure --part gaps
```
"""

REFERENCE = """### The paper's recipe

`--preset paper --width 64 --hidden 1100` is the paper's recipe at the size of a plain WGAN-GP:
about 5 M parameters a network, float32, all epochs of both steps, the penalty in every critic step.
It shares this library's networks, so that the folded pooling (below) already halves its time. These
fits take hours: they are older, ran side by side and beside other work, on a machine where a step
took about four times as long as today, and so only their quality compares. Their score is D_TV
alone, as in the paper, and that of the default has all views. The steps of both, paired, are
measured with the rest.

```
python -m benchmarks.speed.measure --part reference --threads 1
```
"""

SCORING = """## Scoring

10,000 grey images of 28 x 28 pixels, on a grid of 32 x 32, by a detector of the default's size,
with full banks of neighbours. onnxruntime runs the same model, exported by `historyad export`, on
as many threads. Here batches are scored side by side, each on a thread of its own, since many
operations of one batch are too small to share two cores. Kernels for 8 rows round otherwise than
those for 16, to which batches are filled up, but for what is done image by image.
"""

SERVICE = """## The service

{clients} clients ask `historyad serve` for twice what `historyad score` manages on the same 2,000
PNG files, {seconds:.0f} s a round. They share the cores with it; all are in one thread, and what
they heard is checked afterwards, so that they take little of them. [What the service
survives](reliability.md) has more. With one image in a request, no more than {clients} are ever on
their way, and each of 16 that are scored together costs twice as much as one of 256. Tried, and
without effect: to decode in the thread that reads requests, to wait for 0 or 1 ms in place of 4 for
a fuller batch, to send an answer in one piece, to let Python collect no garbage.
"""

PROCESSES = """## Several processes

Steps of the default by one process and by two of the same machine, one thread each, at the same
global batch. *Without talking*: two processes that have half a batch each and know nothing of each
other, which no group can beat; what is missing to 2 there is what a step takes whatever its batch
is, and memory that both share.
"""

GROWTH = """## As the work grows

`--preset quick` on images in a memory-mapped file: MNIST, repeated and shifted. Its epochs have a
length of their own, so that all sets are trained on for as long; what grows is listing and
fingerprints. Memory is the peak of the whole process; what was read of the mapped file is given
back. At most 100,000 images are scored.
"""

LEADS = """## What each lead brings

The cost of a fit on MNIST, from the number of its steps of each kind and the median time of one.
From the top, each line changes one thing and keeps the changes before it. Operations count the
multiplications and additions of convolutions and matrix products; the peak is that of a
2048 x 2048 float32 matrix product in the same run. From "stop" on, and for the penalty, the
result changes, and the quality above is the check; the others compute the same numbers. These rows
are older, from a machine of the same class; what is called the default here is an earlier one, of
longer training.
"""

OTHERS = """### Tried on top of the default, and dropped

Measured in the same way in a run of their own. Batches of 128 and 256 cost less per image but halve
and quarter the number of steps, and a GAN's history is made of steps. This processor has no
bfloat16 arithmetic, and emulates it.
"""

SHAPES = """### Other images

The default, for the same number of images of another size or with colour.
"""


def build() -> str:
    """Return the page."""
    rows = read_rows(ROWS / "speed" / "rows.jsonl")
    of: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of[row["part"]].append(row)
    steps = {
        group: [r for r in of["steps"] + of["ladder"] if r["group"] == group] for group in GROUPS
    }
    ray = [row for row in read_rows(ROWS / "scaling" / "rows.jsonl") if row["part"] == "ray"][-1:]
    reference = [r for r in of["fits"] + of["reference"] if r["recipe"] == "reference"]
    fits = [r for r in of["fits"] if r not in reference]
    whole, few = (
        [r for r in fits if (r.get("images", ALL) == ALL) is are] for are in (True, False)
    )
    default = [row for row in whole if row["recipe"] == "default"]
    sections = [
        HEAD.format(
            machines="; ".join(sorted({row["machine"] for row in rows})),
            ratio=f"{steps['ends'][0]['fit_seconds'] / _median(default, 'seconds'):.0f}",
            **in_short(whole, of["scoring"]),
        ),
        ASKED + "\n" + _asked(whole, steps["ends"], of, ray),
        FITS + "\n" + _fits(whole),
        *([PEERS + "\n" + _peers(few)] if few else []),
        *([GAPS + "\n" + _gaps(of["gaps"])] if of["gaps"] else []),
        REFERENCE + "\n" + _reference(of["reference"], steps["ends"]),
        SCORING + "\n" + _scoring(of["scoring"]),
        *([_service(of["service"])] if of["service"] else []),
        *([PROCESSES + "\n" + _processes(of["processes"])] if of["processes"] else []),
        *([GROWTH + "\n" + _growth(of["growth"])] if of["growth"] else []),
        LEADS + commands(steps["ladder"]) + _ladder(steps["ladder"]),
        OTHERS + "\n" + _variants(steps["others"]),
        SHAPES + "\n" + _variants(steps["shapes"]),
    ]
    return "\n".join(sections)


GROUPS = ("ends", "ladder", "others", "shapes")
ALL = 60_000  # images of MNIST


def in_short(fits: list[Row], scoring: list[Row]) -> dict[str, str]:
    """Return the figures that README has, too: seconds, memory and speed, with their units."""
    of = {recipe: group for (recipe,), group in grouped(fits, "recipe").items()}
    fastest = max(row["images_per_second"] for row in scoring if row["what"] == "memory")
    return {
        "default": f"{_median(of['default'], 'seconds'):.0f} s",
        "quick": f"{_median(of['quick'], 'seconds'):.0f} s",
        "memory": f"{_median(of['default'], 'peak_memory_mb') / 1000:.1f} GB",
        "quick_memory": f"{_median(of['quick'], 'peak_memory_mb') / 1000:.1f} GB",
        "speed": f"{fastest:,.0f}",
    }


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return the median of rounds and, of several, their range in brackets."""
    middle, low, high = (f"{f(values):{form}}" for f in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def _asked(fits: list[Row], ends: list[Row], of: dict[str, list[Row]], ray: list[Row]) -> str:
    """Return a line for each number that was asked for."""
    lines: list[list[str]] = []

    def line(
        what: str, asked: str, values: Sequence[float], least: float, form: str = ".2f"
    ) -> None:
        found = statistics.median(values)
        reached = found >= least if asked.startswith("at least") else found <= least
        text = asked + f" {least:,g}"
        lines.append([what, text, spread(values, form), "yes" if reached else "**no**"])

    for recipe, most in (("default", 180.0), ("quick", 30.0), ("instant", 15.0)):
        group = [row for row in fits if row["recipe"] == recipe]
        if group:
            seconds = [row["seconds"] for row in group]
            line(f"fit of 60,000 images, {recipe}, s", "at most", seconds, most, ".1f")
    after = [r["after_training"] for r in fits if r["recipe"] == "quick" and "after_training" in r]
    if after:
        line("of a quick fit, what follows training", "at most", after, 0.1)
    by_kind = grouped(of["scoring"], "what")
    memory = max(by_kind[("memory",)], key=lambda row: row["threads"])
    rates = memory.get("images_per_second_of_rounds", [memory["images_per_second"]])
    line("images scored a second, two cores", "at least", rates, 8000, ",.0f")
    ratios = memory.get("ratios", [memory["ratio"]])
    line("over onnxruntime, same graph and threads", "at least", ratios, 1.5)
    if "one_image_ms" in memory:
        line("one image after the first, ms", "at most", [memory["one_image_ms"]], 3)
    folder, start = by_kind[("folder",)][-1], by_kind[("start",)][-1]
    ratios = folder.get("ratios", [folder["ratio"]])
    line("PNG files decoded and scored, over decoded", "at least", ratios, 0.8)
    for key, what, most in (("help", "--help", 0.2), ("score_one", "score of one image", 2.0)):
        found = start.get(f"{key}_seconds_of_rounds", [start[f"{key}_seconds"]])
        line(f"`historyad {what}`, s", "at most", found, most)
    for row in sorted(of["service"], key=lambda row: -row["images in a request"]):
        size = row["images in a request"]
        least = 0.8 if size > 1 else 0.4
        line(f"service over `score`, {size} in a request", "at least", row["ratios"], least)
        line(f"its p99, {size} in a request, s", "at most", [row["p99 of the accepted, s"]], 1)
    for row in of["processes"]:
        least = 1.5 if row["batch_size"] < 512 else 1.7
        what = f"two processes over one, {_step(row)}, batch of {row['batch_size']}"
        line(what, "at least", row["ratios"], least)
    for row in ray:
        ratios = [a / b for a, b in zip(row["single_seconds"], row["ray_seconds"], strict=True)]
        line(
            "Ray over one process, 50,000 images, workers' start included", "at least", ratios, 0.85
        )
    growth = {row["n_images"]: row for row in of["growth"]}
    if {ALL, 1_000_000} <= {*growth}:
        more = growth[1_000_000]["peak_memory_mb"] - growth[ALL]["peak_memory_mb"]
        line(
            "memory of a fit, from 60,000 to 1,000,000 images, MB more",
            "at most",
            [more],
            200,
            ".0f",
        )
    return table(["what", "asked for", "found", "reached"], lines)


PHASES = ("first", "step 1", "step 3", "after")


def _fits(rows: list[Row]) -> str:
    lines = []
    for (recipe, threads), group in grouped(rows, "recipe", "threads").items():
        quality = [
            f"{average([r[split] for r in group], 'auprc')}"
            for split in ("mnist-vs-kmnist", "mnist-vs-fashion")
        ]
        seconds = [row["seconds"] for row in group]
        phases = [_phases(row) for row in group]
        of_phases = [
            f"{statistics.median(found[name] for found in phases):.1f}" if all(phases) else ""
            for name in PHASES
        ]
        after = [row["after_training"] for row in group if "after_training" in row]
        of_phases[-1] += (
            f" ({statistics.median(after):.0%})" if after and recipe != "instant" else ""
        )
        lines.append(
            [recipe, str(threads), ", ".join(str(row["seed"]) for row in group)]
            + [spread(seconds, ".1f"), *of_phases]
            + [f"{_median(group, key):,.0f}" for key in ("cpu_seconds", "peak_memory_mb")]
            + quality
        )
    head = "recipe|threads|seeds|fit, s|first, s|step 1, s|step 3, s|after, s|CPU, s|peak MB"
    return table([*head.split("|"), "KMNIST AUPRC", "Fashion AUPRC"], lines)


def _phases(row: Row) -> dict[str, float]:
    """Return seconds by what the page calls phases; nothing of older rows."""
    found = row.get("phases", {})
    if not found:
        return {}
    names = {"first": (LEARN, THRESHOLD), "step 1": (IMITATE,), "step 3": (TELL,), "after": AFTER}
    return {name: sum(found.get(one, 0.0) for one in parts) for name, parts in names.items()}


def _peers(rows: list[Row]) -> str:
    ours = {row["seed"]: row["seconds"] for row in rows if row["recipe"] == "quick"}
    lines = []
    for (recipe,), group in grouped(rows, "recipe").items():
        ratios = [row["seconds"] / ours[row["seed"]] for row in group if row["seed"] in ours]
        lines.append(
            [f"`{recipe}`", spread([row["seconds"] for row in group], ".1f"), spread(ratios)]
            + [f"{_median(group, key):,.0f}" for key in ("cpu_seconds", "peak_memory_mb")]
        )
    return table(["detector", "fit, s", "over quick", "CPU, s", "peak MB"], lines)


def _gaps(rows: list[Row]) -> str:
    changes = [row["auroc"] - row["auroc_own"] for row in rows]
    lines = [
        [f"`{row['split']}`", *(f"{row[key]:.4f}" for key in ("auroc", "auroc_own"))]
        for row in rows
    ]
    return (
        table(["split", "gaps of the first", "gaps of its own"], lines)
        + f"\nOn average {statistics.mean(changes):+.4f}, at most {max(map(abs, changes)):.4f}.\n"
    )


def _reference(rows: list[Row], ends: list[Row]) -> str:
    quality = " and ".join(
        average([r[split] for r in rows], "auprc")
        for split in ("mnist-vs-kmnist", "mnist-vs-fashion")
    )
    cpu = _median(rows, "cpu_seconds")
    text = (
        f"Seeds {', '.join(str(row['seed']) for row in rows)}: {cpu:,.0f} s of CPU time; AUPRC "
        f"{quality}.\n"
    )
    if ends:
        text += "\nBy the number of steps of each kind and their times, in turns:\n\n" + _ladder(
            ends
        )
    return text


def _scoring(rows: list[Row]) -> str:
    by_kind = grouped(rows, "what")
    memory = sorted(by_kind[("memory",)], key=lambda row: row["threads"])
    lines = [
        [
            str(row["threads"]),
            f"{row['images_per_second']:,.0f}",
            f"{row['onnxruntime_images_per_second']:,.0f}",
            spread(row.get("ratios", [row["ratio"]])),
            f"{row['one_image_ms']:.1f}" if "one_image_ms" in row else "",
            f"{row['largest_difference']:.0e}",
            f"{row['largest_difference_between_batches']:.0e}",
        ]
        for row in memory
    ]
    head = "threads|images / s|onnxruntime, images / s|ratio|one image, ms|largest difference"
    folder, start = by_kind[("folder",)][-1], by_kind[("start",)][-1]
    decoded, from_memory = folder["decoded_per_second"], max(r["images_per_second"] for r in memory)
    return (
        table([*head.split("|"), "between batch sizes"], lines)
        + "\nA folder of 10,000 PNG files: "
        + f"{decoded:,.0f} a second are decoded, "
        + f"{folder['scored_per_second']:,.0f} decoded and scored (ratio "
        + f"{spread(folder.get('ratios', [folder['ratio']]))}, both on all cores). "
        + "Both keep all cores busy: what is decoded so fast, and scored so fast from memory, "
        + f"can be both at {from_memory / (decoded + from_memory):.2f} of decoding alone, and "
        + "at .8 only where scoring is four times as fast as decoding. "
        + f"`historyad --help` takes {start['help_seconds']:.2f} s, "
        + f"`historyad score` of one image {start['score_one_seconds']:.1f} s.\n"
    )


def _service(rows: list[Row]) -> str:
    rows = sorted(rows, key=lambda row: -row["images in a request"])
    lines = [
        [
            str(row["images in a request"]),
            *(f"{row[f'{key}, images/s']:,.0f}" for key in ("score's rate", "offered", "accepted")),
            spread(row["ratios"]),
            *("{:.2f}".format(row[f"{who}'s CPU, ms/image"]) for who in ("score", "service")),
            f"{row['median of the accepted, s']:.3f}",
            f"{row['p99 of the accepted, s']:.3f}",
            str(row["wrong answers"]),
        ]
        for row in rows
    ]
    head = (
        "images in a request|`score`, images / s|offered|accepted|accepted / `score`|"
        "CPU of `score`, ms|of the service, ms|median, s|p99, s|wrong answers"
    )
    text = SERVICE.format(clients=rows[0]["clients"], seconds=rows[0]["seconds"])
    return text + "\n" + table(head.split("|"), lines)


def _processes(rows: list[Row]) -> str:
    lines = [
        [
            _step(row),
            str(row["batch_size"]),
            *(f"{row[f'{way}_ms']:,.0f} ms" for way in ("one_process", "two_processes")),
            spread(row["ratios"]),
            f"{row['without_talking']:.2f}",
            f"{row['communication_share']:.0%}",
        ]
        for row in rows
    ]
    head = "step|global batch|one process|two|ratio of throughput|without talking|communication"
    return table(head.split("|"), lines)


def _step(row: Row) -> str:
    return {"step1": "step 1", "step3": "step 3"}[row["step"]]


def _growth(rows: list[Row]) -> str:
    lines = [
        [
            f"{row['n_images']:,}",
            f"{row['fit_seconds']:,.0f}",
            f"{row['peak_memory_mb']:,.0f}",
            f"{row['score_ms']:.3f}" if "score_ms" in row else "",
        ]
        for row in sorted(rows, key=lambda row: row["n_images"])
    ]
    return table(["images", "fit, s", "peak MB", "score of one, ms"], lines)


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


def _median(rows: list[Row], key: str) -> float:
    return float(statistics.median(row[key] for row in rows))


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "performance.md", build()))
