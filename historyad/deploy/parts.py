"""The folder of a source that is scored in parts: its files, what became of each part, whose it is.

::

    OUT/_parts.json                            what is scored, with which model, in how many parts
    OUT/part-00003-of-00010.parquet            or .csv, .jsonl: the rows of `historyad score`
    OUT/_part-00003-of-00010.json              its counts, and what had to be set aside, by name

Readers of Parquet folders skip names that start with an underscore or a dot. A file gets its name
when it is complete, so that whatever is interrupted continues where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from numpy.typing import NDArray

from historyad.data.shards import printable
from historyad.data.sources import Folder, Source
from historyad.data.streams import ImageStream
from historyad.deploy.ray_cluster import require
from historyad.deploy.tables import open_table
from historyad.errors import InputError, RunError
from historyad.files import load_json, save_json

FileFormat = Literal["parquet", "csv", "jsonl"]
Columns = dict[str, NDArray[Any]]

_LEAST_ROWS, _MOST_PARTS = 2048, 10_000  # of a part, and of a source: small parts, not too many


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


def number_of_parts(out: Path, n_samples: int) -> int:
    """Return in how many parts a folder was begun, or how many a new one gets."""
    if (out / "_parts.json").exists():
        with suppress(KeyError, TypeError, ValueError):
            return max(1, int(load_json(out / "_parts.json")["parts"]))
    return min(_MOST_PARTS, math.ceil(n_samples / _LEAST_ROWS))


def claim(job: Job, samples: Source | Folder, columns: Sequence[str]) -> None:
    """Start a folder of parts, or find that it is the one that ``job`` describes, or RunError.

    Whoever comes first writes what the others compare with: all agree about the samples, their
    order and the model, or do not start.
    """
    if job.file_format == "parquet":
        require("pyarrow", "Parquet files", ", or take another --format")
    if job.out.exists() and not job.out.is_dir():
        raise InputError(f"{job.out} is a file: give a folder for the parts")
    record = {
        "parts": job.parts,
        "format": job.file_format,
        "columns": list(columns),
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


def save_part(job: Job, part: Part, columns: Columns) -> None:
    """Write the files of a part. Raises RunError when the disk does not take them."""
    # The summary first: where the part is, both are.
    with _publishing(job.summary_path(part.number)) as temporary:
        temporary.write_text(json.dumps(asdict(part)) + "\n")
    with _publishing(job.path(part.number)) as temporary:
        _write_columns(temporary, columns)


def load_part(job: Job, number: int) -> Part:
    """Return what became of a finished part. Raises RunError when its summary was altered."""
    path = job.summary_path(number)
    found = load_json(path)
    try:
        return Part(**{**found, "unreadable": [(name, why) for name, why in found["unreadable"]]})
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} was altered: delete it and {job.path(number)}") from error


def rows_of(columns: Columns) -> Iterator[dict[str, Any]]:
    """Yield the rows of columns, as JSON can hold them."""
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, values, strict=True))


def _fingerprint(samples: Source | Folder) -> str:
    """Return a digest of the names or, of an array, of its type and shape: not of every pixel."""
    if isinstance(samples, Source) and isinstance(samples.samples, ImageStream):
        return samples.fingerprint
    if isinstance(samples, Source):
        text = f"{samples.samples.shape} {samples.samples.dtype.str}"
        return hashlib.sha256(text.encode()).hexdigest()
    digest = hashlib.sha256()
    for path in samples.paths:
        digest.update(printable(samples.name_of(path)).encode() + b"\0")
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
