"""What the history held: a film strip or clouds, and how the detector scores its samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from historyad.data.sources import Source
from historyad.judge import charts
from historyad.judge.report.pictures import as_picture, data_uri
from historyad.method.history import History, effective_snapshots
from historyad.model.model import Model
from historyad.randomness import Stream, torch_generator

Array = NDArray[Any]

_FRESH = 2**40  # position of history samples that no training comes to
_HISTORY_SAMPLES = 2000
_STRIP_COLUMNS, _STRIP_ROWS = 10, 6
_CLOUDS, _CLOUD_POINTS = 6, 300


def history_of(history: History, model: Model, train: Source | None) -> dict[str, Any]:
    """Return what was recorded, how much of it is flagged, and what it looks like."""
    pictures = model.kind.networks_see_pictures
    return {
        "strip": _film_strip(history) if pictures else None,
        "clouds": None if pictures else _clouds(history, model, train),
        "scores": _scores_of(history.sample(_HISTORY_SAMPLES, _FRESH), model),
        "snapshots": len(history),
        "effective": effective_snapshots(history.weights),
        "first": float(history.times[0]),
        "last": float(history.times[-1]),
    }


def _scores_of(samples: Array, model: Model) -> dict[str, Any] | None:
    """Return how samples of the history are scored; None where a score is of larger images."""
    scores = model.score.of_prepared(samples)
    if scores is None:
        return None
    drawn = charts.densities(
        "history",
        "Distribution of the scores of held-out normal samples and of samples of the history",
        model.calibration.scores,
        scores,
        ("held-out normals", "history"),
        model.calibration.threshold,
    )
    flagged = float(model.calibration.is_anomalous(scores).mean())
    return {"densities": drawn, "n": len(scores), "flagged": flagged}


def _film_strip(history: History) -> dict[str, Any]:
    """Return one picture: the same latents, one a row, through the snapshots, in columns."""
    columns = _spread(len(history), _STRIP_COLUMNS)
    cumulated = np.cumsum(history.weights)
    frames = [as_picture(_same_latents(history, int(index), _STRIP_ROWS)) for index in columns]
    side = frames[0].shape[1]
    cell = side + max(1, side // 16)
    strip = np.zeros((_STRIP_ROWS * cell, len(frames) * cell, 4), np.uint8)  # transparent gaps
    for x, frame in enumerate(frames):
        for y, image in enumerate(frame):
            place = strip[y * cell : y * cell + side, x * cell : x * cell + side]
            place[..., :3], place[..., 3] = image, 255
    return {
        "picture": data_uri(Image.fromarray(strip)),
        "columns": [(float(history.times[i]), float(cumulated[i])) for i in columns],
    }


def _clouds(history: History, model: Model, train: Source | None) -> charts.Chart:
    """Return the same latents through the snapshots, in the plane where the last vary most.

    The plane is that of the training samples, which lie behind, when they are given.
    """
    columns = _spread(len(history), _CLOUDS)
    frames = [_same_latents(history, int(index), _CLOUD_POINTS) for index in columns]
    behind = None
    if train is not None and not model.kind.is_picture:  # of which networks see parts
        rows = _spread(len(train), _CLOUD_POINTS)
        behind = model.kind.prepare(train.samples[rows])
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
    made = history.load_generator(index)(latents.to(history.device))
    return history.networks.at_rest(made)


def _spread(n: int, most: int) -> Array:
    """Return at most ``most`` of n positions, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
