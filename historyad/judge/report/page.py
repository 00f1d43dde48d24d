"""The page: its sections, and the template that shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from historyad import __version__
from historyad.data.sources import Source
from historyad.errors import InputError
from historyad.extras import require
from historyad.files import load_json, write_atomic
from historyad.judge.report.decisions import decision_of, probe_of, trial_of
from historyad.judge.report.history import history_of
from historyad.judge.report.samples import oddest
from historyad.judge.report.series import series_of
from historyad.judge.report.settings import fit_command, settings_of
from historyad.judge.report.training import training_of
from historyad.method.history import History
from historyad.model.examples import Examples
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.progress import Phases

T = TypeVar("T")

_HISTORY, _PROBE, _SERIES, _TRIAL, _ODDEST = _PHASES = (
    "looking at the history",
    "damaging normal samples",
    "drawing the series",
    "scoring what has labels",
    "looking for wrong samples",
)


def write_report(
    run: Path,
    out: Path,
    *,
    model: Model,
    train: Source | None = None,
    normal: Source | None = None,
    anomalous: Source | None = None,
    command: str = "",
) -> None:
    """Write a report on ``model``, which belongs to the directory ``run``, to the file ``out``.

    ``train`` is the source it was fitted on, whose most suspicious samples are shown: InputError
    when it is another. With ``normal`` and ``anomalous`` samples, the errors are shown at any
    threshold. Normal samples of either kind are damaged to show what the detector sees. What the
    directory does not hold, a log or a history, is left out. InputError when the extra ``report``
    is not installed.
    """
    for package in ("jinja2", "matplotlib"):
        require(package, "a report", "report")
    if (normal is None) != (anomalous is None):
        raise InputError("give both normal and anomalous samples, or neither")
    if train is not None and train.fingerprint != model.source.get("fingerprint"):
        raise InputError(
            f"{train.description} is not what the detector was trained on, "
            f"{model.source.get('description')}: give that source, unchanged"
        )
    directory = RunDirectory(run)
    history = History(directory.history, model.config, model.kind.networks(model.config))
    record = load_json(directory.config) if directory.config.exists() else {}
    examples = Examples.load(run)
    phases = Phases(dict.fromkeys(_PHASES, 1.0))

    def during(phase: str, part_of_page: Callable[..., T], *arguments: Any) -> T:
        phases.begin(phase)
        return part_of_page(*arguments)

    page = {
        "run": str(run),
        "version": __version__,
        "command": command,
        "fit_command": record.get("command") or fit_command(model, run),
        "versions": record.get("versions", {}),
        "model": {"grid": None, "crops": None, **model.describe()},
        "settings": settings_of(model),
        "training": training_of(directory.read_log(), model.config),
        "history": during(_HISTORY, history_of, history, model, train) if len(history) else None,
        "decision": decision_of(model),
        "probe": during(_PROBE, probe_of, model, train if normal is None else normal),
        "series": during(_SERIES, series_of, model, (train, normal, anomalous), examples),
        "trial": during(_TRIAL, trial_of, model, normal, anomalous, examples)
        if normal and anomalous
        else None,
        "pixelated": model.kind.is_picture and max(model.kind.input_shape) <= 64,
        "highest": None if train is None else during(_ODDEST, oddest, model, train, examples),
    }
    write_atomic(out, _render(page).encode())


def _render(page: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Whatever comes from a user, as names of files do, is escaped.
    environment = Environment(
        loader=PackageLoader("historyad.judge.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(page)
