"""What the scripts that measure have in common: their arguments, their rows, processes, clocks."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from historyad.environment import machine, versions
from historyad.files import append_rows

Row = dict[str, Any]


def parser_for(docstring: str | None, out: Path) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring of a script, and that knows --out."""
    parser = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=out, help="file that rows are appended to")
    return parser


def command_line() -> str:
    """Return the command that is running, as it may be typed again."""
    script = sys.modules["__main__"].__spec__
    assert script is not None, "scripts run as python -m benchmarks.NAME"
    return shlex.join(["python", "-m", script.name, *sys.argv[1:]])


def keep(file: Path, row: Row) -> None:
    """Append what was measured, with what it depends on and the command, and print it."""
    row = {**row, "versions": versions(), "machine": machine(), "command": command_line()}
    append_rows(file, [row])
    print(json.dumps(row), flush=True)


def in_own_process(call: Callable[..., Any], *values: Any) -> Any:
    """Return what ``call`` does, whose memory is then its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, values)


def peak_memory_mb() -> float:
    """Return the largest memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes, in seconds of the clock."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
