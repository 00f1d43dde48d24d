"""The cells of images: batches of them to learn from, and the way to them as modules."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.backbones.backbone import Backbone
from historyad.backbones.cells import cells_of, levelled
from historyad.backbones.graphs import GraphBackbone
from historyad.data.rows import ShuffledSamples
from historyad.method.batches import Batches
from historyad.method.networks import VectorNetworks
from historyad.score.coreset import Cells, standard_of
from historyad.score.residuals import Residuals


class CellBatches(Batches):
    """Cells of images (n, places, features), and shuffled batches of their residuals.

    Where no D_TV is trained, there are no residuals, and nothing in the batches. ``groups`` (n,)
    number what each image shows.
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
    ) -> None:
        self.cells = cells
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
        self.network = getattr(backbone, "network", None)  # whose weights a graph holds

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to float32 (N, features, rows, columns)."""
        return cells_of(self.backbone(levelled(images, self.backbone.side)))


class SeenImages(nn.Module):
    """What a backbone in a file sees of several images of one size."""

    def __init__(self, backbone: GraphBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to float32 (N, 3, side, side), normalised as it expects."""
        return self.backbone.normalised(levelled(images, self.backbone.side))


class CellsOfMaps(nn.Module):
    """`cells_of`, as a module."""

    def forward(self, *maps: Tensor) -> Tensor:
        """Map maps (N, c, h, w) to cells (N, features, rows, columns)."""
        return cells_of(maps)
