"""Commands that compare methods and reproduce the paper; only they load `historyad.research`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from historyad.cli.common import (
    OUR_ERROR,
    Address,
    DataRoot,
    Engine,
    JsonFile,
    command_line,
    parse_seeds,
    save_record,
)
from historyad.cli.console import print_columns, progress, say
from historyad.errors import InputError, RunError
from historyad.names import shown


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

    OUT gets rows.jsonl and, of all rows there, standings.md and a chart, standings.png. A fit that
    fails does not stop the others: it is reported at the end, with exit status 1.
    """
    # What is missing or damaged is refused now, and not after hours.
    from historyad.files import read_rows
    from historyad.research import standings
    from historyad.research.benchmark import run_benchmark

    numbers = parse_seeds(seeds)
    read_rows(out / "rows.jsonl")
    status = 0
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
            command=command_line(),
            on_row=lambda row: say(
                f"{row['split']:<24} {row['method']:<22} seed {row['seed']}  "
                f"AUROC {row['auroc']:.4f}  AUPRC {row['auprc']:.4f} "
                f"(prevalence {row['prevalence']:.3f})  fit {row['fit_seconds']:.1f} s"
            ),
        )
    except RunError as error:  # some fits, for reasons of their own
        print(f"historyad: {shown(error, keep=chr(10))}", file=sys.stderr)
        status = OUR_ERROR
    rows = read_rows(out / "rows.jsonl")
    if rows:
        frame = standings.frame_of(rows)
        print("\n" + shown(standings.in_markdown(standings.overview(frame)), keep="\n"), end="")
        say("written: " + ", ".join(map(str, standings.write_standings(frame, out))))
    return status


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
    size: Annotated[
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
    from historyad.research.reproduce.everything import FIGURES, fit_for, summary
    from historyad.research.reproduce.everything import reproduce as reproduce_one

    numbers = parse_seeds(seeds) if "," in seeds else list(range(1, 1 + parse_seeds(seeds)[0]))
    if not numbers:
        raise InputError(f"'{seeds}' is no number of seeds: write 3, or 1,2,3")
    names = ["toy", *FIGURES] if what == "all" else [what]
    if engine is not None:
        fit_for(
            names,
            out,
            seeds=numbers,
            size=size,
            address=address,
            data_root=data_root,
            command=command_line(),
        )
    for name in names:
        with progress() as on_progress:
            rows = reproduce_one(
                name,
                out,
                seeds=numbers,
                size=size,
                data_root=data_root,
                command=command_line(),
                on_progress=on_progress,
            )
        for row in rows:
            say(summary(row))
        say(f"{name}: drawn in {out / name}.png and .svg")


def list_names(
    what: Annotated[
        Literal["methods", "splits", "sets", "presets"],
        Parameter(help="methods and splits of a benchmark, named data sets, presets of a fit."),
    ],
    *,
    json_file: JsonFile = None,
    data_root: DataRoot = None,
) -> None:
    """List what commands know by name, a line each."""
    lines = {
        "methods": _methods,
        "splits": lambda: _splits(data_root),
        "sets": _sets,
        "presets": _presets,
    }[what]()
    save_record(json_file, {"what": what, "names": dict(lines)})
    print_columns(lines)


def _methods() -> list[list[str]]:
    from historyad.research.benchmark import OURS
    from historyad.research.peers import PEERS

    ours = [[name, f"this package, preset {preset}"] for name, preset in OURS.items()]
    return ours + [[name, "another method"] for name in PEERS]


def _splits(data_root: Path | None) -> list[list[str]]:
    """Return each split with what trains; the tables are those that are there."""
    from historyad.research.splits import NAMED_SPLITS, tables_in

    named = [[name, f"normal: {sources[0]}"] for name, sources in NAMED_SPLITS.items()]
    return named + [[name, "a table, halved by the seed"] for name in tables_in(data_root)]


def _sets() -> list[list[str]]:
    from historyad.data.named_sets import SETS

    return [[name, "splits: " + ", ".join(layouts[0].files)] for name, layouts in SETS.items()]


def _presets() -> list[list[str]]:
    """Return each preset with the settings in which it differs from the default."""
    from historyad.config import PRESETS

    return [
        [name, ", ".join(f"{key} {value}" for key, value in values.items()) or "as it is"]
        for name, values in PRESETS.items()
    ]
