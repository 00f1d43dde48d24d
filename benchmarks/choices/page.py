"""Write docs/choices.md from the rows in docs/rows/choices; `--check` only compares."""

from __future__ import annotations

import statistics
import sys

from benchmarks.choices.full import OUT as FULL
from benchmarks.choices.measure import BASE, CHOICES, MOST_IMAGES, OUT, TAKEN
from benchmarks.choices.toy import OUT as TOY
from benchmarks.pages import DOCS, ROWS, Row, commands, write_or_check
from historyad.files import read_rows
from historyad.research.markdown import table
from historyad.research.reproduce.table1 import SPLITS

BEFORE = ROWS / "choices" / "before.jsonl"
HEAD = f"""# What the paper leaves open

**In short.** How step 3 starts decides most, then how long it is trained, at which rate and with
which momentum; what else the text leaves open moves AUPRC by two hundredths at most. With [what was
chosen](#what-is-seen), digits and house numbers come out as printed.

A text of twelve pages cannot say everything that a program needs. Here is each choice that had to
be made, what the paper says of it, what we take, and how far the alternatives move the result.

**How it was measured.** Handwritten digits (MNIST) are normal. D_TV alone gives the score: the
preset `paper`, at a size that a processor can afford: {BASE["width"]} channels in the first
convolution, {BASE["hidden"]} hidden units, epochs of {BASE["epoch_images"]:,} images, a gradient
penalty at every {BASE["penalty_interval"]}th step. One choice is changed at a time. AUPRC is that
of {MOST_IMAGES:,} test images against as many of KMNIST and of Fashion-MNIST; *told apart* is the
total variation (eq. 7) between test images and the history; *noise* is the mean score of digits
with Gaussian noise of deviation .5, where +1 is right. Nothing was chosen on these rows.
"""

FULL_HEAD = """## Step 3 at full size

The preset `paper` as for [table 1](results.md#table-1-and-figure-1-svhn-as-normal), AUPRC against
each set of photos, and on digits as for figure 5. *Step 1* and *step 3* are momenta. Seed 0 is that
on which the preset was chosen, and is apart; the length on house numbers was chosen on seed 1, too.
Where the start is standardised, rows of seed 0 were measured with medians in place of mean and
deviation, by 5,000 images of each set at most.
"""
LEAST_RISE = 1 / 3  # of its range, on either side of the data, of what is called a 'v'
TOY_HEAD = """## The toy, and the 'v'

"The obtained average is indeed shaped as a 'v' centered on the real distribution", says the paper
of its toy. Called a 'v' is an average of the outputs that is higher at -4 and at +4 than at 0 by a
third of its range at least. A critic that has all of the generated numbers on one side of the
data is a line that rises or falls; the average is a "v" where the generator comes to either side
of them, or is wider. What decides here is how fast it learns: with a rate four times that of the
critic that it follows, it overshoots; with the same rate, the average leans to the side from which
it came. A narrow start and a strong penalty bring the two averages of Fig. 4(b) apart, and with
weight 10 D<sub>TV</sub> ends far from eq. 11. Settings were chosen on seeds 10 to 14;
an earlier choice had been tried on seed 1 and given up there.
D<sub>TV</sub> was trained at quick size; [the results](results.md#figures-3-and-4-the-toy-example)
have it at full size.
"""
BEFORE_HEAD = """## With step 3 as it was before

What the preset `paper` had before step 3 was [chosen anew](#step-3-at-full-size): momenta (.5, .9)
in both steps, a start with the average as it is, and 3 epochs, at the same size. *Change of both*
is that of the two AUPRCs from what was taken then, with the same seeds. The commands gave these
rows when they measured against that.
"""
READING = """
## What is seen

* **The start of step 3 decides most.** A critic of eq. 1 is known but for a constant, and its unit is
  that of distances: the average of eq. 14 says {digits:.0f} of digits and {history:.0f} of their history, and
  D<sub>TV</sub> has its values in [-1, 1]. The bound (eq. 10) has a gradient of lambda times the
  distance to it, some 400 there, beside the 1 of what tells data and history apart. Adam's mean of
  squares remembers the first steps, and all but stops those that follow: the longer its memory, the
  worse. *Standardised*, with mean 0 and deviation 1 on data and history together, the start leaves
  less to the momentum.
* **Then the length and the rate.** On digits D<sub>TV</sub> tells more from the history with
  both: .897 after half an epoch, .989 after two. Of house numbers there are 7,000, seen 42 times in as many epochs: (.5, .9) and (.9, .9) then tell all of them from the
  history, and photos worse than before. (.9, .999), still slowed down by its first steps, loses
  nothing there, and on digits does not get far.
* **The preset `paper`** takes Adam's own momenta in step 1, as the text says, and in step 3 the
  standardised start, (.9, .9) and 2 epochs; table 1, .6 epochs, five times each image. The other
  presets take the start as it is and (.9, .999) in step 3, [chosen for the sum of
  views](how-it-works.md#several-views-one-score): a standardised start made the history stronger
  alone and the sum weaker.
* **Fewer critic steps, smaller batches and fewer latent dimensions** cost one to two hundredths here.
* **The kind of pooling, how the rate falls, batch-norm statistics, the precision of snapshots and the
  side of the images** move AUPRC by less than seeds do: .985 and .998 on KMNIST with nothing changed,
  by the step 3 of before. They do not explain a difference from the paper.
"""  # noqa: E501


def build() -> str:
    """Return the page."""
    rows, before = read_rows(OUT), read_rows(BEFORE)
    base = _base(rows)
    text = HEAD + _of_seeds(rows) + commands(rows)
    for name, choice in CHOICES.items():
        lines = [_line(f"**{choice.taken}**", base, base)]
        for value in (*choice.others, *choice.every, *choice.inside):
            found = [row for row in rows if (row["choice"], row["value"]) == (name, value)]
            lines += [_line(value, found, base)] if found else []
        if len(lines) > 1:
            text += f"## {name[0].upper()}{name[1:]}\n\n"
            text += f"The text: {choice.text}. Taken: {choice.taken}.\n\n"
            text += table([name, *_HEADS], lines) + "\n"
    untrained = [row for row in before if row["value"] == "no training"]
    said = {
        name: statistics.fmean(row[f"mean_of_{name}"] for row in untrained)
        for name in ("digits", "history")
    }
    sections = [_positive(base), READING.format(**said), _full(read_rows(FULL))]
    return "\n".join([text + sections[0], *sections[1:], _toy(read_rows(TOY)), _of_before(before)])


def _base(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["choice"] == TAKEN]


def _of_before(rows: list[Row]) -> str:
    """Return what was measured against the preset before, all choices in one table."""
    base = _base(rows)
    lines = [
        _line(name if name == value else f"{name}: {value}", found, base)
        for (name, value), found in _in_order(rows).items()
    ]
    return BEFORE_HEAD + commands(rows) + table(["choice", *_HEADS], lines)


def _in_order(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["choice"], row["value"]), []).append(row)
    return groups


def _toy(rows: list[Row]) -> str:
    """Return what the settings of the toy do, a line for each of them."""
    lines = []
    for name in dict.fromkeys(row["settings"] for row in rows):
        found = [row for row in rows if row["settings"] == name]
        rises = [(row["rises_to_the_left"], row["rises_to_the_right"]) for row in found]
        is_v = sum(min(pair) >= LEAST_RISE for pair in rises)
        cells = [
            _spread([row[key] for row in found])
            for key in ("averages_difference", "detector_difference")
        ]
        lines.append([name, f"{is_v} of {len(found)}", *cells])
    heads = ["settings", "a 'v'", "the two averages apart by", "D<sub>TV</sub> from eq. 11"]
    return TOY_HEAD + commands(rows) + table(heads, lines)


def _full(rows: list[Row]) -> str:
    """Return what the momenta do at full size, seed 0 apart from the others."""
    splits = list(dict.fromkeys(row["split"] for row in rows))
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        seeds = "0" if row["seed"] == 0 else "others"
        groups.setdefault((row["momenta"], seeds), []).append(row)
    lines = []
    for (momenta, _), found in groups.items():
        of_split = {s: [row["auprc"] for row in found if row["split"] == s] for s in splits}
        seeds = ", ".join(map(str, sorted({row["seed"] for row in found})))
        cells = [_spread(values) if values else "" for values in of_split.values()]
        parts = momenta.split("; ")
        lines.append([*parts, *_USUAL[len(parts) - 2 :], seeds, *cells])
    titles = [_TITLES.get(split) or SPLITS[split] for split in splits]
    heads = ["step 1", "step 3", "start", "length", "seeds", *titles]
    return FULL_HEAD + commands(rows) + table(heads, lines)


_USUAL = ("as it is", "5 epochs")  # start and length of step 3, where nothing else is said
_TITLES = {"mnist-vs-kmnist": "digits: KMNIST", "mnist-vs-fashion": "digits: Fashion-MNIST"}


def _of_seeds(rows: list[Row]) -> str:
    seeds = " and ".join(map(str, sorted({row["seed"] for row in rows})))
    if " " not in seeds:
        return f"One seed, {seeds}: differences of a hundredth mean nothing.\n"
    return (
        f"Seeds {seeds}: the mean, and the lowest and the highest where there are several.\n"
        "*Change of both* is that of the two AUPRCs from what is taken, with the same seeds.\n"
    )


_HEADS = ("KMNIST", "Fashion-MNIST", "change of both", "told apart", "noise")


def _line(value: str, rows: list[Row], base: list[Row]) -> list[str]:
    cells = [_spread([row[name] for row in rows]) for name in ("kmnist", "fashion")]
    return [
        value,
        *cells,
        f"{_both(rows) - _both(_of_the_seeds_of(rows, base)):+.3f}" if rows is not base else "",
        f"{statistics.fmean(row['total_variation'] for row in rows):.3f}",
        f"{statistics.fmean(row['strongest_noise'] for row in rows):+.2f}",
    ]


def _of_the_seeds_of(rows: list[Row], base: list[Row]) -> list[Row]:
    seeds = {row["seed"] for row in rows}
    return [row for row in base if row["seed"] in seeds]


def _spread(values: list[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def _both(rows: list[Row]) -> float:
    return statistics.fmean((row["kmnist"] + row["fashion"]) / 2 for row in rows)


def _positive(base: list[Row]) -> str:
    """Return what AUPRC is where what is normal is the positive class."""
    lines = [
        [
            title,
            _spread([row[name] for row in base]),
            _spread([row[f"{name}_normal_positive"] for row in base]),
        ]
        for name, title in (("kmnist", "KMNIST"), ("fashion", "Fashion-MNIST"))
    ]
    head = "## Which class is positive\n\nThe text: not said of table 1; Fig. 9 shows the AUPRC "
    head += '"of normal data". Taken: anomalies.\n\n'
    return head + table(["AUPRC", "anomalies are positive", "digits are positive"], lines)


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "choices.md", build()))
