"""Layers that compute what torch's do: faster on a processor, or over several processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from historyad import ranks


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
        if not self.training or ranks.world_size() == 1:
            return super().forward(x)
        axes, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        variance, mean = torch.var_mean(x, axes, correction=0)
        # In double precision, since the variance of the whole is a difference.
        variance, mean = variance.double(), mean.double()
        n = torch.full_like(mean, x.numel() // x.shape[1])
        sums = ranks.total(torch.stack([n, n * mean, n * (variance + mean.square())]))
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
