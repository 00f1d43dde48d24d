"""How long training and scoring take on many machines, from what one core was measured to do.

A machine is so many cores like the measured one, behind a link of so many bytes a second. One
process a core: it takes its own batch of every step, and all wait for the slowest before they
average (a ring within each machine, then a ring of machines). Scoring hands out parts: whoever is
free takes the next. Times of steps and of chunks are drawn from the measured ones.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import Row
from historyad.config import make_config
from historyad.method.history import recorded_interval

_DRAWS = 400  # of a step of all processes
_KINDS = ("critic", "penalised", "generator", "detector")
_NETWORK = {"penalised": "critic"}  # whose gradients a kind of step averages, else its own


@dataclass(frozen=True)
class Kind:
    """A kind of machine."""

    name: str
    cores: int
    link_bytes_per_second: float


@dataclass(frozen=True)
class Estimate:
    """What a task takes: hours of the clock, and shares of the time."""

    machines: int
    hours: float
    communication: float  # share of the time in which processes wait for the network
    waiting: float  # share in which they wait for the slowest among them

    @property
    def machine_hours(self) -> float:
        """Hours of all machines together."""
        return self.machines * self.hours


def steps_of_a_fit(n_images: int, processes: int) -> dict[str, int]:
    """Return how many steps of each kind the default takes on ``n_images`` training images."""
    config = make_config(epoch_images=n_images)
    together = config.batch_size * processes
    critic = round(recorded_interval(config)[1] * n_images / together)
    penalised = critic // config.penalty_interval
    return {
        "critic": critic - penalised,
        "penalised": penalised,
        "generator": critic // config.critic_steps,
        "detector": round(config.detector_epochs * n_images / together),
    }


def simulate_training(row: Row, kind: Kind, machines: int, n_images: int) -> Estimate:
    """Return what a fit on ``n_images`` takes on so many machines of a kind."""
    random = np.random.default_rng(0)
    processes = kind.cores * machines
    counts = steps_of_a_fit(n_images, processes)
    slowest = mean = network = 0.0
    for step in _KINDS:
        seconds = np.array(row["step_seconds"][step])
        drawn = random.choice(seconds, (_DRAWS, processes)) if processes > 1 else seconds[:, None]
        slowest += counts[step] * float(drawn.max(axis=1).mean())
        mean += counts[step] * float(drawn.mean())
        n_bytes = row["gradient_bytes"][_NETWORK.get(step, step)]
        network += counts[step] * averaging_seconds(row, kind, machines, n_bytes)
    total = slowest + network
    return Estimate(machines, total / 3600, network / total, (slowest - mean) / total)


def averaging_seconds(row: Row, kind: Kind, machines: int, n_bytes: float) -> float:
    """Return the seconds of one average over all processes."""
    seconds = 0.0
    for n, rate in (
        (kind.cores, row["reduce_bytes_per_second"]),
        (machines, min(kind.link_bytes_per_second, row["reduce_bytes_per_second"])),
    ):
        # Each of n in a ring sends 2 (n - 1) messages of 1/n of the bytes.
        seconds += 2 * (n - 1) * (n_bytes / n / rate + row["reduce_latency_seconds"])
    return seconds


def simulate_scoring(
    row: Row, kind: Kind, machines: int, n_images: int, *, files: bool, parts: int = 10_000
) -> Estimate:
    """Return what scoring ``n_images`` takes: of an array, or of one PNG file for each."""
    random = np.random.default_rng(0)
    workers = kind.cores * machines
    n_bytes = row["png_bytes"] if files else row["image_bytes"]
    chunk = np.array(row["score_seconds"]) / row["score_images"]
    if files:
        chunk = chunk + row["decode_seconds_per_image"]
    # What a machine's link delivers is shared by its cores.
    compute = chunk.mean()
    read = n_bytes * kind.cores / min(kind.link_bytes_per_second, _disk(row, kind))
    of_a_part = _parts(random, chunk, n_images, parts, row["score_images"])
    ends = [0.0] * workers
    for seconds in of_a_part * max(1.0, read / compute):
        heapq.heappush(ends, heapq.heappop(ends) + float(seconds))
    busy = float(of_a_part.sum()) / workers
    total = max(ends)
    return Estimate(
        machines, total / 3600, max(0.0, 1 - compute / read), 1 - min(1.0, busy / total)
    )


def _disk(row: Row, kind: Kind) -> float:
    """Return what the cores of a machine read together if each reads as fast as the measured."""
    return float(row["read_bytes_per_second"]) * kind.cores


def _parts(
    random: np.random.Generator, chunk: NDArray[Any], n_images: int, parts: int, size: int
) -> NDArray[Any]:
    """Return the seconds of each part, the sum of chunks whose times are drawn at random."""
    n_chunks = max(1, round(n_images / parts / size))
    if n_chunks < 64:
        drawn = random.choice(chunk, (parts, n_chunks)).mean(axis=1)
    else:  # the mean of many draws is normal
        drawn = random.normal(chunk.mean(), chunk.std() / n_chunks**0.5, parts)
    return np.asarray(drawn * (n_images / parts))
