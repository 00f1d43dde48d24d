"""How fast a fitted detector scores: from memory, beside onnxruntime, and from files."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.measuring import Row, seconds_of
from historyad.config import make_config
from historyad.data.datasets import open_source, open_stream
from historyad.deploy.onnx import export_onnx
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory

_CHUNK = 1024  # images between decoding and scoring, as in `historyad score`


def measure_scoring(run: Path, threads: int, rounds: int) -> Row:
    """Score 10,000 MNIST images with this library and with onnxruntime, in turns; then one."""
    torch.set_num_threads(threads)
    samples = open_source("mnist:test").samples
    with tempfile.TemporaryDirectory() as folder:
        model = Model.load(run)
        session = _session(model, Path(folder) / "model.onnx", threads)
        ratios, ours, theirs = [], [], []
        for _ in range(rounds):
            a = seconds_of(lambda: model.anomaly_score(samples))
            b = seconds_of(lambda: _onnx_scores(session, samples))
            ours.append(len(samples) / a)
            theirs.append(len(samples) / b)
            ratios.append(b / a)
        difference = np.abs(model.anomaly_score(samples) - _onnx_scores(session, samples)).max()
        batches = _differences_between_batches(model, samples[:512])
        one = [seconds_of(lambda i=i: model.anomaly_score(samples[i : i + 1])) for i in range(200)]  # type: ignore[misc]
    return {
        "rounds": rounds,
        "one_image_ms": 1000 * statistics.median(one),
        "images_per_second": statistics.median(ours),
        "images_per_second_of_rounds": ours,
        "onnxruntime_images_per_second": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "largest_difference": float(difference),
        "largest_difference_between_batches": batches,
        "onnxruntime": onnxruntime.__version__,
    }


def measure_folder(run: Path, threads: int, rounds: int) -> Row:
    """Decode 10,000 PNG files of MNIST, and decode and score them, in turns."""
    torch.set_num_threads(threads)
    samples = open_source("mnist:test").samples
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for number, image in enumerate(samples):
            Image.fromarray(image[..., 0]).save(images / f"{number:05d}.png")
        model = Model.load(run)
        decoding, scoring = [], []
        for _ in range(rounds):
            decoding.append(seconds_of(lambda: _consume(images, len)))
            scoring.append(seconds_of(lambda: _consume(images, model.anomaly_score)))
        ratios = [d / s for d, s in zip(decoding, scoring, strict=True)]
    return {
        "threads": threads,
        "rounds": rounds,
        "decoded_per_second": len(samples) / statistics.median(decoding),
        "scored_per_second": len(samples) / statistics.median(scoring),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def measure_start(run: Path, rounds: int) -> Row:
    """Start the command line: for its help, and to score one image."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.png"
        Image.fromarray(open_source("mnist:test").samples[0, ..., 0]).save(image)

        def start(*arguments: str) -> float:
            command = [sys.executable, "-m", "historyad", *arguments]
            # As a user has it: compiled modules are kept from the first start.
            keep = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
            call = partial(subprocess.run, command, check=True, capture_output=True, env=keep)
            return seconds_of(call)

        start("score", str(run), str(image))
        helps = [start("--help") for _ in range(rounds)]
        scores = [start("score", str(run), str(image)) for _ in range(rounds)]
    return {
        "rounds": rounds,
        "help_seconds": statistics.median(helps),
        "help_seconds_of_rounds": helps,
        "score_one_seconds_of_rounds": scores,
        "score_one_seconds": statistics.median(scores),
    }


def make_model(folder: Path) -> None:
    """Fit a detector of the default's size into ``folder``, full banks of neighbours included.

    How well it is trained does not change its speed, so that it is trained in a moment; and not
    compared with one that trains no network, which it would lose to.
    """
    config = make_config(epoch_images=2000, views="all")
    fit_model(open_source("mnist:train"), config, RunDirectory(folder))


def _session(model: Model, path: Path, threads: int) -> onnxruntime.InferenceSession:
    export_onnx(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _onnx_scores(
    session: onnxruntime.InferenceSession, samples: NDArray[Any], size: int = 256
) -> NDArray[Any]:
    parts = [samples[i : i + size] for i in range(0, len(samples), size)]
    return np.concatenate([session.run(None, {"images": part})[0] for part in parts])


def _differences_between_batches(model: Model, samples: NDArray[Any]) -> float:
    """Return the largest change of a score when its batch has another size."""
    together = model.anomaly_score(samples)
    worst = 0.0
    for size in (1, 3, 8, 64, 100):
        parts = [samples[i : i + size] for i in range(0, len(samples), size)]
        apart = np.concatenate([model.anomaly_score(part) for part in parts])
        worst = max(worst, float(np.abs(apart - together).max()))
    return worst


def _consume(folder: Path, use: Callable[[NDArray[Any]], Any]) -> None:
    for _, samples in open_stream(folder).chunks(_CHUNK):
        use(samples)
