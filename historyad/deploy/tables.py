"""Tables of scores as files: CSV or JSON lines, whole or absent.

JSON lines hold names as they are; in CSV they are cells as of `historyad.names.as_cell`.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from historyad.errors import InputError
from historyad.names import as_cell
from historyad.regular import published
from historyad.score.result import Columns, rows_of

Write = Callable[[Columns], object]


@contextmanager
def open_table(out: str, columns: tuple[str, ...]) -> Iterator[Write]:
    """Yield a function that writes rows, as CSV or, to a .jsonl file, as JSON lines.

    It takes some rows at a time, by their ``columns``.

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


def _csv_writer(file: TextIO, columns: tuple[str, ...]) -> Write:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(as_cell, columns))
    return lambda some: writer.writerows(zip(*map(_cells, some.values()), strict=True))


def _cells(values: NDArray[Any]) -> list[Any]:
    """Return a column as CSV shows it: scores to six places, verdicts as 0 or 1."""
    if values.dtype.kind in "f":
        return [f"{value:.6f}" for value in values.tolist()]
    if values.dtype.kind in "OU":
        return list(map(as_cell, values.tolist()))
    found: list[Any] = values.astype(np.int64).tolist()
    return found


def _json_writer(file: TextIO) -> Write:
    return lambda some: file.writelines(json.dumps(row) + "\n" for row in rows_of(some))
