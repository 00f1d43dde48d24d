"""The whole method: `fit_model` reads like the abstract, and `calibrate_model` decides anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad import ranks
from historyad.config import Config, as_dict, validate
from historyad.data.copies import digests, groups_of
from historyad.data.series import in_windows, refuse_images, usual_window
from historyad.data.sources import Source
from historyad.errors import ConfigError, InputError
from historyad.kinds.choose import choose_kind, which_kind
from historyad.kinds.kind import Kind
from historyad.method.detector import train_detector
from historyad.method.gan import record_history
from historyad.method.history import History, resolve
from historyad.method.loop import OnProgress
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.model.split import number_of_folds, promised_rate, split_folds, split_rows
from historyad.model.suspects import Suspect, find_suspects
from historyad.model.untrained import of_others, untrained_score
from historyad.score.calibration import Calibration, check_number
from historyad.score.decide import calibrate, decide
from historyad.score.score import Score

Rows = NDArray[np.intp]


def fit_model(
    source: Source,
    config: Config,
    run: RunDirectory,
    *,
    history: History | None = None,
    command: str = "",
    on_progress: OnProgress | None = None,
) -> Model:
    """Fit a model on the normal samples of ``source``, keeping everything in ``run``.

    The same call continues a run that was interrupted, and returns a finished one at once. Several
    processes (`historyad.ranks`) that all make it fit one model together, in one ``run``.
    ``on_progress`` receives a record at every save interval, as it goes to the log. With a
    ``history`` that another run has recorded from these samples, step 1 is left out: the history
    carries the settings of this fit, with the length of its epoch.

    Copies of a sample, and samples that ``config.group`` or a column of groups says belong
    together, are all trained on or all held out, or in one fold. The model keeps the names of
    columns, and a digest of each sample that it was trained on. With ``config.contamination``, the
    most suspicious samples are set aside before anything else, and listed in the run.

    Raises ConfigError, InputError (too few samples) or RunError (another config, not writable, a
    training that diverged).
    """
    # What can be refused is refused before the run directory is claimed for this config.
    source, config = as_samples(source, config)
    prints = digests(source.samples)
    # What a run has set aside stays so when it is continued: to judge again would take its time.
    plan = _plan(source, config, history, prints, run.read_suspects())
    config, train, kind = plan.config, plan.train, plan.kind
    device = ranks.choose_device(config.device)
    described = {**source.describe(), "n_train": len(train), "copies": _n_copies(prints)}
    if plan.suspects:
        described["set_aside"] = len(plan.suspects)
    with run.lock():
        run.claim(config, described, command)
        if plan.suspects and ranks.is_main():
            run.save_suspects(plan.suspects)
        if not run.is_finished:
            session, say = run.session(on_progress), _speaker(on_progress)
            score = None
            if kind.trains(config):
                batches = kind.batches(
                    source.samples, config, rows=train, groups=plan.groups, device=device
                )
                if history is None:
                    # Step 1 records, while it trains, the snapshots that step 2 mixes into P_Ghist.
                    history = History(run.history, config, batches.networks, device)
                    record_history(batches, history, session)
                # Step 3 trains D_TV to tell the data from P_Ghist.
                d_tv = train_detector(batches, history, session)
            source.share_unreadable()
            if ranks.is_main():
                # Companions see what D_TV does not; held-out samples put all on one scale.
                say(0, "companions")
                if kind.trains(config):
                    score = kind.fit_score(d_tv, batches, source.samples, train, config)
                    score = score.to(device).eval()
                else:
                    score = untrained_score(kind, source.samples, train, config, device)
                say(1, "scale and threshold")
                calibration = _decide(score, source, plan)
                described["unreadable"] = len(source.unreadable)  # some are found on the way
                model = Model(score, calibration, config, described)
                model = dataclasses.replace(
                    model, feature_names=source.columns, trained_on=prints[train]
                )
                model.save(run.path)
                say(2, "done")
            ranks.barrier()
    return Model.load(run.path, device)  # as it was written, the same for all processes


def as_samples(source: Source, config: Config) -> tuple[Source, Config]:
    """Return what is fitted on, and the settings: of a series, its windows and their length.

    Raises InputError for a window of images, or of a series that is shorter than it.
    """
    if source.series is not None:
        found = source.series
        return source, dataclasses.replace(config, window=found.length, stride=found.stride)
    if config.window == "auto":
        refuse_images(source)
        config = dataclasses.replace(config, window=usual_window(source.samples))
    assert isinstance(config.window, int)
    return in_windows(source, config.window, config.stride), config


def calibrate_model(
    model: Model,
    source: Source,
    false_positive_rate: float | None = None,
    confidence: float | None = None,
) -> Model:
    """Return ``model`` with threshold and p-values from new normal samples, without training.

    The scores of ``source`` replace the held-out ones; ``false_positive_rate`` and ``confidence``
    stay unless given.
    Samples that the detector was trained on look too normal to it: they are left out and counted.
    Raises ConfigError for a rate out of range, and InputError when the samples that are left are
    too few, more than a model file holds, of another shape, or have other columns.
    """
    asked = {"false_positive_rate": false_positive_rate, "confidence": confidence}
    changed: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    config = dataclasses.replace(model.config, **changed)
    validate(config)
    source = model.takes(source)
    rows = np.flatnonzero(~model.was_trained_on(source))
    n_known = len(source) - len(rows)
    if not len(rows) or source.fingerprint == model.source.get("fingerprint"):
        raise InputError(
            f"{source.description} is what the detector was trained on, and so looks too normal "
            "to it: calibrate on normal samples that it has not seen"
        )
    n = len(rows) // source.reach
    config = dataclasses.replace(config, false_positive_rate=promised_rate(config, n))
    check_number(n, config.false_positive_rate, config.confidence)
    return dataclasses.replace(
        model,
        calibration=calibrate(model.score, source.samples, rows, config, source.reach),
        config=config,
        calibration_source={**source.describe(), "known": n_known},
    )


@dataclass(frozen=True)
class _Plan:
    """What is decided before a fit: rows to train on and to hold out, and what was set aside.

    With ``folds``, all rows are trained on, and each fold is held out by a detector of the others.
    ``groups`` number what each row of ``train`` belongs to.
    """

    config: Config
    kind: Kind
    train: Rows
    groups: NDArray[np.intp]
    held_out: Rows
    folds: list[Rows]
    suspects: list[Suspect]


def _plan(
    source: Source,
    config: Config,
    history: History | None,
    prints: NDArray[np.uint8],
    known: list[Suspect],
) -> _Plan:
    """Decide on a fit; InputError or ConfigError for whatever settings, shapes and numbers tell.

    ``known`` are the suspects of a run that is continued.
    """
    validate(config)
    if source.imprecise:
        raise InputError(source.imprecise)
    # That a series repeats itself is what is normal of it: its windows are no copies.
    is_series = source.series is not None
    groups = (
        np.arange(len(source)) if is_series else groups_of(source, config.group or None, prints)
    )
    suspects = known if known and config.contamination else find_suspects(source, config)
    kept = np.setdiff1d(np.arange(len(source)), [one.row for one in suspects])
    trains = which_kind(source.samples, config).trains(config)
    reach = source.reach
    n_folds = number_of_folds(len(kept), config, trains=trains, reach=reach)
    folds: list[Rows] = []
    if n_folds > 1:
        parts = split_folds(len(kept), n_folds, config, groups[kept], reach)
        folds = [kept[rows] for rows in parts]
        train, held_out = kept, kept
        config = dataclasses.replace(config, folds=len(folds))
    else:
        train, held_out = (
            kept[rows] for rows in split_rows(len(kept), config, groups[kept], reach)
        )
    rate = promised_rate(config, len(held_out) // reach)
    config = resolve(dataclasses.replace(config, false_positive_rate=rate), len(train))
    if history is not None and as_dict(history.config) != as_dict(config):
        raise ConfigError("the history has other settings than the fit: give it those of the fit")
    kind = choose_kind(source.samples, config, train)
    return _Plan(config, kind, train, groups[train], held_out, folds, suspects)


def _decide(score: Score, source: Source, plan: _Plan) -> Calibration:
    """Put a score on its scale, and set its threshold, by samples that it was not fitted on.

    Or by folds: by what detectors of the other folds say of each.
    """
    samples, config = source.samples, plan.config
    folds = of_others(samples, plan.folds, config, score, source.reach)
    parts = list(folds) if plan.folds else [(score, plan.held_out)]
    return decide(score, samples, parts, config, source.reach)


def _speaker(on_progress: OnProgress | None) -> Callable[[int, str], None]:
    """Return what tells the listener how far the score is, of two parts, and what comes now."""

    def say(done: int, now: str) -> None:
        if on_progress is not None:
            on_progress({"step": "score", "epoch": done, "of": 2, "now": now})

    return say


def _n_copies(prints: NDArray[np.uint8]) -> int:
    """Return how many of the digests (N, 16) stand there before."""
    return len(prints) - len(np.unique(prints, axis=0))
