"""A series that grows: each step is scored as soon as all windows that it is in are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.model.model import Model
from historyad.score.result import Scored

_AT_ONCE = 256  # windows


@dataclass
class Finished:
    """Steps of which nothing will change any more: their names, and what is said of them."""

    names: Sequence[str]
    scored: Scored


@dataclass
class Following:
    """What is known of the last steps of a series, of which few are held.

    Scores are those of `score_source` on the whole series, but for its last steps, whose windows
    are not all there yet. ``stride`` is that of the windows.
    """

    model: Model
    stride: int
    _names: list[str] = field(default_factory=list)  # of steps that are not finished
    _steps: NDArray[np.float32] | None = None
    _sums: NDArray[np.float64] | None = None  # of scores and views of the windows they are in
    _last: NDArray[np.float64] | None = None  # those of the last window
    _start: int = 0  # the step at which the next window begins

    def add(self, steps: NDArray[np.float32], names: Sequence[str]) -> Finished:
        """Take the next steps (n, channels), and return those that are finished."""
        n_values = 2 + len(self.model.view_names)  # a count, the score, and the views
        new = np.zeros((len(steps), n_values))
        self._names += names
        self._steps = steps if self._steps is None else np.concatenate([self._steps, steps])
        self._sums = new if self._sums is None else np.concatenate([self._sums, new])
        length = self.model.kind.input_shape[0]
        while self._start + length <= len(self._steps):
            starts = np.arange(self._start, len(self._steps) - length + 1, self.stride)[:_AT_ONCE]
            for at, values in zip(starts.tolist(), self._of_windows(starts), strict=True):
                self._sums[at : at + length] += values
                self._last = values
            self._start = int(starts[-1]) + self.stride
        return self._finish(min(self._start, len(self._steps)))

    def end(self) -> Finished:
        """Return all other steps, by the windows that are there; what comes next begins anew.

        Of steps that are fewer than a window, nothing is said.
        """
        finished = self._finish(0 if self._last is None else len(self._names))
        self._names, self._steps, self._sums, self._last, self._start = [], None, None, None, 0
        return finished

    def _of_windows(self, starts: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return 1, the score and what the views say of windows, (n, 2 + views)."""
        assert self._steps is not None
        windows = self._steps[starts[:, None] + np.arange(self.model.kind.input_shape[0])]
        scored = self.model.score.of(windows, views=True)
        found = [scored.anomaly_score, *(scored.views or {}).values()]
        return np.column_stack([np.ones(len(starts)), *found])

    def _finish(self, n: int) -> Finished:
        """Return the first ``n`` steps, into which no further window reaches, and forget them."""
        n_views = len(self.model.view_names)
        done = np.empty((0, 2 + n_views))
        if n and self._steps is not None and self._sums is not None and self._last is not None:
            done, self._sums = self._sums[:n], self._sums[n:]
            self._steps = self._steps[n:]
            done = np.where(done[:, :1] > 0, done, self._last)  # beside all windows
        names, self._names = self._names[:n], self._names[n:]
        self._start -= n
        means = (done[:, 1:] / done[:, :1]).astype(np.float32)
        views: dict[str, Any] = dict(zip(self.model.view_names, means[:, 1:].T, strict=True))
        return Finished(names, self.model.calibration.decide(Scored(means[:, 0], views=views)))
