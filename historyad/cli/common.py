"""What the commands share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from historyad.cli.console import note, say
from historyad.errors import InputError

if TYPE_CHECKING:
    from historyad.data.sources import Source
    from historyad.model.model import Model

USER_ERROR, OUR_ERROR = 2, 1


SourceName = Annotated[str, Parameter(help="Where the samples are; see historyad --help.")]
Category = Annotated[
    str | None,
    Parameter(help="Which data set of a folder of several in MVTec's layout, by its name."),
]
Run = Annotated[Path, Parameter(help="Directory of a finished fit.")]
DataRoot = Annotated[
    Path | None,
    Parameter(help="Folder of the named data sets.", env_var="HISTORYAD_DATA", show_env_var=True),
]
SkipUnreadable = Annotated[
    bool, Parameter(negative="", help="Leave out images that cannot be read.")
]
Normal = Annotated[str | None, Parameter(help="Source of normal samples, none of them trained on.")]
Anomalous = Annotated[str | None, Parameter(help="Source of anomalous samples.")]
JsonFile = Annotated[
    Path | None, Parameter(name="--json", help="Write what was found to this file.")
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


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """How the samples of a source are read."""

    id_column: Annotated[
        str | None,
        Parameter(name="--id", help="Column of a table that says what its rows are called."),
    ] = None
    time_column: Annotated[
        str | None,
        Parameter(
            name="--time-column",
            help="Column of a table that says when its rows were measured: a series, see --window.",
        ),
    ] = None
    channels: Annotated[
        Literal[1, 3] | None,
        Parameter(help="Make all images of a folder grey (1) or colour (3), where it has both."),
    ] = None
    data_root: DataRoot = None


READING = Reading()  # a default is one object


def parse_seeds(text: str) -> list[int]:
    """Return the numbers of a list such as 0,1,2."""
    try:
        return [int(seed) for seed in text.strip(",").split(",")]
    except ValueError:
        raise InputError(f"'{text}' is no list of seeds: write 0,1,2") from None


def command_line() -> str:
    """Return the command that is running, as it may be typed again."""
    return shlex.join(["historyad", *sys.argv[1:]])


def save_record(path: Path | None, record: dict[str, Any]) -> None:
    """Write what was found, and by which command, if there is a ``path``."""
    from historyad.files import save_json

    if path is not None:
        save_json(path, {**record, "command": command_line()})


def open_samples(source: str, reading: Reading, **how: Any) -> Source:
    """Return the source of samples; ``how`` are further options of `open_source`."""
    from historyad.data.datasets import open_source

    mention_shadowed(source)
    return open_source(source, **vars(reading), **how)


def keep_apart(
    *sources: str | Path | None,
    files: Iterable[str | Path | None] = (),
    folder: Path | None = None,
) -> None:
    """Raise InputError where a file to write is one of the sources, or a folder lies in one.

    What is written there would replace what is read, or be taken for samples the next time.
    """
    for source in filter(None, sources):
        head, archive, _ = str(source).partition(".npz:")
        read = Path(head + ".npz" if archive else head)
        for file in filter(None, files):
            if _is_same(Path(str(file)), read):
                raise InputError(f"cannot write {file}: it is what is read; name another file")
        if folder is not None and any(_is_same(one, read) for one in (folder, *folder.parents)):
            raise InputError(
                f"cannot write into {folder}: {read} is read from, and pictures in it would be "
                "samples the next time; name a folder outside of it"
            )


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there
        return False


def load_model(run: Path, device: str) -> Model:
    """Return the model of a finished fit."""
    from historyad.model.model import Model
    from historyad.ranks import choose_device

    return Model.load(run, choose_device(device))


def open_for(
    model: Model, source: str, reading: Reading, *, skip_unreadable: bool = False
) -> Source:
    """Return the source of samples, as the model takes them: at its size, with its columns.

    Its images become grey or colour as those of the fit did, unless ``channels`` says otherwise.
    """
    opened = open_samples(
        source,
        _as_fitted(reading, model),
        skip_unreadable=skip_unreadable,
        mixed=model.kind.grid,
        any_size=model.kind.takes_any_size,
        texts=model.text_columns,
    )
    _mention_order(model, opened)
    return model.takes(opened)


def _mention_order(model: Model, samples: Source) -> None:
    """Say that columns are taken in their order where one side has no names to compare."""
    if bool(samples.columns) != bool(model.feature_names):
        which = "the detector was fitted on" if samples.columns else f"{samples.description} has"
        note(
            f"note: {which} no names of columns, and so they are taken in their order: make sure "
            "that it is that of the fit"
        )


def _as_fitted(reading: Reading, model: Model) -> Reading:
    channels: Any = reading.channels or model.channels
    return replace(reading, channels=channels)


def open_stream_for(model: Model, source: str, reading: Reading) -> Source:
    """Return what ``model`` can score in chunks, without holding all of it."""
    from historyad.data.datasets import open_stream

    mention_shadowed(source)
    how = vars(_as_fitted(reading, model))
    opened = open_stream(source, mixed=model.kind.grid, texts=model.text_columns, **how)
    _mention_order(model, opened)
    return model.takes(opened)


def open_parts_for(model: Model, source: str, reading: Reading) -> Iterator[tuple[Source, float]]:
    """Yield the samples that ``model`` can score, of a table in a file some rows at a time.

    With each part comes the share of all that is read by then.
    """
    from historyad.data.datasets import is_table_file, open_table_parts
    from historyad.data.tables import Roles

    if model.config.window or reading.time_column or not is_table_file(source):
        yield open_stream_for(model, source, reading), 1.0
        return
    mention_shadowed(source)
    roles = Roles(reading.id_column, texts=model.text_columns)
    for number, (part, done) in enumerate(open_table_parts(source, roles)):
        if not number:
            _mention_order(model, part)
        yield model.takes(part), done


def mention_shadowed(source: str) -> None:
    """Say on standard error that a named set is taken, where a folder is called like it."""
    from historyad.data.datasets import shadowed

    if said := shadowed(source):
        note(f"note: {said}")


def report_unreadable(samples: Source) -> None:
    """Name on standard error what could not be read, and why, and count what was left out."""
    for name, reason in samples.unreadable:
        say(f"historyad: skipped {name}: {reason}", file=sys.stderr)
    report_left_out(samples)


def report_left_out(samples: Source) -> None:
    """Say on standard error what in a folder is no image, by kinds, if there is anything."""
    from historyad.data.folders import describe

    if samples.left_out:
        note(f"historyad: left out of {samples.description}: {describe(samples.left_out)}")
