"""Generator and critic (section 4.1), built from the shape of one sample.

A sample is an image (channels, side, side) or a vector (features,). Images get convolutions
between a 4 x 4 grid and the image's side, vectors get multilayer perceptrons. D_TV has the
critic's architecture. The critic has no batch norm: its gradient penalty is per sample.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from historyad.errors import ConfigError
from historyad.method import ranks as distributed

Shape = tuple[int, ...]

_SLOPE = 0.2  # of LeakyReLU
COARSEST = 4  # side of the grid where convolutions meet the fully connected layers


class PooledConv2d(nn.Conv2d):
    """A 3 x 3 convolution followed by 2 x 2 average pooling, computed as one strided convolution.

    The mean of four neighbouring outputs of a 3 x 3 kernel is the output of the 4 x 4 kernel that
    is the mean of its four shifts, at stride 2: the same function for 16/36 of the products.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def strided_kernel(self) -> Tensor:
        """Return the 4 x 4 kernel (out_channels, in_channels, 4, 4) of that convolution."""
        return functional.avg_pool2d(functional.pad(self.weight, (1, 1, 1, 1)), 2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H/2, W/2)."""
        return functional.conv2d(x, self.strided_kernel(), self.bias, stride=2, padding=1)


class ImageConvTranspose2d(nn.ConvTranspose2d):
    """A 4 x 4 transposed convolution of stride 2, computed as a 3 x 3 one and a pixel shuffle.

    Each of the four outputs around an input has a 2 x 2 kernel of its own: a slice of the 4 x 4
    one, here laid into a 3 x 3 kernel. The same function for 9/4 of the products, and still faster
    where the output has few channels, as an image has: there, kernels wait for memory.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)

    def shuffled_kernel(self) -> Tensor:
        """Return the 3 x 3 kernel (out_channels * 4, in_channels, 3, 3) of that convolution."""
        # Output 2m + p takes from input m - 1 + r the tap p + 3 - 2r, if there is one.
        padded = functional.pad(self.weight, (1, 1, 1, 1))
        taps = padded.reshape(*self.weight.shape[:2], 3, 2, 3, 2).flip(2, 4)
        return taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        assert self.bias is not None
        bias = self.bias.repeat_interleave(4)
        return functional.pixel_shuffle(
            functional.conv2d(x, self.shuffled_kernel(), bias, padding=1), 2
        )


class _WholeBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics are those of the global batch, also where ranks share it.

    torch's SyncBatchNorm does it on GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C) or (B, C, H, W) to the same."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(x)
        axes, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        variance, mean = torch.var_mean(x, axes, correction=0)
        # In double precision, since the variance of the whole is a difference.
        variance, mean = variance.double(), mean.double()
        n = torch.full_like(mean, x.numel() // x.shape[1])
        sums = distributed.total(torch.stack([n, n * mean, n * (variance + mean.square())]))
        n, mean, square = sums[0], sums[1] / sums[0], sums[2] / sums[0]
        variance = square - mean.square()
        self._remember(mean.detach(), (variance * n / (n - 1)).detach())

        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return torch.addcmul(shift.to(x).view(shape), x, scale.to(x).view(shape))

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)


class WholeBatchNorm1d(_WholeBatchNorm, nn.BatchNorm1d):
    """`nn.BatchNorm1d` over the global batch."""


class WholeBatchNorm2d(_WholeBatchNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the global batch."""


class FlattenPixels(nn.Module):
    """Flatten each sample, pixel by pixel: with channels last in memory, nothing is moved."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, H * W * C), and (B, F) to itself."""
        return x.movedim(1, -1).flatten(1)


class Critic(nn.Module):
    """Map a batch (B, *shape) to scores (B,): the critic of step 1 and the detector of step 3."""

    def __init__(self, shape: Shape, width: int, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        self.n_hidden = hidden
        if len(shape) == 1:
            self.features: nn.Module = nn.Sequential(nn.Linear(shape[0], hidden), _activation())
            self.n_features = hidden
        else:
            channels = [shape[0], *_channels(shape, width)]
            layers: list[nn.Module] = []
            for n_in, n_out in itertools.pairwise(channels):
                layers += [PooledConv2d(n_in, n_out), _activation()]
            self.features = nn.Sequential(*layers)
            self.n_features = channels[-1] * COARSEST**2
        self.head = nn.Sequential(
            FlattenPixels(), nn.Linear(self.n_features, hidden), _activation(), nn.Linear(hidden, 1)
        )
        # A third faster on a CPU; the stubs do not know this overload.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return one score per sample, (B,)."""
        return self.head(self.features(x)).squeeze(1)  # type: ignore[no-any-return]

    def layers_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features (B, n_features), last hidden layer (B, hidden) and scores (B,)."""
        flatten, dense, activation, output = self.head
        features = flatten(self.features(x))
        hidden = activation(dense(features))
        return features, hidden, output(hidden).squeeze(1)


class Generator(nn.Module):
    """Map latents (B, latent_dim) to samples (B, *shape); images lie in [-1, 1]."""

    def __init__(self, shape: Shape, width: int, hidden: int, latent_dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.latent_dim = latent_dim
        layers = _dense_block(latent_dim, hidden)
        if len(shape) == 1:
            layers += [*_dense_block(hidden, hidden), nn.Linear(hidden, shape[0])]
        else:
            channels = [*reversed(_channels(shape, width)), shape[0]]
            layers += _dense_block(hidden, channels[0] * COARSEST**2)
            layers += [nn.Unflatten(1, (channels[0], COARSEST, COARSEST))]
            for n_in, n_out in itertools.pairwise(channels[:-1]):
                layers += [nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1)]
                layers += [WholeBatchNorm2d(n_out), _activation()]
            layers += [ImageConvTranspose2d(*channels[-2:]), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, z: Tensor) -> Tensor:
        """Return one sample per latent, (B, *shape)."""
        return self.layers(z)  # type: ignore[no-any-return]


def build_networks(
    shape: Shape, width: int, hidden: int, latent_dim: int, random: torch.Generator
) -> tuple[Generator, Critic]:
    """Return a generator and a critic for samples of ``shape``, with weights from ``random``.

    ``shape`` is (features,) or (channels, side, side) with a side that is 4 times a power of two.
    """
    generator = Generator(shape, width, hidden, latent_dim)
    critic = Critic(shape, width, hidden)
    initialise(generator, random)
    initialise(critic, random)
    return generator, critic


def initialise(network: nn.Module, random: torch.Generator) -> None:
    """Draw weights with the variance 2 / fan_in of He et al. (2015); biases are zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            gain = math.sqrt(2 / (1 + _SLOPE**2))
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


def _channels(shape: Shape, width: int) -> list[int]:
    """Return the critic's channels after each halving, from ``shape`` down to 4 x 4."""
    halvings = int(math.log2(shape[1] // COARSEST))
    return [width * 2**level for level in range(halvings)]


def _dense_block(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Linear(n_in, n_out), WholeBatchNorm1d(n_out), _activation()]


def _activation() -> nn.LeakyReLU:
    # In place, since a new block of memory for every layer takes longer than the function itself.
    return nn.LeakyReLU(_SLOPE, inplace=True)


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; auto is an accelerator where there is one.

    Of several processes on a machine, each takes the CUDA device of its number. Raises ConfigError
    when the device is not there.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = accelerator.type if accelerator else "cpu"
    if name == "cuda" and distributed.world_size() > 1:
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{name}' cannot be used here: take auto or cpu") from error
    return device
