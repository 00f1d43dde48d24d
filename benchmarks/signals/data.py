"""The series that are measured: normal steps to learn from, and others with labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BEARING_WINDOW = 2400  # .2 s at 12 kHz
_LEARNT, _NEW = 10_000, 100_000  # steps of a steady series
_SKAB_NORMAL = 400  # steps, as its authors take
_MOST_LEARNT = 0.5  # of a series of NAB
_HALF = 0.5  # of the normal signal of bearings


@dataclass(frozen=True)
class Labelled:
    """A series (steps, channels): the first ``n_train`` are learnt from, the rest has labels."""

    name: str
    steps: Array
    labels: Array
    n_train: int


@dataclass(frozen=True)
class Bearings:
    """Vibrations (steps, 2): normal ones to learn from and to test on, and by fault."""

    train: Array
    normal: Array
    faults: dict[str, Array]


def series_of(root: Path) -> Iterator[Labelled]:
    """Yield the series of NAB that have anomalies, and those of SKAB, by name."""
    marks = json.loads((root / "series" / "nab" / "labels" / "combined_windows.json").read_text())
    for path in sorted((root / "series" / "nab" / "data").glob("*/*.csv")):
        name = f"{path.parent.name}/{path.stem}"
        if marks.get(f"{name}.csv"):
            yield _nab(f"nab/{name}", path, marks[f"{name}.csv"])
    for number in range(16):
        yield _skab(f"skab/valve1/{number}", root / "series" / "skab" / "valve1" / f"{number}.csv")


def _nab(name: str, path: Path, marks: list[tuple[str, str]]) -> Labelled:
    """Return a series that is learnt from up to the first mark, but at most to its middle."""
    rows = _rows(path, ",")
    times = np.array([np.datetime64(time) for time, _ in rows])
    labels = np.zeros(len(rows), int)
    for start, end in marks:
        labels[(times >= np.datetime64(start)) & (times <= np.datetime64(end))] = 1
    steps = np.array([[float(value)] for _, value in rows])
    return Labelled(name, steps, labels, min(int(labels.argmax()), int(_MOST_LEARNT * len(rows))))


def _skab(name: str, path: Path) -> Labelled:
    rows = _rows(path, ";")
    values = np.array([[float(value) for value in row[1:]] for row in rows])
    return Labelled(name, values[:, :-2], values[:, -2].astype(int), _SKAB_NORMAL)


def _rows(path: Path, separator: str) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=separator))[1:]


def bearings_of(root: Path) -> Bearings:
    """Return the vibrations of two channels at 12 kHz; the normal ones are divided by time."""
    folder = root / "signals" / "bearings"
    normal = np.load(folder / "normal_load0_12k_resampled.npy")
    middle = int(_HALF * len(normal))
    found = {path.stem: np.load(path) for path in sorted(folder.glob("*_race_*.npy"))}
    faults = {name: signal for name, signal in found.items() if signal.ndim == normal.ndim}
    return Bearings(normal[:middle], normal[middle:], faults)


def steady(seed: int) -> tuple[Array, Array]:
    """Return two stretches, (steps, 3) each, of a pump that always runs alike."""
    random = np.random.default_rng(seed)
    n = _LEARNT + _NEW
    turn = 2 * np.pi * np.arange(n) / 45
    flow = 30 + 5 * np.sin(turn) + random.normal(0, 0.5, n)
    pressure = 4 + 0.3 * np.cos(turn) + random.normal(0, 0.05, n)
    heat = 60 + random.normal(0, 0.2, n)
    steps = np.stack([flow, pressure, heat], 1)
    return steps[:_LEARNT], steps[_LEARNT:]
