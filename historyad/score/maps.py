"""D_TV over images larger than its crops: an anomaly map, and the image's score from its worst.

What D_TV's convolutions make of a cell is compared with what they make of normal cells: by the
nearest of them in the last layer, at every scale of the image, and by a Gaussian over all layers at
the finest. In place of both, with ``views="history"``, D_TV scores the crops around each cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.constants import CONSTANTS
from historyad.data.images import Pixels
from historyad.method.networks import Critic
from historyad.progress import each
from historyad.randomness import Stream, numpy_generator
from historyad.score.cells import (
    as_rows,
    cell_features,
    crop_scores,
    feature_counts,
    in_tiles,
    normalised,
)
from historyad.score.gaussian import Gaussian, principal_components
from historyad.score.mapped import Mapped, Rows, enlarge, mean_parts
from historyad.score.neighbours import Bank
from historyad.score.result import Map
from historyad.score.scale import Scale
from historyad.score.score import Input


class Pyramid(Input, Protocol):
    """What the score of a map has to know of its kind: images at each scale, and their cells."""

    @property
    def scales(self) -> int:
        """Number of scales."""

    @property
    def cell(self) -> int:
        """Side of a cell, in pixels."""

    def pyramid(self, images: Pixels) -> list[Pixels]:
        """Return images (N, H, W, C) at each scale, the finest first."""


class MapScore(Mapped):
    """Anomaly maps of whole images at several scales, and the score that they make.

    Without ``banks`` and a ``gaussian``, the maps are D_TV's own score of crops.
    """

    def __init__(
        self,
        kind: Pyramid,
        d_tv: Critic,
        banks: Sequence[Bank] = (),
        gaussian: Gaussian | None = None,
    ) -> None:
        super().__init__()
        self.kind: Pyramid = kind
        self.d_tv = d_tv
        self.banks = nn.ModuleList(banks)
        self.gaussian = gaussian
        # At each scale, one or two views; at the finest, both.
        self.cell_scales = nn.ModuleList(Scale(len(self._views_at(s))) for s in range(kind.scales))
        self.total_scale, self.sum_scale = Scale(1), None

    @classmethod
    @torch.no_grad()
    def fit(
        cls, kind: Pyramid, d_tv: Critic, samples: NDArray[Any], rows: Rows, seed: int
    ) -> MapScore:
        """Return ``d_tv`` with normal cells at each scale to compare with; its scale is unset.

        They are drawn from ``rows`` of normal images, which are looked at one by one.
        """
        random = numpy_generator(seed, Stream.CELL)
        banks = []
        for layers in _draw_cells(kind, d_tv, samples, rows, random):
            cells = as_rows(layers[-1])
            pca = principal_components(cells, CONSTANTS.map_components)
            banks.append(Bank.keep(cells, CONSTANTS.map_bank, pca=pca))
            if len(banks) == 1:
                gaussian = Gaussian.fit(as_rows(normalised(layers)), ridge=CONSTANTS.map_ridge)
        return cls(kind, d_tv, banks, gaussian)

    @classmethod
    def build(cls, kind: Pyramid, d_tv: Critic, sizes: dict[str, int] | None) -> MapScore:
        """Return an unfitted one of these sizes, to be loaded into."""
        if sizes is None:
            return cls(kind, d_tv)
        counts = feature_counts(d_tv)
        banks = [
            Bank(counts[-1], sizes[_bank_name(scale)], n_components=CONSTANTS.map_components)
            for scale in range(kind.scales)
        ]
        return cls(kind, d_tv, banks, Gaussian(sum(counts), sizes["components"]))

    @property
    def sizes(self) -> dict[str, int] | None:
        """The sizes of the banks; None where the maps are D_TV's own."""
        if self.gaussian is None:
            return None
        banks = cast(Sequence[Bank], self.banks)
        found = {_bank_name(scale): len(bank.bank) for scale, bank in enumerate(banks)}
        return {**found, "components": len(self.gaussian.components)}

    @torch.inference_mode()
    def raw(self, image: Pixels) -> list[Tensor]:
        """Return what the views say of each cell of an image (H, W, C), not yet on a scale.

        For each scale of the image, (views, rows, columns).
        """
        levels = (level[0] for level in self.kind.pyramid(image[None]))
        floats = partial(self.kind.floats, device=self.device)
        return [
            in_tiles(level, self.kind.cell, floats, partial(self._views_of_one, scale=scale))
            for scale, level in enumerate(levels)
        ]

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Map images at each scale, with their halo, to scores (N,) and maps (N, rows, columns)."""
        maps = None
        for level, (scale, tile) in enumerate(zip(self._cell_scales, levels, strict=True)):
            values = self._views(tile, level)
            summed = scale(values.flatten(1)).view(values.shape).sum(0)
            maps = summed if maps is None else maps + enlarge(summed, 2**level, *maps.shape[1:])
        assert maps is not None
        return self.score_of(self.worst_of(maps)[None]), maps

    def in_graph(self, x: Sequence[Tensor], shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return the scores of images at each scale, and maps at pixels."""
        scores, maps = self(x)
        return scores, enlarge(maps, self.kind.cell, *shape[:2])

    @torch.inference_mode()
    def place(self, samples: NDArray[Any]) -> NDArray[np.float32] | None:
        """Return the mean cells of a few parts of each image, at its finest scale."""
        if not self.banks:
            return None
        bank, kind = cast(Bank, self.banks[0]), self.kind
        floats = partial(kind.floats, device=self.device)

        def features(tile: Tensor) -> Tensor:
            return cell_features(self.d_tv, tile, kind.cell)[-1][0]

        found = []
        for image in each(samples):
            cells = in_tiles(kind.pyramid(image[None])[0][0], kind.cell, floats, features)
            found.append(bank.place(mean_parts(cells).T).flatten())
        return torch.stack(found).cpu().numpy()

    def worst_of(self, cells: Tensor) -> Tensor:
        """Return the mean over the worst cells of maps (..., rows, columns), (...)."""
        return worst(cells, self.kind.cell)

    def at_pixels(self, cells: Tensor, image: Pixels) -> Map:
        """Return a map of cells at the resolution of their image, (H, W)."""
        found: Map = enlarge(cells, self.kind.cell, *image.shape[:2]).cpu().numpy()
        return found

    def _views_at(self, scale: int) -> tuple[str, ...]:
        """Return the names of the views of a cell at one scale."""
        if self.gaussian is None:
            return ("history",)
        return ("neighbours", "gaussian") if scale == 0 else ("neighbours",)

    def _views_of_one(self, tile: Tensor, scale: int) -> Tensor:
        """Return the views of the cells of a tile (1, C, h, w) but for its halo, (views, n, m)."""
        return self._views(tile, scale)[:, 0]

    def _views(self, tile: Tensor, scale: int) -> Tensor:
        """Return those of tiles (N, C, h, w), (views, N, n, m)."""
        if self.gaussian is None:
            return crop_scores(self.d_tv, tile)[None]
        layers = cell_features(self.d_tv, tile, self.kind.cell)
        found = {"neighbours": cast(Bank, self.banks[scale]).closest(as_rows(layers[-1]))}
        if scale == 0:
            found["gaussian"] = self.gaussian(as_rows(normalised(layers)))
        views = torch.stack([found[name] for name in self._views_at(scale)])
        return views.view(len(views), -1, *layers[0].shape[2:])


def _draw_cells(
    kind: Pyramid, d_tv: Critic, samples: NDArray[Any], rows: Rows, random: np.random.Generator
) -> list[list[Tensor]]:
    """Return, for each scale, the features of about 20,000 cells, (1, n, cells, 1) for each layer.

    Of many images, some are looked at; of few, as many cells of each as are needed.
    """
    rows = random.permutation(rows)[: CONSTANTS.map_images]
    n_of_each = math.ceil(CONSTANTS.map_cells / len(rows))
    floats = partial(kind.floats, device=d_tv.device)

    def features(tile: Tensor) -> Tensor:
        return torch.cat(cell_features(d_tv, tile, kind.cell), 1)[0]

    found: list[list[Tensor]] = [[] for _ in range(kind.scales)]
    for row in rows.tolist():
        for scale, level in enumerate(kind.pyramid(samples[row][None])):
            flat = in_tiles(level[0], kind.cell, floats, features).flatten(1)
            chosen = torch.from_numpy(random.permutation(flat.shape[1])[:n_of_each])
            found[scale].append(flat[:, chosen.to(flat.device)])
    counts = feature_counts(d_tv)
    shuffled = (_shuffled(torch.cat(parts, 1), random) for parts in found)
    return [list(torch.split(cells[None, :, :, None], counts, dim=1)) for cells in shuffled]


def _shuffled(cells: Tensor, random: np.random.Generator) -> Tensor:
    """Return cells (n, N) in a random order, of which the first are a fair part."""
    order = torch.from_numpy(random.permutation(cells.shape[1]))
    return cells[:, order.to(cells.device)]


def _bank_name(scale: int) -> str:
    return f"bank {scale}"


def worst(cells: Tensor, cell: int) -> Tensor:
    """Return the mean over the highest cells of maps (..., rows, columns), of 16 x 16 pixels.

    ``cell`` is the side of one. The area is the same in an image of any size: what is around a
    defect must not make it less of one.
    """
    k = max(1, CONSTANTS.worst_pixels // cell**2)
    flat = cells.flatten(-2)
    return flat.topk(min(k, flat.shape[-1]), dim=-1).values.mean(-1)
