"""Tables of scores as files: CSV or JSON lines, whole or absent.

JSON lines hold names as they are; in CSV they are cells as of `historyad.names.as_cell`.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from historyad.errors import InputError
from historyad.names import as_cell
from historyad.regular import published


@contextmanager
def open_table(out: str, columns: tuple[str, ...]) -> Iterator[Any]:
    """Yield a function that writes one row, as CSV or, to a .jsonl file, as JSON lines.

    A file gets its name when it is complete, and an older file of that name stays until then. Two
    that write the same do not meet: the last one's is whole. What an interruption leaves ends in
    .tmp.
    """
    if out == "-":
        yield _csv_writer(sys.stdout, columns)
        return
    path = Path(out)
    if path.suffix not in (".csv", ".jsonl"):
        raise InputError(f"cannot write {out}: name a .csv or .jsonl file, or - for the terminal")
    try:
        with (
            published(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            yield _json_writer(file) if path.suffix == ".jsonl" else _csv_writer(file, columns)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error


def _csv_writer(file: TextIO, columns: tuple[str, ...]) -> Any:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(as_cell, columns))

    return lambda row: writer.writerow(as_row(row))


def as_row(row: dict[str, Any]) -> list[str | int]:
    """Return the cells of a row as CSV shows them."""
    return [_cell(value) for value in row.values()]


def _cell(value: str | float | bool) -> str | int:
    """Return a value as CSV shows it: scores to six places, verdicts as 0 or 1."""
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, str):
        return as_cell(value)
    return int(value) if isinstance(value, bool) else value


def _json_writer(file: TextIO) -> Any:
    return lambda row: file.write(json.dumps(row) + "\n")
