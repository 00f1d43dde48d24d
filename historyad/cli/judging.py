"""Commands that say how good a detector is, and what it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from historyad.cli.common import (
    READING,
    Anomalous,
    Category,
    Device,
    JsonFile,
    Normal,
    Reading,
    Run,
    SkipUnreadable,
    command_line,
    keep_apart,
    load_model,
    open_for,
    report_unreadable,
    save_record,
)
from historyad.cli.console import print_columns, print_table, progress, say
from historyad.errors import InputError, RunError
from historyad.progress import Phases

if TYPE_CHECKING:
    from historyad.data.sources import Source
    from historyad.model.model import Model


def evaluate(
    run: Run,
    root: Annotated[
        Path | None,
        Parameter(
            help="Data set in MVTec's layout, test/good, test/KIND and ground_truth/KIND: a line "
            "for each kind of defect. In place of --normal, --anomalous and --masks."
        ),
    ] = None,
    *,
    category: Category = None,
    normal: Normal = None,
    anomalous: Anomalous = None,
    masks: Annotated[
        Path | None,
        Parameter(
            help="Folder of the anomalous images' masks, NAME.png, NAME_mask.png or called as the "
            "image: judge maps too."
        ),
    ] = None,
    json_file: JsonFile = None,
    reading: Reading = READING,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Measure a detector on labelled samples: AUROC, AUPRC with prevalence, false positives."""
    from historyad.data.folders import of_category
    from historyad.judge.evaluation import (
        evaluate_model,
        judge_pixels,
        pixel_table_of,
        read_masks,
        table_of,
    )
    from historyad.judge.report import n_used_of

    keep_apart(normal, anomalous, files=[json_file])
    model = load_model(run, device)
    opened = partial(open_for, model, reading=reading, skip_unreadable=skip_unreadable)
    if root is not None:
        if normal or anomalous or masks:
            raise InputError(f"give {root} alone, or --normal and --anomalous without it")
        root = of_category(root, category)
        _evaluate_root(model, root, opened, {"run": str(run), "root": str(root)}, json_file)
        return
    if category is not None:
        raise InputError("--category chooses in a folder of data sets: give that, too")
    if normal is None or anomalous is None:
        raise InputError("give a data set in MVTec's layout, or --normal and --anomalous")
    good, bad = opened(normal), opened(anomalous)
    if n_used := n_used_of(good, model):
        say(
            f"note: the detector was fitted or calibrated on {n_used:,} samples of {normal}: these "
            "figures are too good",
            file=sys.stderr,
        )
    marks = None if masks is None else read_masks(masks, bad)
    measured = evaluate_model(model, good, bad)
    print_table(table_of(measured))
    for source in (good, bad):
        report_unreadable(source)
    if marks is not None:
        pixels = judge_pixels(model, good, bad, marks)
        print_table(pixel_table_of(pixels))
        measured |= pixels
    record = {"run": str(run), "normal": normal, "anomalous": anomalous, **measured}
    save_record(json_file, record)


def _evaluate_root(
    model: Model,
    root: Path,
    opened: Callable[[str], Source],
    record: dict[str, Any],
    json_file: Path | None,
) -> None:
    """Judge each kind of defect of a data set, and all together."""
    from historyad.data.folders import defects_in
    from historyad.judge.dataset import Defects, columns_of, judge_dataset
    from historyad.judge.evaluation import read_some_masks

    folders = defects_in(root)
    good = opened(str(root / "test" / "good"))
    defects = {}
    for kind, (images, masks) in folders.items():
        source = opened(str(images))
        defects[kind] = Defects(source, read_some_masks(masks, source))
    figures = judge_dataset(model, good, defects)
    print_columns(columns_of(figures))
    found = figures["all"]
    print_table(
        [
            ("false positives", f"{found['false_positive_rate']:.4f} of {found['n_normal']:,}"),
            ("asked for", f"{found['requested_false_positive_rate']:g}"),
            ("threshold", f"{found['threshold']:+.3f}"),
        ]
    )
    for source in (good, *(its.source for its in defects.values())):
        report_unreadable(source)
    save_record(json_file, {**record, "defects": figures})


def inspect(run: Run, *, json_file: JsonFile = None) -> None:
    """Show what a model was fitted on, how, and whether its files are intact."""
    from historyad.files import load_json
    from historyad.method.history import History
    from historyad.model.run import RunDirectory

    model = load_model(run, "cpu")
    described = model.describe()
    save_record(json_file, {"run": str(run), **described})
    rows = []
    for key, value in described.items():
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
    history = History(directory.history, model.config, model.kind.networks(model.config))
    rows.append(("history", f"{len(history)} snapshots"))
    size = sum(file.stat().st_size for file in Path(run).rglob("*") if file.is_file())
    rows.append(("size", f"{size / 1e6:,.1f} MB"))
    rows.append(("checks", "format, version and checksums are right"))
    print_table(rows)


def probe(
    run: Run,
    source: Annotated[str, Parameter(help="Source of normal samples, none of them trained on.")],
    *,
    out: Annotated[
        Path | None, Parameter(help="Folder for probe.png and probe.json; needs matplotlib.")
    ] = None,
    json_file: JsonFile = None,
    limit: Annotated[
        int | None,
        Parameter(
            help="Samples to look at, drawn from the source. [default: 200, fewer of large images]"
        ),
    ] = None,
    seed: Annotated[int, Parameter(help="Of the draw and of the damage.")] = 0,
    reading: Reading = READING,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Show what a detector can and cannot see: damage normal samples, more and more.

    For noise, blur, scratches and so on: the strength from which 95 % are called anomalous.
    """
    from historyad.judge.probe import draw_probe, probe_model, table_of
    from historyad.model.card import renew_card

    keep_apart(source, files=[json_file], folder=out)
    model = load_model(run, device)
    opened = open_for(model, source, reading, skip_unreadable=skip_unreadable)
    with progress():
        Phases({"damaging normal samples": 1.0}).begin("damaging normal samples")
        found = probe_model(model, opened.samples, limit=limit, seed=seed)
    print_table(table_of(found))
    report_unreadable(opened)
    record = {"run": str(run), "source": source, **found}
    save_record(json_file, record)
    renew_card(run, model.card(run.name, found))
    if out is not None:
        save_record(out / "probe.json", record)
        draw_probe(found, model, opened.samples[0], out / "probe.png")
        say(f"written: {out / 'probe.png'}, {out / 'probe.json'}")


def report(
    run: Run,
    *,
    out: Annotated[Path, Parameter(help="File to write.")] = Path("report.html"),
    normal: Normal = None,
    anomalous: Anomalous = None,
    source: Annotated[
        str | None, Parameter(help="The source trained on, to show what in it looks odd.")
    ] = None,
    reading: Reading = READING,
    device: Device = "auto",
) -> None:
    """Write one HTML file on how a detector was trained and how it decides."""
    from historyad.judge.report import write_report

    keep_apart(source, normal, anomalous, files=[out])
    model = load_model(run, device)
    sources = [
        None if name is None else open_for(model, name, reading, skip_unreadable=True)
        for name in (source, normal, anomalous)
    ]
    for samples in filter(None, sources):
        report_unreadable(samples)
    train, normals, anomalies = sources
    with progress():
        write_report(
            run,
            out,
            model=model,
            train=train,
            normal=normals,
            anomalous=anomalies,
            command=command_line(),
        )
    say(f"written: {out}")
