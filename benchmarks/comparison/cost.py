"""The section of docs/comparison.md on what a fit and a score cost, in time and in memory."""

from __future__ import annotations

from collections import Counter

from benchmarks.comparison.families import FAR, OUR_DEFAULT, range_of, rows_in
from benchmarks.pages import commands
from historyad.research.benchmark import Row
from historyad.research.markdown import table
from historyad.research.standings import Cells, on

COST = """## Time and memory

On MNIST: 60,000 training images of 28 x 28 pixels, 20,000 to score; {threads}.
Other work shared the machine, which only ever makes times longer: what is given is the shortest of
all rows, seconds of the clock. Memory is the peak of the whole process, the data included.
*Ratio* is our images per second over the peer's: above 1, ours is faster. {machines}
"""
# Rows from before they named it.
_FIRST_MACHINE = "an Intel Xeon or an AMD EPYC of the third generation, their rows do not say which"

SEARCH = """
AnoGAN searches a latent for every image, in 500 steps: that takes {default:,.0f} times as long as a
score with all our views, and {alone:,.0f} times as long as one of D_TV alone, which is what
`early-stopped` scores with.
"""


def cost_section(cells: Cells) -> str:
    """Return what a fit and a score cost on MNIST."""
    groups = _timed(on(cells, FAR.splits))
    if not groups:
        return COST.format(threads="one thread each", machines="") + "\n*Not measured yet.*\n"
    rows = [row for group in groups.values() for row in group]
    speed = {m: max(row["images_per_second"] for row in g) for m, g in groups.items()}
    lines = []
    for method in sorted(groups, key=lambda m: -speed[m]):
        group = groups[method]
        ratio = speed.get(OUR_DEFAULT, 0.0) / speed[method]
        fits = [row["fit_seconds"] for row in group if "fit_seconds" in row]
        lines.append(
            [
                f"`{method}`",
                f"{min(fits):,.1f}" if fits else "–",
                f"{min(row['score_seconds'] for row in group):,.2f}",
                f"{speed[method]:,.0f}",
                f"{ratio:,.3g}" if ratio else "–",
                f"{max(row['peak_memory_mb'] for row in group):,.0f}",
                f"{group[0]['parameters']:,}" if "parameters" in group[0] else "–",
            ]
        )
    threads = range_of(rows, "threads") + " thread(s) each"
    head = "method|fit, s|score, s|images / s|ratio|peak MB|parameters"
    text = COST.format(threads=threads, machines=_machines(groups))
    text += commands(rows) + table(head.split("|"), lines)
    if {OUR_DEFAULT, "early-stopped", "anogan"} <= speed.keys():
        default, alone = (speed[m] / speed["anogan"] for m in (OUR_DEFAULT, "early-stopped"))
        text += SEARCH.format(default=default, alone=alone)
    return text


def _timed(cells: Cells) -> dict[str, list[Row]]:
    """Return rows with times, by method: those of the machine where most methods were measured.

    A method that was not measured there has its rows from elsewhere.
    """
    on_machines: dict[str, dict[str, list[Row]]] = {}
    for row in rows_in(cells):
        if "images_per_second" in row:
            on_machines.setdefault(row["method"], {}).setdefault(_machine(row), []).append(row)
    n_methods = Counter(machine for found in on_machines.values() for machine in found)
    return {
        method: found[max(found, key=n_methods.__getitem__)]
        for method, found in on_machines.items()
    }


def _machines(groups: dict[str, list[Row]]) -> str:
    """Say on which machine which methods were measured."""
    methods_on: dict[str, list[str]] = {}
    for method, group in groups.items():
        methods_on.setdefault(_machine(group[0]), []).append(method)
    if len(methods_on) == 1:
        return f"All were\nmeasured on one machine: {next(iter(methods_on))}."
    listed = "".join(
        f"* {machine}: {', '.join(f'`{method}`' for method in methods)}\n"
        for machine, methods in sorted(methods_on.items())
    )
    return f"The machines\ndiffer, and so do times and ratios:\n\n{listed}".rstrip()


def _machine(row: Row) -> str:
    return str(row.get("machine", _FIRST_MACHINE))
