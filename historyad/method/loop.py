"""What the loops of steps 1 and 3 share: counting, the figure of the log, and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from historyad.checkpoints import Checkpoint
from historyad.config import Config
from historyad.errors import RunError
from historyad.method import ranks as distributed
from historyad.method.history import is_save

OnProgress = Callable[[dict[str, Any]], None]

CHECKPOINT_SECONDS = 30.0
SHARED_FOLDER = "the run must be in one folder that every process sees; the same command continues"

_LOG_NAMES = {1: "gan", 3: "detector"}
_RATES = {1: "learning_rate", 3: "detector_learning_rate"}


class Training:
    """Where a step is: the images it has seen, the figure of its log, and its checkpoint.

    It starts where ``checkpoint`` was left, if there is one, with ``networks`` and ``optimizers``
    as they were. The figure is summed up where it is computed: to read it after every batch would
    make an accelerator wait. After an interruption, the sum of all ranks is that of rank 0.
    """

    def __init__(
        self,
        step: int,
        config: Config,
        checkpoint: Checkpoint | None,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Adam],
    ) -> None:
        self.config = config
        self._step = step
        self._checkpoint, self._networks, self._optimizers = checkpoint, networks, optimizers
        state = (checkpoint.restore(networks, optimizers) if checkpoint else None) or {}
        distributed.agree({f"state of step {step}": distributed.fingerprint(state)}, SHARED_FOLDER)
        distributed.broadcast(networks.values())
        self.images_seen: int = state.get("images_seen", 0)
        self._sum: Tensor | float = state.get("sum", 0.0)
        self._n_batches: int = state.get("n_batches", 0)
        self._saved_at = time.monotonic()

    @property
    def epoch(self) -> float:
        """The time, in epochs."""
        return self.images_seen / self.config.epoch_images

    @property
    def is_at_save(self) -> bool:
        """Whether the last batch ended a save interval."""
        return is_save(self.images_seen, self.config)

    def count(self, figure: Tensor) -> None:
        """Count a batch, of which ``figure`` is this rank's part."""
        self.images_seen += self.config.batch_size
        self._sum = self._sum + figure
        self._n_batches += 1

    def take_figure(self) -> float:
        """Return the mean figure of the batches since the last save, over all ranks.

        Raises RunError, on every rank, when it is not finite.
        """
        mean = torch.as_tensor(self._sum) / self._n_batches
        self._sum, self._n_batches = 0.0, 0
        figure = float(distributed.average(mean, self.config.batch_size))
        if not math.isfinite(figure):
            raise RunError(
                f"step {self._step} diverged at epoch {self.epoch:.4g} (what it logs is {figure}): "
                f"lower {_RATES[self._step]}, and fit in a new --out"
            )
        return figure

    def report(self, on_progress: OnProgress | None, **values: float) -> None:
        """Give rank 0's ``on_progress`` the record of a save."""
        if on_progress is not None and distributed.is_main():
            seen = {"images_seen": self.images_seen, "epoch": self.epoch}
            on_progress({"step": _LOG_NAMES[self._step], **seen, **values})

    def save_in_time(self) -> None:
        """Replace the checkpoint when it is `CHECKPOINT_SECONDS` old."""
        if time.monotonic() - self._saved_at > CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        """Replace the checkpoint; rank 0 does."""
        if self._checkpoint is None or not distributed.is_main():
            return
        state = {
            "images_seen": self.images_seen,
            "sum": float(self._sum),
            "n_batches": self._n_batches,
        }
        self._checkpoint.save(self._networks, self._optimizers, state)
        self._saved_at = time.monotonic()
