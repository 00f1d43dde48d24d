"""A series as windows: every stretch of so many of its steps is a sample, (steps, channels).

The windows share their memory with the series. What is said of them is said of each step by the
mean over the windows that it is in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from historyad.constants import CONSTANTS
from historyad.data.sources import Series, Source
from historyad.errors import InputError

_AS_HIGH = 0.9  # as the highest peak: twice the period has one, too
GAP = 5.0  # usual steps of time, from which on some are missing
_REMEMBERED = 99  # of them, by which the usual one is known


def in_windows(source: Source, length: int | str, stride: int, *, to_learn: bool = False) -> Source:
    """Return the windows of a series, whose steps are the rows of ``source``, as samples.

    A ``length`` of 0 leaves the rows as they are, and so does a source that is in windows. "auto"
    is what suits the series, and a ``stride`` of 0 the usual one, of windows ``to_learn`` from that
    of these. Raises InputError for what is no series, or too short a one.
    """
    if not length or source.series is not None:
        return source
    if source.kind != "vector":
        raise InputError(f"{source.description} holds images, and window is for series: leave it 0")
    _refuse_holes(source)
    length = usual_window(source.samples) if isinstance(length, str) else length
    n_steps = len(source)
    if n_steps < length:
        raise InputError(
            f"{source.description} holds {n_steps:,} step{'s' * (n_steps != 1)}, and a window has "
            f"{length:,}: give a longer series, or fit with a smaller window"
        )
    usual = learnt_stride(length, n_steps) if to_learn else usual_stride(length)
    stride = stride or usual
    windows = sliding_window_view(source.samples, length, axis=0).transpose(0, 2, 1)[::stride]
    starts = stride * np.arange(len(windows))
    return replace(
        source,
        kind="window",
        samples=windows,
        names=[source.names[start] for start in starts.tolist()],
        groups=(),
        series=Series(source.samples, source.names, length, stride, starts),
    )


def usual_stride(length: int) -> int:
    """Return how many steps apart windows of so many begin that are scored, unless it is set.

    That is a power of two, so that windows that were learnt from are among them.
    """
    return _power_of_two(length // CONSTANTS.windows_in_one)


def learnt_stride(length: int, n_steps: int) -> int:
    """Return how many steps apart windows begin that are learnt from, unless it is set.

    In a short series they are closer together than those that are scored, and so many, and begin at
    so many places of whatever repeats itself, that new ones are like some of them.
    """
    close = _power_of_two((n_steps - length) // CONSTANTS.windows_learnt)
    return min(close, usual_stride(length))


def _power_of_two(n: int) -> int:
    """Return the largest that is no larger, 1 where there is none."""
    return 1 << max(0, n.bit_length() - 1)


def _refuse_holes(source: Source) -> None:
    """Raise InputError for a series with texts among its values, or with missing ones."""
    names = source.columns or [f"{place} (from 0)" for place in range(source.samples.shape[1])]
    for name, texts in zip(names, source.levels, strict=False):
        if texts:
            raise InputError(
                f"{source.description}: column {name} holds text, such as '{texts[0][:40]}', and "
                "a series is of numbers: leave the column out or, if it says when the rows were "
                "measured, name it with --time-column"
            )
    holes = np.isnan(source.samples)
    if holes.any():
        row, column = np.argwhere(holes)[0].tolist()
        raise InputError(
            f"{source.description}: of column {names[column]} the value at {source.names[row]} is "
            f"missing, {int(holes.sum()):,} in all: fill them, as with the last value before"
        )


def apart(source: Source) -> Source:
    """Return windows of a source that share no step with each other; of others, all samples."""
    if source.series is None:
        return source
    every = slice(None, None, source.reach)
    return replace(source, samples=source.samples[every], names=source.names[every])


def over_steps(values: NDArray[np.floating], series: Series) -> NDArray[np.float32]:
    """Return the mean over the windows that each step is in, (steps,), of their values (N,).

    The last steps, into which no further window fits, take that of the last window.
    """
    n_steps = len(series.steps)
    sums = _over_steps(np.asarray(values, np.float64), series)
    numbers = np.rint(_over_steps(np.ones(len(values)), series))
    found = np.where(numbers > 0, sums / np.maximum(numbers, 1), values[-1])
    return found[:n_steps].astype(np.float32)


def _over_steps(values: NDArray[np.float64], series: Series) -> NDArray[np.float64]:
    changes = np.zeros(len(series.steps) + 1)
    changes[series.starts] += values
    changes[series.starts + series.length] -= values
    return np.cumsum(changes)[:-1]


def usual_window(steps: NDArray[np.floating]) -> int:
    """Return the length of window that suits a series (steps, channels): its period.

    That is the lag of the first peak of its autocorrelation that is about as high as the highest,
    once it has fallen from its start; where there is no clear one, `usual_window`. Some windows fit
    into the series, end to end.
    """
    longest = max(2, min(CONSTANTS.longest_window, len(steps) // CONSTANTS.fewest_windows))
    correlation = autocorrelation(steps)[: longest + 2]
    inner = correlation[1:-1]
    is_peak = (inner > correlation[:-2]) & (inner >= correlation[2:])
    lags = 1 + np.flatnonzero(is_peak & (inner > CONSTANTS.clear_period))
    fallen = int((correlation < CONSTANTS.clear_period).argmax()) or len(correlation)
    lags = lags[lags >= max(fallen, CONSTANTS.shortest_window)]
    if not len(lags):
        return min(CONSTANTS.usual_window, longest)
    first = lags[correlation[lags] >= _AS_HIGH * correlation[lags].max()][0]
    # Noise makes several peaks of one.
    peak = lags[(lags >= first) & (2 * lags < 3 * first)]
    return int(peak[correlation[peak].argmax()])


def autocorrelation(steps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the autocorrelation of a series (steps, channels) at each lag, (steps,): 1 at lag 0.

    It is the mean over the channels that vary; 0 where none does.
    """
    centred = steps - steps.mean(0, dtype=np.float64)
    power = np.abs(np.fft.rfft(centred, 2 * len(steps), axis=0)) ** 2
    products = np.fft.irfft(power, axis=0)[: len(steps)]
    varying = products[:, np.ptp(steps, axis=0) > 0]
    if not varying.shape[1]:
        return np.zeros(len(steps))
    return np.asarray((varying / varying[0]).mean(1))


# --- time


def check_times(names: Sequence[str], where: str) -> None:
    """Raise InputError unless ``names``, the times of steps, rise, and none are missing between.

    Times are numbers, or dates as ISO 8601 writes them.
    """
    times = np.array([_seconds(name, where) for name in names])
    steps = np.diff(times)
    if not len(steps):
        return
    back = np.flatnonzero(~(steps > 0))
    if len(back):
        at = int(back[0])
        raise InputError(
            f"{where}: the time {names[at + 1]} stands below {names[at]}: sort the rows by time, "
            "and leave out what is there twice"
        )
    usual, widest = float(np.median(steps)), int(steps.argmax())
    if steps[widest] > GAP * usual:
        raise InputError(
            f"{where}: from {names[widest]} to {names[widest + 1]} there is a gap of "
            f"{steps[widest] / usual:,.0f} usual steps: fill it, give the part before or after it, "
            "or name the column with --id in place of --time-column (in Python, take an index that "
            "is no time), to take it for one step"
        )


class Clock:
    """The times of steps that come one after the other."""

    def __init__(self, where: str) -> None:
        self._where, self._last = where, -math.inf
        self._steps: deque[float] = deque(maxlen=_REMEMBERED)

    def step(self, name: str) -> float:
        """Return how many usual steps have passed since the one before, 1 for the first few.

        0 or less says that time did not go on, and then the step does not count. InputError for
        what is no time.
        """
        now = _seconds(name, self._where)
        step = now - self._last
        if step <= 0:
            return step
        usual = float(np.median(self._steps)) if len(self._steps) > 2 else step
        self._last = now
        if math.isfinite(step):
            self._steps.append(step)
        return step / usual if math.isfinite(step) else 1.0


def _seconds(name: str, where: str) -> float:
    try:
        return float(name)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(name).timestamp()
    except ValueError:
        raise InputError(
            f"{where}: {name[:40]!r} is no time: write a number, or a date such as "
            "2026-01-31 13:45:00"
        ) from None
