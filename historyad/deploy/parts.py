"""A source that is scored in parts: the folder of their files, and how one of them is made.

::

    OUT/_parts.json                            what is scored, with which model, in how many parts
    OUT/part-00003-of-00010.parquet            or .csv, .jsonl: the rows of `historyad score`
    OUT/_part-00003-of-00010.json              its counts, and what had to be set aside, by name

Part i of n is the samples from ``i N // n`` up to ``(i + 1) N // n``, in the source's order. A file
gets its name when it is complete, and a part that is there is not scored again, so that whatever is
interrupted continues with the same command. Readers of Parquet folders skip names that start with
an underscore or a dot. Who scores all parts at once is `historyad.deploy.many`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from historyad.data.datasets import open_stream
from historyad.data.shards import printable
from historyad.data.sources import Source
from historyad.data.streams import ImageStream
from historyad.deploy.tables import open_table
from historyad.errors import InputError, RunError
from historyad.extras import require
from historyad.files import load_json, save_json, write_atomic
from historyad.model.model import Model
from historyad.ranks import choose_device
from historyad.score.result import FIGURES, Columns, Scored

FileFormat = Literal["parquet", "csv", "jsonl"]
OnOpen = Callable[[Source], None]


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
    id_column: str | None = None
    time_column: str | None = None
    channels: int | None = None

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
    samples = open_for_parts(job, model)
    if on_open is not None:
        on_open(samples)
    claim(job, model, samples)
    return score_part(job, shard, model, samples, job.range_of(shard, len(samples)))


def open_for_parts(job: Job, model: Model) -> Source:
    """Return the samples of all parts of ``job``."""
    samples = open_stream(
        job.source,
        data_root=job.data_root,
        mixed=model.kind.grid,
        channels=job.channels or model.channels,
        id_column=job.id_column,
        time_column=job.time_column,
        texts=model.text_columns,
    )
    samples = model.takes(samples)
    if samples.series is not None:
        raise InputError("a series is scored in one piece: leave out --shard and --engine")
    if not isinstance(samples.samples, ImageStream):
        # Of one shape: all of it can be scored, or nothing.
        model.kind.check(tuple(samples.samples.shape[1:]))
    return samples


def claim(job: Job, model: Model, samples: Source) -> None:
    """Start a folder of parts, or find that it is the one that ``job`` describes, or RunError.

    Whoever comes first writes what the others compare with: all agree about the samples, their
    order and the model, or do not start.
    """
    if job.file_format == "parquet":
        require("pyarrow", "Parquet files", "ray", ", or take another --format")
    if job.out.exists() and not job.out.is_dir():
        raise InputError(f"{job.out} is a file: give a folder for the parts")
    record = {
        "parts": job.parts,
        "format": job.file_format,
        "columns": list(column_names(model, view_scores=job.view_scores)),
        "samples": len(samples),
        "id_column": job.id_column,
        "channels": job.channels,
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


def _fingerprint(samples: Source) -> str:
    """Return a digest of names and sizes or, of an array, its type and shape: not of all pixels."""
    if isinstance(samples.samples, ImageStream):
        return samples.samples.files.fingerprint
    text = f"{samples.samples.shape} {samples.samples.dtype.str}"
    return hashlib.sha256(text.encode()).hexdigest()


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


# --- one part


def score_part(job: Job, number: int, model: Model, samples: Source, here: slice) -> Part:
    """Score the rows ``here`` of ``samples`` into the files of a part, unless they are there."""
    if job.path(number).exists():
        return load_part(job, number)
    started = time.perf_counter()
    rows = here.start, here.stop
    chunks = [
        score_chunk(model, names, some, view_scores=job.view_scores)
        for names, some in samples.chunks(None, *rows, check=model.kind.check)
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
    save_json(job.summary_path(number), asdict(part))  # first: where the part is, both are
    _write_columns(job.path(number), columns)
    return part


def load_part(job: Job, number: int) -> Part:
    """Return what became of a finished part. Raises RunError when its summary was altered."""
    path = job.summary_path(number)
    found = load_json(path)
    try:
        return Part(**{**found, "unreadable": [(name, why) for name, why in found["unreadable"]]})
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} was altered: delete it and {job.path(number)}") from error


def score_chunk(
    model: Model, names: Sequence[str], samples: NDArray[Any], *, view_scores: bool = False
) -> Columns:
    """Return the columns of the rows of some samples: what `historyad score` says of each.

    ``path`` (N,) str, ``anomaly_score`` float32, ``p_value`` float64, ``is_anomalous`` bool and,
    with ``view_scores``, one float32 column for each view.
    """
    return columns_of(names, model(samples, views=view_scores))


def columns_of(names: Sequence[str], found: Scored) -> Columns:
    """Return the columns of samples that were scored, as `score_chunk` does."""
    paths = np.array([printable(name) for name in names], dtype=object)
    return {"path": paths, **found.columns()}


def column_names(model: Model, *, view_scores: bool = False) -> tuple[str, ...]:
    """Return the names of the columns of `score_chunk`."""
    return ("path", *FIGURES, *(model.view_names if view_scores else ()))


def _type_of(column: str) -> type:
    types = {"path": object, "p_value": np.float64, "is_anomalous": np.bool_}
    return types.get(column, np.float32)


def _write_columns(path: Path, columns: Columns) -> None:
    """Write a part, whole or not at all: two processes with the same part do not meet."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        arrays = {
            name: pyarrow.array(column, pyarrow.string() if name == "path" else None)
            for name, column in columns.items()
        }
        buffer = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table(arrays), buffer)
        write_atomic(path, buffer.getvalue())
        return
    with open_table(str(path), tuple(columns)) as write:
        write(columns)
