"""Measure what scaling rests on: Ray beside one process, and the constants of one core.

    python -m benchmarks.scaling.measure [--part ray|constants ...] [--images 50000] [--rounds 5]

Measure on a machine that has nothing else to do.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import Row, keep, parser_for, seconds_of
from benchmarks.pages import ROWS
from benchmarks.speed.scoring import make_model
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.data.decoding import decode_image
from historyad.data.folders import find_images
from historyad.data.sources import CHUNK
from historyad.deploy.many import score_dataset
from historyad.deploy.parts import Job, score_shard
from historyad.deploy.ray_cluster import cluster
from historyad.method.detector import detector_step, start_detector
from historyad.method.gan import build_gan, critic_step, generator_step, make_adam
from historyad.method.history import History
from historyad.method.networks import ImageNetworks, count_parameters
from historyad.model.model import Model

SHAPE = (1, 32, 32)  # MNIST on its grid
_FILES = 20_000  # listed
_READ_BYTES = 256 * 2**20


def main() -> None:
    """Measure the parts that are asked for."""
    parser = parser_for(__doc__, ROWS / "scaling" / "rows.jsonl")
    parser.add_argument("--part", action="append", choices=["ray", "constants"])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], Row]] = {
        "ray": lambda: measure_ray(run, arguments.images, arguments.rounds),
        "constants": lambda: measure_constants(run, arguments.rounds),
    }
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        make_model(run)
        for part in arguments.part or parts:
            row = {"part": part, "load": os.getloadavg()[0], "cores": os.cpu_count()}
            keep(arguments.out, {**row, **parts[part]()})


def measure_ray(run: Path, n_images: int, rounds: int) -> Row:
    """Score the same array with one process of all cores and with Ray, in turns.

    The seconds are those of the whole call, with a cluster that is running: starting the workers,
    loading the model and writing Parquet included.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    images = open_source("mnist:train").samples
    single, ray_seconds, worker_seconds = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "x.npy", np.resize(images, (n_images, *images.shape[1:])))
        started = time.perf_counter()
        with cluster(None):
            start_seconds = time.perf_counter() - started
            for i in range(rounds):
                job = Job(run, str(folder / "x.npy"), folder / f"one-{i}", 1)
                single.append(seconds_of(lambda job=job: score_shard(job, 0)))  # type: ignore[misc]
                job = replace(job, out=folder / f"ray-{i}", parts=0)
                started = time.perf_counter()
                parts = score_dataset(job)
                ray_seconds.append(time.perf_counter() - started)
                worker_seconds.append(sum(part.seconds for part in parts))
    return {
        "n_images": n_images,
        "cores": os.cpu_count(),
        "rounds": rounds,
        "single_seconds": single,
        "ray_seconds": ray_seconds,
        "ray_worker_seconds": worker_seconds,  # of all workers, once each has its model
        "ray_start_seconds": start_seconds,
        "ratio": float(np.median(np.array(single) / np.array(ray_seconds))),
    }


def measure_constants(run: Path, rounds: int) -> Row:
    """Return seconds of one core, bytes and bandwidths, each as a list where they vary."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Model.load(run)
        return {
            **_steps(rounds),
            **_scoring(model, rounds),
            **_files(folder),
            **_all_reduce(),
            "read_bytes_per_second": _read_rate(folder / "bytes"),
        }


def _steps(rounds: int) -> Row:
    """Return seconds of each step of the default, and the bytes of the gradients it averages."""
    config = make_config(epoch_images=50_000)
    networks = ImageNetworks.of(SHAPE, config)
    gan = build_gan(networks, config, "cpu")
    random = torch.Generator().manual_seed(0)
    real, fake = (
        torch.rand(config.batch_size, *SHAPE, generator=random)
        .mul_(2)
        .sub_(1)
        .contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder), config, networks)
        history.record(2 * config.epoch_images, gan.generator, gan.critic)
        detector = start_detector(history)
    betas = config.detector_momentum, config.detector_square_momentum
    optimizer = make_adam(detector, config.detector_learning_rate, betas)
    steps: dict[str, Callable[[], object]] = {
        "critic": lambda: critic_step(gan, real, random, config, penalised=False),
        "penalised": lambda: critic_step(gan, real, random, config, penalised=True),
        "generator": lambda: generator_step(gan, random, config),
        "detector": lambda: detector_step(detector, optimizer, real, fake, config),
    }
    return {
        "batch_size": config.batch_size,
        "step_seconds": {kind: _repeated(step, 8 * rounds) for kind, step in steps.items()},
        "gradient_bytes": {
            "critic": 4 * count_parameters(gan.critic),
            "generator": 4 * count_parameters(gan.generator),
            "detector": 4 * count_parameters(detector),
        },
    }


def _scoring(model: Model, rounds: int) -> Row:
    images = open_source("mnist:test").samples[:CHUNK]
    return {
        "score_images": len(images),
        "score_seconds": _repeated(lambda: model.anomaly_score(images), rounds),
        "image_bytes": int(images[0].nbytes),
    }


def _files(folder: Path) -> Row:
    """Return the cost of decoding one PNG of MNIST, and of listing a folder of empty files."""
    images = open_source("mnist:test").samples[:2000]
    paths = [folder / "png" / f"{i:05d}.png" for i in range(len(images))]
    (folder / "png").mkdir()
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    decode = seconds_of(lambda: [decode_image(path) for path in paths])
    size = sum(path.stat().st_size for path in paths)
    listed = folder / "listed"
    for i in range(_FILES):
        path = listed / f"{i // 1000:03d}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    seconds = seconds_of(lambda: find_images(listed))
    tracemalloc.start()
    kept = find_images(listed)
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "decode_seconds_per_image": decode / len(paths),
        "png_bytes": size / len(paths),
        "list_seconds_per_file": seconds / len(kept),
        "list_bytes_per_file": memory / len(kept),
    }


def _read_rate(path: Path) -> float:
    """Return bytes per second of one reader, after the system was told to forget the file."""
    path.write_bytes(os.urandom(2**20) * (_READ_BYTES // 2**20))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return _READ_BYTES / seconds_of(lambda: [None for _ in iter(lambda: file.read(2**22), b"")])


_REDUCE = """
import sys, time, torch, torch.distributed as dist
rank, store, n = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
def seconds(size, repeats):
    x = torch.ones(size)
    dist.all_reduce(x)
    started = time.perf_counter()
    for _ in range(repeats):
        dist.all_reduce(x)
    return (time.perf_counter() - started) / repeats
found = seconds(n, 20), seconds(1, 200)
if rank == 0:
    print(*found)
dist.destroy_process_group()
"""


def _all_reduce(n_bytes: int = 4 * 2**20) -> Row:
    """Return bandwidth and latency of averaging between two processes of this machine (gloo)."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"{folder}/store", str(n_bytes // 4)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _REDUCE, str(rank), *arguments], stdout=subprocess.PIPE
            )
            for rank in range(2)
        ]
        texts = [process.communicate(timeout=300)[0] for process in processes]
    large, small = map(float, texts[0].split())
    # A ring of two: each sends n bytes in all, in two messages.
    return {
        "reduce_bytes_per_second": n_bytes / max(large - small, math.ulp(1.0)),
        "reduce_latency_seconds": small / 2,
    }


def _repeated(call: Callable[[], object], repeats: int) -> list[float]:
    call()
    return [seconds_of(call) for _ in range(repeats)]


if __name__ == "__main__":
    main()
