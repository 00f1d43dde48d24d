"""A network that learnt nothing, in the place of a trained one: what its weights bring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from historyad.backbones.backbone import Lite0Backbone
from historyad.backbones.lite0 import Lite0
from historyad.backbones.parts import Part
from historyad.backbones.wavelets import Wavelets
from historyad.constants import CONSTANTS
from historyad.randomness import Stream, torch_generator

_SIDE, _IMAGES = 128, 8  # of noise, by which maps are normed


@dataclass(frozen=True, eq=False)
class RandomBackbone(Lite0Backbone):
    """EfficientNet-Lite0 of random weights (He et al., 2015), without wavelets beside it.

    Each channel has mean 0 and deviation 1 on smooth noise, as norms give it in training.
    """

    @classmethod
    @torch.no_grad()
    def drawn(cls, seed: int, side: int) -> Self:
        """Draw the weights."""
        random = torch_generator(seed, Stream.PEER)
        network = Lite0()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(0, math.sqrt(2 / fan_in), generator=random)
                layer.register_forward_hook(_norm)
        x = torch.randn(_IMAGES, 3, _SIDE // 4, _SIDE // 4, generator=random)
        network(nn.functional.interpolate(x, size=(_SIDE, _SIDE), mode="bicubic"))
        return cls(side, Lite0Backbone.of(side, network.state_dict()).network, Wavelets())

    @property
    def parts(self) -> tuple[Part, ...]:
        """The features of the network."""
        return (Part(80 + 112 + 192, CONSTANTS.cell_components),)

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Map grey values (N, 3, side, side) to three maps."""
        return [*super().__call__(x)][:-1]


def _norm(layer: nn.Module, _: Any, found: Tensor) -> Tensor:
    """Norm what a convolution returns, for this time and all others."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    mean, deviation = found.mean((0, 2, 3)), found.std((0, 2, 3)).clamp(min=1e-6)
    layer.weight.div_(deviation[:, None, None, None])
    layer.bias.sub_(mean).div_(deviation)
    normed: Tensor = (found - mean[:, None, None]) / deviation[:, None, None]
    return normed
