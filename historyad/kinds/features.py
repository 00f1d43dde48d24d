"""Images of any size as a frozen network sees them: a detector on the cells of its maps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.backbones.backbone import Backbone, open_backbone, read_backbone
from historyad.backbones.cells import cells_of, levelled
from historyad.backbones.defects import damaged as with_defects
from historyad.backbones.graphs import GraphBackbone
from historyad.backbones.parts import Part
from historyad.backbones.tiles import TilesOfImages, Tiling, tiling_of
from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.data.images import Pixels
from historyad.errors import InputError
from historyad.kinds.cells import CellBatches, CellsOfImages, CellsOfMaps, CellsOfTiles, SeenImages
from historyad.kinds.kind import Foreign, Samples, by, read_shape
from historyad.kinds.mapped import MappedKind
from historyad.kinds.remembered import Remembered
from historyad.method.batches import Batches
from historyad.method.networks import Critic, VectorNetworks, WideVectorNetworks
from historyad.randomness import Stream, numpy_generator
from historyad.score.batching import side_by_side
from historyad.score.coreset import Cells
from historyad.score.damage import Damaged
from historyad.score.features import FeatureScore
from historyad.score.score import Score

_COLOURS = 3
_CHANNELS = (1, _COLOURS)
_HALF_MOST = 65504.0  # the largest number of half precision


@dataclass(frozen=True, eq=False)
class Features(MappedKind):
    """Images of any size, each brought to the square that a backbone sees, ``side`` pixels.

    Or seen as they are, in tiles of that size. Whether they are ``aligned`` is decided by images,
    where it is not said.
    """

    backbone: Backbone
    tiling: Tiling | None = None
    aligned: bool | None = None
    remembered: Remembered = field(default_factory=lambda: Remembered(CONSTANTS.remembered_bytes))

    name: ClassVar[str] = "features"
    networks_see_pictures: ClassVar[bool] = False

    @classmethod
    def choose(cls, shape: tuple[int, ...], config: Config, longest: int = 0) -> Self:
        """Decide for images of ``shape``, most of them with ``longest`` as their longer side.

        Raises InputError for images of other channels than 1 or 3.
        """
        if shape[2] not in _CHANNELS:
            raise InputError(
                f"the images have {shape[2]} channels, and a backbone sees grey or colour: give "
                "images of 1 or 3 channels, or fit with --backbone none"
            )
        is_large = (longest or max(shape[:2])) > CONSTANTS.largest_whole
        in_tiles = is_large if config.resize < 0 else config.resize == 0
        side = max(config.resize, config.backbone_side)
        backbone = open_backbone(
            config.backbone, side, in_tiles=in_tiles, in_colour=shape[2] == _COLOURS
        )
        return cls(shape, backbone.side, backbone, tiling_of(backbone) if in_tiles else None)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The features of a cell, by what they are of."""
        return self.backbone.parts

    @property
    def n_features(self) -> int:
        """Features of a cell."""
        return sum(part.n_features for part in self.parts)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless an image of ``shape`` has the channels."""
        self.check_channels(shape)

    def networks(self, config: Config) -> VectorNetworks:
        """Return perceptrons for what is left of cells; the least where nothing is trained."""
        if not self.trains(config):
            return WideVectorNetworks((1,), 1, 1)
        n_values = min(self.n_features, CONSTANTS.residual_values)
        return WideVectorNetworks((n_values,), config.hidden, config.latent_dim)

    def prepare(self, samples: Samples) -> NDArray[np.float32]:
        """Return images as the backbone sees them, float32 (N, 3, side, side)."""
        self.check_samples(samples)
        return self._look(samples).numpy()

    def floats(self, prepared: Samples, device: torch.device | str = "cpu") -> Tensor:
        """Return the same numbers as a tensor."""
        return torch.from_numpy(np.require(prepared, np.float32, ["C", "W"])).to(device)

    @torch.inference_mode()
    def cells(self, image: Pixels, device: torch.device | str = "cpu") -> Tensor:
        """Return the cells of an image (H, W, C), (features, rows, columns)."""
        return torch.cat([*self.strips(image, device)], 1)

    def strips(self, image: Pixels, device: torch.device | str = "cpu") -> Iterator[Tensor]:
        """Yield the cells of an image from the top down, where it is large not all at once."""
        self.check_samples(image[None])
        return self.remembered.of(image, lambda: self._strips(image, device))

    def _strips(self, image: Pixels, device: torch.device | str) -> Iterable[Tensor]:
        if self.tiling is not None:
            return self.tiling.strips(image, self._cells_of, device)
        return self._cells_of(self._look(image[None], device))

    def _cells_of(self, squares: Tensor) -> Tensor:
        return cells_of(self.backbone(squares))

    def remembering(self) -> AbstractContextManager[None]:
        """Keep the cells of images, as many as have room."""
        return self.remembered.on()

    @property
    def has_places(self) -> bool:
        """Whether all images have the same places, in which cells can be compared."""
        return self.tiling is None

    def covered(self, rows: int, columns: int, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the height and width of what so many cells of an image cover, in pixels."""
        if self.tiling is None:
            return shape[0], shape[1]
        return rows * self.tiling.stride, columns * self.tiling.stride

    def _look(self, images: Samples, device: torch.device | str = "cpu") -> Tensor:
        pixels = torch.from_numpy(np.require(images, np.uint8, ["C", "W"])).to(device)
        return levelled(pixels, self.side)

    def batches(
        self,
        samples: Samples,
        config: Config,
        *,
        rows: NDArray[np.intp] | None = None,
        groups: NDArray[np.intp] | None = None,
        device: torch.device | str = "cpu",
    ) -> Batches:
        """Return batches of the cells of images: of all, or as many as have room."""
        rows = np.arange(len(samples)) if rows is None else rows
        some = self._kept(len(rows))
        cells = self.extract(samples, rows[some], device, config.seed)
        return CellBatches(
            cells,
            self.networks(config),
            config.seed,
            device,
            trains=self.trains(config),
            groups=None if groups is None else groups[some],
            damaged=self.damage_some(samples, rows[some], config, device),
        )

    def damage_some(
        self, samples: Samples, rows: NDArray[np.intp], config: Config, device: Any = "cpu"
    ) -> Damaged | None:
        """Return the cells of some of ``rows`` of images, damaged: if these are seen whole.

        Detectors of folds look at the same ones.
        """
        if self.tiling is not None or config.views == "history":
            return None
        order = numpy_generator(config.seed, Stream.CELL, 8).permutation(len(samples))
        of = np.argsort(order[rows], kind="stable")[: CONSTANTS.damaged_images]
        found = np.empty((len(of), self._n_kept, self.n_features), np.float16)

        def fill(place: int) -> None:
            image, row = samples[rows[of[place]]], int(rows[of[place]])

            def made() -> Iterator[Tensor]:
                random = numpy_generator(config.seed, Stream.CELL, 5, row)
                square = with_defects(self._look(image[None])[0].numpy(), random)
                cells = self._cells_of(torch.from_numpy(square)[None].to(device))[0]
                yield torch.from_numpy(_at_rest(cells))

            (cells,) = self.remembered.of(image, made, "damaged")
            found[place] = cells.numpy()

        _each(fill, range(len(of)), device)
        return Damaged(found, of)

    def _kept(self, n: int) -> NDArray[np.intp]:
        """Return which of n images to keep the cells of: as many as have room."""
        most = max(2, CONSTANTS.cell_bytes // (2 * self._n_kept * self.n_features))
        return np.linspace(0, n - 1, min(n, most)).astype(np.intp)

    @property
    def _n_kept(self) -> int:
        """Cells that are kept of each image."""
        return math.prod(self.backbone.grid) if self.tiling is None else CONSTANTS.tile_cells

    def extract(
        self, samples: Samples, some: NDArray[np.intp], device: Any = "cpu", seed: int = 0
    ) -> Cells:
        """Return the cells of ``some`` images, (n, places, features) in half precision.

        Of images seen in tiles, as many of each, at random.
        """
        n_places = self._n_kept
        found = np.empty((len(some), n_places, self.n_features), np.float16)

        def fill(place: int) -> None:
            cells = _at_rest(self.cells(samples[some[place]], device))
            if self.tiling is not None:
                random = numpy_generator(seed, Stream.CELL, 4, int(some[place]))
                cells = cells[np.resize(random.permutation(len(cells)), n_places)]
            found[place] = cells

        _each(fill, range(len(some)), device)
        return found

    def fit_score(
        self, d_tv: Critic, batches: Batches, config: Config, known: Score | None = None
    ) -> Score:
        """Return the maps of D_TV, alone or with companions fitted on the cells."""
        assert isinstance(batches, CellBatches)
        if config.views == "history":
            return FeatureScore(self, d_tv, batches.standard, batches.residuals)
        if isinstance(known, FeatureScore):  # cells do not depend on D_TV
            parts = known.bank, known.gaussian, known.whole, known.damage
            return FeatureScore(self, d_tv, batches.standard, batches.residuals, *parts)
        return FeatureScore.fit(
            self,
            d_tv,
            batches.standard,
            batches.cells,
            config.seed,
            batches.residuals,
            batches.damaged,
            batches.groups,
        )

    def like(self, score: Score) -> Self:
        """Return this kind for images that are aligned, or not, as those of ``score`` are."""
        assert isinstance(score, FeatureScore)
        return dataclasses.replace(self, aligned=score.is_aligned)

    @property
    def n_worst(self) -> int:
        """As many cells as make the score of an image."""
        return CONSTANTS.worst_cells

    def looks(
        self, samples: Samples, rows: NDArray[np.intp], config: Config
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the cells of each image."""
        for row in rows.tolist():
            yield self.cells(samples[row]).flatten(1).T.numpy()

    def build_score(self, d_tv: Critic, sizes: dict[str, int] | None, config: Config) -> Score:
        """Return an unfitted score whose companions have these sizes."""
        return FeatureScore.build(self, d_tv, sizes or {})

    def onnx(self, shape: tuple[int, ...]) -> nn.Module:
        """Return the way from images of ``shape`` to cells."""
        tiles = self._tiles(shape)
        return CellsOfImages(self.backbone) if tiles is None else CellsOfTiles(self.backbone, tiles)

    def within(self, shape: tuple[int, ...]) -> Foreign | None:
        """Return the graph of a backbone in a file, and what is before and after it."""
        if not isinstance(self.backbone, GraphBackbone):
            return None
        backbone, tiles = self.backbone, self._tiles(shape)
        n = 1 if tiles is None else tiles.n_tiles
        examples = backbone(torch.zeros(2 * n, 3, self.side, self.side))
        before, after = SeenImages(backbone, tiles), CellsOfMaps(tiles)
        return Foreign(before, backbone.graph, backbone.outputs, after, tuple(examples), n)

    def _tiles(self, shape: tuple[int, ...]) -> TilesOfImages | None:
        return None if self.tiling is None else TilesOfImages(self.tiling, *shape[:2])

    def describe(self) -> dict[str, Any]:
        """Return shape, kind, and what the backbone is and sees."""
        rows, columns = self.backbone.grid
        tiles = "" if self.tiling is None else f", in each tile of {self.side} pixels"
        return {
            "input": by(self.input_shape),
            "kind": self.noun,
            "backbone": f"{self.backbone.name}, {self.side} x {self.side}",
            "cells": f"{rows} x {columns} of {self.n_features} features{tiles}",
        }

    def to_json(self) -> dict[str, Any]:
        """Return what is to be read by `from_json`."""
        return {
            "input_shape": list(self.input_shape),
            "backbone": self.backbone.to_json(),
            "in_tiles": self.tiling is not None,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return what is used of the backbone."""
        return self.backbone.tensors()

    @classmethod
    def from_json(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Return the kind that a file describes; ValueError when that contradicts itself."""
        shape = read_shape(content, 3)
        if shape[2] not in _CHANNELS:
            raise ValueError(f"a backbone for {shape[2]} channels")
        backbone = read_backbone(content["backbone"], tensors)
        in_tiles = content["in_tiles"]
        if type(in_tiles) is not bool:
            raise TypeError(f"in_tiles {in_tiles!r}")
        return cls(shape, backbone.side, backbone, tiling_of(backbone) if in_tiles else None)


def _at_rest(cells: Tensor) -> NDArray[np.float16]:
    """Return cells (features, rows, columns) as they are kept, (places, features)."""
    clamped = cells.flatten(1).T.clamp(-_HALF_MOST, _HALF_MOST)
    return clamped.cpu().numpy().astype(np.float16)


def _each(function: Callable[[int], None], rows: Sequence[int], device: Any) -> None:
    """Do something for each row: for several at a time on a processor."""
    if torch.device(device).type == "cpu":
        side_by_side(function, rows)
    else:
        for row in rows:
            function(row)
