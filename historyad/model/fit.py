"""The whole method: `fit_model` reads like the abstract, and `calibrate_model` decides anew."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np

from historyad import progress, ranks
from historyad.config import Config, validate
from historyad.data.digests import firsts
from historyad.data.sources import Source
from historyad.errors import ConfigError, InputError
from historyad.method.detector import train_detector
from historyad.method.gan import record_history
from historyad.method.history import History
from historyad.method.loop import OutOfTimeError
from historyad.model.making import Making
from historyad.model.model import Model
from historyad.model.phases import IMITATE, SUSPECTS, TELL, weights_of
from historyad.model.plan import plan_fit
from historyad.model.run import RunDirectory
from historyad.model.split import counting_copies, promised_rate
from historyad.score.calibration import check_number
from historyad.score.decide import decide_anew


def fit_model(
    source: Source,
    config: Config,
    run: RunDirectory,
    *,
    history: History | None = None,
    command: str = "",
    seconds: float = math.inf,
    on_progress: progress.Listener | None = None,
) -> Model:
    """Fit a model on the normal samples of ``source``, keeping everything in ``run``.

    The same call continues a run that was interrupted, and returns a finished one at once. Several
    processes (`historyad.ranks`) that all make it fit one model together, in one ``run``.
    ``on_progress`` is told how far the fit is, as `historyad.progress` says, and of every save
    interval what goes to the log. With a ``history`` that another run has
    recorded from these samples, step 1 is left out: the history carries the settings of this fit,
    with the length of its epoch.

    Before a network is trained, a detector that trains none is saved: ``run`` has a model from then
    on, whatever becomes of the training. The trained one replaces it where ``config.views`` asks
    for D_TV and, with "auto" on images seen whole, unless it tells less of damaged held-out samples
    from those that are not. What has not ended after ``seconds`` is stopped, and the first is
    returned; the same call continues.

    Copies of a sample, and samples that ``config.group`` or a column of groups says belong
    together, are all trained on or all held out, or in one fold. The model keeps the names of
    columns, and a digest of each sample that it was trained on. With ``config.contamination``, the
    most suspicious samples are set aside before anything else, and listed in the run.

    Raises ConfigError, InputError (too few samples) or RunError (another config, not writable, a
    training that diverged).
    """
    with progress.watching(on_progress if ranks.is_main() else None):
        return _fit(source, config, run, history, command, seconds)


def _fit(
    source: Source,
    config: Config,
    run: RunDirectory,
    history: History | None,
    command: str,
    seconds: float,
) -> Model:
    started = time.monotonic()
    # What can be refused is refused before the run directory is claimed for this config.
    _check_time(seconds, config)
    device = ranks.choose_device(config.device)
    if config.contamination:
        progress.opening(SUSPECTS)
    plan = plan_fit(source, config, history, run.read_suspects())
    with run.lock(), plan.kind.remembering():
        run.claim(plan.config, plan.describe(), command, plan.suspects)
        if not run.is_finished:
            phases = progress.Phases(weights_of(plan))
            making = Making(plan, run, device, phases)
            if not plan.kind.trains(plan.config):
                making.untrained()
            else:
                stop_at = making.first(started + seconds)
                session = run.session(stop_at)
                batches = plan.batches(device)
                try:
                    if history is None:
                        phases.begin(IMITATE)
                        # Step 1 records, while it trains, the snapshots that step 2 mixes into
                        # P_Ghist.
                        history = History(run.history, plan.config, batches.networks, device)
                        record_history(batches, history, session)
                    phases.begin(TELL)
                    # Step 3 trains D_TV to tell the data from P_Ghist.
                    d_tv = train_detector(batches, history, session)
                except OutOfTimeError:
                    return Model.load(run.path, device)
                making.trained(d_tv, batches)
            ranks.barrier()
    return Model.load(run.path, device)  # as it was written, the same for all processes


def calibrate_model(
    model: Model,
    source: Source,
    false_positive_rate: float | None = None,
    confidence: float | None = None,
) -> Model:
    """Return ``model`` with threshold and p-values from new normal samples, without training.

    The views are standardised by them, too, where they are at least 30. The scores of ``source``
    replace the held-out ones; ``false_positive_rate`` and ``confidence``
    stay unless given. Samples that the detector was trained on look too normal to it: they are left
    out and counted.
    Raises ConfigError for a rate out of range, and InputError when the samples that are left are
    too few, more than a model file holds, of another shape, or have other columns.
    """
    asked = {"false_positive_rate": false_positive_rate, "confidence": confidence}
    changed: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    config = dataclasses.replace(model.config, **changed)
    validate(config)
    source = model.takes(source)
    is_new = ~model.was_trained_on(source)
    n_known = len(source) - int(is_new.sum())
    rows = np.flatnonzero(is_new)
    if source.series is None:
        rows = np.intersect1d(rows, firsts(source.digests))  # of copies, one counts
    if not len(rows) or source.fingerprint == model.source.get("fingerprint"):
        raise InputError(
            f"{source.description} is what the detector was trained on, and so looks too normal "
            "to it: calibrate on normal samples that it has not seen"
        )
    n = len(rows) // source.reach
    with counting_copies(int(is_new.sum()), len(rows)):
        config = dataclasses.replace(config, false_positive_rate=promised_rate(config, n))
        check_number(n, config.false_positive_rate, config.confidence)
    score, calibration = decide_anew(model.score, source.samples, rows, config, source.reach)
    return dataclasses.replace(
        model,
        score=score,
        calibration=calibration,
        config=config,
        calibration_source={**source.describe(), "known": n_known},
    )


def _check_time(seconds: float, config: Config) -> None:
    """Raise ConfigError where a fit cannot be stopped and leave a detector."""
    if seconds == math.inf:
        return
    if config.views == "history":
        raise ConfigError(
            "views is 'history', and before its training has ended there is no detector: leave out "
            "the time, or take views all"
        )
    if ranks.world_size() > 1:
        raise ConfigError("several processes fit together: leave out the time")
