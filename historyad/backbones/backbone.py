"""What every backbone is: grey values of an image to maps of features, and what of it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from historyad.backbones.graphs import SIDES, GraphBackbone, open_graph
from historyad.backbones.lite0 import Lite0, load_weights
from historyad.backbones.parts import Part
from historyad.backbones.wavelets import STRIDE, Wavelets
from historyad.constants import CONSTANTS


class Backbone(Protocol):
    """A frozen network, or filters, that see squares of ``side`` pixels.

    ``parts`` and ``grid`` are those of its cells: features of all maps, places of the finest.
    """

    @property
    def side(self) -> int:
        """Side of what it sees, in pixels."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The features of a cell, by what they are of."""

    @property
    def modules(self) -> Sequence[nn.Module]:
        """What of it a graph has to hold."""

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
    """EfficientNet-Lite0 in front of an image, and wavelets beside it.

    The network was trained to see what things are, and overlooks much of their surface.
    """

    side: int
    network: Lite0
    wavelets: Wavelets

    name: ClassVar[str] = "lite0"

    @classmethod
    def of(cls, side: int, weights: dict[str, Tensor]) -> Self:
        """Return one with these weights; RuntimeError where they are others."""
        with torch.device("meta"):  # no weights are drawn, only to be replaced
            network = Lite0()
        network.load_state_dict(weights, assign=True)
        network.eval().requires_grad_(False)
        # Twice as fast on a CPU; the stubs do not know this overload.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(side, network, Wavelets())

    @property
    def parts(self) -> tuple[Part, ...]:
        """The features of the network, and of wavelets."""
        some = CONSTANTS.filter_components
        return (
            Part(80 + 112 + 192, CONSTANTS.cell_components - some),
            Part(self.wavelets.n_features, some, of_filters=True),
        )

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The network and the wavelets."""
        return self.network, self.wavelets

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells: one for each 16 pixels."""
        return _places(self.side)

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Map grey values (N, 3, side, side) to maps: three of the network, and of wavelets."""
        if self.network.stem.weight.device != x.device:
            self.network.to(x.device)
            self.wavelets.to(x.device)
        values = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        return [*self.network(values), self.wavelets(x)]

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array."""
        return {"name": self.name, "side": self.side}

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights."""
        return {name: one.contiguous() for name, one in self.network.state_dict().items()}


@dataclass(frozen=True, eq=False)
class WaveletBackbone:
    """Wavelets alone: no network, and nothing to install."""

    side: int
    wavelets: Wavelets

    name: ClassVar[str] = "wavelets"

    @property
    def parts(self) -> tuple[Part, ...]:
        """The features of wavelets."""
        return (Part(self.wavelets.n_features, CONSTANTS.only_filter_components, of_filters=True),)

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The wavelets."""
        return (self.wavelets,)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells: one for each 16 pixels."""
        return _places(self.side)

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Map grey values (N, 3, side, side) to one map."""
        return [self.wavelets.to(x.device)(x)]

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array."""
        return {"name": self.name, "side": self.side, "in_colour": self.wavelets.in_colour}

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing: filters are made anew."""
        return {}


def _places(side: int) -> tuple[int, int]:
    n = -(-side // STRIDE)
    return n, n


def open_backbone(
    name: str, side: int = 0, *, in_tiles: bool = False, in_colour: bool = False
) -> Backbone:
    """Return the backbone of a name or a file, which sees squares of ``side`` pixels; 0: its own.

    That is larger, where it can be, for squares which are tiles of an image.
    Raises InputError for what cannot be read, and where an extra is missing.
    """
    side_of_ours = side or (CONSTANTS.tile_side if in_tiles else CONSTANTS.backbone_side)
    if name == Lite0Backbone.name:
        return Lite0Backbone.of(side_of_ours, load_weights())
    if name == WaveletBackbone.name:
        return WaveletBackbone(side_of_ours, Wavelets(in_colour=in_colour))
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
    if content["name"] == WaveletBackbone.name:
        in_colour = content["in_colour"]
        if type(in_colour) is not bool:
            raise TypeError(f"in_colour {in_colour!r}")
        return WaveletBackbone(side, Wavelets(in_colour=in_colour))
    return GraphBackbone.from_json(content, tensors)
