"""Windows of a series: each channel is centred and scaled as a column of a table is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from historyad.config import Config
from historyad.errors import ConfigError, InputError
from historyad.kinds.columns import Columns, robust_scaling
from historyad.kinds.damages import Damage, window_damages
from historyad.kinds.kind import Samples
from historyad.method.batches import Batches
from historyad.method.networks import Critic, VectorNetworks
from historyad.score.companions import samples_to_fit
from historyad.score.score import DetectorScore, Score
from historyad.score.views import Views, normal_samples
from historyad.score.windows import WindowCompanions

_SCALED_VALUES = 1 << 22  # from which the scaling is estimated, at most


@dataclass(frozen=True, eq=False)
class Windows(Columns):
    """Windows (steps, channels) with the median and the spread of each channel."""

    name: ClassVar[str] = "windows"
    noun: ClassVar[str] = "window"
    n_axes: ClassVar[int] = 2

    @classmethod
    def choose(cls, windows: Samples, config: Config) -> Self:
        """Decide from training windows (N, steps, channels)."""
        if config.augment:
            raise ConfigError(f"augment is '{config.augment}', which is for images: leave it empty")
        shape = tuple(windows.shape[1:])
        some = windows[:: math.ceil(windows.size / _SCALED_VALUES)]
        return cls(shape, *robust_scaling(some.reshape(-1, shape[1])))

    @property
    def n_features_in(self) -> int:
        """Channels of the series."""
        return self.input_shape[1]

    def from_rows(self, rows: Samples) -> Samples:
        """Return windows whose values are rows, one step after the other."""
        fits = rows.shape[1] == math.prod(self.input_shape)
        return rows.reshape(-1, *self.input_shape) if fits else rows

    def prepare(self, samples: Samples) -> NDArray[np.float32]:
        """Return the scaled values of windows, one step after the other, (N, steps * channels)."""
        return super().prepare(samples).reshape(len(samples), -1)

    def networks(self, config: Config) -> VectorNetworks:
        """Return multilayer perceptrons for all values of a window."""
        return VectorNetworks.of((math.prod(self.input_shape),), config)

    @torch.no_grad()
    def fit_score(
        self,
        d_tv: Critic,
        batches: Batches,
        samples: Samples,
        rows: NDArray[np.intp],
        config: Config,
        *,
        like: Score | None = None,
    ) -> Score:
        """Return D_TV alone, or with companions fitted on the windows."""
        if config.views == "history":
            return DetectorScore(self, d_tv)
        normal = normal_samples(batches, samples_to_fit(math.prod(self.input_shape)))
        companions = WindowCompanions.fit(normal, self.n_features_in)
        return Views(self, d_tv, companions, is_trained=self.trains(config))

    def build_score(self, d_tv: Critic, sizes: dict[str, int] | None, config: Config) -> Score:
        """Return an unfitted score whose companions have these sizes."""
        if sizes is None:
            return DetectorScore(self, d_tv)
        n_values = math.prod(self.input_shape)
        companions = WindowCompanions.build(n_values, self.n_features_in, **sizes)
        return Views(self, d_tv, companions, is_trained=self.trains(config))

    def damages(self, shape: tuple[int, ...]) -> list[Damage]:
        """Return the damages of windows."""
        return window_damages()

    def onnx(self, shape: tuple[int, ...]) -> nn.Module:
        """Raise InputError: there is no graph of spectra."""
        raise InputError(
            "a detector of series cannot be exported: score with historyad score, historyad serve "
            "or Model.anomaly_score"
        )

    def describe(self) -> dict[str, Any]:
        """Return what a window is."""
        steps, channels = self.input_shape
        return {"input": f"{steps} steps x {channels} channels", "kind": self.noun}
