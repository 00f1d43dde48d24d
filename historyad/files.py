"""Files of JSON, tensors and rows: what is written is whole or absent, and nothing read is code.

Every file is written under a temporary name of its own, flushed to the disk and renamed, so that a
process killed at any moment leaves the old file or the new one, and so do two that write the same.
Tensors are safetensors, the rest is JSON, and nothing that is loaded can execute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from historyad.errors import RunError
from historyad.regular import published, read_regular

# More is not read, and so not written either.
_MAX_JSON_BYTES = 64 * 2**20
_MAX_TENSOR_BYTES = 4 * 2**30


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader, or a crash, finds the old file or the new one.

    Raises RunError, leaving the old file alone, when the disk is full or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with published(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise cannot_write(path, error) from error


def save_json(path: Path, value: Any, limit: int = _MAX_JSON_BYTES) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused (ValueError).

    Raises RunError for more than ``limit`` bytes, which `load_json` would find too large.
    """
    data = (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    _refuse_large(path, len(data), limit, "record less in it, such as fewer samples")
    write_atomic(path, data)


def load_json(path: Path) -> Any:
    """Read JSON; RunError when it is missing, too large or damaged."""
    try:
        return json.loads(read_file(path, _MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged (not JSON: {error}): restore it or fit again") from error


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], note: str = "", limit: int = _MAX_TENSOR_BYTES
) -> str:
    """Write ``tensors`` and a text as safetensors, atomically. Return the file's sha256.

    Raises RunError for more than ``limit`` bytes, which `load_tensors` would find too large.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(contiguous, metadata={"note": note})
    _refuse_large(path, len(data), limit, "lower width, hidden or the side of the grid")
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def load_tensors(path: Path, sha256: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors and the text of `save_tensors`.

    Raises RunError when the file is missing or damaged, or its checksum is not ``sha256``.
    """
    data = read_file(path)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise RunError(f"{path} was altered (its checksum differs): restore it or fit again")
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return tensors, str(header.get("__metadata__", {}).get("note", ""))
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}): restore it or fit again") from error


def read_rows(table: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file; none when it is not there, nor a last one cut short.

    Raises RunError for damage anywhere else.
    """
    rows: list[dict[str, Any]] = []
    lines = read_file(table).splitlines(keepends=True) if table.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break  # a full disk or the end of the process: what it was is measured again
            raise RunError(
                f"{table}, line {number} is damaged (not JSON: {error}): restore or delete the line"
            ) from error
    return rows


def save_rows(table: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file, atomically. NaN and infinity are refused (ValueError)."""
    write_atomic(table, _lines(rows))


def append_rows(table: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a JSONL file, with one write: other processes may add theirs.

    A last row that was cut short is dropped. Raises RunError when the disk does not take them, and
    ValueError for NaN and infinity.
    """
    lines = _lines(rows)
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
        if table.exists() and not read_file(table).endswith(b"\n"):
            save_rows(table, read_rows(table))
        with table.open("ab") as file:
            file.write(lines)
    except OSError as error:
        raise cannot_write(table, error) from error


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def read_file(path: Path, limit: int = _MAX_TENSOR_BYTES) -> bytes:
    """Return the content of a file of a run.

    Raises RunError for what is missing, unreadable, no regular file, or larger than ``limit``.
    """
    try:
        return read_regular(path, limit)
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


def missing(path: Path) -> RunError:
    """Return the error for a file of a run that is not there."""
    return RunError(
        f"{path} is missing: restore it, or fit again; is this the folder of a finished run?"
    )


def _refuse_large(path: Path, size: int, limit: int, remedy: str) -> None:
    if size > limit:
        raise RunError(
            f"{path} would have {size:,} bytes, more than the {limit:,} that are read again: "
            f"{remedy}"
        )


def cannot_write(path: Path, error: OSError) -> RunError:
    """Return the error for a disk that does not take a file."""
    return RunError(
        f"cannot write {path}: {error.strerror}. What was written before is intact: free space "
        "or make the directory writable, and run the same command again"
    )
