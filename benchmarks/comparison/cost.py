"""The section of docs/comparison.md on what a fit and a score cost, in time and in memory."""

from __future__ import annotations

import numpy as np
from pandas import DataFrame

from benchmarks.comparison.families import FAR, OUR_DEFAULT, range_of
from benchmarks.pages import commands
from historyad.research.markdown import table
from historyad.research.standings import in_text, methods_in, on

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


def cost_section(rows: DataFrame) -> str:
    """Return what a fit and a score cost on MNIST."""
    rows = _timed(on(rows, FAR.splits))
    if rows.empty:
        return COST.format(threads="one thread each", machines="") + "\n*Not measured yet.*\n"
    of_method = rows.groupby("method")
    speed = of_method["images_per_second"].max().reindex(methods_in(rows))
    speed = speed.sort_values(ascending=False, kind="stable")
    columns = {
        "fit, s": in_text(of_method["fit_seconds"].min(), "{:,.1f}"),
        "score, s": in_text(of_method["score_seconds"].min(), "{:,.2f}"),
        "images / s": in_text(speed, "{:,.0f}"),
        "ratio": in_text(speed.get(OUR_DEFAULT, np.nan) / speed, "{:,.3g}"),
        "peak MB": in_text(of_method["peak_memory_mb"].max(), "{:,.0f}"),
        "parameters": in_text(of_method["parameters"].first(), "{:,.0f}"),
    }
    lines = DataFrame(columns).reindex(speed.index)
    threads = range_of(rows["threads"]) + " thread(s) each"
    text = COST.format(threads=threads, machines=_machines(rows))
    text += commands(rows.to_dict("records"))
    text += table(["method", *lines], lines.rename("`{}`".format).itertuples(name=None))
    if {OUR_DEFAULT, "early-stopped", "anogan"} <= {*speed.index}:
        default, alone = (speed[m] / speed["anogan"] for m in (OUR_DEFAULT, "early-stopped"))
        text += SEARCH.format(default=default, alone=alone)
    return text


def _timed(rows: DataFrame) -> DataFrame:
    """Return rows with times: of each method, those of the machine where most methods have some.

    A method that was not measured there has its rows from elsewhere.
    """
    rows = rows.dropna(subset="images_per_second")
    rows = rows.assign(machine=rows["machine"].astype(object).fillna(_FIRST_MACHINE))
    n_methods = rows.groupby("machine")["method"].nunique()
    most = rows["machine"].map(n_methods).groupby(rows["method"]).idxmax()
    best = rows.loc[most].set_index("method")["machine"]
    return rows[rows["machine"] == rows["method"].map(best)]


def _machines(rows: DataFrame) -> str:
    """Say on which machine which methods were measured."""
    methods_on = rows.groupby("machine")["method"].unique()
    if len(methods_on) == 1:
        return f"All were\nmeasured on one machine: {methods_on.index[0]}."
    listed = "".join(
        f"* {machine}: {', '.join(f'`{method}`' for method in methods)}\n"
        for machine, methods in methods_on.items()
    )
    return f"The machines\ndiffer, and so do times and ratios:\n\n{listed}".rstrip()
