"""The command that scores: samples, the steps of a series, or a source in parts."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from historyad.cli.common import (
    READING,
    USER_ERROR,
    Device,
    Reading,
    Run,
    SourceName,
    keep_apart,
    load_model,
    mention_shadowed,
    open_parts_for,
    open_stream_for,
    report_unreadable,
)
from historyad.cli.console import note, progress, say
from historyad.cli.parts import PartOptions, score_parts
from historyad.cli.rows import columns_of_sources, summary, with_discoveries, write_columns
from historyad.errors import InputError
from historyad.progress import Phases

if TYPE_CHECKING:
    from historyad.data.sources import Source
    from historyad.model.model import Model

_SHOWN_INTERVALS = 10


@dataclass(frozen=True)
class Additions:
    """What is said besides score, p-value and verdict."""

    maps: Annotated[
        Path | None,
        Parameter(help="Folder for a picture of each image beside its anomaly map."),
    ] = None
    view_scores: Annotated[
        bool,
        Parameter(negative="", help="Add a column for each view: 0 is typical, above 1 is rare."),
    ] = False
    explain: Annotated[
        bool,
        Parameter(
            negative="",
            help="Add a column because: the columns that make a row anomalous, with their values "
            "and what is usual beside the others.",
        ),
    ] = False
    intervals: Annotated[
        Path | None,
        Parameter(
            help="File to write, .csv or .jsonl: the anomalous intervals of a series, worst first."
        ),
    ] = None
    fdr: Annotated[
        float | None,
        Parameter(
            help="Add a column is_discovery: samples chosen such that a share of at most this is "
            "normal, in expectation (Benjamini-Hochberg).",
            validator=validators.Number(gt=0, lt=1),
        ),
    ] = None

    def refuse_in_parts(self) -> None:
        """Raise InputError for what cannot be said part by part."""
        for asked, said in (
            (self.explain, "--explain explains in one process"),
            (self.fdr is not None, "--fdr takes all scores at once"),
            (self.maps is not None, "--maps draws in one process"),
            (self.intervals is not None, "--intervals are found in one process"),
        ):
            if asked:
                raise InputError(f"{said}: leave out --shard and --engine")

    def refuse_of_logs(self, out: str) -> None:
        """Raise InputError for what cannot be said of a log that has no end."""
        if out != "-":
            raise InputError("--follow writes as it goes: leave out --out, and add > FILE")
        asked = (self.explain, self.maps, self.intervals, self.fdr)
        if any(one not in (False, None) for one in asked):
            raise InputError(
                "--follow says score, p-value, verdict and, with --view-scores, views: leave out "
                "--explain, --maps, --intervals and --fdr, and score the log once more for these"
            )

    def refuse_of_series(self) -> None:
        """Raise InputError for what cannot be said of the steps of a series."""
        if self.fdr is not None:
            raise InputError(
                "--fdr chooses among samples that are independent, and steps of a series are not: "
                "leave it out"
            )
        if self.explain or self.maps is not None:
            option = "--explain is for rows of a table" if self.explain else "--maps are of images"
            raise InputError(f"{option}: of a series, see --view-scores and --intervals")


def score(
    run: Run,
    source: SourceName,
    *,
    out: Annotated[
        str,
        Parameter(
            help="File to write, .csv or .jsonl; - is standard output. With --shard or --engine: "
            "the folder of the part files."
        ),
    ] = "-",
    parts: Annotated[PartOptions, Parameter(name="*")] | None = None,
    reading: Reading = READING,
    device: Device = "auto",
    follow: Annotated[
        bool,
        Parameter(
            negative="",
            help="Of a .csv that grows: score what is there and then, until you press Ctrl-C, each "
            "row as it is written or, of a series, each step once all its windows are there.",
        ),
    ] = False,
    strict: Annotated[
        bool, Parameter(negative="", help="Exit with status 2 when a sample could not be read.")
    ] = False,
    added: Annotated[Additions, Parameter(name="*")] | None = None,
) -> int:
    """Score samples: path, anomaly_score (about -0.8 normal, +1 anomalous), p_value, is_anomalous.

    What one process cannot score in time is scored in parts, with --engine or --shard. The same
    command continues after an interruption; parts that are there are not scored again. What an
    address names, such as s3://bucket/images, --engine ray scores as a whole. In .jsonl
    and Parquet a path is as it is; on the terminal and in .csv, what is not printed is escaped, and
    an apostrophe stands before what a spreadsheet would take for a formula.
    """
    parts, added = parts or PartOptions(), added or Additions()
    parts.check(source)
    keep_apart(source, files=(out, added.intervals), folder=added.maps)
    if follow and parts.is_asked_for:
        raise InputError("--follow scores in one process: leave out --shard and --engine")
    if parts.is_asked_for:
        from historyad.deploy.parts import Job

        added.refuse_in_parts()
        if out == "-":
            raise InputError("part files need a folder: say which with --out")
        mention_shadowed(source)
        job = Job(
            run,
            source,
            Path(out),
            0,
            view_scores=added.view_scores,
            file_format=parts.file_format or "parquet",
            **vars(reading),
        )
        return score_parts(job, out, parts, device, strict=strict)
    model = load_model(run, device)
    if follow:
        from historyad.cli.following import follow as follow_log

        added.refuse_of_logs(out)
        follow_log(model, source, reading, view_scores=added.view_scores)
        return 0
    if model.config.window:
        added.refuse_of_series()
        return _score_steps(model, open_stream_for(model, source, reading), out, added)
    if added.intervals is not None:
        raise InputError("--intervals are those of a series: fit with --window, perhaps auto")
    # What is opened in parts is a table, of which all can be read.
    samples, *_ = first = next(sources := open_parts_for(model, source, reading))
    _score_samples(model, samples, chain([first], sources), out, added)
    return USER_ERROR if strict and samples.unreadable else 0


def _score_samples(
    model: Model,
    first: Source,
    sources: Iterable[tuple[Source, float]],
    out: str,
    added: Additions,
) -> None:
    """Write a row for each sample of the ``first`` of some sources, and all, and count them.

    With each source comes the share of all that is done with it.
    """
    from historyad.deploy.parts import column_names

    columns = column_names(model, view_scores=added.view_scores)
    parts = columns_of_sources(
        model, sources, view_scores=added.view_scores, maps=added.maps, explain=added.explain
    )
    columns = (*columns, "because") if added.explain else columns
    if added.fdr is not None:
        columns, parts = (*columns, "is_discovery"), with_discoveries(parts, added.fdr)
    with progress(here=out != "-", lines=False):
        Phases({"scoring": 1.0}).begin("scoring")
        counts = write_columns(out, columns, parts)
    report_unreadable(first)
    note(summary(counts["scored"], counts["anomalous"], len(first.unreadable)))
    if added.fdr is not None:
        _report_discoveries(counts, added.fdr, len(model.calibration.scores))


def _score_steps(model: Model, samples: Source, out: str, added: Additions) -> int:
    """Write a row for each step of a series, and its anomalous intervals; name the worst."""
    import numpy as np

    from historyad.data.shards import printable
    from historyad.model.steps import COLUMNS, find_intervals, rows_of_intervals, score_source

    series = samples.series
    assert series is not None
    scored = score_source(model, samples, views=added.view_scores)
    names = np.array([printable(name) for name in series.names], object)
    columns = {"path": names, **scored.columns()}
    counts = write_columns(out, tuple(columns), [columns])
    found = rows_of_intervals(find_intervals(scored, series), series)
    if added.intervals is not None:
        table = {name: np.array([row[name] for row in found]) for name in COLUMNS}
        write_columns(str(added.intervals), COLUMNS, [table])
    say(summary(counts["scored"], counts["anomalous"], 0), file=sys.stderr)
    for row in found[:_SHOWN_INTERVALS]:
        say(
            f"{row['start']} to {row['end']}: {row['steps']:,} steps, score "
            f"{row['anomaly_score']:+.3f}, p-value {row['p_value']:.2g}",
            file=sys.stderr,
        )
    if len(found) > _SHOWN_INTERVALS:
        say(f"and {len(found) - _SHOWN_INTERVALS:,} more intervals", file=sys.stderr)
    return 0


def _report_discoveries(counts: Counter[str], rate: float, n_held_out: int) -> None:
    found, scored = counts["discoveries"], counts["scored"]
    note(f"{found:,} discoveries at a false discovery rate of {rate:g}")
    # k p-values at their smallest, 1 / (n + 1), are discoveries if that is <= Q k / N.
    least = math.ceil(scored / (rate * (n_held_out + 1)))
    if least > scored:
        say(
            f"with {n_held_out:,} held-out samples, none of {scored:,} can be a discovery, however "
            "anomalous: calibrate on more, or ask for a higher rate",
            file=sys.stderr,
        )
    elif least > max(1, found):
        say(
            f"with {n_held_out:,} held-out samples, only {least:,} or more "
            f"of {scored:,} can be discoveries: calibrate on more, or score fewer at a time",
            file=sys.stderr,
        )
