"""How the simple peers see samples: pixels in [0, 1], or standardised columns of a table."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class Features:
    """Flatten images to pixels in [0, 1]; centre vectors and scale them to unit variance."""

    def fit(self, samples: NDArray[Any]) -> Self:
        """Learn mean and standard deviation of each column of vectors (N, F); images need none."""
        self._mean: Any = 0.0
        self._deviation: Any = 255.0
        if samples.dtype != np.uint8:
            self._mean = samples.mean(axis=0)
            deviation = samples.std(axis=0)
            self._deviation = np.where(deviation > 0, deviation, 1)
        return self

    def __call__(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 (N, features)."""
        flat = samples.reshape(len(samples), -1).astype(np.float32)
        return np.asarray((flat - self._mean) / self._deviation, np.float32)
