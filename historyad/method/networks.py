"""Generator and critic (section 4.1), for images and for vectors.

Images get convolutions between a 4 x 4 grid and the image's side, vectors get multilayer
perceptrons. D_TV has the critic's architecture. The critic has no batch norm: its gradient penalty
is per sample.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.layers import (
    FlattenPixels,
    ImageConvTranspose2d,
    PooledConv2d,
    WholeBatchNorm1d,
    WholeBatchNorm2d,
)

Shape = tuple[int, ...]
T = TypeVar("T")

COARSEST = 4  # side of the grid where convolutions meet the fully connected layers


class Critic(nn.Module):
    """Map a batch (B, *shape) to scores (B,): the critic of step 1 and the detector of step 3.

    ``features`` map a sample to what the fully connected head is given, ``n_features`` numbers.
    """

    def __init__(self, features: nn.Module, n_features: int, hidden: int) -> None:
        super().__init__()
        self.features = features
        self.n_features, self.n_hidden = n_features, hidden
        self.head = nn.Sequential(
            FlattenPixels(), nn.Linear(n_features, hidden), _activation(), nn.Linear(hidden, 1)
        )
        # A third faster on a CPU; the stubs do not know this overload.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Return one score per sample, (B,)."""
        return self.head(self.features(x)).squeeze(1)  # type: ignore[no-any-return]

    def with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, n_features), as they come to the head, and scores (B,)."""
        flatten, *others = self.head
        features = flatten(self.features(x))
        return features, nn.Sequential(*others)(features).squeeze(1)


class Generator(nn.Module):
    """Map latents (B, latent_dim) to samples (B, *shape)."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, z: Tensor) -> Tensor:
        """Return one sample per latent, (B, *shape)."""
        return self.layers(z)  # type: ignore[no-any-return]


class Networks(Protocol):
    """The two networks for one kind of sample, and how such a sample looks at rest."""

    @property
    def shape(self) -> Shape:
        """Shape of one sample as the networks see it."""

    @property
    def latent_dim(self) -> int:
        """Dimensions of the latent variable."""

    def reshaped(self, shape: Shape) -> Networks:
        """Return networks of the same sizes for samples of another ``shape``."""

    def generator(self) -> Generator:
        """Return a generator whose weights are yet to be drawn."""

    def critic(self) -> Critic:
        """Return a critic whose weights are yet to be drawn."""

    def floats(self, samples: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
        """Return samples at rest as the networks see them, float32."""

    def at_rest(self, x: Tensor) -> NDArray[Any]:
        """Invert `floats`: images are rounded to the 256 grey values that real images have."""

    def empty(self, n: int) -> NDArray[Any]:
        """Return room for ``n`` samples at rest, all zero."""


def _drawing_nothing(build: Callable[..., T]) -> Callable[..., T]:
    """Leave torch's global generator as it was: its layers draw weights, which are not kept."""

    @wraps(build)
    def quiet(self: Any) -> T:
        with torch.random.fork_rng(devices=[]):
            return build(self)

    return quiet


@dataclass(frozen=True)
class ImageNetworks:
    """Convolutions, for images (channels, side, side).

    The side is that of the coarsest grid times a power of two.
    At rest, images are uint8 (N, side, side, channels); networks see float32 (N, channels, side,
    side) in [-1, 1], laid out channels last.
    """

    shape: Shape
    width: int
    hidden: int
    latent_dim: int
    coarsest: int = COARSEST

    def reshaped(self, shape: Shape) -> ImageNetworks:
        """Return networks of the same sizes for samples of another ``shape``."""
        return replace(self, shape=shape)

    @classmethod
    def of(cls, shape: Shape, config: Config) -> ImageNetworks:
        """Return those of the sizes that are set."""
        return cls(shape, config.width, config.hidden, config.latent_dim)

    @property
    def _channels(self) -> list[int]:
        """The critic's channels after each halving, from the image down to the coarsest."""
        halvings = int(math.log2(self.shape[1] // self.coarsest))
        return [self.width * 2**level for level in range(halvings)]

    @_drawing_nothing
    def critic(self) -> Critic:
        """Return a critic: convolutions that halve the image, then two layers."""
        channels = [self.shape[0], *self._channels]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(channels):
            layers += [PooledConv2d(n_in, n_out), _activation()]
        return Critic(nn.Sequential(*layers), channels[-1] * self.coarsest**2, self.hidden)

    @_drawing_nothing
    def generator(self) -> Generator:
        """Return a generator: two layers, then transposed convolutions; images lie in [-1, 1]."""
        channels = [*reversed(self._channels), self.shape[0]]
        layers = _dense_block(self.latent_dim, self.hidden)
        layers += _dense_block(self.hidden, channels[0] * self.coarsest**2)
        layers += [nn.Unflatten(1, (channels[0], self.coarsest, self.coarsest))]
        for n_in, n_out in itertools.pairwise(channels[:-1]):
            layers += [nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1)]
            layers += [WholeBatchNorm2d(n_out), _activation()]
        return Generator([*layers, ImageConvTranspose2d(*channels[-2:]), nn.Tanh()])

    def floats(self, samples: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
        """Map uint8 (N, H, W, C) to float32 (N, C, H, W)."""
        return image_floats(samples, device)

    def at_rest(self, x: Tensor) -> NDArray[Any]:
        """Map float32 (N, C, H, W) to uint8 (N, H, W, C)."""
        pixels = x.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())

    def empty(self, n: int) -> NDArray[Any]:
        """Return black images, uint8 (n, side, side, channels)."""
        return np.zeros((n, *self.shape[1:], self.shape[0]), np.uint8)


def image_floats(images: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """Map uint8 (N, H, W, C) to float32 (N, C, H, W) in [-1, 1], laid out channels last."""
    # What is memory-mapped is read-only, which torch does not know: that is copied.
    pixels = torch.from_numpy(np.require(images, np.uint8, ["C", "W"])).to(device)
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


@dataclass(frozen=True)
class VectorNetworks:
    """Multilayer perceptrons, for vectors (features,): float32 (N, F), at rest and in networks."""

    shape: Shape
    hidden: int
    latent_dim: int

    def reshaped(self, shape: Shape) -> VectorNetworks:
        """Return networks of the same sizes for samples of another ``shape``."""
        return replace(self, shape=shape)

    @classmethod
    def of(cls, shape: Shape, config: Config) -> VectorNetworks:
        """Return those of the sizes that are set."""
        return cls(shape, config.hidden, config.latent_dim)

    @_drawing_nothing
    def critic(self) -> Critic:
        """Return a critic of three layers."""
        features = nn.Sequential(nn.Linear(self.shape[0], self.hidden), _activation())
        return Critic(features, self.hidden, self.hidden)

    @_drawing_nothing
    def generator(self) -> Generator:
        """Return a generator of three layers."""
        layers = _dense_block(self.latent_dim, self.hidden)
        layers += _dense_block(self.hidden, self.hidden)
        return Generator([*layers, nn.Linear(self.hidden, self.shape[0])])

    def floats(self, samples: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
        """Return the same numbers as a tensor."""
        return torch.from_numpy(np.require(samples, np.float32, ["C", "W"])).to(device)

    def at_rest(self, x: Tensor) -> NDArray[Any]:
        """Return the same numbers as an array."""
        return x.cpu().numpy()

    def empty(self, n: int) -> NDArray[Any]:
        """Return zeros, float32 (n, F)."""
        return np.zeros((n, *self.shape), np.float32)


@dataclass(frozen=True)
class WideVectorNetworks(VectorNetworks):
    """As these, with a generator that starts around the data instead of within.

    The history surrounds data only where the generator came from outside: it starts as a linear map
    of the latents to a Gaussian that is wider than the whitened data, and learns to bend it.
    """

    @_drawing_nothing
    def generator(self) -> Generator:
        """Return a generator: a linear map, beside three layers."""
        return Generator([WideStart(self.latent_dim, self.shape[0], self.hidden)])


class WideStart(nn.Module):
    """A linear map, wide at first, plus a share of what three layers make."""

    def __init__(self, n_in: int, n_out: int, hidden: int) -> None:
        super().__init__()
        self.straight = nn.Parameter(CONSTANTS.wide_start * torch.eye(n_out, n_in))
        layers = [nn.Linear(n_in, hidden), _activation(), nn.Linear(hidden, hidden), _activation()]
        self.bent = nn.Sequential(*layers, nn.Linear(hidden, n_out))

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, n_in) to (B, n_out)."""
        bent: Tensor = self.bent(z)
        return z @ self.straight.T + CONSTANTS.bent_share * bent


def initialise(network: nn.Module, random: torch.Generator) -> None:
    """Draw weights with the variance 2 / fan_in of He et al. (2015); biases are zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            gain = math.sqrt(2 / (1 + CONSTANTS.leaky_slope**2))
            with torch.no_grad():
                module.weight.normal_(0, gain / math.sqrt(_fan_in(module)), generator=random)
                assert module.bias is not None
                module.bias.zero_()


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable numbers in ``network``."""
    return sum(parameter.numel() for parameter in network.parameters())


def _fan_in(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> int:
    """Return how many inputs one output adds up."""
    if isinstance(module, nn.Linear):
        return module.in_features
    taps = math.prod(module.kernel_size)
    if isinstance(module, nn.ConvTranspose2d):
        taps //= math.prod(module.stride)
    return module.in_channels * taps


def _dense_block(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Linear(n_in, n_out), WholeBatchNorm1d(n_out), _activation()]


def _activation() -> nn.LeakyReLU:
    # In place, since a new block of memory for every layer takes longer than the function itself.
    return nn.LeakyReLU(CONSTANTS.leaky_slope, inplace=True)
