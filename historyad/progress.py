"""How far a job is: one bar from its first second to its last, in words that a user knows.

Who does a job divides it into `Phases`, and its loops go through `each`, however deep they lie; who
shows it is a listener, for as long as it is `watching`. It is told::

    {"phase": "setting the threshold", "done": 0.31, "seconds": 12.0, "left": 26.1}

``done`` is a share of the whole job and never falls. ``seconds`` have passed, and about ``left``
are to come: None where nothing is known yet.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, TypeVar

from historyad.names import shown

Record = dict[str, Any]
Listener = Callable[[Record], None]
T = TypeVar("T")

DONE = "done"
_RECORDS = 200  # of a job, about
_KNOWN = 0.02  # share of a job from which on its rate says something
_OPENING = 0.05  # share of the bar for what is done before anything is known


class _Job:
    """A job that somebody watches, and the part of it, ``start`` to ``end``, that is under way."""

    def __init__(self, tell: Listener, label: str) -> None:
        self.start, self.end, self.phase = 0.0, 0.0, ""
        self._tell, self._label = tell, label
        self._done, self._told = 0.0, -1
        self._begun = time.monotonic()
        self._since: tuple[float, float] | None = None  # what was done when the rate begins

    def divide(self, weights: Sequence[float]) -> list[float]:
        """Return where parts of such weights begin, and the last ends, of all that is left."""
        self.skip(self.end)
        total, left = sum(weights), 1 - self._done
        ends = [sum(weights[: n + 1]) / total for n in range(len(weights))]
        return [self._done, *(1 - left * (1 - end) for end in ends)]

    def begin(self, phase: str, start: float, end: float) -> None:
        """Begin a part of the job, and say so."""
        if self._since is not None:  # what is left out in between took no time
            self._since = self._since[0] + start - self.end, self._since[1]
        self.phase, self.start, self.end = phase, start, end
        self._told = -1
        self.reach(0.0)

    def skip(self, done: float) -> None:
        """Measure the rate from here on, where so much is done."""
        self._done = max(self._done, done)
        self._since = self._done, time.monotonic()

    def reach(self, share: float, more: Mapping[str, Any] | None = None) -> None:
        """Note what share of the part is done, and tell of it now and then, or of ``more``."""
        self._done = max(self._done, self.start + share * (self.end - self.start))
        if self.phase and (more or int(self._done * _RECORDS) > self._told):
            self._told = int(self._done * _RECORDS)
            now = time.monotonic()
            told = {"phase": self.phase, "done": self._done, "left": self._left(now)}
            label = {"label": self._label} if self._label else {}
            self._tell({**(more or {}), **told, **label, "seconds": now - self._begun})

    def _left(self, now: float) -> float | None:
        if self._since is None or self._done - self._since[0] < _KNOWN or self.phase == DONE:
            return None
        return (now - self._since[1]) * (1 - self._done) / (self._done - self._since[0])


_watched: ContextVar[_Job | None] = ContextVar("watched", default=None)


@contextmanager
def watching(tell: Listener | None, label: str = "") -> Iterator[None]:
    """Tell a listener of the job that is done meanwhile; of None, leave that to who watches."""
    if tell is None:
        yield
        return
    before, job = _watched.get(), _Job(tell, label)
    _watched.set(job)
    try:
        yield
        job.begin(DONE, 1.0, 1.0)
    finally:
        _watched.set(before)


def opening(phase: str = "reading samples") -> None:
    """Say what is done before it is known how long anything takes."""
    if job := _watched.get():
        job.begin(phase, 0.0, _OPENING)


class Phases:
    """What is left of a job, divided into phases by how long they are thought to take."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._job = _watched.get()
        if self._job is not None:
            bounds = self._job.divide([*weights.values()])
            self._bounds = dict(zip(weights, pairwise(bounds), strict=True))

    def begin(self, phase: str) -> None:
        """Begin one of them; those before it are done, or left out."""
        if self._job is not None:
            self._job.begin(phase, *self._bounds[phase])


def each(items: Iterable[T], n: int = 0) -> Iterator[T]:
    """Yield items, each an equal share of what is under way; ``n`` where they have no length."""
    job = _watched.get()
    if job is None:
        yield from items
        return
    n = n or len(items)  # type: ignore[arg-type]
    start, end = job.start, job.end
    width = (end - start) / max(1, n)
    try:
        for i, item in enumerate(items):
            job.start, job.end = start + width * i, start + width * (i + 1)
            yield item
            job.reach(1.0)
    finally:
        job.start, job.end = start, end


@contextmanager
def share(start: float, end: float) -> Iterator[None]:
    """Take what is done meanwhile for this share of what is under way."""
    job = _watched.get()
    if job is None:
        yield
        return
    before = job.start, job.end
    width = before[1] - before[0]
    job.start, job.end = before[0] + start * width, before[0] + end * width
    try:
        yield
    finally:
        job.start, job.end = before


def reach(share: float, more: Mapping[str, Any] | None = None) -> None:
    """Say what share of what is under way is done, and ``more`` that is told at once."""
    if job := _watched.get():
        job.reach(share, more)


def resume(share: float) -> None:
    """Say what share of what is under way was done before an interruption."""
    job = _watched.get()
    if job is not None and share > 0:
        job.skip(job.start + share * (job.end - job.start))


@contextmanager
def show_progress(label: str = "") -> Iterator[Listener]:
    """Show what is done meanwhile: a bar on a terminal or in a notebook, elsewhere a few lines.

    Yields what shows a record, for further jobs.
    """
    if _in_notebook():
        shows: Any = _notebook_bar()
    elif sys.stderr.isatty():
        shows = _terminal_bar()
    else:
        shows = _lines()
    with shows as show, watching(show, label):
        yield show


def words(record: Record) -> str:
    """Return a record as a line."""
    left = "" if record["left"] is None else f", about {duration(record['left'])} left"
    return f"{title(record)}: {record['done']:.0%}{left}"


def title(record: Record) -> str:
    """Return the phase and, where a command does several jobs, the job."""
    return f"{record['label']}: {record['phase']}" if "label" in record else str(record["phase"])


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@contextmanager
def _lines() -> Iterator[Listener]:
    """Yield what prints a line where a phase begins, and at each fifth of the whole."""
    said: set[tuple[str, int]] = set()
    waiting: list[Record] = []  # the first: what fails or ends at once says nothing else

    def show(record: Record) -> None:
        fifth = int(5 * record["done"])
        if record["phase"] == DONE or (title(record), fifth) in said:
            return
        if not said and not waiting:
            waiting.append(record)
            return
        for one in (*waiting, record):
            line = title(one), int(5 * one["done"])
            if line not in said:
                said.add(line)
                print(shown(words(one)), file=sys.stderr, flush=True)
        waiting.clear()

    yield show


@contextmanager
def _terminal_bar() -> Iterator[Listener]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Clock(ProgressColumn):
        """What has passed and, as of the last record, is left: it runs also between records."""

        def render(self, task: Task) -> Text:
            now, left = time.monotonic(), task.fields["left"]
            passed = "" if left is None else f", about {duration(max(0.0, left - now))} left"
            return Text(f"{duration(task.elapsed or 0.0)}{passed}")

    columns = TextColumn("{task.description}"), BarColumn(16), TextColumn("{task.percentage:.0f} %")
    with Progress(*columns, Clock(), console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=1.0, left=None)

        def show(record: Record) -> None:
            left = None if record["left"] is None else time.monotonic() + record["left"]
            what = escape(shown(title(record)))
            bars.update(task, completed=record["done"], description=what, left=left)

        yield show


def _in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, judged without importing anything."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def _notebook_bar() -> Iterator[Listener]:
    import html
    from importlib import import_module

    display: Any = import_module("IPython.display")
    handle = display.display(display.HTML(""), display_id=True)

    def show(record: Record) -> None:
        bar = f'<progress value="{record["done"]:.3f}" style="width:16em"></progress>'
        handle.update(display.HTML(f"{bar} {html.escape(words(record))}"))

    yield show
