"""Several histories as one: the mixture of their P_Ghist."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from historyad.errors import RunError
from historyad.method.history import History
from historyad.method.networks import Critic


class PooledHistory(History):
    """The mixture of several P_Ghist, each with the same mass, as one history.

    They were recorded with the same settings from different seeds, and their snapshots stay in
    their folders; settings, seed included, are the first one's. So is the averaged critic: eq. 14
    holds for states of one training, and the weights of networks that were trained apart have no
    meaningful average. Raises RunError for histories that were not recorded at the same times.
    """

    def __init__(self, histories: Sequence[History]) -> None:
        self._first = first = histories[0]
        if any(not np.array_equal(history.times, first.times) for history in histories):
            raise RunError("histories that were not recorded at the same times cannot be pooled")
        super().__init__(first.path, first.config, first.networks, first.device)
        self.snapshots = [
            replace(snapshot, file=os.path.relpath(history.path / snapshot.file, first.path))
            for history in histories
            for snapshot in history.snapshots
        ]

    def average_critic(self) -> Critic:
        """Eq. 14, of the first history alone."""
        return self._first.average_critic()
