"""Vectors, such as the rows of a table: each column is centred and scaled, or made dummies of."""

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
from historyad.data.tables import Levels
from historyad.errors import ConfigError, InputError
from historyad.kinds.as_one import AsOne
from historyad.kinds.damages import Damage, vector_damages
from historyad.kinds.encoding import Encoding
from historyad.kinds.kind import Excess, Random, Samples, by, read_shape
from historyad.kinds.scaling import constant_step, robust_scaling, rounding_of, step_of_new
from historyad.method.networks import Critic, VectorNetworks
from historyad.score.companions import Companions, VectorCompanions
from historyad.score.score import Score

_BATCH = 128  # vectors with a value replaced, scored at a time


@dataclass(frozen=True, eq=False)
class Columns(AsOne):
    """Vectors (F,) with the median and the spread of each column over the training samples.

    The spread of a constant column is 0: that it varies at all has never been seen, whatever its
    unit; what it is worth says ``step``. The ``encoding`` says what becomes of texts and of missing
    values.
    """

    center: NDArray[np.float32]
    spread: NDArray[np.float32]
    encoding: Encoding
    step: float

    name: ClassVar[str] = "columns"
    noun: ClassVar[str] = "vector"
    is_picture: ClassVar[bool] = False
    networks_see_pictures: ClassVar[bool] = False
    rest_dtype: ClassVar[torch.dtype] = torch.float32
    n_axes: ClassVar[int] = 1  # of a sample; the last is that of the columns

    @classmethod
    def choose(cls, shape: tuple[int, ...], config: Config, levels: Levels = ()) -> Self:
        """Decide for vectors of ``shape``; ConfigError for settings that are for images."""
        if config.augment:
            raise ConfigError(f"augment is '{config.augment}', which is for images: leave it empty")
        center, spread = np.zeros(shape[-1], np.float32), np.ones(shape[-1], np.float32)
        encoding = Encoding.unseen(levels, shape[-1])
        return cls(shape, center, spread, encoding, constant_step(shape[-1]))

    @property
    def levels(self) -> Levels:
        """The texts of each column; none where all are of numbers."""
        return self.encoding.levels if len(self.encoding.texts) else ()

    @property
    def may_miss(self) -> bool:
        """Whether a value may be missing or a text, as some were in the fit."""
        return not self.encoding.is_plain

    def numbered(self, row: list[Any]) -> list[Any]:
        """Return the values of a row with the numbers of its texts, and NaN for None."""
        return self.encoding.numbered(row)

    def learnt_from(self, samples: Samples, rows: NDArray[np.intp] | None = None) -> Self:
        """Return this kind with what the columns of ``rows`` of vectors hold."""
        vectors = samples if rows is None else samples[rows]
        encoding = self.encoding.learnt_from(vectors)
        center, spread = robust_scaling(vectors)
        numbers = np.setdiff1d(np.arange(len(center)), encoding.texts)
        step = step_of_new([vectors[:, i] for i in numbers], center[numbers], len(center))
        center[encoding.texts] = spread[encoding.texts] = 0
        return dataclasses.replace(self, center=center, spread=spread, encoding=encoding, step=step)

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
        """Return asinh((x - center) / spread) of numbers, and dummies, float32 (N, G).

        asinh is linear near the centre and logarithmic far out: an outlier stays far, and finite.
        A new value of a constant column is as far from it as ``step``, to either side.
        """
        self.check_samples(samples)
        return self.encoding.encode(samples, self.scaled(samples))

    def scaled(self, samples: Samples) -> NDArray[np.float32]:
        """Return the numbers of samples, scaled, float32 (N, F) or (N, steps, channels)."""
        # In double precision, since a difference of two float32 may be too large for a third.
        difference = samples.astype(np.float64) - self.center
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.arcsinh(difference / self.spread)
            side = difference / np.abs(difference)  # NaN stays NaN, and infinity becomes it
        same = np.abs(difference) <= self.rounding
        stepped = np.where(same, 0, self.step * side)
        return np.where(self.spread > 0, scaled, stepped).astype(np.float32)

    @property
    def rounding(self) -> NDArray[np.float64]:
        """How far from the value of a constant column rounding alone leads."""
        return rounding_of(self.center)

    def floats(self, prepared: Samples, device: torch.device | str = "cpu") -> Tensor:
        """Return the same numbers as a tensor."""
        return torch.from_numpy(np.require(prepared, np.float32, ["C", "W"])).to(device)

    def networks(self, config: Config) -> VectorNetworks:
        """Return multilayer perceptrons."""
        return VectorNetworks.of((len(self.encoding.owners),), config)

    def fit_companions(
        self, d_tv: Critic, normal: Tensor, known: Companions | None = None
    ) -> Companions:
        """Return what compares vectors with normal ones as they are."""
        return known or VectorCompanions.fit(normal, math.prod(self.input_shape))

    def build_companions(self, d_tv: Critic, shape: Any, sizes: dict[str, int]) -> Companions:
        """Return unfitted ones of these sizes."""
        return VectorCompanions.build(*shape, **sizes)

    @property
    def _varies(self) -> NDArray[np.bool_]:
        """Which columns are damaged: all numbers that vary, and if there are none, all."""
        varies = self.spread > 0
        return varies if varies.any() else ~varies

    def damages(self, shape: tuple[int, ...]) -> list[Damage]:
        """Return the damages of vectors of ``shape``, (F,)."""
        return vector_damages(int(self._varies.sum()))

    def damage(self, damage: Damage, samples: Samples, strength: float, random: Random) -> Samples:
        """Return copies of vectors damaged in units of the spread seen in training.

        Constant columns, whose least change is anomalous, stay as they are, and so do texts, and
        what is missing.
        """
        varies = self._varies
        center, spread = self.center[varies], np.where(self.spread > 0, self.spread, 1)[varies]
        damaged = samples.astype(np.float64)
        missing = np.isnan(damaged)
        z = np.nan_to_num((damaged[..., varies] - center) / spread)
        damaged[..., varies] = center + spread * damage.apply(z, strength, random)
        damaged[missing] = np.nan
        return damaged.astype(np.float32)

    def example(self, n: int, random: Random, shape: tuple[int, ...] | None = None) -> Samples:
        """Return normal draws and, every second, some that are a hundred times as far out.

        In these, constant columns have other values, and columns of texts unknown ones.
        """
        z = random.standard_normal((n, *self.input_shape))
        z[1::2] *= 100
        found = self.center + self.spread * z
        found[1::2] += np.where(self.spread > 0, 0, z[1::2])
        for i in self.encoding.texts:
            found[::2, i] = random.integers(len(self.encoding.levels[i]), size=len(found[::2]))
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
        prepared = score.usual(np.asarray(vector, np.float32), self.encoding.owners)
        if prepared is None:
            return self.encoding.decode(
                np.zeros(len(self.encoding.owners), np.float32), self.center
            )
        numbers, steps = self.encoding.numbers, np.zeros_like(self.center, np.float64)
        steps[numbers] = np.sinh(prepared[: len(numbers)].astype(np.float64)) * self.spread[numbers]
        return self.encoding.decode(prepared, (self.center + steps).astype(np.float32))

    def called(self, column: int, value: float) -> float | str:
        """Return what a person calls a value of a column: a number or a text."""
        return self.encoding.called(column, value)

    def onnx(self, shape: tuple[int, ...]) -> nn.Module:
        """Return `prepare` as a module."""
        return _Scaling(self)

    def describe(self) -> dict[str, Any]:
        """Return shape and kind."""
        return {"input": by(self.input_shape), "kind": self.noun}

    def to_json(self) -> dict[str, Any]:
        """Return what is to be read by `from_json`, besides the arrays."""
        levels = self.encoding.to_json()
        return {"input_shape": list(self.input_shape), "levels": levels, "step": self.step}

    def tensors(self) -> dict[str, Tensor]:
        """Return median and spread of the columns, and how often each text was seen."""
        scaling = {name: torch.from_numpy(getattr(self, name)) for name in ("center", "spread")}
        return {**scaling, "shares": self.encoding.tensor()}

    @classmethod
    def from_json(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Return the kind that a file describes; ValueError when that contradicts itself."""
        shape = read_shape(content, cls.n_axes)
        center, spread = (tensors[name].numpy() for name in ("center", "spread"))
        if not center.shape == spread.shape == shape[-1:] or not (spread >= 0).all():
            raise ValueError(f"the scaling of {center.shape} columns of {shape}")
        encoding = Encoding.from_json(content["levels"], tensors["shares"], shape[-1])
        step = content["step"]
        if not isinstance(step, float) or not 0 <= step < math.inf:
            raise ValueError(f"a step of {step!r}")
        return cls(shape, center, spread, encoding, step)


class _Scaling(nn.Module):
    """`Columns.prepare`, numbers in double precision as there."""

    center: Tensor
    spread: Tensor
    rounding: Tensor

    def __init__(self, kind: Columns) -> None:
        super().__init__()
        self.step = kind.step
        self.encoding = kind.encoding.onnx()
        for name in ("center", "spread", "rounding"):
            self.register_buffer(name, torch.tensor(getattr(kind, name), dtype=torch.float64))

    def forward(self, vectors: Tensor) -> Tensor:
        """Map float32 (N, F) to float32 (N, G)."""
        difference = vectors.double() - self.center
        size = difference.abs()
        side = difference / size
        stepped = torch.where(size <= self.rounding, 0.0, self.step * side)
        z = size / self.spread
        # asinh(z) spelled out, since onnxruntime has no asinh in double precision.
        scaled = difference.sign() * (z + (z * z + 1).sqrt()).log()
        numbers = torch.where(self.spread > 0, scaled, stepped).float()
        encoded: Tensor = self.encoding(vectors, numbers)
        return encoded
