"""How time and memory of a fit grow with the number of images and of snapshots."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import Row, peak_memory_mb
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory


def fit_many(file: Path, saves_per_epoch: int, threads: int) -> Row:
    """Fit the quick preset on the images of a memory-mapped ``file``."""
    torch.set_num_threads(threads)
    # An epoch as long as the set, as in the default: the work is to grow.
    config = make_config("quick", saves_per_epoch=saves_per_epoch, epoch_images=0)
    source = open_source(file)
    before = peak_memory_mb()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fit_model(source, config, RunDirectory(Path(folder) / "run"))
    seconds = time.perf_counter() - started
    return {
        "n_images": len(source),
        "saves_per_epoch": saves_per_epoch,
        "threads": threads,
        "fit_seconds": seconds,
        "peak_memory_mb": peak_memory_mb(),
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
