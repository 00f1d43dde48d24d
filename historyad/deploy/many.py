"""Score what one machine cannot: a source in parts, by hand (``--shard i/n``) or on Ray Data.

Part i of n is the samples from ``i N // n`` up to ``(i + 1) N // n``, in the source's order. A part
that is there is not scored again, so that whatever is interrupted continues with the same command.
Ray hands out numbers of parts, never pixels: each actor reads a part where it scores it, and writes
it there.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from historyad.data.columns import align
from historyad.data.datasets import open_stream
from historyad.data.named_sets import SETS
from historyad.data.shards import printable
from historyad.data.sources import CHUNK, Folder, Source
from historyad.data.streams import ImageStream
from historyad.deploy.parts import (
    Columns,
    Job,
    Part,
    claim,
    load_part,
    number_of_parts,
    save_part,
)
from historyad.deploy.ray_cluster import cluster
from historyad.errors import HistoryADError, InputError, RunError
from historyad.model.model import Model
from historyad.ranks import choose_device
from historyad.score.result import FIGURES

_ATTEMPTS = 3  # at a part whose worker was killed


def score_chunk(
    model: Model, names: Sequence[str], samples: NDArray[Any], *, view_scores: bool = False
) -> Columns:
    """Return the columns of the rows of some samples: what `historyad score` says of each.

    ``path`` (N,) str, ``anomaly_score`` float32, ``p_value`` float64, ``is_anomalous`` bool and,
    with ``view_scores``, one float32 column for each view.
    """
    found = model(samples, views=view_scores)
    paths = np.array([printable(name) for name in names], dtype=object)
    return {"path": paths, **found.columns()}


def column_names(model: Model, *, view_scores: bool = False) -> tuple[str, ...]:
    """Return the names of the columns of `score_chunk`."""
    return ("path", *FIGURES, *(model.view_names if view_scores else ()))


OnOpen = Callable[[Source | Folder], None]


def score_shard(
    job: Job, shard: int, *, device: str = "auto", on_open: OnOpen | None = None
) -> Part:
    """Score one part of ``job`` in this process, unless it is there; return what became of it.

    ``on_open`` is told of the samples of all parts.

    Raises InputError for a shard that does not exist and for a source that cannot be opened, and
    RunError when the folder holds the scores of something else.
    """
    if not 0 <= shard < job.parts:
        raise InputError(
            f"there is no shard {shard}/{job.parts}: they are 0/{job.parts} to "
            f"{job.parts - 1}/{job.parts}"
        )
    model = Model.load(job.run, choose_device(device))
    samples = _open(job, model)
    if on_open is not None:
        on_open(samples)
    claim(job, samples, column_names(model, view_scores=job.view_scores))
    return _score_part(job, model, samples, job.range_of(shard, len(samples)), shard)


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
    none, one for each core. A worker that dies is replaced, and its part scored again. With
    ``job.parts`` 0, a new folder gets parts of 2,048 samples, or 10,000 parts where that would be
    more. ``on_part`` is told of every part as it is finished, ``on_open`` of the samples of all.

    Raises RunError when the cluster cannot be reached, within 10 seconds, and when a part killed
    its worker three times; other errors are those of `score_shard`. Finished parts are kept.
    """
    model = Model.load(job.run)
    samples = _open(job, model)
    if on_open is not None:
        on_open(samples)
    job = _absolute(replace(job, parts=job.parts or number_of_parts(job.out, len(samples))))
    claim(job, samples, column_names(model, view_scores=job.view_scores))
    missing = [part for part in range(job.parts) if not job.path(part).exists()]
    for part in missing:  # those of an earlier call say nothing about this one
        job.attempts_path(part).unlink(missing_ok=True)
    if missing:
        with cluster(address):
            _score_on_ray(job, _items(job, samples, missing), actors, device, on_part)
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


def _items(job: Job, samples: Source | Folder, parts: list[int]) -> list[dict[str, Any]]:
    """Return what an actor has to know of each part: all but a folder is cheap to open anew."""
    items: list[dict[str, Any]] = [{"part": part} for part in parts]
    if isinstance(samples, Folder):
        for item in items:
            here = job.range_of(item["part"], len(samples))
            # Quoted, since Ray takes only text that is UTF-8, and names need not be.
            item["names"] = [
                quote(samples.name_of(path), errors="surrogateescape")
                for path in samples.paths[here]
            ]
            item["closed"] = json.dumps([] if here.start else list(samples.closed))
    return items


def _score_on_ray(
    job: Job,
    items: list[dict[str, Any]],
    actors: int,
    device: str,
    on_part: Callable[[Part], None] | None,
) -> None:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False  # `on_part` tells
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = int(found.get("CPU", 1))
    gpus = 0 if device == "cpu" else int(found.get("GPU", 0))
    actors = min(actors or gpus or cpus, len(items))
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    most = max(int(node["Resources"].get("CPU", 0)) for node in nodes)  # that an actor can have
    threads = max(1, min(most, cpus // actors))
    finished = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        PartActor,
        fn_constructor_args=(job, threads, device),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=threads,
        num_gpus=min(1.0, gpus / actors) or None,
    )
    try:
        for row in finished.iter_rows():
            if row["error"]:
                raise RunError(row["error"])
            if on_part is not None:
                on_part(load_part(job, int(row["part"])))
    except ray.exceptions.RayTaskError:  # a mistake of ours
        raise
    except ray.exceptions.RayError as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise RunError(
            f"Ray gave up ({reason}): finished parts are kept, and the same command continues"
        ) from error


class PartActor:
    """An actor of Ray Data: scores one part after the other in a process of its own."""

    def __init__(self, job: Job, threads: int, device: str) -> None:
        self._job, self._device = job, device
        torch.set_num_threads(threads)
        threadpool_limits(threads)

    # Loaded with the first part and not in __init__, whose errors could not be told.
    @cached_property
    def _model(self) -> Model:
        return Model.load(self._job.run, choose_device(self._device))

    @cached_property
    def _samples(self) -> Source | Folder:
        return _open(self._job, self._model)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Score the part that ``batch``, of one row, names; return its number and no error.

        An error that a user can mend is returned as text: Ray keeps no more of an exception.
        """
        try:
            self._score(int(batch["part"][0]), batch)
            error = ""
        except HistoryADError as found:
            error = printable(str(found))
        return {"part": batch["part"], "error": np.array([error])}

    def _score(self, part: int, batch: dict[str, NDArray[Any]]) -> None:
        attempts = self._job.attempts_path(part)
        _count_attempt(attempts, part)
        if "names" in batch:
            samples: Source | Folder = self._folder(batch)
            here = slice(0, len(samples))
        else:
            samples = self._samples
            here = self._job.range_of(part, len(samples))
        _score_part(self._job, self._model, samples, here, part)
        attempts.unlink(missing_ok=True)

    def _folder(self, batch: dict[str, NDArray[Any]]) -> Folder:
        """Return the folder of the images that ``batch``, of one row, names."""
        root = Path(self._job.source)
        return Folder(
            root,
            [root / unquote(name, errors="surrogateescape") for name in batch["names"][0]],
            self._job.source,
            self._model.kind.grid,
            self._job.channels,
            closed=[(name, reason) for name, reason in json.loads(batch["closed"][0])],
        )


def _count_attempt(path: Path, part: int) -> None:
    """Note that a process begins a part; RunError when too many have died of it.

    Ray restarts a worker that was killed as often as it takes, which may be for ever.
    """
    with path.open("a+") as file:
        file.seek(0)
        n_before = len(file.readlines())
        file.write(f"{os.getpid()}\n")
    if n_before >= _ATTEMPTS:
        raise RunError(
            f"part {part} ended its worker {n_before} times, perhaps for want of memory or by a "
            "damaged file: take fewer --actors, or look for the sample. Finished parts are kept"
        )


# --- a part


def _open(job: Job, model: Model) -> Source | Folder:
    samples = open_stream(
        job.source,
        data_root=job.data_root,
        mixed=model.kind.grid,
        channels=job.channels or model.channels,
        id_column=job.id_column,
    )
    if isinstance(samples, Source):
        samples = align(samples, model.feature_names)
    if isinstance(samples, Source) and not isinstance(samples.samples, ImageStream):
        # Of one shape: all of it can be scored, or nothing.
        model.kind.check(tuple(samples.samples.shape[1:]))
    return samples


def _score_part(job: Job, model: Model, samples: Source | Folder, here: slice, number: int) -> Part:
    """Score the rows ``here`` of ``samples`` into the files of a part, unless they are there."""
    if job.path(number).exists():
        return load_part(job, number)
    started = time.perf_counter()
    rows = here.start, here.stop
    chunks = [
        score_chunk(model, names, some, view_scores=job.view_scores)
        for names, some in samples.chunks(CHUNK, *rows, check=model.kind.check)
    ]
    names = column_names(model, view_scores=job.view_scores)
    columns = {
        name: np.concatenate([np.empty(0, _type_of(name)), *(chunk[name] for chunk in chunks)])
        for name in names
    }
    part = Part(
        number,
        len(columns["path"]),
        int(columns["is_anomalous"].sum()),
        samples.unreadable_in(*rows),
        time.perf_counter() - started,
        os.getpid(),
    )
    save_part(job, part, columns)
    return part


def _type_of(column: str) -> type:
    types = {"path": object, "p_value": np.float64, "is_anomalous": np.bool_}
    return types.get(column, np.float32)
