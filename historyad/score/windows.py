"""The companions of D_TV on windows of a series: what a stretch of it looks like, in five ways.

=============  =================================================================================
view           what it says of a window
=============  =================================================================================
`neighbours`   distance to the nearest normal windows, value by value; of long ones, by the means
               of a few steps each
`shape`        the same of windows whose level and scale were taken out, as of a matrix profile
`gaussian`     distance to a Gaussian of windows
`level`        distance to a Gaussian of the mean and the spread of each channel
`spectrum`     distance to a Gaussian of the power in bands of frequencies, wherever a wave begins
=============  =================================================================================

Windows that overlap are near each other whatever is normal, so that the gaps between them say
nothing, and distances are plain ones.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.constants import CONSTANTS, Rule
from historyad.score.companions import Companions
from historyad.score.gaussian import Gaussian
from historyad.score.neighbours import Bank


class WindowCompanions(Companions):
    """Companions of D_TV on windows (steps * channels,), one step after the other."""

    def __init__(
        self,
        look: WindowLook,
        neighbours: Bank,
        shape: Bank,
        gaussian: Gaussian,
        level: Gaussian,
        spectrum: Gaussian,
    ) -> None:
        super().__init__()
        self.look = look
        self.neighbours = neighbours
        self.shape = shape
        self.gaussian = gaussian
        self.level = level
        self.spectrum = spectrum

    @property
    def rules(self) -> dict[str, Rule]:
        """How each view counts."""
        return {
            "history": CONSTANTS.history_of_vectors,
            "neighbours": Rule(),
            "shape": CONSTANTS.shape_of_windows,
            "gaussian": Rule(),
            "level": Rule(),
            "spectrum": CONSTANTS.spectrum_of_windows,
        }

    @classmethod
    def fit(cls, windows: Tensor, n_channels: int) -> WindowCompanions:
        """Fit to normal windows (N, steps * channels)."""
        look = WindowLook(windows.shape[1], n_channels)
        kept = max(2, CONSTANTS.bank_values // look.n_values)
        coarse = look.coarse(windows)

        def gaussian(x: Tensor) -> Gaussian:
            return Gaussian.fit(x, ridge=CONSTANTS.vector_ridge)

        return cls(
            look,
            Bank.keep(coarse, kept),
            Bank.keep(look.shape(coarse), kept),
            gaussian(coarse),
            gaussian(look.level(windows)),
            gaussian(look.spectrum(windows)),
        )

    @classmethod
    def build(
        cls, n_values: int, n_channels: int, *, bank: int, components: int, levels: int, bands: int
    ) -> WindowCompanions:
        """Return unfitted ones of these sizes."""
        look = WindowLook(n_values, n_channels)
        return cls(
            look,
            Bank(look.n_values, bank),
            Bank(look.n_values, bank),
            Gaussian(look.n_values, components),
            Gaussian(2 * n_channels, levels),
            Gaussian(look.n_bands * n_channels, bands),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        return {
            "bank": len(self.neighbours.bank),
            "components": len(self.gaussian.components),
            "levels": len(self.level.components),
            "bands": len(self.spectrum.components),
        }

    def place(self, x: Tensor, features: Tensor) -> Tensor:
        """Return windows by means of some steps each."""
        return self.neighbours.place(self.look.coarse(x))

    def forward(self, x: Tensor, features: Tensor, n: int | None = None) -> dict[str, Tensor]:
        """Return the views of windows (B, values) besides that of the history, {name: (B,)}."""
        # No distance may hide a value that is not a number.
        unknown = torch.where(x.isfinite().all(1), 0.0, torch.nan)
        coarse = self.look.coarse(x)
        found = {
            "neighbours": _distance(self.neighbours, coarse),
            "shape": _distance(self.shape, self.look.shape(coarse)),
            "gaussian": self.gaussian(coarse),
            "level": self.level(self.look.level(x)),
            "spectrum": self.spectrum(self.look.spectrum(x)),
        }
        return {name: view + unknown for name, view in found.items()}


def _distance(bank: Bank, x: Tensor) -> Tensor:
    """Return the mean distance of (B, values) to their nearest neighbours in a bank, (B,)."""
    places = bank.place(x)
    return bank.nearest(places, bank.candidates(places), CONSTANTS.neighbours)[0].mean(1)


class WindowLook(nn.Module):
    """Features of windows (steps * channels,), each a function of its window alone."""

    pool: Tensor
    taper: Tensor
    bands: Tensor

    def __init__(self, n_values: int, n_channels: int) -> None:
        super().__init__()
        self.n_channels = n_channels
        n_steps = n_values // n_channels
        self.register("pool", _means(n_steps, max(1, CONSTANTS.window_values // n_channels)))
        self.register("taper", np.hanning(n_steps + 2)[1:-1])
        self.register("bands", _bands(n_steps // 2 + 1))

    def register(self, name: str, values: NDArray[np.float64]) -> None:
        """Hold an array that follows from the sizes, and so is no part of a model's file."""
        tensor = torch.from_numpy(values.astype(np.float32))
        self.register_buffer(name, tensor, persistent=False)

    @property
    def n_values(self) -> int:
        """Values of a coarse window."""
        return self.pool.shape[1] * self.n_channels

    @property
    def n_bands(self) -> int:
        """Bands of frequencies of each channel."""
        return self.bands.shape[1]

    def coarse(self, x: Tensor) -> Tensor:
        """Return windows (B, steps * channels) by means of some steps each, if they are long."""
        if self.pool.shape[0] == self.pool.shape[1]:
            return x
        return (self.series(x) @ self.pool).transpose(1, 2).flatten(1)

    def series(self, x: Tensor) -> Tensor:
        """Return windows (B, values) as (B, channels, steps)."""
        return x.reshape(len(x), -1, self.n_channels).transpose(1, 2)

    def shape(self, x: Tensor) -> Tensor:
        """Return windows without level and scale, (B, values); noise is not made large."""
        series = self.series(x)
        deviation = series.std(2, correction=0, keepdim=True)
        shape = (series - series.mean(2, keepdim=True)) / deviation.clamp(min=CONSTANTS.flat_window)
        return shape.transpose(1, 2).flatten(1)

    def level(self, x: Tensor) -> Tensor:
        """Return the mean of each channel and the logarithm of its deviation, (B, 2 channels)."""
        series = self.series(x)
        deviation = series.std(2, correction=0)
        return torch.cat([series.mean(2), (deviation + CONSTANTS.flat_window).log()], 1)

    def spectrum(self, x: Tensor) -> Tensor:
        """Return the logarithm of the power in each band, (B, channels * bands)."""
        series = self.series(x)
        waves = torch.fft.rfft((series - series.mean(2, keepdim=True)) * self.taper)
        power = (waves.real.square() + waves.imag.square()) / series.shape[2]
        found: Tensor = (power @ self.bands + CONSTANTS.silent_band).log().flatten(1)
        return found


def _means(n_steps: int, most: int) -> NDArray[np.float64]:
    """Return what averages steps into at ``most`` so many stretches, (steps, stretches)."""
    n = min(n_steps, most)
    stretch = np.arange(n_steps) * n // n_steps
    means = np.zeros((n_steps, n))
    means[np.arange(n_steps), stretch] = 1 / np.bincount(stretch)[stretch]
    return means


def _bands(n_frequencies: int) -> NDArray[np.float64]:
    """Return what averages frequencies into bands, each a little wider than the one below it.

    (frequencies, bands); the constant part of a wave is in none.
    """
    most = max(2, min(CONSTANTS.window_bands + 1, n_frequencies))
    edges = np.unique(np.round(np.geomspace(1, max(2, n_frequencies), most)).astype(int))
    bands = np.zeros((n_frequencies, len(edges) - 1))
    for band, (low, high) in enumerate(pairwise(edges)):
        bands[low:high, band] = 1 / (high - low)
    return bands
