"""What commands show: lines, notes, progress, and figures with their names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from historyad.names import shown
from historyad.progress import Listener, Record, show_progress


def say(line: object, *, file: TextIO | None = None) -> None:
    """Print a line, which stays one line of text whatever the names in it are made of."""
    print(shown(line), file=file, flush=True)


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Show neither notes nor progress: what is left are results, and what went wrong."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


def note(line: object, *, file: TextIO | None = None) -> None:
    """Print, on standard error unless told, what is good to know; nothing where all is quiet."""
    if not _quiet.get():
        say(line, file=file or sys.stderr)


@contextmanager
def progress(*, here: bool = True, lines: bool = True) -> Iterator[Listener]:
    """Show what is done meanwhile, unless commands are quiet; yield what shows further jobs.

    Not where that is not ``here``, in one of several processes, and without ``lines`` for those who
    have no terminal.
    """
    if _quiet.get() or not here or not (lines or sys.stderr.isatty()):
        yield _show_nothing
        return
    with show_progress() as show:
        yield show


def _show_nothing(record: Record) -> None:
    pass


def print_columns(lines: list[list[str]]) -> None:
    """Print lines of as many cells, those of a column below each other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)]
        say("  ".join(cells).rstrip())


def print_table(rows: list[tuple[str, str]]) -> None:
    """Print each name with its value, the values below each other."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"{name:<{width}}  {value}")
