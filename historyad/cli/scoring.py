"""Commands that score: files, streams, a service, and a graph that scores elsewhere."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from historyad.cli.common import (
    READING,
    USER_ERROR,
    Address,
    Device,
    Engine,
    Reading,
    Run,
    SourceName,
    command_line,
    keep_apart,
    load_model,
    mention_shadowed,
    open_samples,
    open_stream_for,
    report_left_out,
    report_unreadable,
)
from historyad.cli.console import note, print_table, say
from historyad.deploy.service.limits import Limits
from historyad.deploy.tables import open_table
from historyad.errors import InputError

if TYPE_CHECKING:
    from historyad.data.sources import Batch, Source
    from historyad.deploy.parts import Job, Part
    from historyad.model.model import Model

Row = dict[str, Any]

_SHOWN_INTERVALS = 10
ServiceLimits = Annotated[Limits, Parameter(name="*", group="Limits")]


@dataclass(frozen=True)
class PartOptions:
    """How a source is scored in parts."""

    shard: Annotated[
        str | None,
        Parameter(help="Score one part of several, 0/10 to 9/10, each perhaps on its own machine."),
    ] = None
    engine: Engine | None = None
    address: Address = None
    actors: Annotated[
        int,
        Parameter(
            help="Processes of the engine that score; 0: one for each accelerator or core.",
            validator=validators.Number(gte=0),
        ),
    ] = 0
    file_format: Annotated[
        Literal["parquet", "csv", "jsonl"] | None,
        Parameter(name="--format", help="Of the part files; parquet unless given."),
    ] = None

    @property
    def is_asked_for(self) -> bool:
        """Whether there are parts at all."""
        return self.shard is not None or self.engine is not None

    def check(self) -> None:
        """Raise InputError for options that would have no effect."""
        if self.shard is not None and self.engine is not None:
            raise InputError("--shard scores one part here, --engine all: leave out one of them")
        if self.file_format is not None and not self.is_asked_for:
            raise InputError("--format is that of part files: give --shard or --engine with it")
        if self.engine is None:
            if self.actors:
                raise InputError("--actors are processes of an engine: give --engine with it")
            if self.address not in (None, os.environ.get("RAY_ADDRESS")):
                raise InputError("--address is that of an engine: give --engine with it")


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
    strict: Annotated[
        bool, Parameter(negative="", help="Exit with status 2 when a sample could not be read.")
    ] = False,
    maps: Annotated[
        Path | None,
        Parameter(help="Folder for a picture of each image beside its anomaly map."),
    ] = None,
    view_scores: Annotated[
        bool,
        Parameter(negative="", help="Add a column for each view: 0 is typical, above 1 is rare."),
    ] = False,
    explain: Annotated[
        bool,
        Parameter(
            negative="",
            help="Add a column because: the columns that make a row anomalous, with their values "
            "and what is usual beside the others.",
        ),
    ] = False,
    intervals: Annotated[
        Path | None,
        Parameter(
            help="File to write, .csv or .jsonl: the anomalous intervals of a series, worst first."
        ),
    ] = None,
    fdr: Annotated[
        float | None,
        Parameter(
            help="Add a column is_discovery: samples chosen such that a share of at most this is "
            "normal, in expectation (Benjamini-Hochberg).",
            validator=validators.Number(gt=0, lt=1),
        ),
    ] = None,
) -> int:
    """Score samples: path, anomaly_score (about -0.8 normal, +1 anomalous), p_value, is_anomalous.

    What one process cannot score in time is scored in parts, with --engine or --shard. The same
    command continues after an interruption; parts that are there are not scored again. In .jsonl
    and Parquet a path is as it is; on the terminal and in .csv, what is not printed is escaped, and
    an apostrophe stands before what a spreadsheet would take for a formula.
    """
    parts = parts or PartOptions()
    parts.check()
    keep_apart(source, files=(out, intervals), folder=maps)
    if parts.is_asked_for:
        from historyad.deploy.parts import Job

        if explain:
            raise InputError("--explain explains in one process: leave out --shard and --engine")
        if fdr is not None:
            raise InputError("--fdr takes all scores at once: leave out --shard and --engine")
        if maps is not None:
            raise InputError("--maps draws in one process: leave out --shard and --engine")
        if out == "-":
            raise InputError("part files need a folder: say which with --out")
        mention_shadowed(source)
        job = Job(
            run,
            source,
            Path(out),
            0,
            view_scores=view_scores,
            file_format=parts.file_format or "parquet",
            **vars(reading),
        )
        return _score_parts(job, parts, device, strict=strict)
    from historyad.deploy.parts import column_names

    model = load_model(run, device)
    samples = open_stream_for(model, source, reading)
    columns = column_names(model, view_scores=view_scores)
    if samples.series is not None:
        if fdr is not None:
            raise InputError(
                "--fdr chooses among samples that are independent, and steps of a series are not: "
                "leave it out"
            )
        if explain or maps is not None:
            option = "--explain is for rows of a table" if explain else "--maps are of images"
            raise InputError(f"{option}: of a series, see --view-scores and --intervals")
        return _score_steps(model, samples, out, intervals, view_scores=view_scores)
    if intervals is not None:
        raise InputError("--intervals are those of a series: fit with --window, perhaps auto")
    rows = _score(model, samples, view_scores=view_scores, maps=maps, explain=explain)
    columns = (*columns, "because") if explain else columns
    if fdr is not None:
        columns, rows = (*columns, "is_discovery"), _with_discoveries(rows, fdr)
    counts = _write(out, columns, rows)
    report_unreadable(samples)
    note(_summary(counts["scored"], counts["anomalous"], len(samples.unreadable)))
    if fdr is not None:
        _report_discoveries(counts, fdr, len(model.calibration.scores))
    return USER_ERROR if strict and samples.unreadable else 0


def drift(
    run: Run,
    source: SourceName,
    *,
    level: Annotated[
        float,
        Parameter(
            help="Probability of an alarm, ever, on a stream that does not change.",
            validator=validators.Number(gt=0, lt=1),
        ),
    ] = 0.01,
    seed: Annotated[int, Parameter(help="Of the random numbers that break ties.")] = 0,
    json_file: Annotated[
        Path | None, Parameter(name="--json", help="Write what was found to this file.")
    ] = None,
    reading: Reading = READING,
    device: Device = "auto",
) -> None:
    """Test whether a stream, in its order, is still what was calibrated on, and since when not.

    Of a series, windows are looked at that share no step with each other.
    """
    import numpy as np

    from historyad.data.series import apart
    from historyad.data.shards import printable
    from historyad.files import save_json
    from historyad.judge.drift import detect_drift, table_of

    keep_apart(source, files=[json_file])
    model = load_model(run, device)
    samples = apart(open_stream_for(model, source, reading))
    names: list[str] = []
    scores = [np.empty(0, np.float32)]
    for some, chunk in _chunks(model, samples):
        names += map(printable, some)
        scores.append(model.anomaly_score(chunk))
    report_unreadable(samples)
    if model.n_folds:
        say(
            "note: the detector was calibrated in folds, by detectors of fewer samples, to which "
            "samples look a little less normal: calibrate on others before you trust an alarm",
            file=sys.stderr,
        )
    found = detect_drift(model.calibration, np.concatenate(scores), level=level, seed=seed)
    print_table(table_of(found, names))
    if json_file is not None:
        since = None if found.since is None else names[found.since]
        record = {"run": str(run), "source": source, **vars(found), "since_name": since}
        save_json(json_file, {**record, "command": command_line()})


def serve(
    run: Run,
    *,
    host: Annotated[str, Parameter(help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 chooses a free one.")] = 8000,
    device: Device = "auto",
    limits: ServiceLimits | None = None,
) -> None:
    """Score over HTTP: POST /score, and a page that shows verdicts on the images dropped there.

    Ends on SIGTERM or Ctrl-C when it has answered what it accepted.
    """
    try:
        from historyad.deploy.service.server import listen, run_server
    except ImportError as error:
        raise InputError(f"serve needs {error.name}: install historyad[serve]") from error

    limits = limits or Limits()
    model = load_model(run, device)
    listener, url = listen(host, port)
    say(f"{run}: serving at {url}")
    if not (limits.token or url.startswith("http://127.")):
        say(
            f"historyad: whoever reaches {url} can use it; to ask for a token, set HISTORYAD_TOKEN",
            file=sys.stderr,
        )
    hosts = (*limits.allowed_host, host)
    run_server(model, replace(limits, allowed_host=hosts), listener)


def export(
    run: Run,
    path: Annotated[Path, Parameter(help="File to write, .onnx.")],
    *,
    size: Annotated[
        tuple[int, int] | None,
        Parameter(
            negative="", help="Height and width of the images to score, where any are accepted."
        ),
    ] = None,
    samples: Annotated[
        str | None, Parameter(help="Source of inputs on which to compare, besides made-up ones.")
    ] = None,
    opset: Annotated[int, Parameter(help="Version of the ONNX operators, 18 to 25.")] = 18,
    reading: Reading = READING,
) -> None:
    """Write one ONNX file from raw input to score, p-value and verdict, once its answers agree."""
    from historyad.deploy.onnx import export_onnx

    model = load_model(run, "cpu")
    inputs = None if samples is None else open_samples(samples, reading).samples
    found = export_onnx(model, path, size=size, samples=inputs, opset=opset)
    print_table([("written", str(path)), *((name, str(value)) for name, value in found.items())])


def _chunks(model: Model, samples: Source) -> Iterator[Batch]:
    """Yield (names, samples) that ``model`` can score; InputError where there are none at all."""
    from historyad.data.sources import CHUNK

    found = False
    for chunk in samples.chunks(CHUNK, check=model.kind.check):
        found = True
        yield chunk
    if not found:
        name, reason = samples.unreadable[0]
        raise InputError(f"none of {len(samples):,} images can be scored. {name}: {reason}")


def _score(
    model: Model, samples: Source, *, view_scores: bool, maps: Path | None, explain: bool
) -> Iterator[Row]:
    """Yield the row of each sample."""
    from historyad.deploy.parts import rows_of, score_chunk
    from historyad.judge.explain import reasons

    for names, chunk in _chunks(model, samples):
        if maps is not None:
            _write_maps(model, names, chunk, maps)
        rows = rows_of(score_chunk(model, names, chunk, view_scores=view_scores))
        for row, sample in zip(rows, chunk, strict=True):
            if explain:
                found = reasons(model, sample) if row["is_anomalous"] else []
                row["because"] = "; ".join(map(str, found))
            yield row


def _score_steps(
    model: Model, samples: Source, out: str, intervals: Path | None, *, view_scores: bool
) -> int:
    """Write a row for each step of a series, and its anomalous intervals; name the worst."""
    import numpy as np

    from historyad.data.shards import printable
    from historyad.deploy.parts import rows_of
    from historyad.model.steps import COLUMNS, find_intervals, rows_of_intervals, score_source

    series = samples.series
    assert series is not None
    scored = score_source(model, samples, views=view_scores)
    names = np.array([printable(name) for name in series.names], object)
    columns = {"path": names, **scored.columns()}
    counts = _write(out, tuple(columns), rows_of(columns))
    found = rows_of_intervals(find_intervals(scored, series), series)
    if intervals is not None:
        _write(str(intervals), COLUMNS, iter(found))
    say(_summary(counts["scored"], counts["anomalous"], 0), file=sys.stderr)
    for row in found[:_SHOWN_INTERVALS]:
        say(
            f"{row['start']} to {row['end']}: {row['steps']:,} steps, score "
            f"{row['anomaly_score']:+.3f}, p-value {row['p_value']:.2g}",
            file=sys.stderr,
        )
    if len(found) > _SHOWN_INTERVALS:
        say(f"and {len(found) - _SHOWN_INTERVALS:,} more intervals", file=sys.stderr)
    return 0


def _write(out: str, columns: tuple[str, ...], rows: Iterator[Row]) -> Counter[str]:
    """Write the rows and count them, the anomalous ones and the discoveries."""
    counts: Counter[str] = Counter()
    with open_table(out, columns) as write:
        for row in rows:
            write(row)
            counts["scored"] += 1
            counts["anomalous"] += row.get("is_anomalous", False)
            counts["discoveries"] += row.get("is_discovery", False)
    return counts


def _summary(scored: int, anomalous: int, unreadable: int) -> str:
    skipped = f", {unreadable:,} could not be read" if unreadable else ""
    return f"{scored:,} scored, {anomalous:,} anomalous{skipped}"


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


def _score_parts(job: Job, options: PartOptions, device: str, *, strict: bool) -> int:
    """Score one part, or all on an engine; say what became of them and return the exit status."""
    from historyad.deploy.many import score_dataset
    from historyad.deploy.parts import score_shard

    def on_part(part: Part) -> None:
        for name, reason in part.unreadable:
            say(f"historyad: skipped {name}: {reason}", file=sys.stderr)
        note(f"part {part.number}: {part.scored:,} scored")

    if options.shard is None:
        parts = score_dataset(
            job,
            address=options.address,
            actors=options.actors,
            device=device,
            on_part=on_part,
            on_open=report_left_out,
        )
    else:
        number, slash, of = options.shard.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and int(of)):
            raise InputError(f"'{options.shard}' is no shard: write 0/10 for the first of ten")
        job = replace(job, parts=int(of))
        parts = [score_shard(job, int(number), device=device, on_open=report_left_out)]
        on_part(parts[0])
    unreadable = sum(len(part.unreadable) for part in parts)
    scored, anomalous = (sum(getattr(part, n) for part in parts) for n in ("scored", "anomalous"))
    note(f"{_summary(scored, anomalous, unreadable)}; in {job.out}")
    return USER_ERROR if strict and unreadable else 0


def _write_maps(model: Model, names: Sequence[str], images: Any, folder: Path) -> None:
    import io

    from PIL import Image

    from historyad.files import write_atomic
    from historyad.judge.explain import picture
    from historyad.names import within

    for name, image in zip(names, images, strict=True):
        drawn = io.BytesIO()
        Image.fromarray(picture(model, image)).save(drawn, "PNG")
        # The whole name, since a.bmp and a.jpg are two images.
        write_atomic(
            within(folder, name if name.endswith(".png") else f"{name}.png"), drawn.getvalue()
        )


def _with_discoveries(rows: Iterator[Row], rate: float) -> Iterator[Row]:
    """Yield the rows with one column more, which depends on all of them."""
    import numpy as np

    from historyad.score.calibration import benjamini_hochberg

    scored = list(rows)
    discoveries = benjamini_hochberg(np.array([row["p_value"] for row in scored]), rate)
    for row, is_discovery in zip(scored, discoveries.tolist(), strict=True):
        yield {**row, "is_discovery": is_discovery}
