"""How time and memory of a fit grow with the number of images."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import Row, peak_memory_mb
from benchmarks.speed.fits import Phases
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.data.sources import CHUNK
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory

_SCORED = 100_000  # images, at most


def fit_many(file: Path, threads: int) -> Row:
    """Fit the quick preset on the images of a memory-mapped ``file``.

    Its epochs have a length of their own, so that the training is the same and what grows is what
    is done for each image.
    """
    torch.set_num_threads(threads)
    config = make_config("quick")
    phases = Phases()
    source = open_source(file)
    before = peak_memory_mb()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = fit_model(source, config, RunDirectory(Path(folder) / "run"), on_progress=phases)
    seconds = time.perf_counter() - started
    peak, n = peak_memory_mb(), len(source)
    started = time.perf_counter()
    found = [len(model.anomaly_score(part)) for _, part in source.chunks(CHUNK, 0, min(n, _SCORED))]
    return {
        "score_ms": 1000 * (time.perf_counter() - started) / sum(found),
        "phases": dict(phases.seconds),
        "fit_seconds": seconds,
        "peak_memory_mb": peak,
        "peak_memory_before_mb": before,
    }


def write_images(file: Path, n_images: int) -> None:
    """Write ``n_images`` of MNIST to a .npy; each repetition is shifted by one more pixel."""
    images = open_source("mnist:train").samples
    shape = (n_images, *images.shape[1:])
    stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    for turn, start in enumerate(range(0, n_images, len(images))):
        part = images[: n_images - start]
        stored[start : start + len(part)] = np.roll(part, turn, axis=2)
    stored.flush()
