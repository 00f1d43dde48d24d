"""One HTML file about a run: readable on a phone, printable, without network, safe to pass on."""

from __future__ import annotations

import base64
import io
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from historyad import __version__, charts
from historyad.batches import from_float, to_float
from historyad.config import PRESETS, Config, as_dict, settings
from historyad.errors import ConfigError, InputError
from historyad.evaluation import judge
from historyad.history import History, effective_snapshots, recorded_interval
from historyad.model import Model
from historyad.probe import probe_model
from historyad.randomness import Stream, torch_generator
from historyad.sources import Source
from historyad.storage import RunDirectory, load_json, write_atomic

Array = NDArray[Any]
Section = dict[str, Any] | None  # what the template shows; None is left out

_FRESH = 2**40  # position of history samples that no training comes to
_HISTORY_SAMPLES = 2000
_CHUNK = 1024  # samples scored at a time
_STRIP_COLUMNS, _STRIP_ROWS = 10, 6
_CLOUDS, _CLOUD_POINTS = 6, 300
_HIGHEST = 24  # training samples shown
_SLIDER_SCORES = 1000  # quantiles that stand for the scores behind the slider
_THUMBNAIL = 160  # pixels
_IN_MEMORY = re.compile(r"array \(.*\) of \w+|\w+ of \d+ samples")  # what `datasets` calls these


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

    ``train`` is the source it was fitted on, whose highest-scoring samples are shown: InputError
    when it is another. With ``normal`` and ``anomalous`` samples, the errors are shown at any
    threshold. Normal samples of either kind are damaged to show what the detector sees. What the
    directory does not hold, a log or a history, is left out. ConfigError when the extra ``report``
    is not installed.
    """
    _require_extra()
    if (normal is None) != (anomalous is None):
        raise InputError("give both normal and anomalous samples, or neither")
    if train is not None and train.fingerprint != model.source.get("fingerprint"):
        raise InputError(
            f"{train.description} is not what the detector was trained on, "
            f"{model.source.get('description')}: give that source, unchanged"
        )
    directory = RunDirectory(run)
    history = History(directory.history, model.config, model.preprocessing.network_shape)
    record = load_json(directory.config) if directory.config.exists() else {}
    page = {
        "run": str(run),
        "version": __version__,
        "command": command,
        "fit_command": record.get("command") or _fit_command(model, run),
        "versions": record.get("versions", {}),
        "model": model.describe(),
        "settings": _settings(model),
        "training": _training(directory.read_log(), model.config),
        "history": _history(history, model, train) if len(history) else None,
        "decision": _decision(model),
        "probe": _probe(model, train if normal is None else normal),
        "trial": None if normal is None or anomalous is None else _trial(model, normal, anomalous),
        "pixelated": max(model.preprocessing.input_shape) <= 64,
        "highest": None if train is None else _highest(model, train),
    }
    write_atomic(out, _render(page).encode())


def _require_extra() -> None:
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"a report needs {error.name}: pip install 'historyad[report]'"
        ) from error


def _render(page: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Whatever comes from a user, as names of files do, is escaped.
    environment = Environment(
        loader=PackageLoader("historyad"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(page)


# --- what was trained


def _settings(model: Model) -> dict[str, Any]:
    """Return the preset that is nearest to the model's settings, what differs, and all of them."""
    preset, changed = _nearest_preset(model)
    every = [(name, value, settings()[name].metadata["help"]) for name, value in _values(model)]
    return {"preset": preset, "changed": changed, "all": every}


def _nearest_preset(model: Model) -> tuple[str, list[tuple[str, Any, Any]]]:
    """Return the name of a preset and, for each setting that differs, (name, value, preset's)."""
    differences = {}
    for preset, overrides in PRESETS.items():
        plain = {**as_dict(Config()), **overrides}
        differences[preset] = [
            (name, value, plain[name]) for name, value in _values(model) if value != plain[name]
        ]
    nearest = min(differences, key=lambda preset: (len(differences[preset]), preset != "default"))
    return nearest, differences[nearest]


def _values(model: Model) -> list[tuple[str, Any]]:
    """Return the model's settings, (name, value), as they were given."""
    values = as_dict(model.config)
    if values["epoch_images"] == max(model.source.get("n_train", 0), 50_000):
        values["epoch_images"] = 0  # what 0 stands for
    return list(values.items())


def _fit_command(model: Model, run: Path) -> str | None:
    """Return a command that fits the like, or None where no SOURCE names the data."""
    preset, changed = _nearest_preset(model)
    options = [f"--{name.replace('_', '-')}={value}" for name, value, _ in changed]
    source = str(model.source.get("description", "SOURCE"))
    if _IN_MEMORY.fullmatch(source):
        return None
    return shlex.join(["historyad", "fit", source, "--out", str(run), "--preset", preset, *options])


def _training(records: list[dict[str, Any]], config: Config) -> Section:
    """Return the curves of steps 1 and 3, if there is a log."""
    gan = [record for record in records if record["step"] == "gan"]
    detector = [record for record in records if record["step"] == "detector"]
    if not gan or not detector:
        return None
    return {
        "wasserstein": charts.curve(
            "wasserstein",
            "Wasserstein distance between data and generator over the epochs of step 1",
            np.array([record["epoch"] for record in gan]),
            np.array([record["wasserstein_distance"] for record in gan]),
            ("epoch of step 1", "Wasserstein distance"),
            span=recorded_interval(config),
        ),
        "total_variation": charts.curve(
            "total-variation",
            "Estimated total variation between data and history over the epochs of step 3",
            np.array([record["epoch"] for record in detector]),
            np.array([record["total_variation"] for record in detector]),
            ("epoch of step 3", "total variation"),
        ),
        "last_wasserstein": gan[-1]["wasserstein_distance"],
        "last_total_variation": detector[-1]["total_variation"],
        "seconds": _seconds([record["seconds"] for record in records]),
    }


def _seconds(clock: list[float]) -> float:
    """Return the time in all of a clock that starts again wherever a run was continued."""
    return sum(now for now, later in pairwise([*clock, 0.0]) if later < now)


# --- the history


def _history(history: History, model: Model, train: Source | None) -> dict[str, Any]:
    scores = _scores_of_history(history.sample(_HISTORY_SAMPLES, _FRESH), model)
    held_out = model.calibration.scores
    is_image = model.preprocessing.kind == "image"
    return {
        "strip": _film_strip(history) if is_image else None,
        "clouds": None if is_image else _clouds(history, model, train),
        "densities": charts.densities(
            "history",
            "Distribution of the scores of held-out normal samples and of samples of the history",
            held_out,
            scores,
            ("held-out normals", "history"),
            model.calibration.threshold,
        ),
        "snapshots": len(history),
        "effective": effective_snapshots(history.weights),
        "first": float(history.times[0]),
        "last": float(history.times[-1]),
        "n": len(scores),
        "flagged": float((scores > model.calibration.threshold).mean()),
    }


@torch.inference_mode()
def _scores_of_history(samples: Array, model: Model) -> Array:
    """Score what the networks see already, as `Model.anomaly_score` scores what a source holds."""
    device = next(model.detector.parameters()).device
    parts = np.split(samples, range(_CHUNK, len(samples), _CHUNK))
    return np.concatenate([model.detector(to_float(p, device)).cpu().numpy() for p in parts])


def _film_strip(history: History) -> dict[str, Any]:
    """Return one picture: the same latents, one a row, through the snapshots, in columns."""
    columns = _spread(len(history), _STRIP_COLUMNS)
    cumulated = np.cumsum(history.weights)
    frames = [_picture(_same_latents(history, int(index), _STRIP_ROWS)) for index in columns]
    side = frames[0].shape[1]
    cell = side + max(1, side // 16)
    strip = np.zeros((_STRIP_ROWS * cell, len(frames) * cell, 4), np.uint8)  # transparent gaps
    for x, frame in enumerate(frames):
        for y, image in enumerate(frame):
            place = strip[y * cell : y * cell + side, x * cell : x * cell + side]
            place[..., :3], place[..., 3] = image, 255
    return {
        "picture": _data_uri(Image.fromarray(strip)),
        "columns": [(float(history.times[i]), float(cumulated[i])) for i in columns],
    }


def _clouds(history: History, model: Model, train: Source | None) -> charts.Chart:
    """Return the same latents through the snapshots, in the plane where the last vary most.

    The plane is that of the training samples, which lie behind, when they are given.
    """
    columns = _spread(len(history), _CLOUDS)
    frames = [_same_latents(history, int(index), _CLOUD_POINTS) for index in columns]
    behind = None
    if train is not None:
        rows = _spread(len(train), _CLOUD_POINTS)
        behind = model.preprocessing(train.samples[rows])
    reference = frames[-1] if behind is None else behind
    center = reference.mean(0)
    axes = np.linalg.svd(reference - center, full_matrices=False)[2][:2]
    if len(axes) < 2:
        axes = np.vstack([axes, np.zeros_like(axes)])
    return charts.scatters(
        "clouds",
        "Samples of the generator at several times, from the same latents",
        [f"t = {history.times[i]:.2f}" for i in columns],
        [(cloud - center) @ axes.T for cloud in frames],
        None if behind is None else (behind - center) @ axes.T,
    )


@torch.inference_mode()
def _same_latents(history: History, index: int, n: int) -> Array:
    """Return what the generator of a snapshot makes of always the same latents."""
    random = torch_generator(history.config.seed, Stream.HISTORY, _FRESH)
    latents = torch.randn(n, history.config.latent_dim, generator=random)
    return from_float(history.load_generator(index)(latents.to(history.device)))


def _spread(n: int, most: int) -> Array:
    """Return at most ``most`` of n positions, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


# --- decisions


def _decision(model: Model) -> dict[str, Any]:
    """Return what the threshold is worth, given how many held-out samples it was set on."""
    from scipy.stats import beta

    rate, n = model.calibration.false_positive_rate, len(model.calibration.scores)
    # The threshold is the m-th highest of n scores, above which lies Beta(m, n + 1 - m) of a
    # continuous law.
    m = int((model.calibration.p_value(model.calibration.scores) <= rate).sum()) + 1
    low, high = beta.ppf([0.025, 0.975], m, n + 1 - m)
    return {"smallest_p": 1 / (n + 1), "low": float(low), "high": float(high)}


def _trial(model: Model, normal: Source, anomalous: Source) -> dict[str, Any]:
    """Return figures and charts of the scores of samples whose labels are known."""
    negatives, positives = _scores(model, normal), _scores(model, anomalous)
    threshold = model.calibration.threshold
    n_false, n_found = int((negatives > threshold).sum()), int((positives > threshold).sum())
    at = {
        "falsePositives": n_false / len(negatives),
        "found": n_found / len(positives),
        "precision": n_found / max(1, n_false + n_found),
    }
    drawn = {
        "trial": charts.densities(
            "trial",
            "Distribution of the scores of normal and of anomalous samples",
            negatives,
            positives,
            ("normal", "anomalous"),
            threshold,
        ),
        **_rates(negatives, positives, at),
        "uniformity": charts.uniformity(
            "uniformity",
            "Distribution of the p-values of normal samples against the uniform one",
            model.calibration.p_value(negatives),
            len(model.calibration.scores),
        ),
    }
    return {
        **judge(negatives, positives),
        "at": at,
        "names": (normal.description, anomalous.description),
        "reused": was_used(normal, model),
        "charts": drawn,
        "slider": _slider(model.calibration.threshold, at, negatives, positives, drawn),
    }


def was_used(source: Source, model: Model) -> bool:
    """Whether the detector was fitted or calibrated on these samples, and so finds them normal."""
    used = (model.source, model.calibration_source or {})
    return source.fingerprint in {one.get("fingerprint") for one in used}


def _rates(negatives: Array, positives: Array, at: dict[str, float]) -> dict[str, charts.Chart]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    y = np.repeat([0, 1], [len(negatives), len(positives)])
    fpr, tpr, _ = roc_curve(y, np.concatenate([negatives, positives]))
    precision, recall, _ = precision_recall_curve(y, np.concatenate([negatives, positives]))
    return {
        "roc": charts.rates(
            "roc",
            "Share of anomalies found against the share of normals called anomalous",
            fpr,
            tpr,
            ("false positives", "anomalies found"),
            (at["falsePositives"], at["found"]),
        ),
        "precision-recall": charts.rates(
            "precision-recall",
            "Precision against the share of anomalies found",
            recall,
            precision,
            ("anomalies found", "precision"),
            (at["found"], at["precision"]),
        ),
    }


def _slider(
    threshold: float,
    at: dict[str, float],
    normal: Array,
    anomalous: Array,
    drawn: dict[str, charts.Chart],
) -> dict[str, Any]:
    """Return what the page's script needs to show the errors at any threshold."""
    low, high = charts.score_range(normal, anomalous, threshold)
    return {
        "low": low,
        "high": high,
        "threshold": threshold,
        "own": at,
        "normal": _quantiles(normal),
        "anomalous": _quantiles(anomalous),
        "counts": [len(normal), len(anomalous)],
        "scales": {name: chart.scale for name, chart in drawn.items()},
    }


def _quantiles(scores: Array) -> list[float]:
    """Return sorted scores, or as many quantiles as a slider can tell apart."""
    if len(scores) > _SLIDER_SCORES:
        scores = np.quantile(scores, (np.arange(_SLIDER_SCORES) + 0.5) / _SLIDER_SCORES)
    return [round(float(score), 5) for score in np.sort(scores)]


def _probe(model: Model, normal: Source | None) -> Section:
    """Return which damage to normal samples the detector sees."""
    if normal is None:
        return None
    found = probe_model(model, normal.samples)
    return {
        "name": normal.description,
        "n": found["n_samples"],
        "power": found["power"],
        "curves": [
            {**curve, "cells": list(zip(curve["strengths"], curve["rate"], strict=True))}
            for curve in found["corruptions"]
        ],
    }


# --- training samples


def _highest(model: Model, train: Source) -> list[dict[str, Any]]:
    """Return the training samples that look most anomalous."""
    scores = _scores(model, train)
    highest = np.argsort(-scores, kind="stable")[:_HIGHEST]
    p_values = model.calibration.p_value(scores[highest])
    return [
        {
            "name": train.names[row],
            "label": None if train.labels is None else int(train.labels[row]),
            "score": float(scores[row]),
            "p_value": float(p_value),
            "picture": _thumbnail(train.samples[row]) if train.kind == "image" else None,
        }
        for row, p_value in zip(highest.tolist(), p_values, strict=True)
    ]


def _scores(model: Model, source: Source) -> Array:
    return np.concatenate([model.anomaly_score(chunk) for _, chunk in source.chunks(_CHUNK)])


# --- pictures


def _picture(images: Array) -> Array:
    """Return images (..., C) as ones that can be shown, (..., 3); others than colour as grey."""
    if images.shape[-1] != 3:
        images = images.mean(-1, keepdims=True).round().astype(np.uint8)
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def _thumbnail(image: Array) -> str:
    picture = Image.fromarray(np.ascontiguousarray(_picture(image)))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return _data_uri(picture)


def _data_uri(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
