"""What is shown while something takes its time: bars on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from historyad.names import shown


@contextmanager
def show_progress() -> Iterator[Any]:
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
    said: dict[str, int] = {}

    def on_progress(record: dict[str, Any]) -> None:
        title, tenth = _title(record), int(10 * record["epoch"] / record["of"])
        if said.get(title) != tenth:
            said[title] = tenth
            print(shown(f"{title}: {_progress(record)}"), file=sys.stderr, flush=True)

    return on_progress
