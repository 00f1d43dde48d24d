"""Who stands where: what the rows of a benchmark amount to.

A mean over seeds is taken first, then one over splits. Only a method that was measured on every
split has a mean over them, and a rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from historyad.errors import InputError
from historyad.research.benchmark import OURS, Row
from historyad.research.chart import draw
from historyad.research.markdown import table
from historyad.research.peers import PEERS

try:
    import pandas as pd
    from pandas import DataFrame, Series
except ImportError as error:
    raise InputError("comparing methods needs pandas: install historyad[peers]") from error

_KEYS = ["method", "split", "seed"]
_AT_TIMES = ["most", "fit_seconds"]  # columns that some rows lack, and all of some benchmarks


def frame_of(rows: Iterable[Row]) -> DataFrame:
    """Return one row for each method, split and seed: of several, the last.

    A row of all test samples goes before one of a part of them. What a row lacks is NaN.
    """
    frame = DataFrame([*rows])
    frame = frame.reindex(columns=[*dict.fromkeys([*frame.columns, *_KEYS, *_AT_TIMES])])
    frame = frame.sort_values("most", key=pd.isna, kind="stable")
    return frame.drop_duplicates(_KEYS, keep="last").sort_values(_KEYS, ignore_index=True)


def on(rows: DataFrame, splits: Sequence[str]) -> DataFrame:
    """Return what was measured on some splits."""
    return rows[rows["split"].isin(splits)]


def methods_in(rows: DataFrame) -> list[str]:
    """Return the methods that have rows, in the order of the package."""
    present = {*rows["method"]}
    return [method for method in (*OURS, *PEERS) if method in present]


def by_seed(rows: DataFrame, splits: Sequence[str], key: str) -> DataFrame:
    """Return ``key`` of each method and seed, below each other, on each of ``splits``."""
    values = on(rows, splits).pivot(index=["method", "seed"], columns="split", values=key)
    return values.reindex(columns=splits)


def on_each(rows: DataFrame, splits: Sequence[str], key: str) -> DataFrame:
    """Return the mean over seeds of each method, in the package's order, on each of ``splits``."""
    return by_seed(rows, splits, key).groupby("method").mean().reindex(methods_in(rows))


def means(rows: DataFrame, splits: Sequence[str], key: str) -> Series:
    """Return, by method, the mean over splits of the mean over seeds, in the package's order.

    Methods that were not measured on all splits have none. Where some seeds were measured on all
    splits, only those count.
    """
    of_all = on_each(rows, splits, key).dropna().mean(axis=1)
    together = by_seed(rows, splits, key).dropna().mean(axis=1).groupby("method").mean()
    return together.reindex(of_all.index).fillna(of_all)


def spreads(rows: DataFrame, splits: Sequence[str], key: str) -> Series:
    """Return, by method, the standard deviation over seeds of the mean over splits.

    A seed counts that all splits have; methods with less than two have none.
    """
    of_seeds = by_seed(rows, splits, key).dropna().mean(axis=1)
    return of_seeds.groupby("method").std().dropna()


def mean_ranks(rows: DataFrame, splits: Sequence[str]) -> Series:
    """Return each method's rank by AUROC, 1 for the best, as a mean over ``splits``.

    Only methods that were measured on all of them are ranked: a rank among others on each split
    would depend on what happens to be measured. Methods that tie share the mean of their ranks.
    """
    return on_each(rows, splits, "auroc").dropna().rank(ascending=False).mean(axis=1)


def write_standings(rows: DataFrame, out: Path) -> list[Path]:
    """Write ``out/standings.md`` and a chart, ``out/standings.png``; return what was written.

    Without matplotlib, of the extra ``report``, there is no chart.
    """
    written = [out / "standings.md", out / "standings.png"]
    splits = _splits_in(rows)
    written[0].write_text(
        "# Standings\n\nAUROC on each split, mean over the seeds.\n\n"
        + in_markdown(DataFrame({split: with_spread(rows, [split], "auroc") for split in splits}))
        + "\nMeans over all splits, of the methods that were measured on every one; time and memory"
        f"\nare those of this machine.\n\n{in_markdown(overview(rows))}"
    )
    try:
        draw({s: means(rows, [s], "auroc").to_dict() for s in splits}, [*OURS], written[1])
    except ImportError:
        return written[:1]
    return written


def overview(rows: DataFrame) -> DataFrame:
    """Return rank, quality and cost of the methods that have a rank, the best rank first."""
    splits = _splits_in(rows)
    ranks = mean_ranks(rows, splits).sort_values(kind="stable")
    of_method = rows.groupby("method")
    columns = {
        "seeds": in_text(rows.groupby(["method", "split"]).size().groupby("method").min(), "{}"),
        "mean rank": in_text(ranks, "{:.1f}"),
        "AUROC": with_spread(rows, splits, "auroc"),
        "AUPRC": with_spread(rows, splits, "auprc"),
        "fit, s": in_text(of_method["fit_seconds"].median(), "{:.1f}"),
        "images / s": in_text(of_method["images_per_second"].median(), "{:,.0f}"),
        "peak MB": in_text(of_method["peak_memory_mb"].max(), "{:,.0f}"),
    }
    return DataFrame(columns).reindex(ranks.index)


def in_text(values: Series, form: str, absent: str = "–") -> Series:
    """Return values as text, and ``absent`` for those that are not known."""
    return values.map(form.format, na_action="ignore").astype(object).fillna(absent)


def with_spread(
    rows: DataFrame,
    splits: Sequence[str],
    key: str,
    column: Callable[[Series, str], Series] = in_text,
) -> Series:
    """Return, by method, its mean as a ``column`` of text, and after ± the spread, if any."""
    values = means(rows, splits, key).reindex(methods_in(rows))
    deviations = spreads(rows, splits, key).reindex(values.index).where(values.notna())
    return column(values, "{:.4f}") + in_text(deviations, " ± {:.4f}", absent="")


def in_markdown(frame: DataFrame) -> str:
    """Return a table of text, its index first, with its columns below each other."""
    return table(["method", *frame], frame.itertuples(name=None), below_each_other=True)


def _splits_in(rows: DataFrame) -> list[str]:
    return sorted({*rows["split"]})
