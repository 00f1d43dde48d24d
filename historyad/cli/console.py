"""What commands show: progress, and figures with their names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from historyad.names import shown


def say(line: object, *, file: TextIO | None = None) -> None:
    """Print a line, which stays one line of text whatever the names in it are made of."""
    print(shown(line), file=file, flush=True)


@contextmanager
def progress() -> Iterator[Any]:
    """Yield a callback that shows progress: bars on a terminal, a few plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(),
        TextColumn("{task.fields[figure]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def on_progress(record: dict[str, Any]) -> None:
            title = _title(record)
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=record["of"], figure="")
            bars.update(tasks[title], completed=record["epoch"], figure=_figure(record))

        yield on_progress


_TITLES = {
    "gan": "step 1  GAN and history",
    "detector": "step 3  detector D_TV",
    "score": "score   companions, scale",
    "probe": "probe   damaged samples",
}


def _title(record: dict[str, Any]) -> str:
    """Name the step and, where a command fits several detectors, the detector."""
    detector = f"{record['detector']}: " if "detector" in record else ""
    return detector + _TITLES[record["step"]]


def _figure(record: dict[str, Any]) -> str:
    if record["step"] == "gan":
        return f"Wasserstein distance {record['wasserstein_distance']:6.3f}"
    if record["step"] == "detector":
        return f"total variation {record['total_variation']:5.3f}"
    return str(record.get("now", ""))


def _progress(record: dict[str, Any]) -> str:
    """Return how far a step is, in words."""
    if record["step"] in ("gan", "detector"):
        return (
            f"epoch {record['epoch']:.2f} of {record['of']:.2f}, {_figure(record)}, "
            f"{record['seconds']:.0f} s"
        )
    return f"{record['epoch']} of {record['of']} {_figure(record)}".strip()


def _plain_progress() -> Any:
    shown: dict[str, int] = {}

    def on_progress(record: dict[str, Any]) -> None:
        title, tenth = _title(record), int(10 * record["epoch"] / record["of"])
        if shown.get(title) != tenth:
            shown[title] = tenth
            say(f"{title}: {_progress(record)}", file=sys.stderr)

    return on_progress


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
