"""Early-stopped generator (Gu et al., 2018): ours with a history of a single snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from historyad.method.detector import train_detector
from historyad.method.gan import record_history
from historyad.research.peers.training import NetworkPeer, freeze

_DETECTOR_EPOCHS = 2.0  # for one of the GAN, as in ours


@dataclass(kw_only=True, eq=False)
class EarlyStopped(NetworkPeer):
    """A detector of the data against the samples of one generator whose training stopped early.

    ``n_images`` is the length of both trainings, in images seen: a third of it until the snapshot,
    which is where our history begins on 60,000 images, and the rest for the detector, which starts
    from random weights. 180,000 are meant for three minutes of one CPU core at 32 x 32 pixels.
    """

    n_images: int = 180_000
    learning_rate: float = 5e-4
    detector_learning_rate: float = 1e-3

    def fit(self, samples: NDArray[Any]) -> Self:
        """Train the GAN until the snapshot, and the detector against it."""
        settings = {
            "epoch_images": round(self.n_images / (1 + _DETECTOR_EPOCHS)),
            "learning_rate": self.learning_rate,
            "detector_learning_rate": self.detector_learning_rate,
            "skip_epochs": 1.0,
            "saves_per_epoch": 1,
            # Nothing after the first snapshot has a mass: step 1 stops there.
            "decay": 100.0,
            "mass_tolerance": 0.5,
            "wide_share": 0.0,
            "detector_start": "random",
            "detector_epochs": _DETECTOR_EPOCHS,
        }
        self._look_at(samples)
        with self._history(samples, **settings) as (batches, history):
            record_history(batches, history)
            self._detector = train_detector(batches, history)
        freeze(self._detector)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return D_TV of each sample, (N,)."""
        return self._in_batches(self._detector, samples)
