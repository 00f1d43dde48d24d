"""Score what one process cannot, on Ray Data: all parts of a source, on one machine or many.

Ray hands out numbers of parts, never pixels: each of its actors reads a part where it scores it,
and writes it there, as `historyad.deploy.parts` does. Ray replaces an actor that dies, and gives
its part to another.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from historyad.data.image_sources import Wanted, open_files
from historyad.data.named_sets import SETS
from historyad.data.shards import printable
from historyad.data.sources import Source
from historyad.data.streams import FolderFiles
from historyad.data.tables import Roles
from historyad.deploy.parts import Job, OnOpen, Part, claim, load_part, open_for_parts, score_part
from historyad.deploy.ray_cluster import cluster
from historyad.errors import HistoryADError, RunError
from historyad.files import load_json
from historyad.model.model import Model
from historyad.ranks import choose_device

_ATTEMPTS = 3  # at a part whose actor died: Ray Data itself would try for ever
_LEAST_ROWS, _MOST_PARTS = 2048, 10_000  # of a part, and of a source: small parts, not too many


def score_dataset(
    job: Job,
    *,
    address: str | None = None,
    actors: int = 0,
    device: str = "auto",
    on_part: Callable[[Part], None] | None = None,
    on_open: OnOpen | None = None,
) -> list[Part]:
    """Score the parts of ``job`` that are missing, on Ray Data; return what became of all parts.

    ``address`` is that of a cluster, HOST:PORT, whose machines have this package and find ``run``,
    ``source`` and ``out`` under the same paths; without it, Ray runs on this machine alone. Each of
    ``actors`` processes loads the model once; 0 takes one for each accelerator or, where there is
    none, one for each core. With ``job.parts`` 0, a new folder gets parts of 2,048 samples, or
    10,000 parts where that would be more. ``on_part`` is told of every part as it is finished,
    ``on_open`` of the samples of all.

    Raises RunError when the cluster cannot be reached, within 10 seconds, and when a part ended its
    actor three times; other errors are those of `score_shard`. Finished parts are kept.
    """
    job = _absolute(job)
    model = Model.load(job.run)
    samples = open_for_parts(job, model)
    if on_open is not None:
        on_open(samples)
    job = replace(job, parts=job.parts or number_of_parts(job.out, len(samples)))
    claim(job, model, samples)
    missing = [part for part in range(job.parts) if not job.path(part).exists()]
    for part in missing:  # those of an earlier call say nothing about this one
        job.attempts_path(part).unlink(missing_ok=True)
    if missing:
        with cluster(address):
            for part in _scored(job, samples, missing, actors, device):
                if on_part is not None:
                    on_part(load_part(job, part))
    return [load_part(job, part) for part in range(job.parts)]


def _absolute(job: Job) -> Job:
    """Return ``job`` with paths that mean the same in any process."""
    source = job.source
    if source.partition(":")[0] not in SETS:
        source = str(Path(source).expanduser().absolute())
    root = job.data_root and job.data_root.absolute()
    return replace(
        job, run=job.run.absolute(), source=source, out=job.out.absolute(), data_root=root
    )


def number_of_parts(out: Path, n_samples: int) -> int:
    """Return in how many parts a folder was begun, or how many a new one gets."""
    if (out / "_parts.json").exists():
        with suppress(KeyError, TypeError, ValueError):
            return max(1, int(load_json(out / "_parts.json")["parts"]))
    return min(_MOST_PARTS, math.ceil(n_samples / _LEAST_ROWS))


def _scored(job: Job, samples: Source, parts: list[int], actors: int, device: str) -> Iterator[int]:
    """Yield each of ``parts`` once it is scored, as they are finished."""
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False  # who is told of parts shows it
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    items = [_item(job, samples, part) for part in parts]
    finished = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ScoreParts,
        batch_size=1,
        **_resources(job, actors, len(items), device),
    )
    try:
        for row in finished.iter_rows():
            if row["error"]:
                raise RunError(row["error"])
            yield int(row["part"])
    except ray.exceptions.RayTaskError:  # a mistake of ours
        raise
    except ray.exceptions.RayError as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise RunError(
            f"Ray gave up ({reason}): finished parts are kept, and the same command continues"
        ) from error


def _item(job: Job, samples: Source, part: int) -> dict[str, Any]:
    """Return what an actor has to know of a part: all but a folder is cheap to open anew."""
    files = getattr(samples.samples, "files", None)
    if isinstance(files, FolderFiles) and Path(job.source).is_dir():
        return {"part": part, "files": files.part(job.range_of(part, len(samples)))}
    return {"part": part}


def _resources(job: Job, actors: int, n_parts: int, device: str) -> dict[str, Any]:
    """Return what the actors are and get."""
    import ray

    actors, threads, gpus = workers(actors, n_parts, device)
    return {
        "fn_constructor_args": (job, threads, device),
        "compute": ray.data.ActorPoolStrategy(size=actors),
        "num_cpus": threads,
        "num_gpus": gpus,
    }


def workers(actors: int, most: int, device: str) -> tuple[int, int, float | None]:
    """Return how many actors there are, at ``most`` so many, and what each of them gets.

    A number of threads and, where there are any, accelerators: all of the cluster together.
    """
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = int(found.get("CPU", 1))
    gpus = 0 if device == "cpu" else int(found.get("GPU", 0))
    actors = min(actors or gpus or cpus, most)
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    cores = max(int(node["Resources"].get("CPU", 0)) for node in nodes)  # that one can have
    return actors, max(1, min(cores, cpus // actors)), min(1.0, gpus / actors) or None


class ScoreParts:
    """What an actor of Ray Data calls for each part, in a process of its own."""

    def __init__(self, job: Job, threads: int, device: str) -> None:
        self._job, self._device = job, device
        torch.set_num_threads(threads)
        threadpool_limits(threads)

    # Loaded with the first part and not in __init__, whose errors could not be told.
    @cached_property
    def _model(self) -> Model:
        return Model.load(self._job.run, choose_device(self._device))

    @cached_property
    def _samples(self) -> Source:
        return open_for_parts(self._job, self._model)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Score the part that ``batch``, of one row, names; return its number and no error.

        An error that a user can mend is returned as text: Ray keeps no more of an exception.
        """
        error = ""
        try:
            self._score(int(batch["part"][0]), *batch.get("files", ()))
        except HistoryADError as found:
            error = printable(str(found))
        return {"part": batch["part"], "error": np.array([error])}

    def _score(self, part: int, files: FolderFiles | None = None) -> None:
        attempts = self._job.attempts_path(part)
        _count_attempt(attempts, part)
        if files is None:
            samples = self._samples
            here = self._job.range_of(part, len(samples))
        else:
            channels = self._job.channels or self._model.channels
            wanted = Wanted(Roles(), True, self._model.kind.grid, channels)
            samples = open_files(files, self._job.source, wanted)
            here = slice(0, len(files))
        score_part(self._job, part, self._model, samples, here)
        attempts.unlink(missing_ok=True)


def _count_attempt(path: Path, part: int) -> None:
    """Note that a process begins a part; RunError when too many have died of it."""
    with path.open("a+") as file:
        file.seek(0)
        n_before = len(file.readlines())
        file.write(f"{os.getpid()}\n")
    if n_before >= _ATTEMPTS:
        raise RunError(
            f"part {part} ended its worker {n_before} times, perhaps for want of memory or by a "
            "damaged file: take fewer --actors, or look for the sample. Finished parts are kept"
        )
