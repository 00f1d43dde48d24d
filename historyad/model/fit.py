"""The whole method: `fit_model` reads like the abstract, and `calibrate_model` decides anew."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from historyad.config import Config, as_dict, validate
from historyad.data.sources import Source
from historyad.data.streams import ImageStream, in_parts
from historyad.environment import versions
from historyad.errors import ConfigError, InputError
from historyad.files import load_json
from historyad.kinds.preprocessing import Preprocessing
from historyad.method import ranks as distributed
from historyad.method.batches import Batches, Crops, parse_augmentations
from historyad.method.detector import Detector, Score, train_detector
from historyad.method.gan import train_gan
from historyad.method.history import History, check_saves
from historyad.method.loop import SHARED_FOLDER, OnProgress
from historyad.method.networks import choose_device
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.randomness import Stream, numpy_generator
from historyad.score.calibration import Calibration, check_number, samples_needed
from historyad.score.patches import PatchViews, fit_patch_scale, fit_patch_views
from historyad.score.views import fit_views, raw_views

_SMALLEST_EPOCH = 50_000  # images; a few hundred are seen many times before t moves on
_FEWEST_TRAINING_SAMPLES = 2
_HELD_OUT_BLOCKS = 30  # enough to see every part of a folder that is sorted by kind
_MOST_HELD_OUT = 10_000  # more would hardly move the threshold, and are better trained on


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
    processes (`historyad.method.ranks`) that all make it fit one model together, in one ``run``.
    ``on_progress`` receives a record at every save interval, as it goes to the log. With a
    ``history`` that another run has recorded from these samples, step 1 is left out: the history
    carries the settings of this fit, with the length of its epoch. The model keeps
    ``feature_names``, of the columns of vectors, for whoever scores tables.

    Raises ConfigError, InputError (too few samples) or RunError (another config, not writable, a
    training that diverged).
    """
    config, train, held_out = _plan(source, config, history)
    # What can be refused is refused before the run directory is claimed for this config.
    device = choose_device(config.device)
    described = _describe(source, n_train=len(train))
    _agree(described, config)
    with run.lock() if distributed.is_main() else contextlib.nullcontext():
        _claim(run, config, described, command)
        if run.is_finished:
            return Model.load(run.path, device)
        batches, prepare = _batches(source, config, train, device)
        detector = _train(batches, config, history, run, on_progress)
        _share_unreadable(source)
        if not distributed.is_main():
            distributed.barrier()  # while rank 0 does the rest
            return Model.load(run.path, device)
        # Companions see what D_TV does not; held-out samples put all on one scale.
        scored, scores = _fit_score(detector, batches, source.samples, held_out, prepare, config)
        calibration = Calibration.fit(scores, config.false_positive_rate)
        described = _describe(source, n_train=len(train))
        names = tuple(map(str, feature_names))
        model = Model(scored, prepare, calibration, config, described, feature_names=names)
        model.save(run.path)
        distributed.barrier()
    return model


def _plan(
    source: Source, config: Config, history: History | None
) -> tuple[Config, NDArray[np.intp], NDArray[np.intp]]:
    """Return the resolved config and the rows to train on and to hold out.

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
    if config.patch:  # of whole images or vectors, nothing is refused
        _prepare(source, config, train)
    parse_augmentations(config.augment, source.kind)
    return config, train, held_out


def _claim(run: RunDirectory, config: Config, described: dict[str, Any], command: str) -> None:
    """Start the run, or find it; RunError when it is another one, or ranks see different runs."""
    if distributed.is_main():
        record = {"config": as_dict(config), "source": described}
        run.claim({**record, "versions": versions(), "command": command})
    _agree_on_run(run)


def _prepare(source: Source, config: Config, train: NDArray[np.intp]) -> Preprocessing:
    if config.patch:
        return Preprocessing.of_crops(source.samples, config.patch, config.scales, config.contrast)
    return Preprocessing.fit(source.samples, config.image_size, train)


def _batches(
    source: Source, config: Config, train: NDArray[np.intp], device: torch.device
) -> tuple[Batches, Preprocessing]:
    prepare = _prepare(source, config, train)
    batches = (Crops if config.patch else Batches)(
        source.samples,
        prepare=prepare,
        seed=config.seed,
        rows=train,
        augment=config.augment,
        device=device,
    )
    return batches, prepare


def _train(
    batches: Batches,
    config: Config,
    history: History | None,
    run: RunDirectory,
    on_progress: OnProgress | None,
) -> Detector:
    """Return D_TV after steps 1, which a ``history`` spares, and 3."""
    log = _logger(run, on_progress) if distributed.is_main() else None
    if history is None:
        # Step 1 records, while it trains, the snapshots that step 2 mixes into P_Ghist.
        history = History(run.history, config, batches.shape, batches.device)
        train_gan(batches, history, checkpoint=run.gan_checkpoint, on_progress=log)
    # Step 3 trains D_TV to tell the data from P_Ghist.
    return train_detector(batches, history, checkpoint=run.detector_checkpoint, on_progress=log)


def _fit_score(
    detector: Detector,
    batches: Batches,
    samples: NDArray[Any],
    held_out: NDArray[np.intp],
    prepare: Preprocessing,
    config: Config,
) -> tuple[Score, NDArray[np.float32]]:
    """Return what gives the score, and the scores of the held-out rows of ``samples``."""
    if isinstance(batches, Crops):
        # The same at every place of an image, whose score is that of its worst places.
        patches = (
            PatchViews(detector, config.scales)
            if config.views == "history"
            else fit_patch_views(detector, batches, config.seed)
        ).to(batches.device)
        fit_patch_scale(patches, samples, held_out, prepare)
        score: Score = patches
    elif config.views == "all":
        views = fit_views(detector, batches)
        raw = _score_rows(partial(raw_views, views, prepare=prepare), samples, held_out)
        return views, views.fit_scale(raw)
    else:
        score = detector
    return score, _score_rows(partial(score.anomaly_scores, prepare=prepare), samples, held_out)


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
    scores = _score_rows(model.anomaly_score, source.samples, np.arange(len(source)))
    return dataclasses.replace(
        model,
        calibration=Calibration.fit(scores, rate),
        config=config,
        calibration_source=described,
    )


def _score_rows(
    score: Callable[[NDArray[Any]], NDArray[np.float32]],
    samples: NDArray[Any],
    rows: NDArray[np.intp],
) -> NDArray[np.float32]:
    """Score some rows of what may be on the disk."""
    return np.concatenate([score(part) for part in in_parts(samples, rows)])


def split_rows(n: int, config: Config) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to train on and those to hold out; InputError when they are too few."""
    needed = samples_needed(config.false_positive_rate)
    n_held_out = min(round(config.calibration_share * n), max(_MOST_HELD_OUT, needed))
    if n_held_out < needed or n - n_held_out < _FEWEST_TRAINING_SAMPLES:
        share = config.calibration_share
        smallest = max(needed / share, (_FEWEST_TRAINING_SAMPLES + 0.5) / (1 - share))
        raise InputError(
            f"{n} sample{'s' * (n != 1)} are too few: a false-positive rate of "
            f"{config.false_positive_rate:g} needs {needed} held-out samples, and "
            f"calibration_share = {share:g} holds out {n_held_out}. Give about "
            f"{int(smallest) + 1} normal samples, or raise calibration_share or false_positive_rate"
        )
    held_out = _blocks(n, n_held_out, numpy_generator(config.seed, Stream.SPLIT))
    is_held_out = np.zeros(n, np.bool_)
    is_held_out[held_out] = True
    return np.flatnonzero(~is_held_out), held_out


def _blocks(n: int, size: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Return ``size`` of ``n`` rows in blocks, one at a random place in each equal stretch of them.

    Samples that were stored together are often related: digits of one writer, parts of one batch.
    Held out one by one, they would find their relatives among the training samples and look more
    normal than what will come, from other writers and batches.
    """
    n_blocks = min(_HELD_OUT_BLOCKS, size)
    stretches = np.array_split(np.arange(n), n_blocks)
    sizes = [len(part) for part in np.array_split(np.arange(size), n_blocks)]
    starts = [random.integers(len(s) - m + 1) for s, m in zip(stretches, sizes, strict=True)]
    parts = [s[at : at + m] for s, m, at in zip(stretches, sizes, starts, strict=True)]
    return np.concatenate(parts)


def _resolve(config: Config, n_train: int) -> Config:
    """Return a plain config whose epoch has a length."""
    values = as_dict(config)
    values["epoch_images"] = values["epoch_images"] or max(n_train, _SMALLEST_EPOCH)
    return Config(**values)


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
    distributed.own_part(config.batch_size)
    distributed.agree(
        {
            "config": distributed.fingerprint(as_dict(config)),
            "data": described["fingerprint"],
            "split": distributed.fingerprint([described["n"], described["n_train"]]),
            "set of versions": distributed.fingerprint(versions()),
        },
        "give every process the same command and data, in the same environment",
    )


def _agree_on_run(run: RunDirectory) -> None:
    """Raise RunError unless every rank sees what rank 0 has written."""
    distributed.barrier()
    seen = load_json(run.config) if run.config.exists() else None
    distributed.agree({"run": distributed.fingerprint([seen, run.is_finished])}, SHARED_FOLDER)


def _share_unreadable(source: Source) -> None:
    """Let every rank know what others could not read of a stream, of which each sees a part."""
    if distributed.world_size() == 1 or not isinstance(source.samples, ImageStream):
        return
    found = torch.tensor(sorted(source.samples.unreadable_rows), dtype=torch.int64)
    most = int(distributed.gather(torch.tensor([len(found)])).max())
    filled = torch.full((most,), -1)
    filled[: len(found)] = found
    rows = distributed.gather(filled).unique()
    source.samples.look_at(rows[rows >= 0].tolist())


def _logger(run: RunDirectory, on_progress: OnProgress | None) -> OnProgress:
    """Return a callback that logs a record, unless it is there from before an interruption."""
    started = time.monotonic()
    run.mend_log()
    logged = {(record["step"], record["images_seen"]) for record in run.read_log()}

    def log(record: dict[str, Any]) -> None:
        record = {**record, "seconds": round(time.monotonic() - started, 3)}
        if (record["step"], record["images_seen"]) not in logged:
            run.append_log(record)
        if on_progress is not None:
            on_progress(record)

    return log
