"""Filters that were not learnt: a scattering of two layers (Bruna and Mallat, 2013).

Where a network pretrained on photos sees parts of things, these see how strong an image is at each
scale and in each direction, and how that changes. There are no weights, and nothing to install.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from historyad.constants import CONSTANTS

STRIDE = 16  # pixels of a place of the map
_DIRECTIONS = 6
_SCALES = 4  # octaves; at the last, a place has two values each way
_SIDE = 9  # of a filter, in pixels of its scale
_WIDTH, _FREQUENCY, _SLANT = 1.3, math.pi / 2, 0.6  # of a Morlet wavelet
_BLUR = (1.0, 3.0, 3.0, 1.0)  # before every second pixel is taken
_SMALLEST_SQUARE = 1e-8


class Wavelets(nn.Module):
    """Grey values on the level (N, 3, H, W) to a map (N, features, rows, columns), of stride 16.

    Of brightness: the mean, the magnitude of wavelets, and of wavelets of that magnitude at coarser
    scales. ``in_colour``, also the mean and the magnitude of two differences of channels.
    Magnitudes are logarithms, and 0 in the mean of an image, as its brightness and contrast are on
    one level: good things differ in how strong their texture is all over.
    """

    filters: Tensor
    blur: Tensor

    def __init__(self, *, in_colour: bool = False) -> None:
        super().__init__()
        self.in_colour = in_colour
        self.register_buffer("filters", _morlets(), persistent=False)
        blur = torch.tensor(_BLUR) / sum(_BLUR)
        self.register_buffer("blur", (blur[:, None] * blur)[None, None], persistent=False)

    @property
    def n_features(self) -> int:
        """Features of a place."""
        pairs = _SCALES * (_SCALES - 1) // 2
        first = 1 + _SCALES * _DIRECTIONS
        return first * (3 if self.in_colour else 1) + pairs * _DIRECTIONS**2

    def forward(self, x: Tensor) -> Tensor:
        """Map grey values, 0 to 255, to features; beyond the right and the bottom, the last row."""
        x = functional.pad(x, (0, -x.shape[3] % STRIDE, 0, -x.shape[2] % STRIDE), mode="replicate")
        x = (x - CONSTANTS.level_brightness) / CONSTANTS.level_contrast
        found = self._plane(x.mean(1, keepdim=True), twice=True)
        if self.in_colour:
            for one, other in pairwise(torch.split(x, 1, 1)):
                found += self._plane(one - other, twice=False)
        return torch.cat(found, 1)

    def _plane(self, x: Tensor, *, twice: bool) -> list[Tensor]:
        """Return the features of a plane (N, 1, H, W)."""
        means, magnitudes = [functional.avg_pool2d(x, STRIDE)], []
        for scale in range(_SCALES):
            wave = self._magnitude(x)
            magnitudes.append(functional.avg_pool2d(wave, STRIDE >> scale))
            for coarser in range(scale + 1, _SCALES if twice else 0):
                wave = self._halved(wave)
                again = self._magnitude(wave)
                magnitudes.append(functional.avg_pool2d(again, STRIDE >> coarser))
            x = self._halved(x)
        logarithms = [(one + CONSTANTS.wavelet_floor).log() for one in magnitudes]
        return means + [one - one.mean((2, 3), keepdim=True) for one in logarithms]

    def _magnitude(self, x: Tensor) -> Tensor:
        """Map (N, n, h, w) to the magnitude in each direction, (N, n * directions, h, w)."""
        planes = functional.pad(x.flatten(0, 1)[:, None], [_SIDE // 2] * 4, mode="replicate")
        real, imaginary = functional.conv2d(planes, self.filters).chunk(2, 1)
        found = (real.square() + imaginary.square() + _SMALLEST_SQUARE).sqrt()
        return found.view(-1, x.shape[1] * _DIRECTIONS, *x.shape[2:])

    def _halved(self, x: Tensor) -> Tensor:
        """Map (N, n, h, w) to (N, n, h / 2, w / 2)."""
        planes = functional.pad(x.flatten(0, 1)[:, None], [1] * 4, mode="replicate")
        found = functional.conv2d(planes, self.blur, stride=2)
        return found.view(-1, x.shape[1], *found.shape[2:])


def _morlets() -> Tensor:
    """Return the real and then the imaginary parts of a filter for each direction, (2 n, 1, k, k).

    A wave under a Gaussian, longer across than along, without the part that is no wave.
    """
    place = torch.arange(_SIDE, dtype=torch.float64) - _SIDE // 2
    angles = torch.arange(_DIRECTIONS, dtype=torch.float64)[:, None, None] * math.pi / _DIRECTIONS
    along = place * angles.cos() + place[:, None] * angles.sin()
    across = place[:, None] * angles.cos() - place * angles.sin()
    window = (-(along.square() + (_SLANT * across).square()) / (2 * _WIDTH**2)).exp()
    real, imaginary = ((_FREQUENCY * along).cos() * window, (_FREQUENCY * along).sin() * window)
    real = real - window * (real.sum((1, 2)) / window.sum((1, 2)))[:, None, None]
    norm = (real.square() + imaginary.square()).sum((1, 2)).sqrt()[:, None, None]
    return torch.cat([real / norm, imaginary / norm]).float()[:, None]
