"""From what a source holds to what the networks are made for; part of the saved model.

Images (N, H, W, C) are placed on a square grid, or stay large and are seen in crops. Vectors
(N, F) are centred and scaled robustly, feature by feature. Each sample is treated alone, so that
its score does not depend on others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from historyad.data.images import place_on_grid
from historyad.errors import InputError
from historyad.kinds.contrast import halved, local_contrast

_SMALLEST_SIDE, _LARGEST_SIDE = 8, 64  # of the grid that is chosen by itself
_SIDES = (8, 16, 32, 64, 128)  # of any grid
_IQR_OF_NORMAL = 1.349  # interquartile range of N(0, 1)
_MOST_SCALES = 4
_TINY, _HUGE = (float(getattr(np.finfo(np.float32), edge)) for edge in ("tiny", "max"))


@dataclass(frozen=True)
class Preprocessing:
    """What was decided about the input when a detector was fitted.

    ``input_shape`` is (H, W, C) or (F,); ``side`` is the grid's, 0 for vectors; ``any_size`` says
    that images of other sizes than ``input_shape`` are accepted, because the user chose the grid.
    With ``scales`` above 0, the networks see crops of ``side`` of images of any size that holds one
    at every scale; each scale halves the image.
    """

    kind: Literal["image", "vector"]
    input_shape: tuple[int, ...]
    side: int = 0
    any_size: bool = False
    scales: int = 0
    contrast: str = ""
    center: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None

    @classmethod
    def fit(
        cls, samples: NDArray[Any], image_size: int, rows: NDArray[np.intp] | None = None
    ) -> Preprocessing:
        """Decide from training samples; ``image_size`` 0 takes the smallest grid that holds them.

        ``samples`` are uint8 images (N, H, W, C), of which only the shape is looked at, or float32
        vectors (N, F), of which ``rows`` are used.
        """
        shape = tuple(samples.shape[1:])
        if len(shape) == 3:
            side = image_size or _grid_side(max(shape[:2]))
            return cls("image", shape, side, any_size=bool(image_size))
        center, scale = _robust_scaling(samples if rows is None else samples[rows])
        return cls("vector", shape, center=center, scale=scale)

    @classmethod
    def of_crops(
        cls, samples: NDArray[Any], patch: int, scales: int, contrast: str
    ) -> Preprocessing:
        """Decide for images (N, H, W, C) that are seen in crops; InputError for other samples."""
        shape = tuple(samples.shape[1:])
        if len(shape) != 3:
            raise InputError("patch is for images, and these are vectors: leave it 0")
        prepare = cls("image", shape, patch, scales=scales, contrast=contrast)
        prepare.check(shape)
        return prepare

    def validate(self) -> None:
        """Raise ValueError unless the fields, as a file may hold them, fit each other."""
        arrays = (self.center, self.scale)
        if self.kind == "image":
            good = len(self.input_shape) == 3 and self.side in _SIDES
            good = good and all(array is None for array in arrays)
            good = good and type(self.scales) is int and 0 <= self.scales <= _MOST_SCALES
            good = good and self.contrast in (("", "local") if self.scales else ("",))
            good = good and min(self.input_shape[:2]) >= self.smallest_side
        else:
            good = self.kind == "vector" and len(self.input_shape) == 1 and self.side == 0
            good = good and (self.scales, self.contrast) == (0, "")
            good = good and all(a is not None and a.shape == self.input_shape for a in arrays)
            good = good and self.scale is not None and bool((self.scale > 0).all())
        if not good or type(self.side) is not int or type(self.any_size) is not bool:
            raise ValueError("its preprocessing contradicts itself")

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return uint8 (N, side, side, C) or float32 (N, F); InputError as `check_samples`."""
        self.check_samples(samples)
        if self.kind == "image":
            assert not self.scales, "crops are cut from a pyramid"
            if samples.shape[1:3] == (self.side, self.side):
                return samples
            return place_on_grid(samples, self.side)
        # asinh is linear near the centre and logarithmic far out: an outlier stays far, and finite.
        assert self.center is not None
        assert self.scale is not None
        # In double precision, since a difference of two float32 may be too large for a third.
        scaled = (samples.astype(np.float64) - self.center) / self.scale
        return np.arcsinh(scaled).astype(np.float32)

    def pyramid(self, samples: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Return what crops are cut from: images (N, H, W, C) at each scale, the finest first."""
        self.check_samples(samples)
        levels = [samples]
        for _ in range(1, self.scales):
            levels.append(halved(levels[-1]))
        if self.contrast:
            levels = [local_contrast(level, self.side) for level in levels]
        return levels

    @property
    def smallest_side(self) -> int:
        """Pixels that an image needs, each way, for a crop at the coarsest scale; 1: any."""
        return self.side << (self.scales - 1) if self.scales else 1

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the networks see it: (C, side, side) or (F,)."""
        if self.kind == "image":
            return (self.input_shape[2], self.side, self.side)
        return self.input_shape

    @property
    def shrinks(self) -> bool:
        """Whether samples get smaller, so that it pays to keep what this returns."""
        return self.kind == "image" and not self.scales and max(self.input_shape[:2]) > self.side

    def check_samples(self, samples: NDArray[Any]) -> None:
        """Raise InputError unless ``samples`` are what a source holds, and can be scored."""
        self.check(tuple(samples.shape[1:]))
        if self.kind == "image" and samples.dtype != np.uint8:
            raise InputError(
                f"the images are of type {samples.dtype}: give uint8, 0 to 255, or open them with "
                "open_source, which converts"
            )
        if samples.dtype.kind not in "buif":
            raise InputError(f"the vectors are of type {samples.dtype}: give numbers")

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError, naming both shapes, unless one sample of ``shape`` can be scored."""
        if self.scales and len(shape) == 3 and min(shape[:2]) < self.smallest_side:
            raise InputError(
                f"the images have {shape[1]} x {shape[0]} pixels, too few for crops of {self.side} "
                f"at {self.scales} scale{'s' * (self.scales != 1)}: give at least "
                f"{self.smallest_side} x {self.smallest_side}, or fit with a smaller patch or "
                "fewer scales"
            )
        if shape == self.input_shape:
            return
        if self.kind == "image" and len(shape) == 3:
            if shape[2] != self.input_shape[2]:
                raise InputError(
                    f"the images have {_channels(shape[2])}, the detector was fitted on "
                    f"{_channels(self.input_shape[2])}: convert the images or fit on such images"
                )
            if self.any_size or self.scales:
                return
        raise InputError(
            f"the input has shape {_by(shape)}, the detector was fitted on "
            f"{_by(self.input_shape)}: give it the same shape"
            + (", or fit with --image-size to accept any size" if len(shape) == 3 else "")
        )

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array."""
        return {
            "kind": self.kind,
            "input_shape": list(self.input_shape),
            "side": self.side,
            "any_size": self.any_size,
            "scales": self.scales,
            "contrast": self.contrast,
        }


def _grid_side(longest: int) -> int:
    side = _SMALLEST_SIDE
    while side < min(longest, _LARGEST_SIDE):
        side *= 2
    return side


def _robust_scaling(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return median and spread of each feature: interquartile range, else deviation, else 1."""
    low, center, high = np.quantile(vectors.astype(np.float64), [0.25, 0.5, 0.75], axis=0)
    deviation = vectors.std(axis=0, dtype=np.float64)
    # What is below some units in the last place of a float32 is rounding, not spread.
    noise = 1e-6 * np.abs(center)
    spread = (high - low) / _IQR_OF_NORMAL
    spread = np.where(spread > noise, spread, deviation)
    spread = np.where(spread > noise, spread, 1)
    return center.astype(np.float32), np.clip(spread, _TINY, _HUGE).astype(np.float32)


def _channels(n: int) -> str:
    return f"{n} channel" + "s" * (n != 1)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
