"""Windows of a series: each channel is centred and scaled as a column of a table is."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.config import Config
from historyad.errors import InputError
from historyad.kinds.columns import Columns
from historyad.kinds.damages import Damage, window_damages
from historyad.kinds.kind import Samples
from historyad.kinds.scaling import robust_scaling, step_of_new
from historyad.method.networks import Critic, VectorNetworks
from historyad.score.companions import Companions
from historyad.score.windows import WindowCompanions

_SCALED_VALUES = 1 << 22  # from which the scaling is estimated, at most


@dataclass(frozen=True, eq=False)
class Windows(Columns):
    """Windows (steps, channels) with the median and the spread of each channel."""

    name: ClassVar[str] = "windows"
    noun: ClassVar[str] = "window"
    n_axes: ClassVar[int] = 2

    def learnt_from(self, samples: Samples, rows: NDArray[np.intp] | None = None) -> Self:
        """Return this kind with the scaling of the channels of ``rows`` of windows."""
        windows = samples if rows is None else samples[rows]
        some = windows[:: math.ceil(windows.size / _SCALED_VALUES)]
        steps = some.reshape(-1, some.shape[-1])
        center, spread = robust_scaling(steps)
        step = step_of_new([*steps.T], center, len(center))
        return dataclasses.replace(self, center=center, spread=spread, step=step)

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
        self.check_samples(samples)
        return self.scaled(samples).reshape(len(samples), -1)

    def networks(self, config: Config) -> VectorNetworks:
        """Return multilayer perceptrons for all values of a window."""
        return VectorNetworks.of((math.prod(self.input_shape),), config)

    def fit_companions(
        self, d_tv: Critic, normal: Tensor, known: Companions | None = None
    ) -> Companions:
        """Return what compares windows with normal ones, and their spectra."""
        return known or WindowCompanions.fit(normal, self.n_features_in)

    def build_companions(self, d_tv: Critic, shape: Any, sizes: dict[str, int]) -> Companions:
        """Return unfitted ones of these sizes."""
        (n_values,) = shape
        return WindowCompanions.build(n_values, self.n_features_in, **sizes)

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
