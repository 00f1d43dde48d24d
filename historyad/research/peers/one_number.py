"""One number about an image, and how far it is from that of normal images, in either direction."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from historyad.errors import InputError

Number = Callable[[NDArray[np.uint8]], float]  # of an image (H, W, C)


class OneNumber:
    """Distance of one number from its median over the normal images."""

    def __init__(self, number: Number) -> None:
        self.number = number

    def fit(self, samples: NDArray[Any]) -> Self:
        """Learn what is usual; InputError for vectors."""
        self._median = np.median(self._numbers(samples))
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return how far the number of each image is from the usual one, (N,)."""
        return np.asarray(np.abs(self._numbers(samples) - self._median))

    def _numbers(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        if samples.ndim != 4:
            raise InputError("a number about images takes images: give vectors to other methods")
        return np.array([self.number(image) for image in samples])


def mean_gradient(image: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of neighbouring pixels of an image (H, W, C)."""
    values = image.astype(np.float32)
    down, right = np.abs(np.diff(values, axis=0)).mean(), np.abs(np.diff(values, axis=1)).mean()
    return float(down + right) / 2


def png_bytes(image: NDArray[np.uint8]) -> float:
    """Return the size of an image (H, W, C) as a PNG file: how much there is to say of it."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "PNG")
    return float(file.tell())
