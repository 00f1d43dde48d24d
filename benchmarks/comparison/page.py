"""Write docs/comparison.md and its chart from docs/rows/comparison; `--check` compares the page."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.comparison.checks import aims_section, checks_section
from benchmarks.comparison.cost import cost_section
from benchmarks.comparison.families import (
    FAMILIES,
    OUR_DEFAULT,
    WITH_DEEP_PEERS,
    Family,
    better_peers,
    range_of,
    read_cells,
    rows_in,
)
from benchmarks.pages import (
    BEFORE,
    DOCS,
    PICTURES,
    ROOT,
    ROWS,
    commands,
    of_before,
    write_or_check,
)
from historyad.research.benchmark import OURS, Row
from historyad.research.markdown import table
from historyad.research.standings import (
    Cells,
    draw,
    mean,
    mean_ranks,
    means_of_all,
    methods_in,
    on,
    spread,
)

README = ROOT / "README.md"

HEAD = """# Comparison

Written by `python -m benchmarks.comparison.page` from the rows in `docs/rows/comparison`, and in
`docs/rows/speed` for our fits on all of MNIST; do not edit.
Every section names the commands that gave it. Data are looked for under `HISTORYAD_DATA`.

Every method learns from the same normal images, and no label was used in fitting, nor in choosing,
but for the number of latents of `vae-bernoulli`, 10 instead of 20, by four digits left out, seed 0.
The settings of the peers are those of their papers, or their library's; PyOD's networks, made for
tables, are wider on images, of which they see 200,000 at least. `vae` and `vae-dense` are scored by
reconstruction probability; `vae-bernoulli`, the plain one, by the error of its reconstruction. On
vectors `vae` is dense, and so there is no other. `anogan` and `adgan` take hundreds of steps for
every image: a table that lacks them does so for that reason.

The settings of ours were chosen on some of these splits, on the same test images, most of them with
seed 0: [they are named here](how-it-works.md#several-views-one-score). Seeds on which something was
chosen are not reported.
`historyad` is the default with all its views, `historyad-paper` the paper's recipe alone; on digits
and house numbers, for which it has its own settings, its rows are those of the
[reproduction of the paper](results.md).

Scores are better when higher, the best of a column is **bold**; the anomalous class is the positive
one of AUPRC, and its share is the prevalence. Numbers are means over the seeds; methods that draw
nothing at random have one where the split is fixed. After ± stands the standard deviation over the
seeds, that of the mean where there are several splits. A dash means: not measured; a method that
a table lacks was measured on none of its splits. The column of seeds says how many of those in the
command are done on every split.

Machines: two cores of an x86-64 server processor, 24 GB, no accelerator: an AMD EPYC (third
generation) or an Intel Xeon, which newer rows name. Where times are compared, the page says which.
"""

CHART = """## At a glance

AUROC, mean over the splits of each family, the best method on top; ours are orange. A method is
where it was measured on all splits of a family.

![AUROC of each method on each family of splits](pictures/comparison.webp)
"""

RANKS = """## Ranks

The rank of a method by its AUROC among those that were measured on all splits of a family, 1 for
the best, ties shared; the mean over its splits. The last two columns are means over all {n} image
splits, and over the {few} on which the peers that train a network are to be measured, too: each
among the methods that were measured on every one of them. Families of ten weigh most.
"""

LOSSES = """## Where ours loses

Every split on which a peer has a higher AUROC than `historyad`, the default, with what beats it and
by how much; on vectors, whose halves a seed decides, on the seeds that both have.
"""

OTHER_DRAW = """
{methods}: from [figure 7](results.md#figure-7-one-digit-as-the-anomaly), where 80 % of
the normal images of both official halves train; the rest and all images of the digit test.
"""

SUMMARY_MARKS = (
    "<!-- families: python -m benchmarks.comparison.page -->",
    "<!-- end of families -->",
)
# What one would pick without reading papers.
PICKED = ("neighbours", "neighbours-pca-cosine", "pca-residual", "mahalanobis", "isolation-forest")
_LISTED = 6  # peers that a line on a loss names


def main() -> int:
    """Write page and chart and the table of README, or with --check return 1 when one is stale."""
    cells = read_cells(ROWS)
    if "--check" not in sys.argv:
        draw(
            {f.title: means_of_all(cells, f.splits) for f in FAMILIES},
            [*OURS],
            PICTURES / "comparison.webp",
        )
    stale = write_or_check(README, with_summary(README.read_text(), cells))
    return write_or_check(DOCS / "comparison.md", page_of(cells)) or stale


def with_summary(text: str, cells: Cells) -> str:
    """Return the text of README with what it says of the families brought up to date."""
    start, end = SUMMARY_MARKS
    before, _, after = text.partition(start)
    return f"{before}{start}\n\n{summary(cells)}\n{end}{after.partition(end)[2]}"


def summary(cells: Cells) -> str:
    """Return the mean AUROC of ours, of what one would pick without it, and of the best peer."""
    methods = [OUR_DEFAULT, *PICKED]
    lines = []
    for family in FAMILIES:
        peers = means_of_all(cells, family.splits)
        best = next(method for method in peers if method not in OURS)
        means = [mean(cells, method, family.splits, "auroc") for method in methods]
        *shown, of_best = _column([*means, peers[best]], "{:.3f}")
        seeds = _seeds(on(cells, family.splits), methods[:1])
        name = f"{family.title} ({len(family.splits)})"
        lines.append([name, *shown, f"{of_best} `{best}`", *_verdicts(cells, family), *seeds])
    head = ["mean AUROC (splits)", *(f"`{method}`" for method in methods), "best of all peers"]
    head += ["found by ours", "false alarms of ours", "seeds of ours"]
    old = [family.title.lower() for family in FAMILIES if _earlier(cells, family)]
    which = f"\n`{OUR_DEFAULT}` was measured on these {BEFORE}:\n"
    which = f"{which}{', '.join(old)}.\n" if old else ""
    return table(head, lines) + which


def build() -> str:
    """Return the page."""
    return page_of(read_cells(ROWS))


def page_of(cells: Cells) -> str:
    """Return the page that says what was measured."""
    sections = [
        HEAD,
        CHART,
        ranks_section(cells),
        losses_section(cells),
        aims_section(cells),
        *(family_section(cells, family) for family in FAMILIES),
        cost_section(cells),
        checks_section(cells),
    ]
    return "\n".join(sections)


def family_section(cells: Cells, family: Family) -> str:
    """Return the table of a family: the splits one by one, and their means where they are many."""
    cells = on(cells, family.splits)
    text = f"## {family.title}\n\n{family.about}\n"
    if not cells:
        return text + "\n*Not measured yet.*\n"
    rows = rows_in(cells)
    same = [row for row in rows if not row.keys() & {"most", "other_draw"}] or rows
    train, normal, anomalous = (
        range_of(same, f"n_{of}") for of in ("train", "normal", "anomalous")
    )
    sizes = f"\n{train} training samples; {normal} normal and {anomalous} anomalous ones test.\n"
    sizes += _parts(rows)
    body = _wide(cells, family) if len(family.splits) > 3 else _narrow(cells, family)
    text += sizes + _earlier(cells, family) + _other_draw(rows) + commands(rows) + body
    return text + _at_threshold(cells, family)


def _at_threshold(cells: Cells, family: Family) -> str:
    """Say what the verdicts of ours find on the splits of a family, and what they wrongly flag."""
    found, flagged = _verdicts(cells, family)
    if found == "–":
        return ""
    return (
        f"\nAt its threshold for 1 % of false positives, `{OUR_DEFAULT}` finds {found} of the "
        f"anomalies\nand flags {flagged} of the normal samples (means over splits and seeds).\n"
    )


def _verdicts(cells: Cells, family: Family) -> tuple[str, str]:
    """Return which share of anomalies ours finds, and which of normal samples it flags."""
    keys = "detection_rate", "false_positive_rate"
    cells = {key: [row for row in rows if keys[0] in row] for key, rows in cells.items()}
    shares = [mean(cells, OUR_DEFAULT, family.splits, key) for key in keys]
    found, flagged = ("–" if share is None else f"{100 * share:.1f} %" for share in shares)
    return found, flagged


def _earlier(cells: Cells, family: Family) -> str:
    """Say on how many splits ours is of before its latest view."""
    ours = [cells[OUR_DEFAULT, split] for split in family.splits if (OUR_DEFAULT, split) in cells]
    old = sum(map(of_before, ours))
    if not family.images or not old:
        return ""
    on_which = "" if old == len(ours) else f" on {old} of the {len(ours)} splits"
    return f"\n`{OUR_DEFAULT}` was measured here {BEFORE}{on_which}.\n"


def _other_draw(rows: list[Row]) -> str:
    """Say which methods were measured on another draw of the same images."""
    methods = sorted({f"`{row['method']}`" for row in rows if "other_draw" in row})
    return OTHER_DRAW.format(methods=", ".join(methods)) if methods else ""


def _parts(rows: list[Row]) -> str:
    """Say which methods were tested on a part of the samples."""
    parts = {row["method"]: row["most"] for row in rows if "most" in row}
    listed = ", ".join(f"`{method}` ({most:,})" for method, most in parts.items())
    why = "too slow for all, were tested on so many of either kind, drawn by the seed"
    return f"\nMethods {why}: {listed}.\n" if parts else ""


def _wide(cells: Cells, family: Family) -> str:
    """Return AUROC of many splits, and the means of AUROC and AUPRC over them."""
    methods = _order(cells, family)
    columns = [
        _column([mean(cells, method, [split], "auroc") for method in methods])
        for split in family.splits
    ]
    means = [_with_spread(cells, methods, family.splits, key) for key in ("auroc", "auprc")]
    prevalence = statistics.fmean({r["split"]: r["prevalence"] for r in rows_in(cells)}.values())
    short = [re.sub(r"^(vectors|mnist|fashion)-((only|without)-)?", "", s) for s in family.splits]
    head = ["method", "seeds", *short, "mean AUROC", f"mean AUPRC (prevalence {prevalence:.2f})"]
    return _lines(head, methods, [_seeds(cells, methods), *columns, *means])


def _narrow(cells: Cells, family: Family) -> str:
    """Return AUROC and AUPRC of few splits, with their spread."""
    methods = _order(cells, family)
    head, columns = ["method", "seeds"], [_seeds(cells, methods)]
    shared = set.intersection(*(set(split.split("-vs-")) for split in family.splits))
    for split in family.splits:
        rows = rows_in(on(cells, [split]))
        name = "".join(set(split.split("-vs-")) - shared) or split
        prevalence = f" (prevalence {rows[0]['prevalence']:.2f})" if rows else ""
        head += [f"{name}, AUROC", f"{name}, AUPRC{prevalence}"]
        columns += [_with_spread(cells, methods, (split,), key) for key in ("auroc", "auprc")]
    return _lines(head, methods, columns)


def ranks_section(cells: Cells) -> str:
    """Return the mean rank of every method on every family, and over two sets of images."""
    images = [split for family in FAMILIES if family.images for split in family.splits]
    some = [split for family in WITH_DEEP_PEERS for split in family.splits]
    ranks = [mean_ranks(cells, family.splits) for family in FAMILIES]
    ranks += [mean_ranks(cells, images), mean_ranks(cells, some)]
    best = {m: min(r.get(m, np.inf) for r in ranks) for m in methods_in(cells)}
    methods = [method for method in best if best[method] < np.inf]
    methods.sort(key=lambda method: (ranks[-1].get(method, np.inf), best[method]))
    titles = [*(family.title for family in FAMILIES), "all images", f"{len(some)} image splits"]
    head = [f"{title} (of {len(r)})" for title, r in zip(titles, ranks, strict=True)]
    columns = [_column([r.get(m) for m in methods], "{:.1f}", best=min) for r in ranks]
    text = RANKS.format(n=len(images), few=len(some))
    return text + "\n" + _lines(["method", *head], methods, columns)


def losses_section(cells: Cells) -> str:
    """Return every split on which a peer is better than our default."""
    splits = [s for family in FAMILIES for s in family.splits if (OUR_DEFAULT, s) in cells]
    if not splits:
        return LOSSES + "\n*Ours is not measured yet.*\n"
    lines = []
    for split in splits:
        better = [
            f"`{method}` +{gain:.4f}"
            for method, gain in better_peers(cells, split, OUR_DEFAULT).items()
        ]
        if better:
            more = f", and {len(better) - _LISTED} more" if len(better) > _LISTED else ""
            value = f"{mean(cells, OUR_DEFAULT, [split], 'auroc'):.4f}"
            lines.append([split, value, ", ".join(better[:_LISTED]) + more])
    won = f"\nOurs is the best, or shares the best, on {len(splits) - len(lines)} of the "
    won += f"{len(splits)} splits on which it was measured.\n"
    return LOSSES + won + ("\n" + table(["split", "ours", "better"], lines) if lines else "")


def _with_spread(cells: Cells, methods: list[str], splits: tuple[str, ...], key: str) -> list[str]:
    texts = _column([mean(cells, method, splits, key) for method in methods])
    spreads = [spread(cells, method, splits, key) for method in methods]
    return [
        text if deviation is None or text == "–" else f"{text} ± {deviation:.4f}"
        for text, deviation in zip(texts, spreads, strict=True)
    ]


def _column(
    values: list[float | None],
    form: str = "{:.4f}",
    best: Callable[[Iterable[float]], float] = max,
) -> list[str]:
    """Return the values as text, a dash for None and bold for whatever reads like the best."""
    known = [value for value in values if value is not None]
    top = form.format(best(known)) if known else ""
    texts = ["–" if value is None else form.format(value) for value in values]
    return [f"**{text}**" if text == top else text for text in texts]


def _lines(head: list[str], methods: list[str], columns: list[list[str]]) -> str:
    names = [f"`{method}`" for method in methods]
    return table(head, [list(line) for line in zip(names, *columns, strict=True)])


def _seeds(cells: Cells, methods: list[str]) -> list[str]:
    """Return how many seeds each method has on every split where it was measured."""
    seeds = {m: [{r["seed"] for r in g} for (n, _), g in cells.items() if n == m] for m in methods}
    return [str(len(set.intersection(*of) if of else ())) for of in seeds.values()]


def _order(cells: Cells, family: Family) -> list[str]:
    """Return the methods, the best mean AUROC first, and last those that have none."""
    means = means_of_all(cells, family.splits)
    return [*means, *(method for method in methods_in(cells) if method not in means)]


if __name__ == "__main__":
    sys.exit(main())
