"""Score what one machine cannot: a source in parts, by hand (``--shard i/n``) or on Ray Data.

Part i of n is the samples from ``i N // n`` up to ``(i + 1) N // n``, in the source's order. Its
file gets its name when it is complete, and a part that is there is not scored again, so that
whatever is interrupted continues with the same command. Ray hands out numbers of parts, never
pixels: each actor reads a part where it scores it, and writes it there. ::

    OUT/_parts.json                            what is scored, with which model, in how many parts
    OUT/part-00003-of-00010.parquet            or .csv, .jsonl: the rows of `historyad score`
    OUT/_part-00003-of-00010.json              its counts, and what had to be set aside, by name

Readers of Parquet folders skip names that start with an underscore or a dot.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from historyad.console import open_table
from historyad.datasets import Batch, Folder, Source, open_stream
from historyad.errors import HistoryADError, InputError, RunError
from historyad.images import Pixels, decode_many
from historyad.model import Model
from historyad.named_sets import SETS
from historyad.networks import choose_device
from historyad.storage import load_json, save_json

FileFormat = Literal["parquet", "csv", "jsonl"]
Columns = dict[str, NDArray[Any]]

CHUNK = 1024  # samples scored between two reads or writes
_LEAST_ROWS, _MOST_PARTS = 2048, 10_000  # of a part, and of a source: small parts, not too many
_PROBE_SECONDS = 8.0
_ATTEMPTS = 3  # at a part whose worker was killed


def score_chunk(
    model: Model, names: Sequence[str], samples: NDArray[Any], *, view_scores: bool = False
) -> Columns:
    """Return the columns of the rows of some samples: what `historyad score` says of each.

    ``path`` (N,) str, ``anomaly_score`` float32, ``p_value`` float64, ``is_anomalous`` bool and,
    with ``view_scores``, one float32 column for each view.
    """
    if view_scores:
        scores, views = model.scores_and_views(samples)
    else:
        scores, views = model.anomaly_score(samples), {}
    columns: Columns = {
        "path": np.array(names, dtype=object),
        "anomaly_score": scores,
        "p_value": model.calibration.p_value(scores),
        "is_anomalous": scores > model.calibration.threshold,
    }
    return {**columns, **views}


def column_names(model: Model, *, view_scores: bool = False) -> tuple[str, ...]:
    """Return the names of the columns of `score_chunk`."""
    base = ("path", "anomaly_score", "p_value", "is_anomalous")
    return (*base, *(model.view_names if view_scores else ()))


def rows_of(columns: Columns) -> Iterator[dict[str, Any]]:
    """Yield the rows of columns, as JSON can hold them."""
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, values, strict=True))


@dataclass(frozen=True)
class Part:
    """What became of one part: counts, and the (name, reason) of what was set aside."""

    number: int
    scored: int
    anomalous: int
    unreadable: list[tuple[str, str]]
    seconds: float
    process: int  # the id of the one that scored it


@dataclass(frozen=True)
class Job:
    """What is scored, into which folder, and in how many parts."""

    run: Path
    source: str
    out: Path
    parts: int
    data_root: Path | None = None
    view_scores: bool = False
    file_format: FileFormat = "parquet"

    def path(self, part: int) -> Path:
        """Return the name that a finished part has."""
        return self.out / f"part-{part:05d}-of-{self.parts:05d}.{self.file_format}"

    def summary_path(self, part: int) -> Path:
        """Return the name of the file that says what became of a part."""
        return self.out / f"_part-{part:05d}-of-{self.parts:05d}.json"

    def attempts_path(self, part: int) -> Path:
        """Return the name of the list of processes that began a part, kept until it is there."""
        return self.out / f".attempts-{part:05d}"

    def range_of(self, part: int, n_samples: int) -> slice:
        """Return which samples belong to a part."""
        return slice(part * n_samples // self.parts, (part + 1) * n_samples // self.parts)


def score_shard(job: Job, shard: int, *, device: str = "auto") -> Part:
    """Score one part of ``job`` in this process, unless it is there; return what became of it.

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
    _claim(job, model, samples)
    return _score_part(job, model, _slice(samples, job.range_of(shard, len(samples))), shard)


def score_dataset(
    job: Job,
    *,
    address: str | None = None,
    actors: int = 0,
    device: str = "auto",
    on_part: Callable[[Part], None] | None = None,
) -> list[Part]:
    """Score the parts of ``job`` that are missing, on Ray Data; return what became of all parts.

    ``address`` is that of a cluster, HOST:PORT, whose machines have this package and find ``run``,
    ``source`` and ``out`` under the same paths; without it, Ray runs on this machine alone. Each of
    ``actors`` processes loads the model once; 0 takes one for each accelerator or, where there is
    none, one for each core. A worker that dies is replaced, and its part scored again. With
    ``job.parts`` 0, a new folder gets parts of 2,048 samples, or 10,000 parts where that would be
    more. ``on_part`` is told of every part as it is finished.

    Raises RunError when the cluster cannot be reached, within 10 seconds, and when a part killed
    its worker three times; other errors are those of `score_shard`. Finished parts are kept.
    """
    model = Model.load(job.run)
    samples = _open(job, model)
    job = _absolute(replace(job, parts=job.parts or _number_of_parts(job.out, len(samples))))
    _claim(job, model, samples)
    missing = [part for part in range(job.parts) if not job.path(part).exists()]
    for part in missing:  # those of an earlier call say nothing about this one
        job.attempts_path(part).unlink(missing_ok=True)
    if missing:
        with cluster(address):
            _score_on_ray(job, _items(job, samples, missing), actors, device, on_part)
    return [_load_part(job, part) for part in range(job.parts)]


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
            item["names"] = [_name(path, samples) for path in samples.paths[here]]
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
        Scorer,
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
                on_part(_load_part(job, int(row["part"])))
    except ray.exceptions.RayTaskError:  # a mistake of ours
        raise
    except ray.exceptions.RayError as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise RunError(
            f"Ray gave up ({reason}): finished parts are kept, and the same command continues"
        ) from error


class Scorer:
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
            self._score(int(batch["part"][0]), batch.get("names"))
            error = ""
        except HistoryADError as found:
            error = str(found)
        return {"part": batch["part"], "error": np.array([error])}

    def _score(self, part: int, names: NDArray[Any] | None) -> None:
        attempts = self._job.attempts_path(part)
        _count_attempt(attempts, part)
        if names is not None:
            root = Path(self._job.source)
            paths = [root / name for name in names[0]]
            samples: Source | Folder = Folder(root, paths, self._job.source, _grid(self._model))
        else:
            samples = _slice(self._samples, self._job.range_of(part, len(self._samples)))
        _score_part(self._job, self._model, samples, part)
        attempts.unlink(missing_ok=True)


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
    samples = open_stream(job.source, data_root=job.data_root, mixed=_grid(model))
    if isinstance(samples, Source):  # of one shape: all of it can be scored, or nothing
        model.preprocessing.check(tuple(samples.samples.shape[1:]))
    return samples


def _grid(model: Model) -> int | None:
    return model.preprocessing.side if model.preprocessing.any_size else None


def _slice(samples: Source | Folder, here: slice) -> Source | Folder:
    if isinstance(samples, Folder):
        return replace(samples, paths=samples.paths[here], unreadable=[])
    return replace(samples, samples=samples.samples[here], names=samples.names[here])


def _score_part(job: Job, model: Model, samples: Source | Folder, number: int) -> Part:
    """Score ``samples`` into the files of a part, unless they are there."""
    if job.path(number).exists():
        return _load_part(job, number)
    started = time.perf_counter()
    unreadable: list[tuple[str, str]] = []
    chunks = [
        score_chunk(model, names, some, view_scores=job.view_scores)
        for names, some in _chunks(samples, model, unreadable)
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
        unreadable,
        time.perf_counter() - started,
        os.getpid(),
    )
    # The summary first: where the part is, both are.
    with _publishing(job.summary_path(number)) as temporary:
        temporary.write_text(json.dumps(asdict(part)) + "\n")
    with _publishing(job.path(number)) as temporary:
        _write_columns(temporary, columns)
    return part


def _type_of(column: str) -> type:
    types = {"path": object, "p_value": np.float64, "is_anomalous": np.bool_}
    return types.get(column, np.float32)


def _chunks(
    samples: Source | Folder, model: Model, unreadable: list[tuple[str, str]]
) -> Iterator[Batch]:
    """Yield (names, samples) that the model can score; what cannot be read goes to a list."""
    if isinstance(samples, Source):
        yield from samples.chunks(CHUNK)
        return
    images = _readable(samples, model, unreadable)
    while some := list(islice(images, CHUNK)):
        names, pixels = zip(*some, strict=True)
        yield names, np.stack(pixels)


def _readable(
    folder: Folder, model: Model, unreadable: list[tuple[str, str]]
) -> Iterator[tuple[str, Pixels]]:
    """Yield (name, image); one that is damaged, or of another shape, stops nothing here."""
    decoded = decode_many(
        folder.paths, side=folder.mixed, channels=folder.channels, look_ahead=CHUNK
    )
    for path, image in zip(folder.paths, decoded, strict=True):
        name = _name(path, folder)
        try:
            if isinstance(image, InputError):
                raise image
            model.preprocessing.check(image.shape)
        except InputError as error:
            unreadable.append((name, str(error)))
        else:
            yield name, image


def _name(path: Path, folder: Folder) -> str:
    return path.relative_to(folder.path).as_posix()


def _write_columns(path: Path, columns: Columns) -> None:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        arrays = {
            name: pyarrow.array(column, pyarrow.string() if name == "path" else None)
            for name, column in columns.items()
        }
        pyarrow.parquet.write_table(pyarrow.table(arrays), path)
        return
    with open_table(str(path), tuple(columns)) as write:
        for row in rows_of(columns):
            write(row)


def _load_part(job: Job, number: int) -> Part:
    path = job.summary_path(number)
    found = load_json(path)
    try:
        return Part(**{**found, "unreadable": [(name, why) for name, why in found["unreadable"]]})
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} was altered: delete it and {job.path(number)}") from error


@contextmanager
def _publishing(path: Path) -> Iterator[Path]:
    """Yield a name to write to; what is there afterwards gets its own name, whole or not at all.

    Two processes with the same part, as when a machine seemed lost, do not meet in one file.
    """
    temporary = path.with_name(f".{uuid4().hex}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


# --- the folder


def _number_of_parts(out: Path, n_samples: int) -> int:
    """Return in how many parts a folder was begun, or how many a new one gets."""
    if (out / "_parts.json").exists():
        with suppress(KeyError, TypeError, ValueError):
            return max(1, int(load_json(out / "_parts.json")["parts"]))
    return min(_MOST_PARTS, math.ceil(n_samples / _LEAST_ROWS))


def _claim(job: Job, model: Model, samples: Source | Folder) -> None:
    """Start a folder of parts, or find that it is the one that ``job`` describes, or RunError.

    Whoever comes first writes what the others compare with: all agree about the samples, their
    order and the model, or do not start.
    """
    if job.file_format == "parquet":
        _require("pyarrow", "Parquet files", ", or take another --format")
    if job.out.exists() and not job.out.is_dir():
        raise InputError(f"{job.out} is a file: give a folder for the parts")
    record = {
        "parts": job.parts,
        "format": job.file_format,
        "columns": list(column_names(model, view_scores=job.view_scores)),
        "samples": len(samples),
        "fingerprint": _fingerprint(samples),
        "model": hashlib.sha256((job.run / "detector.json").read_bytes()).hexdigest(),
    }
    path = job.out / "_parts.json"
    if not path.exists():
        _create(path, {**record, "run": str(job.run), "source": job.source})
    found = load_json(path)
    for key, new in record.items():
        old = found.get(key) if isinstance(found, dict) else None
        if old != new:
            raise RunError(
                f"{job.out} holds scores with {key} = {old!r}, not {new!r}: give the same model, "
                "source and options, or another --out"
            )


def _fingerprint(samples: Source | Folder) -> str:
    """Return a digest of the names or, of an array, of its type and shape: not of every pixel."""
    if isinstance(samples, Source):
        text = f"{samples.samples.shape} {samples.samples.dtype.str}"
        return hashlib.sha256(text.encode()).hexdigest()
    digest = hashlib.sha256()
    for path in samples.paths:
        digest.update(_name(path, samples).encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


def _create(path: Path, record: dict[str, Any]) -> None:
    """Write JSON to ``path`` unless another process was faster: that file stays."""
    temporary = path.with_name(f".{uuid4().hex}-{path.name}")
    save_json(temporary, record)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links: the last one wins, and all compare
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# --- the cluster


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Be connected to the Ray cluster at ``address``, or to a new one on this machine for None.

    A connection that is there already is used, and left open. Raises RunError, within 10 seconds
    when nobody answers, with the address and the reason.
    """
    _require("ray", "the engine ray")
    if address is not None:
        _reach(address)
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"include_dashboard": False}
    try:
        ray.init(address=address or "local", **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise RunError(_unreachable(address or "this machine", str(error))) from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise RunError unless a Ray cluster answers in time; `ray.init` tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            f"'{address}' is no address of a Ray cluster: write HOST:PORT, as `ray start --head` "
            "prints it"
        )
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # as `ray health-check`
    from ray.exceptions import RayError

    failures = [f"no answer within {_PROBE_SECONDS:g} s"]

    def probe() -> None:
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS).close()
            failures[0] = f"what listens there did not answer as Ray within {_PROBE_SECONDS:g} s"
            GcsClient(address=address)
            failures.clear()
        except (OSError, RuntimeError, RayError) as error:
            failures[:] = [getattr(error, "strerror", None) or str(error)]

    # In a thread, since neither the look-up of a name nor Ray has a time limit of its own.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    if failures:
        raise RunError(_unreachable(address, failures[0]))


def _unreachable(address: str, reason: str) -> str:
    return (
        f"cannot reach a Ray cluster at {address}: {reason}. Is `ray start --head` running there, "
        "is the port right and open? Finished parts are kept; the same command continues"
    )


def _require(package: str, purpose: str, remedy: str = "") -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{purpose} needs {package}: install historyad[scale]{remedy}")
