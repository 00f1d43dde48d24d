"""A table of text that grows, such as a log: its rows as they come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from historyad.data.cells import Cells, Row
from historyad.data.delimited import SAMPLE_LINES, Rows, find_separator
from historyad.data.layout import find_layout
from historyad.data.tables import Roles, Table
from historyad.errors import InputError

_SUFFIXES = (".csv", ".tsv", ".txt")
_AT_ONCE = 1 << 22  # bytes
_PAUSE = 0.2  # seconds between two looks


def pause() -> None:
    """Wait until there may be more."""
    time.sleep(_PAUSE)


def grown(
    path: Path, roles: Roles, say: Callable[[str], None], wait: Callable[[], object] = pause
) -> Iterator[Table | None]:
    """Yield the rows that are in a file, and then, without an end, those that are written to it.

    A file that is replaced or cut, as a log is when it is rotated, is read from its start. ``say``
    is told of that, and of rows that cannot be read: these are left out, and in their place comes
    None. ``wait`` is called where there is nothing new. Raises InputError for what is no text, and
    where the columns of ``roles`` are not there.
    """
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
        raise InputError(
            f"{path} cannot be followed: give a file that is there and grows by lines, of "
            f"{', '.join(_SUFFIXES)}"
        )
    table, head = _Table(str(path), roles), ""
    for text in _texts(path, wait):
        if text is None:
            say(f"{path} was replaced: it is read from its start")
            table, head = _Table(str(path), roles), ""
            continue
        head += text
        if not table.begins(head):
            continue  # names of columns, perhaps, and nothing below them
        for found in table.tables(head):
            if isinstance(found, InputError):
                say(f"left out: {found}")
            yield None if isinstance(found, InputError) else found
        head = ""


class _Table:
    """What the columns are, by the first rows, and how the others are read."""

    def __init__(self, where: str, roles: Roles) -> None:
        self._where, self._roles = where, roles
        self._cells: Cells | None = None
        self._n_above = 0

    def begins(self, text: str) -> bool:
        """Whether it is known what the columns are, or the first rows tell."""
        if self._cells is not None:
            return True
        lines = text.splitlines(keepends=True)
        separator = find_separator(lines[:SAMPLE_LINES])
        self._rows = Rows(separator)
        rows = self._rows.parse(lines, iter(()))
        if len(rows) < 2:
            return False
        layout, self._n_above = find_layout(rows, self._where, self._roles, separator)
        self._cells = Cells(layout, separator, self._where)
        self._rows = Rows(separator)
        return True

    def tables(self, text: str) -> list[Table | InputError]:
        """Return the rows of some lines: all together or, where one cannot be read, each."""
        rows = self._rows.parse(text.splitlines(keepends=True), iter(()))[self._n_above :]
        self._n_above = 0
        if not rows:
            return []
        together = self._of(rows)
        if isinstance(together, InputError) and len(rows) > 1:
            return [self._of([row]) for row in rows]
        return [together]

    def _of(self, rows: list[Row]) -> Table | InputError:
        assert self._cells is not None
        try:
            self._cells.add(rows)
            return self._cells.take()
        except InputError as error:
            return error


def _texts(path: Path, wait: Callable[[], object]) -> Iterator[str | None]:
    """Yield complete lines, some at a time, as soon as they are there; None for another file."""
    file, rest = path.open("rb"), b""
    try:
        while True:
            if data := file.read(_AT_ONCE):
                whole, newline, rest = (rest + data).rpartition(b"\n")
                if newline:
                    yield _decoded(whole + newline)
            elif _was_rotated(path, file.fileno(), file.tell()):
                file.close()
                file, rest = path.open("rb"), b""
                yield None
            else:
                wait()
    finally:
        file.close()


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _was_rotated(path: Path, number: int, at: int) -> bool:
    """Whether another file has the name of the open one by now, or the same was cut."""
    try:
        there = path.stat()
    except OSError:  # between two files
        return False
    here = os.fstat(number)
    return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) or there.st_size < at
