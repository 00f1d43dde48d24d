"""What every backbone is: grey values of an image to maps of features, and what of it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from historyad.backbones.graphs import SIDES, GraphBackbone, open_graph
from historyad.backbones.lite0 import Lite0, load_weights
from historyad.constants import CONSTANTS


class Backbone(Protocol):
    """A frozen network that sees squares of ``side`` pixels.

    ``n_features`` and ``grid`` are those of its cells: features of all maps, places of the finest.
    """

    @property
    def side(self) -> int:
        """Side of what it sees, in pixels."""

    @property
    def n_features(self) -> int:
        """Features of a cell."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""

    @property
    def name(self) -> str:
        """What a person knows it by."""

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Map grey values, 0 to 255, (N, 3, side, side) to maps (N, c, h, w)."""

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array, to be read by `read_backbone`."""

    def tensors(self) -> dict[str, Tensor]:
        """Return what is an array."""


@dataclass(frozen=True, eq=False)
class Lite0Backbone:
    """EfficientNet-Lite0 in front of an image, and the scale of values on which it was trained."""

    side: int
    network: Lite0

    name: ClassVar[str] = "lite0"
    n_features: ClassVar[int] = 80 + 112 + 192

    @classmethod
    def of(cls, side: int, weights: dict[str, Tensor]) -> Self:
        """Return one with these weights; RuntimeError where they are others."""
        with torch.device("meta"):  # no weights are drawn, only to be replaced
            network = Lite0()
        network.load_state_dict(weights, assign=True)
        network.eval().requires_grad_(False)
        # Twice as fast on a CPU; the stubs do not know this overload.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(side, network)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells: one for each 16 pixels."""
        n = -(-self.side // 16)
        return n, n

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Map grey values (N, 3, side, side) to two maps of stride 16 and one of 32."""
        if self.network.stem.weight.device != x.device:
            self.network.to(x.device)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = self.network(x)
        return maps

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array."""
        return {"name": self.name, "side": self.side}

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights."""
        return {name: one.contiguous() for name, one in self.network.state_dict().items()}


def open_backbone(name: str, side: int = 0, *, in_tiles: bool = False) -> Backbone:
    """Return the backbone of a name or a file, which sees squares of ``side`` pixels; 0: its own.

    That is larger, where it can be, for squares which are tiles of an image.
    Raises InputError for what cannot be read, and where an extra is missing.
    """
    if name == Lite0Backbone.name:
        usual = CONSTANTS.tile_side if in_tiles else CONSTANTS.backbone_side
        return Lite0Backbone.of(side or usual, load_weights())
    return open_graph(name, side)


def read_backbone(content: dict[str, Any], tensors: dict[str, Tensor]) -> Backbone:
    """Return the backbone that a model's file describes; ValueError when that contradicts itself.

    InputError where an extra is missing.
    """
    side = content["side"]
    if type(side) is not int or not SIDES[0] <= side <= SIDES[1]:
        raise ValueError(f"a backbone that sees squares of {side!r}")
    if content["name"] == Lite0Backbone.name:
        return Lite0Backbone.of(side, tensors)
    return GraphBackbone.from_json(content, tensors)
