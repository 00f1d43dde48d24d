"""Write docs/comparison.md and its chart from docs/rows/comparison; `--check` compares the page."""

from __future__ import annotations

import re
import sys

from pandas import DataFrame, Series

from benchmarks.ablation.measure import CHOSEN_ON
from benchmarks.ablation.vectors import NAMES
from benchmarks.comparison.checks import aims_section, checks_section
from benchmarks.comparison.cost import cost_section
from benchmarks.comparison.families import (
    FAMILIES,
    OUR_DEFAULT,
    WITH_DEEP_PEERS,
    Family,
    better_peers,
    clearly_better,
    range_of,
    read_all,
)
from benchmarks.pages import (
    BEFORE,
    DOCS,
    PICTURES,
    ROWS,
    SCORE_SINCE,
    commands,
    write_or_check,
)
from historyad.research.benchmark import OURS
from historyad.research.chart import draw
from historyad.research.markdown import table
from historyad.research.standings import (
    in_text,
    mean_ranks,
    means,
    methods_in,
    on,
    on_each,
    with_spread,
)

HEAD = """# Comparison

<!-- Written by `python -m benchmarks.comparison.page` from the rows in docs/rows/comparison, and in
docs/rows/speed for our fits on all of MNIST; do not edit. -->

Every method learns from the same normal samples and sees no label.
{standing}
Settings of ours were chosen on other seeds of some of them, which are
[named](how-it-works.md#several-views-one-score) and not reported.

Mean AUROC of each family of splits, the best **bold**. *Found* is the share of anomalies above the
threshold of `historyad`, our default, and *false alarms* the share of normal samples above it.
*Asked for* is the rate that this threshold was set for: 1 %, or the lowest that few samples can
promise. *Best of all peers* is the best mean of the others on this page; `neighbours` and
`mahalanobis` are what one would try first.

"""

RULES = """## How it was compared

Every section names the commands that gave it; `python -m benchmarks.comparison.page` writes this
page from what they measured. Data are looked for under `HISTORYAD_DATA`.

No label was used in fitting, nor in choosing, but for the number of latents of `vae-bernoulli`, 10
instead of 20, by four digits left out, seed 0.
The settings of the peers are those of their papers, or their library's; PyOD's networks, made for
tables, are wider on images, of which they see 200,000 at least. `vae` and `vae-dense` are scored by
reconstruction probability; `vae-bernoulli`, the plain one, by the error of its reconstruction. On
vectors `vae` is dense, and so there is no other. `anogan` and `adgan` take hundreds of steps for
every image: a table that lacks them does so for that reason.

The settings of ours were chosen on some of these splits, on the same test images, most of them with
seed 0: [they are named here](how-it-works.md#several-views-one-score). Seeds on which something was
chosen are not reported.
`historyad` is the default, which trains no network on vectors nor on a few hundred images.
`historyad-paper` is the paper's recipe alone; on digits
and house numbers, for which it has its own settings, its rows are those of the
[reproduction of the paper](results.md). Rows on house numbers and on digits against another set are
of today's preset, the others of the step 3 that it had [before](choices.md#step-3-at-full-size).

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
by how much; on vectors, whose halves a seed decides, on the seeds that both have. **Bold** are
those that are ahead by more than chance: their interval of 95 %, over draws of the test samples,
begins beyond the end of ours. Of the others nobody can say who is ahead.
"""

TUNED = """## Where settings were chosen, and where not

Views of ours, and how they count, were chosen on some of these splits, with other seeds but the
same test images; on the others nothing was, though they had been seen. Mean AUROC of ours, that of
the peer with the best mean on the same splits, and how far ours is ahead.

"""

OTHER_DRAW = """
{methods}: from [figure 7](results.md#figure-7-one-digit-as-the-anomaly), where 80 % of
the normal images of both official halves train; the rest and all images of the digit test.
"""

PICKED = ("neighbours", "mahalanobis")  # what one would try first
_LISTED = 6  # peers that a line on a loss names


def main() -> int:
    """Write page and chart, or with --check return 1 when the page is stale."""
    rows = read_all(ROWS)
    if "--check" not in sys.argv:
        panels = {f.title: means(rows, f.splits, "auroc").to_dict() for f in FAMILIES}
        draw(panels, [*OURS], PICTURES / "comparison.webp")
    return write_or_check(DOCS / "comparison.md", page_of(rows))


def summary(rows: DataFrame) -> str:
    """Return the mean AUROC of ours, of what one would try first, and of the best peer."""
    lines = []
    for family in FAMILIES:
        known = means(rows, family.splits, "auroc").dropna()
        peers = known.drop([*OURS], errors="ignore")
        if peers.empty:  # not measured yet
            continue
        best = peers.idxmax()
        shown = _column(known.reindex([OUR_DEFAULT, *PICKED, best]), "{:.3f}")
        shown.iloc[-1] += f" `{best}`"
        seeds = _seeds(on(rows, family.splits)).get(OUR_DEFAULT, "0")
        name = f"{family.title} ({len(family.splits)})"
        lines.append([name, *shown, *_verdicts(rows, family, "requested_rate"), seeds])
    head = ["splits (how many)", *(f"`{method}`" for method in (OUR_DEFAULT, *PICKED))]
    head += ["best of all peers", "found", "false alarms", "asked for", "seeds of ours"]
    old = [family.title.lower() for family in FAMILIES if _earlier(rows, family)]
    which = f"\n`{OUR_DEFAULT}` was measured on these {BEFORE}:\n"
    which = f"{which}{', '.join(old)}.\n" if old else ""
    return table(head, lines) + which


def standing(rows: DataFrame) -> str:
    """Return on how many splits ours is the best, as README says it, too."""
    splits = _of_ours(rows)
    n_best = sum(better_peers(rows, split, OUR_DEFAULT).empty for split in splits)
    n_behind = sum(bool(clearly_better(rows, split, OUR_DEFAULT)) for split in splits)
    return (
        f"`{OUR_DEFAULT}` is the best, or shares the best, on {n_best} of the {len(splits)} splits,"
        f" and on {n_behind} a peer is\nahead of it by more than chance."
    )


def tuned(rows: DataFrame) -> str:
    """Return ours beside the best peer, apart where settings were chosen and where not."""
    chosen = {*CHOSEN_ON, *(f"vectors-{name}" for name in NAMES)}
    lines = []
    for family in FAMILIES:
        for kind, is_chosen in (("chosen on", True), ("not", False)):
            splits = [split for split in family.splits if (split in chosen) == is_chosen]
            known = means(rows, splits, "auroc").dropna() if splits else Series(dtype=float)
            peers = known.drop([*OURS], errors="ignore")
            if OUR_DEFAULT in known and not peers.empty:
                ours, best = known[OUR_DEFAULT], peers.idxmax()
                line = [f"{ours:.4f}", f"{peers[best]:.4f} `{best}`", f"{ours - peers[best]:+.4f}"]
                lines.append([f"{family.title} ({len(splits)})", kind, *line])
    return TUNED + table(["splits (how many)", "settings", "ours", "best peer", "ahead"], lines)


def build() -> str:
    """Return the page."""
    return page_of(read_all(ROWS))


def page_of(rows: DataFrame) -> str:
    """Return the page that says what was measured."""
    sections = [
        HEAD.format(standing=standing(rows)) + summary(rows),
        tuned(rows),
        CHART,
        ranks_section(rows),
        losses_section(rows),
        RULES,
        aims_section(rows),
        *(family_section(rows, family) for family in FAMILIES),
        cost_section(rows),
        checks_section(rows),
    ]
    return "\n".join(sections)


def family_section(rows: DataFrame, family: Family) -> str:
    """Return the table of a family: the splits one by one, and their means where they are many."""
    rows = on(rows, family.splits)
    text = f"## {family.title}\n\n{family.about}\n"
    if rows.empty:
        return text + "\n*Not measured yet.*\n"
    same = rows[rows["most"].isna() & rows["other_draw"].isna()]
    train, normal, anomalous = (
        range_of((rows if same.empty else same)[f"n_{of}"])
        for of in ("train", "normal", "anomalous")
    )
    sizes = f"\n{train} training samples; {normal} normal and {anomalous} anomalous ones test.\n"
    sizes += _parts(rows)
    body = _wide(rows, family) if len(family.splits) > 3 else _narrow(rows, family)
    text += sizes + _earlier(rows, family) + _other_draw(rows)
    return text + commands(rows.to_dict("records")) + body + _at_threshold(rows, family)


def _at_threshold(rows: DataFrame, family: Family) -> str:
    """Say what the verdicts of ours find on the splits of a family, and what they wrongly flag."""
    found, flagged, asked = _verdicts(rows, family, "requested_rate")
    if found == "–":
        return ""
    return (
        f"\nAt its threshold for {asked} of false positives, `{OUR_DEFAULT}` finds {found} of the "
        f"anomalies\nand flags {flagged} of the normal samples (means over splits and seeds).\n"
    )


def _verdicts(rows: DataFrame, family: Family, *more: str) -> list[str]:
    """Return which share of anomalies ours finds, of normal samples it flags, and ``more``."""
    keys = ("detection_rate", "false_positive_rate", *more)
    shares = [means(rows, family.splits, key).get(OUR_DEFAULT) for key in keys]
    return ["–" if share is None else f"{100 * share:.1f} %" for share in shares]


def _earlier(rows: DataFrame, family: Family) -> str:
    """Say on how many splits ours is of before its latest view."""
    ours = on(rows[rows["method"] == OUR_DEFAULT], family.splits)
    is_old = (ours["model_version"].fillna(0) < SCORE_SINCE).groupby(ours["split"]).any()
    if not family.images or not is_old.any():
        return ""
    on_which = "" if is_old.all() else f" on {is_old.sum()} of the {len(is_old)} splits"
    return f"\n`{OUR_DEFAULT}` was measured here {BEFORE}{on_which}.\n"


def _other_draw(rows: DataFrame) -> str:
    """Say which methods were measured on another draw of the same images."""
    methods = sorted({f"`{method}`" for method in rows.dropna(subset="other_draw")["method"]})
    return OTHER_DRAW.format(methods=", ".join(methods)) if methods else ""


def _parts(rows: DataFrame) -> str:
    """Say which methods were tested on a part of the samples."""
    parts = rows.dropna(subset="most").groupby("method")["most"].last()
    listed = ", ".join(f"`{method}` ({most:,.0f})" for method, most in parts.items())
    why = "too slow for all, were tested on so many of either kind, drawn by the seed"
    return f"\nMethods {why}: {listed}.\n" if listed else ""


def _wide(rows: DataFrame, family: Family) -> str:
    """Return AUROC of many splits, and the means of AUROC and AUPRC over them."""
    columns = {"seeds": _seeds(rows)}
    for split, values in on_each(rows, family.splits, "auroc").items():
        short = re.sub(r"^(vectors|mnist|fashion)-((only|without)-)?", "", split)
        columns[short] = _column(values)
    prevalence = rows.groupby("split")["prevalence"].last().mean()
    for name, key in (("AUROC", "auroc"), (f"AUPRC (prevalence {prevalence:.2f})", "auprc")):
        columns[f"mean {name}"] = with_spread(rows, family.splits, key, _column)
    return _by_method(columns, _order(rows, family))


def _narrow(rows: DataFrame, family: Family) -> str:
    """Return AUROC and AUPRC of few splits, with their spread."""
    columns = {"seeds": _seeds(rows)}
    shared = set.intersection(*(set(split.split("-vs-")) for split in family.splits))
    for split in family.splits:
        name = "".join(set(split.split("-vs-")) - shared) or split
        prevalence = "".join(
            f" (prevalence {share:.2f})" for share in on(rows, [split])["prevalence"][:1]
        )
        columns[f"{name}, AUROC"] = with_spread(rows, [split], "auroc", _column)
        columns[f"{name}, AUPRC{prevalence}"] = with_spread(rows, [split], "auprc", _column)
    return _by_method(columns, _order(rows, family))


def ranks_section(rows: DataFrame) -> str:
    """Return the mean rank of every method on every family, and over two sets of images."""
    images = [split for family in FAMILIES if family.images for split in family.splits]
    some = [split for family in WITH_DEEP_PEERS for split in family.splits]
    groups = {family.title: list(family.splits) for family in FAMILIES}
    groups |= {"all images": images, f"{len(some)} image splits": some}
    ranks = DataFrame({title: mean_ranks(rows, splits) for title, splits in groups.items()})
    ranks = ranks.reindex(methods_in(rows)).dropna(how="all")
    ranks["best"] = ranks.min(axis=1)
    ranks = ranks.sort_values([ranks.columns[-2], "best"], kind="stable").drop(columns="best")
    columns = {
        f"{title} (of {values.count()})": _column(values, "{:.1f}", best="min")
        for title, values in ranks.items()
    }
    text = RANKS.format(n=len(images), few=len(some))
    return text + "\n" + _by_method(columns, [*ranks.index])


def losses_section(rows: DataFrame) -> str:
    """Return every split on which a peer is better than our default."""
    splits = _of_ours(rows)
    if not splits:
        return LOSSES + "\n*Ours is not measured yet.*\n"
    lines = []
    own = on_each(rows, splits, "auroc").loc[OUR_DEFAULT]
    for split in splits:
        gains = better_peers(rows, split, OUR_DEFAULT)
        sure = clearly_better(rows, split, OUR_DEFAULT)
        better = [_ahead(method, gain, method in sure) for method, gain in gains.items()]
        if better:
            more = f", and {len(better) - _LISTED} more" if len(better) > _LISTED else ""
            lines.append([split, f"{own[split]:.4f}", ", ".join(better[:_LISTED]) + more])
    return LOSSES + ("\n" + table(["split", "ours", "better"], lines) if lines else "")


def _ahead(method: str, gain: float, is_sure: bool) -> str:
    text = f"`{method}` +{gain:.4f}"
    return f"**{text}**" if is_sure else text


def _of_ours(rows: DataFrame) -> list[str]:
    """Return the splits on which ours was measured, in the order of the families."""
    ours = {*rows[rows["method"] == OUR_DEFAULT]["split"]}
    return [split for family in FAMILIES for split in family.splits if split in ours]


def _column(values: Series, form: str = "{:.4f}", best: str = "max") -> Series:
    """Return the values as text, a dash for none and bold for whatever reads like the best."""
    texts = in_text(values, form)
    return texts.where(texts != form.format(values.agg(best)), "**" + texts + "**")


def _by_method(columns: dict[str, Series], methods: list[str]) -> str:
    frame = DataFrame(columns).reindex(methods).rename("`{}`".format)
    return table(["method", *frame], frame.itertuples(name=None))


def _seeds(rows: DataFrame) -> Series:
    """Return how many seeds each method has on every split where it was measured."""
    n_splits = rows.groupby(["method", "seed"])["split"].nunique()
    is_everywhere = n_splits.eq(rows.groupby("method")["split"].nunique(), level="method")
    return in_text(is_everywhere.groupby("method").sum(), "{}")


def _order(rows: DataFrame, family: Family) -> list[str]:
    """Return the methods, the best mean AUROC first, and last those that have none."""
    known = means(rows, family.splits, "auroc").sort_values(ascending=False, kind="stable")
    return [*known.index, *(method for method in methods_in(rows) if method not in known)]


if __name__ == "__main__":
    sys.exit(main())
