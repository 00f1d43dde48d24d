"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import csv
import json
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, get_type_hints

from cyclopts import App, CycloptsError, Group, Parameter

from historyad import __version__
from historyad.config import PRESETS, Config, make_config, settings
from historyad.errors import HistoryADError, InputError

if TYPE_CHECKING:
    from historyad.datasets import Source
    from historyad.model import Model

USER_ERROR, OUR_ERROR = 2, 1

app = App(
    name="historyad",
    version=__version__,
    help=(
        "Find anomalies when only normal examples exist.\n\n"
        "A SOURCE is a folder of images, a .npy or .npz file (file.npz:key), a .csv of numbers, or "
        "a named data set NAME[:SPLIT[:LABELS]] such as digits:train, mnist:train:!3 (all but the "
        "threes) or kmnist:test. Start with: historyad demo"
    ),
    help_format="plaintext",
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a user's mistake, 1 for ours."""
    try:
        status = app(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except (HistoryADError, CycloptsError) as error:
        print(f"historyad: {_in_flags(str(error))}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("historyad: interrupted; the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as after `| head`
        sys.stderr.close()
        return 0
    except Exception:
        traceback.print_exc()
        print(f"historyad {__version__}: this is our mistake, please report it", file=sys.stderr)
        return OUR_ERROR
    return status if isinstance(status, int) else 0


def _overrides() -> type:
    """Return a dataclass with one optional field, and so one option, for each hyperparameter."""
    types = get_type_hints(Config)
    options = [
        (
            name,
            Annotated[
                types[name] | None,
                Parameter(
                    help=f"{setting.metadata['help']} (default: {setting.default!r})",
                    group=Group("Settings (defaults are those of the preset 'default')"),
                ),
            ],
            None,
        )
        for name, setting in settings().items()
    ]
    return make_dataclass("Overrides", options)


if TYPE_CHECKING:
    Overrides = Any
else:
    Overrides = Parameter(name="*")(_overrides())

SourceName = Annotated[str, Parameter(help="Where the samples are; see historyad --help.")]
Run = Annotated[Path, Parameter(help="Directory of a finished fit.")]
DataRoot = Annotated[
    Path | None,
    Parameter(help="Folder of the named data sets.", env_var="HISTORYAD_DATA", show_env_var=True),
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")]


@app.command
def fit(
    source: SourceName,
    *,
    out: Annotated[Path, Parameter(help="Directory to write; the same command continues it.")],
    preset: Annotated[
        str, Parameter(help=f"Settings to start from: {', '.join(PRESETS)}.")
    ] = "default",
    data_root: DataRoot = None,
    skip_unreadable: Annotated[
        bool, Parameter(negative="", help="Leave out images that cannot be read.")
    ] = False,
    overrides: Overrides | None = None,
) -> None:
    """Learn what is normal from normal samples alone.

    Interrupted, the same command continues where it was.
    """
    from historyad.estimator import fit_model
    from historyad.storage import RunDirectory

    given = {name: value for name, value in vars(overrides or object).items() if name in settings()}
    config = make_config(preset, **{k: v for k, v in given.items() if v is not None})
    samples = _open(source, data_root, skip_unreadable=skip_unreadable, side=config.image_size)
    started = time.monotonic()
    with _progress() as on_progress:
        model = fit_model(
            samples, config, RunDirectory(out), command=_command(), on_progress=on_progress
        )
    print(
        f"{out}: {len(samples):,} normal samples, threshold {model.calibration.threshold:+.3f} "
        f"at a false-positive rate of {model.calibration.false_positive_rate:g}, "
        f"{time.monotonic() - started:.0f} s"
    )
    print(f"next: historyad score {out} SOURCE")


@app.command
def score(
    run: Run,
    source: SourceName,
    *,
    out: Annotated[
        str, Parameter(help="File to write, .csv or .jsonl; - is standard output.")
    ] = "-",
    data_root: DataRoot = None,
    device: Device = "auto",
    strict: Annotated[
        bool, Parameter(negative="", help="Exit with status 2 when a sample could not be read.")
    ] = False,
) -> int:
    """Score samples: path, anomaly_score (about -1 normal, +1 anomalous), p_value, is_anomalous."""
    from historyad.datasets import open_stream

    model = _load(run, device)
    side = model.preprocessing.side if model.preprocessing.any_size else None
    samples = open_stream(source, data_root=data_root, mixed=side)
    n_scored = n_anomalous = 0
    with _open_table(out) as write:
        for names, chunk in samples.chunks(_CHUNK):
            scores = model.anomaly_score(chunk)
            p_values = model.calibration.p_value(scores)
            anomalous = scores > model.calibration.threshold
            for row in zip(
                names, scores.tolist(), p_values.tolist(), anomalous.tolist(), strict=True
            ):
                write(dict(zip(_COLUMNS, row, strict=True)))
            n_scored += len(scores)
            n_anomalous += int(anomalous.sum())
    for name, reason in samples.unreadable:
        print(f"historyad: skipped {name}: {reason}", file=sys.stderr)
    skipped = f", {len(samples.unreadable)} could not be read" if samples.unreadable else ""
    print(f"{n_scored:,} scored, {n_anomalous:,} anomalous{skipped}", file=sys.stderr)
    return USER_ERROR if strict and samples.unreadable else 0


@app.command
def evaluate(
    run: Run,
    *,
    normal: Annotated[str, Parameter(help="Source of normal samples, none of them trained on.")],
    anomalous: Annotated[str, Parameter(help="Source of anomalous samples.")],
    json_file: Annotated[
        Path | None, Parameter(name="--json", help="Write the figures to this file.")
    ] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Measure a detector on labelled samples: AUROC, AUPRC with prevalence, false positives."""
    from historyad.evaluation import evaluate_model, table_of
    from historyad.storage import save_json

    model = _load(run, device)
    side = model.preprocessing.side if model.preprocessing.any_size else 0
    sources = [_open(name, data_root, side=side) for name in (normal, anomalous)]
    figures = {
        "run": str(run),
        "normal": normal,
        "anomalous": anomalous,
        **evaluate_model(model, *sources),
    }
    _print_table(table_of(figures))
    if json_file is not None:
        save_json(json_file, {**figures, "command": _command()})


@app.command
def inspect(run: Run) -> None:
    """Show what a model was fitted on, how, and whether its files are intact."""
    from historyad.history import History
    from historyad.storage import RunDirectory, load_json

    model = _load(run, "cpu")
    rows = []
    for key, value in model.describe().items():
        if isinstance(value, dict):
            rows += [(f"{key}.{name}", str(inner)) for name, inner in value.items()]
        elif value is not None:
            rows.append((key, f"{value:,}" if isinstance(value, int) else str(value)))
    directory = RunDirectory(run)
    if directory.config.exists():
        record = load_json(directory.config)
        rows += [(f"versions.{name}", version) for name, version in record["versions"].items()]
        rows.append(("command", record["command"]))
    history = History(directory.history, model.config, model.preprocessing.network_shape)
    rows.append(("history", f"{len(history)} snapshots"))
    size = sum(file.stat().st_size for file in Path(run).rglob("*") if file.is_file())
    rows.append(("size", f"{size / 1e6:,.1f} MB"))
    rows.append(("checks", "format, version and checksums are right"))
    _print_table(rows)


@app.command
def benchmark(
    *,
    split: Annotated[
        list[str],
        Parameter(help="Splits: mnist-vs-kmnist, mnist-without-3, vectors-cardio ...", negative=""),
    ],
    method: Annotated[
        list[str],
        Parameter(help="Methods: historyad, pca-residual, neighbours ...", negative=""),
    ],
    out: Annotated[Path, Parameter(help="Folder of rows.jsonl; rows that are there are kept.")],
    seeds: Annotated[str, Parameter(help="Seeds, as 0,1,2.")] = "0",
    data_root: DataRoot = None,
) -> None:
    """Measure methods side by side; one row of JSON for each split, method and seed."""
    from historyad.benchmark import run_benchmark

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise InputError(f"'{seeds}' is no list of seeds: write 0,1,2") from None
    run_benchmark(
        split,
        method,
        numbers,
        out,
        data_root=data_root,
        command=_command(),
        on_row=lambda row: print(
            f"{row['split']:<24} {row['method']:<22} seed {row['seed']}  "
            f"AUROC {row['auroc']:.4f}  AUPRC {row['auprc']:.4f} "
            f"(prevalence {row['prevalence']:.3f})  fit {row['fit_seconds']:.1f} s",
            flush=True,
        ),
    )


@app.command
def demo(
    *,
    anomaly: Annotated[
        Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], Parameter(help="The digit that is the anomaly.")
    ] = 0,
    out: Annotated[Path | None, Parameter(help="Keep the run in this directory.")] = None,
) -> None:
    """Run the whole path on embedded data: digits of 8 x 8 pixels, one of them the anomaly."""
    from historyad.demo import run_demo

    with _progress() as on_progress:
        rows, advice = run_demo(anomaly, out, on_progress)
    _print_table(rows)
    print(advice)


_CHUNK = 1024  # samples scored between two writes
_COLUMNS = ("path", "anomaly_score", "p_value", "is_anomalous")


def _in_flags(message: str) -> str:
    """Write the settings that a message names the way the command line spells them."""
    for name in settings():
        if "_" in name:
            message = message.replace(name, "--" + name.replace("_", "-"))
    return message


def _command() -> str:
    return shlex.join(["historyad", *sys.argv[1:]])


def _open(
    source: str, data_root: Path | None, *, skip_unreadable: bool = False, side: int = 0
) -> Source:
    from historyad.datasets import open_source

    return open_source(
        source, data_root=data_root, skip_unreadable=skip_unreadable, mixed=side or None
    )


def _load(run: Path, device: str) -> Model:
    from historyad.model import Model
    from historyad.networks import choose_device

    return Model.load(run, choose_device(device))


@contextmanager
def _open_table(out: str) -> Iterator[Any]:
    """Yield a function that writes one row, as CSV or, to a .jsonl file, as JSON lines."""
    if out != "-" and Path(out).suffix not in (".csv", ".jsonl"):
        raise InputError(f"cannot write {out}: name a .csv or .jsonl file, or - for the terminal")
    try:
        target: Any = nullcontext(sys.stdout)
        if out != "-":
            target = Path(out).open("w", newline="")  # noqa: SIM115 (entered just below)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    with target as file:
        yield _json_writer(file) if out.endswith(".jsonl") else _csv_writer(file)


def _csv_writer(file: TextIO) -> Any:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)

    def write(row: dict[str, Any]) -> None:
        name, anomaly_score, p_value, is_anomalous = row.values()
        writer.writerow([name, f"{anomaly_score:.6f}", f"{p_value:.6f}", int(is_anomalous)])

    return write


def _json_writer(file: TextIO) -> Any:
    return lambda row: file.write(json.dumps(row) + "\n")


@contextmanager
def _progress() -> Iterator[Any]:
    """Yield a callback that shows progress: bars on a terminal, a few plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(),
        TextColumn("{task.fields[figure]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def on_progress(record: dict[str, Any]) -> None:
            step = record["step"]
            if step not in tasks:
                tasks[step] = bars.add_task(_TITLES[step], total=record["of"], figure="")
            bars.update(tasks[step], completed=record["epoch"], figure=_figure(record))

        yield on_progress


_TITLES = {"gan": "step 1  GAN and history", "detector": "step 3  detector D_TV"}


def _figure(record: dict[str, Any]) -> str:
    if record["step"] == "gan":
        return f"Wasserstein distance {record['wasserstein_distance']:6.3f}"
    return f"total variation {record['total_variation']:5.3f}"


def _plain_progress() -> Any:
    shown: dict[str, int] = {}

    def on_progress(record: dict[str, Any]) -> None:
        tenth = int(10 * record["epoch"] / record["of"])
        if shown.get(record["step"]) != tenth:
            shown[record["step"]] = tenth
            print(
                f"{_TITLES[record['step']]}: epoch {record['epoch']:.2f} of {record['of']:.2f}, "
                f"{_figure(record)}, {record['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )

    return on_progress


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
