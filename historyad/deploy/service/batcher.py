"""One thread owns the model: it takes what waits, scores it in one call and answers.

Single requests become batches: while one batch is scored, the next one gathers, and where others
are on their way, a small one waits for them for a moment. Who asks alone is not delayed. The queue
is bounded, so that a service that is asked too much says so at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOMENT = 0.004  # seconds that a small batch waits for others that are on their way
_SMALL = 16  # samples that take about as long as one

Samples = NDArray[Any]
Score = Callable[[Samples], NDArray[np.float32]]


class QueueFullError(Exception):
    """The samples do not fit into the queue, or the batcher was closed."""


@dataclass(frozen=True)
class _Work:
    samples: Samples
    alone: Callable[[Samples], Any] | None  # instead of the score; such work is never merged
    answer: Future[Any] = field(default_factory=Future)

    def merges_with(self, other: _Work) -> bool:
        """Whether one call can score both: images seen in crops come in many sizes."""
        same = self.samples.shape[1:] == other.samples.shape[1:]
        return same and self.alone is None and other.alone is None


class Batcher:
    """Calls ``score`` on batches of about ``batch_size`` samples, from one thread alone.

    At most ``queue_size`` samples wait. Work whose future was cancelled is dropped unscored.
    ``taken_on`` says how many samples there are, those among them that are on their way to here.
    """

    def __init__(
        self,
        score: Score,
        *,
        batch_size: int,
        queue_size: int,
        taken_on: Callable[[], int] = lambda: 0,
    ) -> None:
        self._score = score
        self._taken_on = taken_on
        self._batch_size = batch_size
        self._queue_size = queue_size
        self._queue: deque[_Work] = deque()
        self._waiting = 0
        self._busy_since: float | None = None
        self._open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Samples in the queue."""
        return self._waiting

    @property
    def is_running(self) -> bool:
        """Whether what is submitted will be answered."""
        return self._open and self._thread.is_alive()

    @property
    def busy_for(self) -> float:
        """Seconds since the work began that is being done now; 0 when there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def submit(
        self, samples: Samples, alone: Callable[[Samples], Any] | None = None
    ) -> Future[Any]:
        """Return the future scores of ``samples`` (n, ...): float32 (n,).

        With ``alone``, that function is called in place of the score, on these samples only.
        Raises QueueFullError, having queued none of them, when not all of them fit.
        """
        work = _Work(samples, alone)
        with self._changed:
            if not self._open or self._waiting + len(samples) > self._queue_size:
                raise QueueFullError
            self._queue.append(work)
            self._waiting += len(samples)
            if len(self._queue) == 1 or not self._may_wait():
                self._changed.notify()
        return work.answer

    def close(self, seconds: float | None = None) -> None:
        """Refuse new work, finish what is queued and end the thread: within ``seconds``, or not."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            wanted = [work for work in batch if work.answer.set_running_or_notify_cancel()]
            if wanted:
                self._busy_since = time.monotonic()
                self._answer(wanted)
                self._busy_since = None

    def _take(self) -> list[_Work] | None:
        """Wait for work and return the oldest; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or not self._open)
            if not self._queue:
                return None
            self._changed.wait_for(lambda: not self._may_wait(), _MOMENT)
            batch = [self._queue.popleft()]
            size = len(batch[0].samples)
            while self._queue and batch[0].merges_with(self._queue[0]):
                size += len(self._queue[0].samples)
                if size > self._batch_size:
                    break
                batch.append(self._queue.popleft())
            self._waiting -= sum(len(work.samples) for work in batch)
            return batch

    def _may_wait(self) -> bool:
        """Whether what waits is little, and more is on its way."""
        return self._open and self._waiting < min(_SMALL, self._taken_on())

    def _answer(self, batch: list[_Work]) -> None:
        try:
            if batch[0].alone is not None:
                batch[0].answer.set_result(batch[0].alone(batch[0].samples))
                return
            samples = [work.samples for work in batch]
            scores = self._score(np.concatenate(samples) if len(batch) > 1 else samples[0])
        except Exception as error:  # whatever it is, those who wait learn of it and others go on
            for work in batch:
                work.answer.set_exception(error)
            return
        ends = np.cumsum([len(work.samples) for work in batch])
        for work, its_scores in zip(batch, np.split(scores, ends[:-1]), strict=True):
            work.answer.set_result(its_scores)
