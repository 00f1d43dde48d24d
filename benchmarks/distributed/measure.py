"""Measure training in several processes and from shards: the rows behind docs/distributed.md.

    python -m benchmarks.distributed.measure [--part memory] [--sizes 60000 1000000]

`memory` writes MNIST, each repetition shifted by one more pixel, into tar shards in a temporary
folder, fits a few steps on them in a process of its own, and notes the peak of its memory. Each row
is appended to --out and printed. Steps of several processes, `measure_processes`, are timed by
`python -m benchmarks.speed.measure --part processes`.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.measuring import Row, in_own_process, keep, parser_for, peak_memory_mb
from benchmarks.pages import ROWS
from historyad import ranks as distributed
from historyad.config import Config, make_config
from historyad.data.datasets import open_source
from historyad.kinds.choose import choose_kind
from historyad.method.batches import Batches
from historyad.method.detector import detector_step
from historyad.method.gan import build_gan, critic_step, generator_step, make_adam
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory
from historyad.randomness import Stream, torch_generator

SHARD_IMAGES = 10_000


def main() -> None:
    """Measure the parts that are asked for."""
    parser = parser_for(__doc__, ROWS / "distributed" / "rows.jsonl")
    parser.add_argument("--part", action="append", choices=PARTS, help="all when none is named")
    parser.add_argument("--sizes", type=int, nargs="+", default=[60_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for part in arguments.part or PARTS:
        for measured in PARTS[part](arguments):
            row = {"part": part, "seed": arguments.seed, **measured}
            keep(arguments.out, {**row, "load_average": os.getloadavg()[0]})


# --- steps


def measure_processes(batch_size: int, rounds: int, seed: int = 1) -> list[Row]:
    """Time steps of one process, of two that share a batch, and of two with half a batch each.

    The last do not talk: no group is faster than they are. Ratios are of throughput, one for each
    round; times are medians.
    """
    ways = {"one": (1, 1), "two": (2, 1), "apart": (2, 2)}
    found: dict[str, list[Row]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (size, parts) in ways.items():  # in turns, since other work comes and goes
            found[way].append(_time_group(size, batch_size // parts, seed, talks=parts == 1))
    rows = []
    for step in ("step1", "step3"):
        seconds = {way: np.array([row[step]["seconds"] for row in found[way]]) for way in ways}
        ratios = {way: seconds["one"] / seconds[way] for way in ("two", "apart")}
        shares = [row[step]["communication"] / row[step]["seconds"] for row in found["two"]]
        rows.append(
            {
                "step": step,
                "batch_size": batch_size,
                "rounds": rounds,
                "one_process_ms": 1000 * float(np.median(seconds["one"])),
                "two_processes_ms": 1000 * float(np.median(seconds["two"])),
                "throughput_ratio": float(np.median(ratios["two"])),
                "ratios": ratios["two"].tolist(),
                "without_talking": float(np.median(ratios["apart"])),
                "communication_share": float(np.median(shares)),
            }
        )
    return rows


def _time_group(size: int, batch_size: int, seed: int, *, talks: bool = True) -> Row:
    """Return what rank 0 of a new group of ``size`` processes measured."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        queue = context.SimpleQueue()
        ranks = [
            context.Process(
                target=_time_rank,
                args=(rank, size if talks else 1, f"{folder}/store", batch_size, seed, queue),
            )
            for rank in range(size)
        ]
        for process in ranks:
            process.start()
        row: Row = queue.get()
        for process in ranks:
            process.join()
    return row


def _time_rank(rank: int, size: int, store: str, batch_size: int, seed: int, queue: Any) -> None:
    torch.set_num_threads(1)
    communication = [0.0]
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        _clock(communication)
    config = make_config(seed=seed, batch_size=batch_size)
    images = open_source("mnist:train").samples
    batches = choose_kind(images, config).batches(images, config)
    n_steps = 20 if batch_size < 256 else 12
    found = {
        name: _time(take_step, n_steps, communication)
        for name, take_step, n_steps in (
            ("step1", _step_of_gan(config, batches), n_steps),
            ("step3", _step_of_detector(config, batches), n_steps),
        )
    }
    if rank == 0:
        queue.put(found)
    if size > 1:
        dist.destroy_process_group()


def _clock(communication: list[float]) -> None:
    """Add up the time that this process spends in sums over all ranks, waiting included."""
    add_up = distributed.add_up

    def clocked(values: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        add_up(values)
        communication[0] += time.perf_counter() - started
        return values

    distributed.add_up = clocked


def _time(take_step: Any, n_steps: int, communication: list[float]) -> Row:
    """Return the mean seconds of a step, and of communication in it, after a warm-up."""
    for number in range(4):
        take_step(number)
    distributed.barrier()
    communication[0] = 0.0
    started = time.perf_counter()
    for number in range(n_steps):
        take_step(number)
    seconds = time.perf_counter() - started
    return {"seconds": seconds / n_steps, "communication": communication[0] / n_steps}


def _step_of_gan(config: Config, batches: Batches) -> Any:
    """Return a critic step with its share of penalties and generator steps, as `gan_step`."""
    gan, size = build_gan(batches.networks, config, "cpu"), config.batch_size
    part = distributed.own_part(size)

    def take_step(number: int) -> None:
        random = torch_generator(config.seed, Stream.GAN, number * size)
        real = batches.at(number * size, size, part)
        penalised = number % config.penalty_interval == 0
        critic_step(gan, real, random, config, penalised=penalised)
        if (number + 1) % config.critic_steps == 0:
            generator_step(gan, random, config)

    return take_step


def _step_of_detector(config: Config, batches: Batches) -> Any:
    detector = batches.networks.critic()
    betas = config.detector_momentum, config.detector_square_momentum
    optimizer, size = make_adam(detector, config.detector_learning_rate, betas), config.batch_size
    part = distributed.own_part(size)

    def take_step(number: int) -> None:
        real, other = (batches.at(n * size, size, part) for n in (number, number + 1000))
        detector_step(detector, optimizer, real, other, config)

    return take_step


# --- memory


def _memory(arguments: argparse.Namespace) -> Iterator[Row]:
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            in_own_process(write_shards, Path(folder), size)
            yield in_own_process(_fit_briefly, Path(folder), arguments.seed)


def write_shards(folder: Path, n_images: int) -> None:
    """Write ``n_images`` PGM files into tar files; each repetition of MNIST is shifted by one."""
    images = open_source("mnist:train").samples
    height, width = images.shape[1:3]
    header = f"P5 {width} {height} 255\n".encode()
    for shard, start in enumerate(range(0, n_images, SHARD_IMAGES)):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for number in range(start, min(start + SHARD_IMAGES, n_images)):
                turn, row = divmod(number, len(images))
                content = header + np.roll(images[row], turn, axis=1).tobytes()
                member = tarfile.TarInfo(f"{number:08}.pgm")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them


def _fit_briefly(folder: Path, seed: int) -> Row:
    torch.set_num_threads(1)
    config = make_config("quick", seed=seed, epoch_images=6400, n_epochs=1.5, detector_epochs=0.5)
    started = time.perf_counter()
    source = open_source(folder)
    opened = time.perf_counter()
    with tempfile.TemporaryDirectory() as run:
        fit_model(source, config, RunDirectory(run))
    return {
        "n_images": len(source),
        "shard_mb": sum(shard.stat().st_size for shard in folder.iterdir()) / 1e6,
        "open_seconds": opened - started,
        "fit_seconds": time.perf_counter() - opened,
        "peak_memory_mb": peak_memory_mb(),
    }


PARTS = {"memory": _memory}

if __name__ == "__main__":
    main()
