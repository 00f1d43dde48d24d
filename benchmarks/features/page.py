"""Write what was measured into docs/features.md from the rows in docs/rows/features.

It is the section "Measured"; with `--check`, the page is only compared.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable

from benchmarks.features.measure import OURS
from benchmarks.features.peers import PEERS
from benchmarks.features.sets import RATES, SETS
from benchmarks.pages import DOCS, ROWS, Row, commands, grouped, write_or_check
from historyad.constants import CONSTANTS
from historyad.files import read_rows
from historyad.research.markdown import table

PAGE = DOCS / "features.md"
BEFORE_EACH = {"no network": "wavelets: ", "random weights": "random weights: "}  # method

HEAD = """## Measured

Written by `python -m benchmarks.features.page` from the rows in `docs/rows/features`. All methods
see the same images at 320 pixels, and are fitted on the same part of the good ones; the rest of
these sets the threshold. Ours sees the cells of lite0 with wavelets, peers those of the network
alone, as they were published. Rows with `wavelets:` are of `--backbone wavelets`, without any
network; those with `random weights:` are of a network like lite0 that learnt nothing. AUROC of
images, and the ends of its 95 % interval, are means over the seeds; of tiles, whole groups of
pictures of one tile are drawn again for it. Alarms are false ones on good test images, which
nothing was fitted on. Masks count from half brightness.

Tiles are a development set: all choices were made on half of their test groups, with seed 0, and on
good screws from the training part that were damaged in a spot of a few pixels. No test image of the
screws or the cookies was looked at for them, but for what came before: the view `whole` was added
after a figure of screws had been seen, and that D_TV of the history is left out was decided on the
figures of all sets. That `damage` stands beside the map was decided after the masks of cookies had
been seen once (in the map it cost pixels), its loss on
[development data](#what-d_tv-is-trained-against), but after figures of another loss on all sets,
and that it is there at all on the figures of all sets. Tried were also lite0 alone, wavelets alone
on 32, 48 and 64 components, both with their components apart or together, with textures on one
level or not, and the worst three cells or ten. The scripts that chose these are not kept, and so
their figures are not shown.
"""

NOTES = """
The default is the sum of `neighbours`, `place` (with some seeds `gaussian`, on cookies), `damage`
and `whole`; `--views all` adds `history`, and was measured without `damage`. `--backbone wavelets`
has no `whole`: how strong a texture is differs between good things. Single numbers of an image,
more or less of it being the anomaly, know nothing of training: what they reach is in the
collection, not in the surface. Good screws of the test part are darker and flatter than all others,
so that `brightness` and `mean gradient` tell nearly all of them. Each image's own brightness and
contrast are taken out for the rest; whether that is all of it cannot be known from this set, and a
gain on it is to be distrusted.

False alarms on tiles are more than the rate that was asked for, and come from few of them, as the
table below says: the held-out images show some twenty tiles, of which the one that looks worst
decides on the threshold, and pictures of one tile look alike. The next tile is worse than twenty
others once in some twenty times, and no rate below that can be promised for new tiles: `fit
--group` says so.

PatchCore, PaDiM and SimpleNet are written anew here after their papers, without their own networks
and sizes, so that published figures of theirs are not comparable.
"""

DAMAGE = """
### What D_TV is trained against

Step 3 of the paper against another law than the history: cells of 200 good images on which defects
were drawn, pieces from elsewhere, scars, spots, smudges and rough patches, as the network sees
them. With the loss of eq. 10 cookies gained, and screws and tiles lost; with the logistic one no
set loses more than .001. AUROC with lite0 on the reported sets:

"""

DAMAGED = """

Without a network it brings more: the tables above have `wavelets: neighbours + place` with it and
without. The rows of eq. 10 are of one commit, "A D_TV that was trained against damaged photos".
Here the parts of good images that are whitened by each other are of whole groups, or of single
images where none are known; a fit takes stretches of the folder.
"""

CHOSEN = """
What it is trained against was tried on development data alone, with seed 0: half of the test groups
of tiles, and good screws of the training part with a spot of a few pixels and without; the spots
are pasted pieces, as some of the drawn defects are, so that screws flatter them. *Sum* is that of
the map, D_TV and `whole`. All see the same good cells, and have the same network, each trained
once: a hundredth may be chance. A history of whitened cells brings next to nothing to the sum,
alone and beside damage.

"""

PIXELS = """
### Pixels of tiles, by kind of defect

Pixel AUROC of all tiles is that of `uneven` above all, which has most of the pixels under masks: of
two sides of a border, each ground in its own way, the mask covers one. Where the border is, maps
show; which of the sides is meant, they cannot know. The last column counts the tiles, of those that
good test images show, that false alarms are of, with each seed.

"""

SECONDS = """
### Seconds and memory

What a command takes from start to end ({machine}, no accelerator): medians of {rounds} rounds.
*After the first* is what one image takes of many, with reading it.

"""

BEFORE = """### Before

AUROC with the mean of the worst ten cells, and without wavelets: at 320 pixels with three seeds, or
one where a sum has `history` or `residual`, the distance to a Gaussian of what is left of a cell
beside its nearest; and at 224, without block 7 of the network and with a Gaussian of mean cells
alone as `whole`. `neighbours, pooled`, the distance of the mean cell to its five nearest in place
of `whole`, was left out for being worse on two sets.
"""

CLASSES = """### One class of CIFAR-10

Each class in turn is normal, and the AUROC is the mean over the ten. Only test images of CIFAR-10
were at hand: 200 of a class are fitted on, where published figures take 5,000 training images, and
100 of each class tested with. Nothing was chosen here. Rows at 224 pixels are of the features
*before*, without wavelets and `damage`: what was added to see defects costs on whole scenes.
"""

PUBLISHED = """
Published: .943 (CSI, Tack et al., 2020) and .954 (UniCon-HA, Wang et al., 2023) without
pretraining, .962 with it (PANDA, Reiss et al., 2021, which adapts a ResNet). What is scored here
are whole scenes of 32 pixels, enlarged to 320: a detector of defects is not made for that.
"""


def build() -> str:
    """Return the page, its section anew."""
    every = [_named(row) for row in read_rows(ROWS / "features" / "rows.jsonl")]
    older = [row for row in every if row["side"] != CONSTANTS.backbone_side or _is_before(row)]
    rows = [row for row in every if row not in older]
    section = HEAD + _of_all(rows) + "".join(_of_set(name, rows) for name in SETS) + NOTES
    section += _of_pixels(rows)
    section += _of_seconds(read_rows(ROWS / "features" / "timing.jsonl"))
    section += _unmeasured(rows) + commands(rows) + _damage() + _before(older)
    section += _of_classes(read_rows(ROWS / "features" / "cifar.jsonl"))
    return re.sub(
        r"## Measured\n.*?(?=^## )", lambda _: section, PAGE.read_text(), flags=re.S | re.M
    )


def _named(row: Row) -> Row:
    """Return a row whose method is called alike whether images were found to be aligned or not."""
    is_peer = row["fit"] not in OURS and not _is_before(row)
    if is_peer:
        return row
    method = row["method"].replace("gaussian", "place")
    return {**row, "method": f"{BEFORE_EACH.get(row['fit'], '')}{method}"}


def _is_before(row: Row) -> bool:
    """Whether a row is of an earlier form of ours."""
    return bool(row["fit"] == "before")


def _of_all(rows: list[Row]) -> str:
    """Return the means over all sets, of what was measured on each as often as the others."""
    found = grouped([row for row in rows if row["fit"] in (*OURS, *PEERS)], "method")
    most = max(map(len, found.values()))
    lines = {}
    for (method,), group in found.items():
        if len(group) == most:
            means = [_mean(part) for part in grouped(group, "set").values()]
            lines[method] = statistics.fmean(means)
    order = sorted(lines, key=lambda method: -lines[method])
    shown = [[method, str(most // len(SETS)), f"{lines[method]:.3f}"] for method in order]
    return f"\n### Mean of the sets\n\n{table(['method', 'seeds', 'AUROC'], shown)}"


def _of_set(name: str, rows: list[Row]) -> str:
    found = grouped([row for row in rows if row["set"] == name], "fit", "method")
    most = max(map(len, found.values()), default=0)

    def place(group: list[Row]) -> tuple[bool, bool, float]:
        return group[0]["fit"] not in OURS, len(group) < most, -_mean(group)

    order = sorted(found.values(), key=place)
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


def _of_pixels(rows: list[Row]) -> str:
    """Return the pixel AUROC of each kind of defect, and of how many things false alarms are."""
    chosen = [row for row in rows if row["set"] == "tiles" and row.get("pixel_kinds")]
    found = sorted(grouped(chosen, "fit", "method").values(), key=_mean, reverse=True)
    found = [group for group in found if _has_map(group)]
    if not found:
        return ""
    kinds = [*found[0][0]["pixel_kinds"]]
    lines = []
    for group in found:
        by_kind = [statistics.fmean(row["pixel_kinds"][kind] for row in group) for kind in kinds]
        values = [*by_kind, statistics.fmean(by_kind)]
        alarms = ", ".join(str(row["false_alarm_groups"]) for row in group)
        shown = [group[0]["method"], *(f"{value:.3f}" for value in values)]
        lines.append([*shown, f"{alarms} of {group[0]['n_good_groups']}"])
    return PIXELS + table(["method", *kinds, "mean of kinds", "tiles of false alarms"], lines)


def _of_seconds(rows: list[Row]) -> str:
    """Return what commands take, a line for each and a column for each backbone."""
    if not rows:
        return ""
    of = {name: group for (name,), group in grouped(rows, "backbone").items()}
    shown: dict[str, Callable[[Row], str]] = {
        "`fit` of 300 images of 320 x 320": lambda row: _taken(row["fit"]),
        "`score` of one of them": lambda row: _taken(row["first"]),
        "after the first, images a second": lambda row: f"{row['images_a_second_after_first']:.0f}",
        "`score --maps` of one of 2,000 x 2,000": lambda row: _taken(row["large"]),
        "after the first": lambda row: f"{row['large_after_first']:.1f} s",
    }
    lines = [
        [name, *(show(_median(group)) for group in of.values())] for name, show in shown.items()
    ]
    head = SECONDS.format(machine=rows[0]["machine"], rounds=len(rows) // len(of))
    return head + table(["", *(f"`--backbone {name}`" for name in of)], lines) + commands(rows)


def _median(group: list[Row]) -> Row:
    """Return a row of the medians of what was measured, each for itself."""
    first = group[0]
    numbers = {key for key, value in first.items() if isinstance(value, float)}
    parts = {key for key, value in first.items() if isinstance(value, dict) and "seconds" in value}
    found: Row = {key: statistics.median(row[key] for row in group) for key in numbers}
    return found | {key: _median([row[key] for row in group]) for key in parts}


def _taken(part: Row) -> str:
    return f"{part['seconds']:.1f} s, {part['peak_memory_mb'] / 1000:.1f} GB"


def _has_map(group: list[Row]) -> bool:
    last = group[0]["method"].split(": ")[-1]
    return last not in ("whole", "damage", "5 neighbours, pooled")


def _before(rows: list[Row]) -> str:
    """Return what was measured with another side or an earlier form, a table for each side."""
    tables = []
    for (side,), of_side in sorted(grouped(rows, "side").items(), reverse=True):
        lines = []
        for (method,), group in grouped(of_side, "method").items():
            of_sets = {name: part for (name,), part in grouped(group, "set").items()}
            means = [f"{_mean(of_sets[name]):.3f}" if name in of_sets else "-" for name in SETS]
            lines.append([method, *means])
        lines.sort(key=lambda line: line[1:], reverse=True)
        tables.append(table([f"method, at {side} pixels", *SETS], lines))
    return "\n".join([BEFORE, *tables]) if tables else ""


def _damage() -> str:
    """Return the section on what else D_TV was trained against."""
    rows = read_rows(ROWS / "features" / "damage.jsonl")
    sums = {"alone": "damage", "sum without": "{} + whole", "sum": "{} + damage + whole"}
    lines = []
    for (fit, name), group in grouped(rows, "fit", "set").items():
        of = [
            statistics.fmean(
                row["auroc"]
                for row in group
                if row["method"].replace("gaussian", "place") == method.format("neighbours + place")
            )
            for method in sums.values()
        ]
        n_seeds = len({row["seed"] for row in group})
        lines.append([fit, name, str(n_seeds), *(f"{one:.3f}" for one in of)])
    head = ["D_TV by", "set", "seeds", *sums]
    section = DAMAGE + table(head, lines) + DAMAGED + commands(rows)
    tried = read_rows(ROWS / "features" / "choose.jsonl")
    if not tried:
        return section
    sets = list(dict.fromkeys(row["set"] for row in tried))
    none = [["none", *(text for name in sets for text in ("-", _of(tried, name, "without")))]]
    shown = [
        [variant, *(_of(group, name, of) for name in sets for of in ("alone", "sum"))]
        for (variant,), group in grouped(tried, "variant").items()
    ]
    head = ["against", *(f"{name}: {of}" for name in sets for of in ("alone", "sum"))]
    return section + CHOSEN.lstrip() + table(head, [*none, *shown]) + commands(tried)


def _of(rows: list[Row], name: str, of: str) -> str:
    """Return a figure of a set, of which there is one."""
    return next((f"{row[of]:.3f}" for row in rows if row["set"] == name), "-")


def _line(group: list[Row]) -> list[str]:
    low, high = (statistics.fmean(row[f"auroc_{end}"] for row in group) for end in ("low", "high"))
    pixels = [row["pixel_auroc"] for row in group if row["pixel_auroc"] is not None]
    pixels = pixels if _has_map(group) else []
    alarms = sum(row["false_alarms"] for row in group), sum(row["n_good"] for row in group)
    return [
        group[0]["method"],
        str(len(group)),
        f"{_mean(group):.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{statistics.fmean(pixels):.3f}" if pixels else "-",
        f"{alarms[0]} of {alarms[1]}",
        f"{statistics.fmean(row['found'] for row in group):.3f}",
    ]


def _unmeasured(rows: list[Row]) -> str:
    """Say which of the other detectors were not measured on which sets."""
    there = {(row["set"], row["fit"]) for row in rows}
    missing = [f"{peer} on {name}" for peer in PEERS for name in SETS if (name, peer) not in there]
    return f"\nNot measured: {', '.join(missing)}.\n" if missing else ""


def _of_classes(rows: list[Row]) -> str:
    """Return the section on CIFAR-10, one class against the others."""
    if not rows:
        return ""
    lines = [
        [method, str(side), str(len(group)), f"{_mean(group):.3f}"]
        for (method, side), group in grouped(rows, "method", "side").items()
    ]
    head = ["method", "pixels", "classes", "AUROC"]
    return f"{CLASSES}\n{table(head, lines)}{PUBLISHED}{commands(rows)}"


def _mean(group: list[Row]) -> float:
    return statistics.fmean(row["auroc"] for row in group)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, build()))
