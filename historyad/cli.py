"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import math
import re
import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from cyclopts import App, CycloptsError, Group, Parameter, validators

from historyad import __version__
from historyad.config import PRESETS, Config, make_config, settings
from historyad.console import open_table, print_table, progress
from historyad.errors import HistoryADError, InputError, RunError
from historyad.service.settings import Settings

if TYPE_CHECKING:
    from historyad.datasets import Folder, Source
    from historyad.model import Model
    from historyad.scale import Job, Part

USER_ERROR, OUR_ERROR = 2, 1

app = App(
    name="historyad",
    version=__version__,
    help=(
        "Find anomalies when only normal examples exist.\n\n"
        "A SOURCE is a folder of images or tar shards, a .npy or .npz file (file.npz:key), a .csv "
        "of numbers, or a named data set NAME[:SPLIT[:LABELS]] such as digits:train, "
        "mnist:train:!3 (all but the threes) or kmnist:test. Start with: historyad demo"
    ),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says how to go on
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
    # Before Python 3.12 its module would be "types", and cyclopts looks into no builtin type.
    return make_dataclass("Overrides", options, namespace={"__module__": __name__})


if TYPE_CHECKING:
    Overrides = Any
else:
    Overrides = Parameter(name="*")(_overrides())

ServiceSettings = Annotated[Settings, Parameter(name="*", group="Limits")]
SourceName = Annotated[str, Parameter(help="Where the samples are; see historyad --help.")]
Run = Annotated[Path, Parameter(help="Directory of a finished fit.")]
DataRoot = Annotated[
    Path | None,
    Parameter(help="Folder of the named data sets.", env_var="HISTORYAD_DATA", show_env_var=True),
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")]
Engine = Annotated[
    Literal["ray"],
    Parameter(help="Spread the work over the cores of this machine, or over a cluster."),
]
Address = Annotated[
    str | None,
    Parameter(
        help="Ray cluster, HOST:PORT, whose machines see the same paths; Ray runs here without.",
        env_var="RAY_ADDRESS",
        show_env_var=True,
    ),
]


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

    Interrupted, the same command continues where it was. Under torchrun, all its processes fit one
    model together.
    """
    from historyad import distributed
    from historyad.estimator import fit_model
    from historyad.storage import RunDirectory

    given = {name: value for name, value in vars(overrides or object).items() if name in settings()}
    config = make_config(preset, **{k: v for k, v in given.items() if v is not None})
    started = time.monotonic()
    with distributed.launch():
        samples = _open(source, data_root, skip_unreadable=skip_unreadable, side=config.image_size)
        with progress() as on_progress:
            model = fit_model(
                samples, config, RunDirectory(out), command=_command(), on_progress=on_progress
            )
        if not distributed.is_main():
            return
    skipped = f" ({len(samples.unreadable)} could not be read)" if samples.unreadable else ""
    print(
        f"{out}: {len(samples):,} normal samples{skipped}, "
        f"threshold {model.calibration.threshold:+.3f} "
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
        str,
        Parameter(
            help="File to write, .csv or .jsonl; - is standard output. With --shard or --engine: "
            "the folder of the part files."
        ),
    ] = "-",
    shard: Annotated[
        str | None,
        Parameter(help="Score one part of several, 0/10 to 9/10, each perhaps on its own machine."),
    ] = None,
    engine: Engine | None = None,
    address: Address = None,
    actors: Annotated[
        int,
        Parameter(
            help="Processes of the engine that score; 0: one for each accelerator or core.",
            validator=validators.Number(gte=0),
        ),
    ] = 0,
    file_format: Annotated[
        Literal["parquet", "csv", "jsonl"], Parameter(name="--format", help="Of the part files.")
    ] = "parquet",
    data_root: DataRoot = None,
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
    fdr: Annotated[
        float | None,
        Parameter(
            help="Add a column is_discovery: samples chosen such that a share of at most this is "
            "normal, in expectation (Benjamini-Hochberg).",
            validator=validators.Number(gt=0, lt=1),
        ),
    ] = None,
) -> int:
    """Score samples: path, anomaly_score (about -1 normal, +1 anomalous), p_value, is_anomalous.

    What one process cannot score in time is scored in parts, with --engine or --shard. The same
    command continues after an interruption; parts that are there are not scored again.
    """
    if shard is not None or engine is not None:
        from historyad.scale import Job

        if fdr is not None:
            raise InputError("--fdr takes all scores at once: leave out --shard and --engine")
        if out == "-":
            raise InputError("part files need a folder: say which with --out")
        job = Job(run, source, Path(out), 0, data_root, view_scores, file_format)
        return _score_parts(job, shard, address, actors, device, strict=strict)
    from historyad.scale import column_names

    model = _load(run, device)
    samples = _stream(model, source, data_root)
    columns = column_names(model, view_scores=view_scores)
    rows = _score(model, samples, view_scores=view_scores, maps=maps)
    if fdr is not None:
        columns, rows = (*columns, "is_discovery"), _with_discoveries(rows, fdr)
    n_scored = n_anomalous = n_discoveries = 0
    with open_table(out, columns) as write:
        for row in rows:
            write(row)
            n_scored += 1
            n_anomalous += row["is_anomalous"]
            n_discoveries += row.get("is_discovery", False)
    _report_unreadable(samples)
    skipped = f", {len(samples.unreadable)} could not be read" if samples.unreadable else ""
    print(f"{n_scored:,} scored, {n_anomalous:,} anomalous{skipped}", file=sys.stderr)
    if fdr is not None:
        print(
            f"{n_discoveries:,} discoveries at a false discovery rate of {fdr:g}", file=sys.stderr
        )
        # k p-values at their smallest, 1 / (n + 1), are discoveries if that is <= Q k / N.
        least = math.ceil(n_scored / (fdr * (len(model.calibration.scores) + 1)))
        if least > max(1, n_discoveries):
            print(
                f"with {len(model.calibration.scores):,} held-out samples, only {least:,} or more "
                f"of {n_scored:,} can be discoveries: calibrate on more, or score fewer at a time",
                file=sys.stderr,
            )
    return USER_ERROR if strict and samples.unreadable else 0


@app.command
def calibrate(
    run: Run,
    source: SourceName,
    *,
    false_positive_rate: Annotated[
        float | None, Parameter(help="Share of normal inputs to call anomalous, if it changes.")
    ] = None,
    data_root: DataRoot = None,
    skip_unreadable: Annotated[
        bool, Parameter(negative="", help="Leave out images that cannot be read.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Set threshold and p-values anew from normal samples not trained on, without training."""
    from historyad.estimator import calibrate_model

    model = _load(run, device)
    side = model.preprocessing.side if model.preprocessing.any_size else 0
    samples = _open(source, data_root, skip_unreadable=skip_unreadable, side=side)
    renewed = calibrate_model(model, samples, false_positive_rate)
    renewed.save(run)
    before, after = model.calibration, renewed.calibration
    print_table(
        [
            ("calibrated on", f"{len(after.scores):,} samples of {source}"),
            ("false positives", f"{after.false_positive_rate:g}"),
            ("threshold", f"{after.threshold:+.4f}, before {before.threshold:+.4f}"),
        ]
    )


@app.command
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
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Test whether a stream, in its order, is still what was calibrated on, and since when not."""
    import numpy as np

    from historyad.drift import detect_drift, table_of
    from historyad.storage import save_json

    model = _load(run, device)
    samples = _stream(model, source, data_root)
    names: list[str] = []
    scores = [np.empty(0, np.float32)]
    for some, chunk in samples.chunks(_CHUNK):
        names += some
        scores.append(model.anomaly_score(chunk))
    _report_unreadable(samples)
    found = detect_drift(model.calibration, np.concatenate(scores), level=level, seed=seed)
    print_table(table_of(found, names))
    if json_file is not None:
        since = None if found.since is None else names[found.since]
        record = {"run": str(run), "source": source, **vars(found), "since_name": since}
        save_json(json_file, {**record, "command": _command()})


@app.command
def evaluate(
    run: Run,
    *,
    normal: Annotated[str, Parameter(help="Source of normal samples, none of them trained on.")],
    anomalous: Annotated[str, Parameter(help="Source of anomalous samples.")],
    masks: Annotated[
        Path | None,
        Parameter(
            help="Folder of the anomalous images' masks, NAME.png or NAME_mask.png: judge maps too."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, Parameter(name="--json", help="Write the figures to this file.")
    ] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Measure a detector on labelled samples: AUROC, AUPRC with prevalence, false positives."""
    from historyad.datasets import read_masks
    from historyad.evaluation import evaluate_model, judge_pixels, table_of
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
    if masks is not None:
        figures |= judge_pixels(model, sources[0], sources[1], read_masks(masks, sources[1]))
    print_table(table_of(figures))
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
        try:
            rows += [(f"versions.{name}", found) for name, found in record["versions"].items()]
            rows.append(("command", record["command"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise RunError(f"{directory.config} was altered: restore it or fit again") from error
    history = History(directory.history, model.config, model.preprocessing.network_shape)
    rows.append(("history", f"{len(history)} snapshots"))
    size = sum(file.stat().st_size for file in Path(run).rglob("*") if file.is_file())
    rows.append(("size", f"{size / 1e6:,.1f} MB"))
    rows.append(("checks", "format, version and checksums are right"))
    print_table(rows)


@app.command
def probe(
    run: Run,
    source: Annotated[str, Parameter(help="Source of normal samples, none of them trained on.")],
    *,
    out: Annotated[
        Path | None, Parameter(help="Folder for probe.png and probe.json; needs matplotlib.")
    ] = None,
    json_file: Annotated[
        Path | None, Parameter(name="--json", help="Write the rates to this file.")
    ] = None,
    limit: Annotated[int, Parameter(help="Samples to look at, drawn from the source.")] = 200,
    seed: Annotated[int, Parameter(help="Of the draw and of the damage.")] = 0,
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Show what a detector can and cannot see: damage normal samples, more and more.

    For noise, blur, scratches and so on: the strength from which 95 % are called anomalous.
    """
    from historyad.probe import draw_probe, probe_model, table_of
    from historyad.storage import save_json

    model = _load(run, device)
    side = model.preprocessing.side if model.preprocessing.any_size else 0
    samples = _open(source, data_root, side=side).samples
    found = probe_model(model, samples, limit=limit, seed=seed)
    print_table(table_of(found))
    record = {"run": str(run), "source": source, **found, "command": _command()}
    if out is not None:
        draw_probe(found, model, samples[0], out / "probe.png")
        save_json(out / "probe.json", record)
        print(f"written: {out / 'probe.png'}, {out / 'probe.json'}")
    if json_file is not None:
        save_json(json_file, record)


@app.command
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
    data_root: DataRoot = None,
) -> None:
    """Write one ONNX file from raw input to score, p-value and verdict, once its answers agree."""
    from historyad.export import export_onnx

    model = _load(run, "cpu")
    inputs = None if samples is None else _open(samples, data_root).samples
    found = export_onnx(model, path, size=size, samples=inputs, opset=opset)
    print_table([("written", str(path)), *((name, str(value)) for name, value in found.items())])


@app.command
def serve(
    run: Run,
    *,
    host: Annotated[str, Parameter(help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 chooses a free one.")] = 8000,
    device: Device = "auto",
    settings: ServiceSettings | None = None,
) -> None:
    """Score over HTTP: POST /score, and a page that shows verdicts on the images dropped there.

    Ends on SIGTERM or Ctrl-C when it has answered what it accepted.
    """
    try:
        from historyad.service.app import listen, run_server
    except ImportError as error:
        raise InputError(f"serve needs {error.name}: install historyad[serve]") from error

    settings = settings or ServiceSettings()
    model = _load(run, device)
    listener, url = listen(host, port)
    print(f"{run}: serving at {url}", flush=True)
    if not (settings.token or url.startswith("http://127.")):
        print(
            f"historyad: whoever reaches {url} can use it; to ask for a token, set HISTORYAD_TOKEN",
            file=sys.stderr,
        )
    run_server(model, settings, listener)


@app.command
def report(
    run: Run,
    *,
    out: Annotated[Path, Parameter(help="File to write.")] = Path("report.html"),
    normal: Annotated[
        str | None, Parameter(help="Source of normal samples, none of them trained on.")
    ] = None,
    anomalous: Annotated[str | None, Parameter(help="Source of anomalous samples.")] = None,
    source: Annotated[
        str | None, Parameter(help="The source trained on, to show what in it looks odd.")
    ] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Write one HTML file on how a detector was trained and how it decides."""
    from historyad.report import write_report

    model = _load(run, device)
    side = model.preprocessing.side if model.preprocessing.any_size else 0
    sources = [
        None if name is None else _open(name, data_root, skip_unreadable=True, side=side)
        for name in (source, normal, anomalous)
    ]
    train, normals, anomalies = sources
    write_report(
        run,
        out,
        model=model,
        train=train,
        normal=normals,
        anomalous=anomalies,
        command=_command(),
    )
    print(f"written: {out}")


@app.command
def benchmark(
    *,
    split: Annotated[
        list[str],
        Parameter(
            help="Splits: mnist-vs-kmnist, fashion-only-3, magnetic-tile, vectors-cardio ..., "
            "wildcards such as 'mnist-without-*', or any three sources as "
            "'TRAIN|NORMAL|ANOMALOUS'.",
            negative="",
            consume_multiple=True,
        ),
    ],
    method: Annotated[
        list[str],
        Parameter(
            help="Methods: historyad, pca-residual, vae ..., or wildcards such as 'pyod-*'.",
            negative="",
            consume_multiple=True,
        ),
    ],
    out: Annotated[Path, Parameter(help="Folder of rows.jsonl; rows that are there are kept.")],
    seeds: Annotated[str, Parameter(help="Seeds, as 0,1,2.")] = "0",
    most: Annotated[
        int | None,
        Parameter(
            help="Score at most so many of the normal test samples, and of the anomalous ones, "
            "drawn by the seed: for methods that take seconds for one. [default: all]",
            validator=validators.Number(gte=2),
        ),
    ] = None,
    jobs: Annotated[
        int,
        Parameter(
            help="Fits at a time, each in a process of its own; they share the cores. With "
            "--engine, on a machine such as this one.",
            validator=validators.Number(gte=1),
        ),
    ] = 1,
    engine: Engine | None = None,
    address: Address = None,
    data_root: DataRoot = None,
) -> int:
    """Measure methods side by side; one row of JSON for each split, method and seed.

    A fit that fails does not stop the others: it is reported at the end, with exit status 1.
    """
    from historyad.benchmark import run_benchmark

    numbers = _seeds(seeds)
    try:
        run_benchmark(
            split,
            method,
            numbers,
            out,
            most=most,
            jobs=jobs,
            engine=engine,
            address=address,
            data_root=data_root,
            command=_command(),
            on_row=lambda row: print(
                f"{row['split']:<24} {row['method']:<22} seed {row['seed']}  "
                f"AUROC {row['auroc']:.4f}  AUPRC {row['auprc']:.4f} "
                f"(prevalence {row['prevalence']:.3f})  fit {row['fit_seconds']:.1f} s",
                flush=True,
            ),
        )
    except RunError as error:  # some fits, for reasons of their own
        print(f"historyad: {error}", file=sys.stderr)
        return OUR_ERROR
    return 0


@app.command
def reproduce(
    what: Annotated[
        Literal["toy", "table1", "fig5", "fig6", "fig7", "fig8", "fig9", "histories", "all"],
        Parameter(
            help="toy is figures 3 and 4, table1 is figure 1 too, histories is the future work."
        ),
    ],
    *,
    out: Annotated[
        Path, Parameter(help="Folder for pictures, rows and, in it, detectors; it is continued.")
    ],
    seeds: Annotated[str, Parameter(help="How many seeds, from 1 on; or a list, as 1,2,3.")] = "1",
    scale: Annotated[
        Literal["quick", "full"],
        Parameter(help="full: the paper's sizes, hours; quick: small networks, minutes."),
    ] = "full",
    engine: Engine | None = None,
    address: Address = None,
    data_root: DataRoot = None,
) -> None:
    """Reproduce a table or figure of the paper: a picture, and rows of JSON that it is drawn from.

    Figures share detectors. Interrupted, the same command continues where it was.
    """
    from historyad.reproduce.everything import FIGURES, fit_for, summary
    from historyad.reproduce.everything import reproduce as reproduce_one

    numbers = _seeds(seeds) if "," in seeds else list(range(1, 1 + _seeds(seeds)[0]))
    if not numbers:
        raise InputError(f"'{seeds}' is no number of seeds: write 3, or 1,2,3")
    names = ["toy", *FIGURES] if what == "all" else [what]
    if engine is not None:
        fit_for(
            names,
            out,
            seeds=numbers,
            scale=scale,
            address=address,
            data_root=data_root,
            command=_command(),
        )
    for name in names:
        with progress() as on_progress:
            rows = reproduce_one(
                name,
                out,
                seeds=numbers,
                scale=scale,
                data_root=data_root,
                command=_command(),
                on_progress=on_progress,
            )
        for row in rows:
            print(summary(row))
        print(f"{name}: drawn in {out / name}.png and .svg", flush=True)


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

    with progress() as on_progress:
        rows, advice = run_demo(anomaly, out, on_progress)
    print_table(rows)
    print(advice)


_CHUNK = 1024  # samples scored between two writes


def _in_flags(message: str) -> str:
    """Write the settings that a message names the way the command line spells them."""
    names = "|".join(name for name in settings() if "_" in name)
    # Whole words that are not part of a path.
    pattern = rf"(?<![\w/.-])(?:{names})(?![\w/-]|\.\w)"
    return re.sub(pattern, lambda match: "--" + match[0].replace("_", "-"), message)


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.strip(",").split(",")]
    except ValueError:
        raise InputError(f"'{text}' is no list of seeds: write 0,1,2") from None


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


def _stream(model: Model, source: str, data_root: Path | None) -> Source | Folder:
    from historyad.datasets import open_stream

    side = model.preprocessing.side if model.preprocessing.any_size else None
    return open_stream(source, data_root=data_root, mixed=side)


def _report_unreadable(samples: Source | Folder) -> None:
    for name, reason in samples.unreadable:
        print(f"historyad: skipped {name}: {reason}", file=sys.stderr)


def _score(
    model: Model, samples: Source | Folder, *, view_scores: bool, maps: Path | None
) -> Iterator[dict[str, Any]]:
    """Yield the row of each sample."""
    from historyad.scale import rows_of, score_chunk

    for names, chunk in samples.chunks(_CHUNK):
        if maps is not None:
            _write_maps(model, names, chunk, maps)
        yield from rows_of(score_chunk(model, names, chunk, view_scores=view_scores))


def _score_parts(
    job: Job, shard: str | None, address: str | None, actors: int, device: str, *, strict: bool
) -> int:
    """Score one part, or all on an engine; say what became of them and return the exit status."""
    from historyad.scale import score_dataset, score_shard

    def say(part: Part) -> None:
        for name, reason in part.unreadable:
            print(f"historyad: skipped {name}: {reason}", file=sys.stderr)
        print(f"part {part.number}: {part.scored:,} scored", file=sys.stderr, flush=True)

    if shard is None:
        parts = score_dataset(job, address=address, actors=actors, device=device, on_part=say)
    else:
        number, slash, of = shard.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and int(of)):
            raise InputError(f"'{shard}' is no shard: write 0/10 for the first of ten")
        parts = [score_shard(replace(job, parts=int(of)), int(number), device=device)]
        say(parts[0])
    unreadable = sum(len(part.unreadable) for part in parts)
    skipped = f", {unreadable:,} could not be read" if unreadable else ""
    print(
        f"{sum(part.scored for part in parts):,} scored, "
        f"{sum(part.anomalous for part in parts):,} anomalous{skipped}; in {job.out}",
        file=sys.stderr,
    )
    return USER_ERROR if strict and unreadable else 0


def _write_maps(model: Model, names: Sequence[str], images: Any, folder: Path) -> None:
    from PIL import Image

    from historyad.explain import picture

    for name, image in zip(names, images, strict=True):
        path = (folder / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(model, image)).save(path)


def _with_discoveries(rows: Iterator[dict[str, Any]], rate: float) -> Iterator[dict[str, Any]]:
    """Yield the rows with one column more, which depends on all of them."""
    import numpy as np

    from historyad.calibration import benjamini_hochberg

    scored = list(rows)
    discoveries = benjamini_hochberg(np.array([row["p_value"] for row in scored]), rate)
    for row, is_discovery in zip(scored, discoveries.tolist(), strict=True):
        yield {**row, "is_discovery": is_discovery}
