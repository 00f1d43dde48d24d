"""What the loops of steps 1 and 3 share: counting, the figure of the log, and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from historyad import progress, ranks
from historyad.checkpoints import Checkpoint
from historyad.config import Config
from historyad.errors import RunError
from historyad.method.history import is_save

OnProgress = Callable[[dict[str, Any]], None]

CHECKPOINT_SECONDS = 30.0  # age at which a checkpoint is replaced
SHARED_FOLDER = "the run must be in one folder that every process sees; the same command continues"


class OutOfTimeError(Exception):
    """Training was stopped at its time; its state is kept, and it can be continued."""


_LOG_NAMES = {1: "gan", 3: "detector"}
_RATES = {1: "learning_rate", 3: "detector_learning_rate"}


@dataclass(frozen=True)
class Session:
    """What surrounds a training: where its state is kept, and who is told of its progress.

    ``checkpoints`` is a folder, or None to keep nothing; a checkpoint is replaced when it is
    ``seconds`` old. ``on_progress`` gets a record at every save interval. A training that has not
    ended at ``stop_at``, of the monotonic clock, raises `OutOfTimeError` with its state kept.
    """

    checkpoints: Path | None = None
    on_progress: OnProgress | None = None
    seconds: float = CHECKPOINT_SECONDS
    stop_at: float = math.inf

    def checkpoint(self, step: int) -> Checkpoint | None:
        """Return the checkpoint of a step."""
        if self.checkpoints is None:
            return None
        return Checkpoint(self.checkpoints / f"{_LOG_NAMES[step]}.safetensors")


class Loop:
    """Where a step is: the images it has seen, the figure of its log, and its checkpoint.

    It starts where the checkpoint was left, if there is one, with ``networks`` and ``optimizers``
    as they were. The figure is summed up where it is computed: to read it after every batch would
    make an accelerator wait. After an interruption, the sum of all ranks is that of rank 0.
    """

    def __init__(
        self,
        step: int,
        config: Config,
        session: Session,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Adam],
    ) -> None:
        self.config = config
        self._step = step
        self._session, self._checkpoint = session, session.checkpoint(step)
        self._networks, self._optimizers = networks, optimizers
        checkpoint = self._checkpoint
        state = (checkpoint.restore(networks, optimizers) if checkpoint else None) or {}
        ranks.agree({f"state of step {step}": ranks.fingerprint(state)}, SHARED_FOLDER)
        ranks.broadcast(networks.values())
        self.images_seen: int = state.get("images_seen", 0)
        self._sum: Tensor | float = state.get("sum", 0.0)
        self._n_batches: int = state.get("n_batches", 0)

    @property
    def epoch(self) -> float:
        """The time, in epochs."""
        return self.images_seen / self.config.epoch_images

    def until(self, end: float) -> Iterator[int]:
        """Yield the images seen before each batch, up to ``end``; keep the state meanwhile."""
        saved_at = time.monotonic()
        progress.resume(self.images_seen / end)
        while self.images_seen < end:
            yield self.images_seen
            progress.reach(self.images_seen / end)
            now = time.monotonic()
            is_late = now > self._session.stop_at
            if is_late or now - saved_at > self._session.seconds:
                self._save()
                saved_at = time.monotonic()
            if is_late:
                raise OutOfTimeError
        self._save()

    def count(self, figure: Tensor) -> float | None:
        """Count a batch, of which ``figure`` is this rank's part.

        Return the mean figure since the last save, over all ranks, where a save interval ends, else
        None. Raises RunError, on every rank, when it is not finite.
        """
        self.images_seen += self.config.batch_size
        self._sum = self._sum + figure
        self._n_batches += 1
        return self._take_figure() if is_save(self.images_seen, self.config) else None

    def report(self, **values: float) -> None:
        """Tell rank 0's listener the record of a save."""
        if self._session.on_progress is not None and ranks.is_main():
            seen = {"images_seen": self.images_seen, "epoch": self.epoch}
            self._session.on_progress({"step": _LOG_NAMES[self._step], **seen, **values})

    def _take_figure(self) -> float:
        mean = torch.as_tensor(self._sum) / self._n_batches
        self._sum, self._n_batches = 0.0, 0
        figure = float(ranks.average(mean, self.config.batch_size))
        if not math.isfinite(figure):
            raise RunError(
                f"step {self._step} diverged at epoch {self.epoch:.4g} (what it logs is {figure}): "
                f"lower {_RATES[self._step]}, and fit in a new --out"
            )
        return figure

    def _save(self) -> None:
        """Replace the checkpoint; rank 0 does."""
        if self._checkpoint is None or not ranks.is_main():
            return
        state = {
            "images_seen": self.images_seen,
            "sum": float(self._sum),
            "n_batches": self._n_batches,
        }
        self._checkpoint.save(self._networks, self._optimizers, state)
