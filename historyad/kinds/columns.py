"""Vectors, such as the rows of a table: each column is centred and scaled robustly."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.errors import ConfigError, InputError
from historyad.kinds.as_one import AsOne
from historyad.kinds.damages import Damage, vector_damages
from historyad.kinds.kind import Excess, Random, Samples, by, read_shape
from historyad.method.networks import Critic, VectorNetworks
from historyad.score.companions import Companions, VectorCompanions
from historyad.score.score import Score

_IQR_OF_NORMAL = 1.349  # interquartile range of N(0, 1)
_ROUNDING = 1e-6  # of a value: some units in the last place of a float32
_TINY, _HUGE = (float(getattr(np.finfo(np.float32), edge)) for edge in ("tiny", "max"))
_BATCH = 128  # vectors with a value replaced, scored at a time


@dataclass(frozen=True, eq=False)
class Columns(AsOne):
    """Vectors (F,) with the median and the spread of each column over the training samples.

    The spread of a constant column is 0: that it varies at all has never been seen, whatever its
    unit.
    """

    center: NDArray[np.float32]
    spread: NDArray[np.float32]

    name: ClassVar[str] = "columns"
    noun: ClassVar[str] = "vector"
    is_picture: ClassVar[bool] = False
    networks_see_pictures: ClassVar[bool] = False
    rest_dtype: ClassVar[torch.dtype] = torch.float32
    n_axes: ClassVar[int] = 1  # of a sample; the last is that of the columns

    @classmethod
    def choose(cls, shape: tuple[int, ...], config: Config) -> Self:
        """Decide for vectors of ``shape``; ConfigError for settings that are for images."""
        if config.augment:
            raise ConfigError(f"augment is '{config.augment}', which is for images: leave it empty")
        return cls(shape, np.zeros(shape[-1], np.float32), np.ones(shape[-1], np.float32))

    def learnt_from(self, samples: Samples, rows: NDArray[np.intp] | None = None) -> Self:
        """Return this kind with the scaling of the columns of ``rows`` of vectors."""
        center, spread = robust_scaling(samples if rows is None else samples[rows])
        return dataclasses.replace(self, center=center, spread=spread)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError, naming both shapes, unless a vector of ``shape`` can be scored."""
        if shape != self.input_shape:
            raise InputError(
                f"the input has shape {by(shape)}, the detector was fitted on "
                f"{by(self.input_shape)}: give it the same shape"
            )

    def check_samples(self, samples: Samples) -> None:
        """Raise InputError unless ``samples`` are numbers of the right shape."""
        self.check(tuple(samples.shape[1:]))
        if samples.dtype.kind not in "buif":
            raise InputError(f"the vectors are of type {samples.dtype}: give numbers")

    def prepare(self, samples: Samples) -> NDArray[np.float32]:
        """Return asinh((x - center) / spread), float32 (N, F).

        asinh is linear near the centre and logarithmic far out: an outlier stays far, and finite.
        A new value of a constant column is as far from it as `constant_step` says, to either side.
        """
        self.check_samples(samples)
        # In double precision, since a difference of two float32 may be too large for a third.
        difference = samples.astype(np.float64) - self.center
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.arcsinh(difference / self.spread)
            side = difference / np.abs(difference)  # NaN stays NaN, and infinity becomes it
        same = np.abs(difference) <= self.rounding
        stepped = np.where(same, 0, constant_step(len(self.spread)) * side)
        return np.where(self.spread > 0, scaled, stepped).astype(np.float32)

    @property
    def rounding(self) -> NDArray[np.float64]:
        """How far from the value of a constant column rounding alone leads."""
        return _rounding_of(self.center)

    def floats(self, prepared: Samples, device: torch.device | str = "cpu") -> Tensor:
        """Return the same numbers as a tensor."""
        return torch.from_numpy(np.require(prepared, np.float32, ["C", "W"])).to(device)

    def networks(self, config: Config) -> VectorNetworks:
        """Return multilayer perceptrons."""
        return VectorNetworks.of(self.input_shape, config)

    def fit_companions(self, d_tv: Critic, normal: Tensor) -> Companions:
        """Return what compares vectors with normal ones as they are."""
        return VectorCompanions.fit(normal)

    def build_companions(self, d_tv: Critic, shape: Any, sizes: dict[str, int]) -> Companions:
        """Return unfitted ones of these sizes."""
        return VectorCompanions.build(*shape, **sizes)

    @property
    def _varies(self) -> NDArray[np.bool_]:
        """Which columns are damaged: all that vary, and if there are none, all."""
        varies = self.spread > 0
        return varies if varies.any() else ~varies

    def damages(self, shape: tuple[int, ...]) -> list[Damage]:
        """Return the damages of vectors of ``shape``, (F,)."""
        return vector_damages(int(self._varies.sum()))

    def damage(self, damage: Damage, samples: Samples, strength: float, random: Random) -> Samples:
        """Return copies of vectors damaged in units of the spread seen in training.

        Constant columns, whose least change is anomalous, stay as they are.
        """
        varies = self._varies
        center, spread = self.center[varies], np.where(self.spread > 0, self.spread, 1)[varies]
        damaged = samples.astype(np.float64)
        z = (damaged[..., varies] - center) / spread
        damaged[..., varies] = center + spread * damage.apply(z, strength, random)
        return damaged.astype(np.float32)

    def example(self, n: int, random: Random, shape: tuple[int, ...] | None = None) -> Samples:
        """Return normal draws and, every second, some that are a hundred times as far out.

        In these, constant columns have other values.
        """
        z = random.standard_normal((n, *self.input_shape))
        z[1::2] *= 100
        found = self.center + self.spread * z
        found[1::2] += np.where(self.spread > 0, 0, z[1::2])
        return found.astype(np.float32)

    def unusual(self, shape: tuple[int, ...]) -> list[Samples]:
        """Return the example with NaN or an infinity in one value of each vector."""
        found = self.example(3 * shape[0], np.random.default_rng(0))
        bad = np.repeat(np.array([np.nan, np.inf, -np.inf], np.float32), shape[0])
        values = found.reshape(len(found), -1)
        values[np.arange(len(found)), np.arange(len(found)) % values.shape[1]] = bad
        return [found]

    def contributions(self, score: Score, vector: Samples, excess: Excess) -> NDArray[np.float32]:
        """Return what each column adds to how anomalous a vector (F,) is, float32 (F,).

        It is by how much less far out the vector is when the column alone takes its `usual` value.
        """
        vector = np.asarray(vector, np.float32)
        (whole,) = excess(score.of(vector[None]).anomaly_score)
        n_columns = vector.shape[-1]
        usual = self.usual(score, vector)
        found = np.empty(n_columns, np.float32)
        for columns in np.array_split(np.arange(n_columns), np.arange(_BATCH, n_columns, _BATCH)):
            replaced = np.repeat(vector[None], len(columns), axis=0)
            for row, column in enumerate(columns):
                replaced[row, ..., column] = usual[column]
            found[columns] = whole - excess(score.of(replaced).anomaly_score)
        return found

    def usual(self, score: Score, vector: Samples) -> NDArray[np.float32]:
        """Return what is usual in place of each value, (F,).

        That is the median of its nearest normal vectors, by all other columns, or of all training
        data where the score knows no neighbours.
        """
        prepared = score.usual(np.asarray(vector, np.float32))
        if prepared is None:
            return self.center
        steps = np.where(self.spread > 0, np.sinh(prepared.astype(np.float64)) * self.spread, 0)
        return (self.center + steps).astype(np.float32)

    def onnx(self, shape: tuple[int, ...]) -> nn.Module:
        """Return `prepare` as a module."""
        return _Scaling(self)

    def describe(self) -> dict[str, Any]:
        """Return shape and kind."""
        return {"input": by(self.input_shape), "kind": self.noun}

    def to_json(self) -> dict[str, Any]:
        """Return what is to be read by `from_json`, besides the arrays."""
        return {"input_shape": list(self.input_shape)}

    def tensors(self) -> dict[str, Tensor]:
        """Return median and spread of the columns."""
        return {"center": torch.from_numpy(self.center), "spread": torch.from_numpy(self.spread)}

    @classmethod
    def from_json(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Return the kind that a file describes; ValueError when that contradicts itself."""
        shape = read_shape(content, cls.n_axes)
        center, spread = (tensors[name].numpy() for name in ("center", "spread"))
        if not center.shape == spread.shape == shape[-1:] or not (spread >= 0).all():
            raise ValueError(f"the scaling of {center.shape} columns of {shape}")
        return cls(shape, center, spread)


class _Scaling(nn.Module):
    """`Columns.prepare`, in double precision as there."""

    center: Tensor
    spread: Tensor
    rounding: Tensor

    def __init__(self, kind: Columns) -> None:
        super().__init__()
        self.step = constant_step(len(kind.spread))
        for name in ("center", "spread", "rounding"):
            self.register_buffer(name, torch.tensor(getattr(kind, name), dtype=torch.float64))

    def forward(self, vectors: Tensor) -> Tensor:
        """Map float32 (N, F) to float32 (N, F)."""
        difference = vectors.double() - self.center
        size = difference.abs()
        side = difference / size
        stepped = torch.where(size <= self.rounding, 0.0, self.step * side)
        z = size / self.spread
        # asinh(z) spelled out, since onnxruntime has no asinh in double precision.
        scaled = difference.sign() * (z + (z * z + 1).sqrt()).log()
        return torch.where(self.spread > 0, scaled, stepped).float()


def constant_step(n_columns: int) -> float:
    """Return what a new value of a constant column is worth, in spreads of a column that varies.

    Normal rows differ by about the root of the number of columns: this is ten times as much.
    """
    return CONSTANTS.constant_step * math.sqrt(n_columns)


def _rounding_of(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how far rounding leads from values (F,): of large ones, less than to the next integer.

    A number of a lot may be 1000001 where all others were 1000000.
    """
    rounding: NDArray[np.float64] = np.minimum(_ROUNDING * np.abs(values.astype(np.float64)), 0.5)
    return rounding


def robust_scaling(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return median and spread of each column: interquartile range, else `_rare_spread`."""
    low, center, high = np.quantile(vectors.astype(np.float64), [0.25, 0.5, 0.75], axis=0)
    noise = _rounding_of(center)
    spread = (high - low) / _IQR_OF_NORMAL
    for column in np.flatnonzero(spread <= noise):
        spread[column] = _rare_spread(vectors[:, column] - center[column], noise[column])
    spread = np.where(spread > 0, np.clip(spread, _TINY, _HUGE), 0)
    return center.astype(np.float32), spread.astype(np.float32)


def _rare_spread(differences: NDArray[np.float64], noise: float) -> float:
    """Return the spread of a column of which more than half is one value, 0 if all of it is.

    It is the root of the share of other values times the median of how far these are: about their
    root mean square, and one that is far out does not hide the others.
    """
    others = np.abs(differences)
    others = others[others > noise]
    if not len(others):
        return 0.0
    return math.sqrt(len(others) / len(differences)) * float(np.median(others))
