"""The whole method: `fit_model` reads like the abstract, and `calibrate_model` decides anew."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from historyad import ranks
from historyad.config import Config, as_dict, validate
from historyad.constants import CONSTANTS
from historyad.data.sources import Source
from historyad.data.streams import ImageStream, in_parts
from historyad.environment import versions
from historyad.errors import ConfigError, InputError
from historyad.files import load_json
from historyad.kinds.choose import choose_kind
from historyad.kinds.kind import Kind
from historyad.method.batches import Batches
from historyad.method.detector import train_detector
from historyad.method.gan import record_history
from historyad.method.history import History, check_saves
from historyad.method.loop import SHARED_FOLDER, OnProgress, Session
from historyad.method.networks import Critic
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.model.split import split_rows
from historyad.score.calibration import Calibration, check_number
from historyad.score.score import Score

Rows = NDArray[np.intp]


def fit_model(
    source: Source,
    config: Config,
    run: RunDirectory,
    *,
    history: History | None = None,
    command: str = "",
    feature_names: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> Model:
    """Fit a model on the normal samples of ``source``, keeping everything in ``run``.

    The same call continues a run that was interrupted, and returns a finished one at once. Several
    processes (`historyad.ranks`) that all make it fit one model together, in one ``run``.
    ``on_progress`` receives a record at every save interval, as it goes to the log. With a
    ``history`` that another run has recorded from these samples, step 1 is left out: the history
    carries the settings of this fit, with the length of its epoch. The model keeps
    ``feature_names``, of the columns of vectors, for whoever scores tables.

    Raises ConfigError, InputError (too few samples) or RunError (another config, not writable, a
    training that diverged).
    """
    # What can be refused is refused before the run directory is claimed for this config.
    config, train, held_out, kind = _plan(source, config, history)
    device = ranks.choose_device(config.device)
    described = _describe(source, n_train=len(train))
    _agree(described, config)
    with run.lock() if ranks.is_main() else contextlib.nullcontext():
        _claim(run, config, described, command)
        if run.is_finished:
            return Model.load(run.path, device)
        batches = kind.batches(source.samples, config, rows=train, device=device)
        d_tv = _train(batches, config, history, run, on_progress)
        say = _speaker(on_progress)
        _share_unreadable(source)
        if not ranks.is_main():
            ranks.barrier()  # while rank 0 does the rest
            return Model.load(run.path, device)
        say(0, "companions")
        with torch.no_grad():  # companions see what D_TV does not
            score = kind.fit_score(d_tv, batches, source.samples, train, config)
            score = score.to(device).eval()
        say(1, "scale and threshold")
        calibration = _decide(score, source.samples, held_out, config)
        say(2, "done")
        described = _describe(source, n_train=len(train))
        names = tuple(map(str, feature_names))
        model = Model(score, calibration, config, described, feature_names=names)
        model.save(run.path)
        ranks.barrier()
    return model


def calibrate_model(
    model: Model, source: Source, false_positive_rate: float | None = None
) -> Model:
    """Return ``model`` with threshold and p-values from new normal samples, without training.

    The scores of ``source`` replace the held-out ones; ``false_positive_rate`` stays unless given.
    Raises ConfigError for a rate out of range, and InputError when the samples are too few, more
    than a model file holds, of another shape, or those that the detector was trained on.
    """
    rate = model.config.false_positive_rate if false_positive_rate is None else false_positive_rate
    config = Config(**{**as_dict(model.config), "false_positive_rate": rate})
    validate(config)
    check_number(len(source), rate)
    described = _describe(source)
    if described["fingerprint"] == model.source.get("fingerprint"):
        raise InputError(
            f"{source.description} is what the detector was trained on, and so looks too normal "
            "to it: calibrate on normal samples that it has not seen"
        )
    scores = _scores_of(model.score, source.samples, np.arange(len(source)))
    return dataclasses.replace(
        model,
        calibration=Calibration.fit(scores, rate),
        config=config,
        calibration_source=described,
    )


def _plan(
    source: Source, config: Config, history: History | None
) -> tuple[Config, Rows, Rows, Kind]:
    """Return the resolved config, the rows to train on and to hold out, and the kind of input.

    Raises ConfigError or InputError for whatever settings, shapes and numbers tell.
    """
    validate(config)
    if source.imprecise:
        raise InputError(source.imprecise)
    train, held_out = split_rows(len(source), Config(**as_dict(config)))
    config = _resolve(config, len(train))
    if history is None:
        check_saves(config)
    elif as_dict(history.config) != as_dict(config):
        raise ConfigError("the history has other settings than the fit: give it those of the fit")
    return config, train, held_out, choose_kind(source.samples, config, train)


def _resolve(config: Config, n_train: int) -> Config:
    """Return a plain config whose epoch has a length."""
    values = as_dict(config)
    values["epoch_images"] = values["epoch_images"] or max(n_train, CONSTANTS.smallest_epoch)
    return Config(**values)


def _claim(run: RunDirectory, config: Config, described: dict[str, Any], command: str) -> None:
    """Start the run, or find it; RunError when it is another one, or ranks see different runs."""
    if ranks.is_main():
        record = {"config": as_dict(config), "source": described}
        run.claim({**record, "versions": versions(), "command": command})
    _agree_on_run(run)


def _train(
    batches: Batches,
    config: Config,
    history: History | None,
    run: RunDirectory,
    on_progress: OnProgress | None,
) -> Critic:
    """Return D_TV after steps 1, which a ``history`` spares, and 3."""
    log = run.logger(on_progress) if ranks.is_main() else None
    session = Session(run.checkpoints, log)
    if history is None:
        # Step 1 records, while it trains, the snapshots that step 2 mixes into P_Ghist.
        history = History(run.history, config, batches.networks, batches.device)
        record_history(batches, history, session)
    # Step 3 trains D_TV to tell the data from P_Ghist.
    return train_detector(batches, history, session)


@torch.no_grad()
def _decide(score: Score, samples: NDArray[Any], held_out: Rows, config: Config) -> Calibration:
    """Put all views on one scale, and set the threshold, by samples that nothing was fitted on."""
    score.fit_scale(samples, held_out)
    return Calibration.fit(_scores_of(score, samples, held_out), config.false_positive_rate)


def _speaker(on_progress: OnProgress | None) -> Callable[[int, str], None]:
    """Return what tells the listener how far the score is, of two parts, and what comes now."""

    def say(done: int, now: str) -> None:
        if on_progress is not None:
            on_progress({"step": "score", "epoch": done, "of": 2, "now": now})

    return say


def _scores_of(score: Score, samples: NDArray[Any], rows: Rows) -> NDArray[np.float32]:
    """Score some rows of what may be on the disk."""
    return np.concatenate([score.of(part).anomaly_score for part in in_parts(samples, rows)])


def _describe(source: Source, **numbers: int) -> dict[str, Any]:
    return {
        "description": source.description,
        "fingerprint": source.fingerprint,
        "n": len(source),
        **numbers,
        "unreadable": len(source.unreadable),
    }


def _agree(described: dict[str, Any], config: Config) -> None:
    """Raise RunError when another rank was started on other data or with another config."""
    ranks.own_part(config.batch_size)
    ranks.agree(
        {
            "config": ranks.fingerprint(as_dict(config)),
            "data": described["fingerprint"],
            "split": ranks.fingerprint([described["n"], described["n_train"]]),
            "set of versions": ranks.fingerprint(versions()),
        },
        "give every process the same command and data, in the same environment",
    )


def _agree_on_run(run: RunDirectory) -> None:
    """Raise RunError unless every rank sees what rank 0 has written."""
    ranks.barrier()
    seen = load_json(run.config) if run.config.exists() else None
    ranks.agree({"run": ranks.fingerprint([seen, run.is_finished])}, SHARED_FOLDER)


def _share_unreadable(source: Source) -> None:
    """Let every rank know what others could not read of a stream, of which each sees a part."""
    if ranks.world_size() == 1 or not isinstance(source.samples, ImageStream):
        return
    found = torch.tensor(sorted(source.samples.unreadable_rows), dtype=torch.int64)
    most = int(ranks.gather(torch.tensor([len(found)])).max())
    filled = torch.full((most,), -1)
    filled[: len(found)] = found
    rows = ranks.gather(filled).unique()
    source.samples.look_at(rows[rows >= 0].tolist())
