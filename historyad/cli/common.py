"""What the commands share."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from historyad.cli.console import say
from historyad.errors import InputError

if TYPE_CHECKING:
    from historyad.data.sources import Folder, Source
    from historyad.model.model import Model

USER_ERROR, OUR_ERROR = 2, 1


SourceName = Annotated[str, Parameter(help="Where the samples are; see historyad --help.")]
Run = Annotated[Path, Parameter(help="Directory of a finished fit.")]
DataRoot = Annotated[
    Path | None,
    Parameter(help="Folder of the named data sets.", env_var="HISTORYAD_DATA", show_env_var=True),
]
SkipUnreadable = Annotated[
    bool, Parameter(negative="", help="Leave out images that cannot be read.")
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


def parse_seeds(text: str) -> list[int]:
    """Return the numbers of a list such as 0,1,2."""
    try:
        return [int(seed) for seed in text.strip(",").split(",")]
    except ValueError:
        raise InputError(f"'{text}' is no list of seeds: write 0,1,2") from None


def command_line() -> str:
    """Return the command that is running, as it may be typed again."""
    return shlex.join(["historyad", *sys.argv[1:]])


def open_samples(
    source: str, data_root: Path | None, *, skip_unreadable: bool = False, side: int = 0
) -> Source:
    """Return the source of samples; images of several sizes are brought to ``side``, if given."""
    from historyad.data.datasets import open_source

    return open_source(
        source, data_root=data_root, skip_unreadable=skip_unreadable, mixed=side or None
    )


def load_model(run: Path, device: str) -> Model:
    """Return the model of a finished fit."""
    from historyad.method.networks import choose_device
    from historyad.model.model import Model

    return Model.load(run, choose_device(device))


def open_for(
    model: Model, source: str, data_root: Path | None, *, skip_unreadable: bool = False
) -> Source:
    """Return the source of samples, at the size of the model's grid if it takes any size."""
    side = model.preprocessing.side if model.preprocessing.any_size else 0
    return open_samples(source, data_root, skip_unreadable=skip_unreadable, side=side)


def open_stream_for(model: Model, source: str, data_root: Path | None) -> Source | Folder:
    """Return what ``model`` can score in chunks, without holding all of it."""
    from historyad.data.datasets import open_stream

    side = model.preprocessing.side if model.preprocessing.any_size else None
    return open_stream(source, data_root=data_root, mixed=side)


def report_unreadable(samples: Source | Folder) -> None:
    """Name on standard error every sample that could not be read, and why."""
    for name, reason in samples.unreadable:
        say(f"historyad: skipped {name}: {reason}", file=sys.stderr)
