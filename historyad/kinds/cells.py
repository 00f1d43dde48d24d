"""The cells of images: batches of them to learn from, and the way to them as modules."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.backbones.backbone import Backbone
from historyad.backbones.cells import cells_of, levelled
from historyad.backbones.graphs import GraphBackbone
from historyad.backbones.tiles import TilesOfImages
from historyad.data.rows import ShuffledSamples
from historyad.method.batches import Batches
from historyad.method.networks import VectorNetworks
from historyad.score.coreset import Cells, standard_of
from historyad.score.damage import Damaged
from historyad.score.residuals import Residuals


class CellBatches(Batches):
    """Cells of images (n, places, features), and shuffled batches of their residuals.

    Where no D_TV is trained, there are no residuals, and nothing in the batches. ``groups`` (n,)
    number what each image shows. Some images are there ``damaged``, too.
    """

    def __init__(
        self,
        cells: Cells,
        networks: VectorNetworks,
        seed: int,
        device: torch.device | str,
        *,
        trains: bool,
        groups: NDArray[np.intp] | None = None,
        damaged: Damaged | None = None,
    ) -> None:
        self.cells = cells
        self.damaged, self.groups = damaged, groups
        self.standard = standard_of(cells)
        self.residuals: Residuals | None = None
        learnt = torch.empty(0, *networks.shape)
        if trains:
            n_values = networks.shape[0]
            self.residuals, learnt = Residuals.fit(cells, self.standard, n_values, seed, groups)
        reader = ShuffledSamples(learnt.numpy(), np.arange(len(learnt)), seed)
        super().__init__(reader, networks, seed=seed, device=device)


class CellsOfImages(nn.Module):
    """`Features.cells` of several images of one size, that ``backbone`` sees at one side."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.parts = nn.ModuleList(backbone.modules)  # whose weights a graph holds

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to float32 (N, features, rows, columns)."""
        return cells_of(self.backbone(levelled(images, self.backbone.side)))


class CellsOfTiles(nn.Module):
    """`Features.cells` of several images of one size, seen in tiles, a row of these at a time."""

    def __init__(self, backbone: Backbone, tiles: TilesOfImages) -> None:
        super().__init__()
        self.backbone = backbone
        self.parts = nn.ModuleList(backbone.modules)
        self.tiles = tiles

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to float32 (N, features, rows, columns)."""
        n = len(self.tiles.across)
        cells = []
        for row in self.tiles(images).split(n, 1):
            found = cells_of(self.backbone(row.flatten(0, 1)))
            cells.append(found.view(-1, n, *found.shape[1:]))
        return self.tiles.joined(torch.cat(cells, 1))


class SeenImages(nn.Module):
    """What a backbone in a file sees of several images of one size, or of their ``tiles``."""

    def __init__(self, backbone: GraphBackbone, tiles: TilesOfImages | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.tiles = tiles

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to float32 (M, 3, side, side), normalised as it expects."""
        if self.tiles is not None:
            return self.backbone.normalised(self.tiles(images).flatten(0, 1))
        return self.backbone.normalised(levelled(images, self.backbone.side))


class CellsOfMaps(nn.Module):
    """`cells_of`, as a module, which joins those of ``tiles``."""

    def __init__(self, tiles: TilesOfImages | None = None) -> None:
        super().__init__()
        self.tiles = tiles

    def forward(self, *maps: Tensor) -> Tensor:
        """Map maps (M, c, h, w) to cells (N, features, rows, columns)."""
        cells = cells_of(maps)
        if self.tiles is None:
            return cells
        return self.tiles.joined(cells.view(-1, self.tiles.n_tiles, *cells.shape[1:]))
