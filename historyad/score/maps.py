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
from torch.nn import functional

from historyad.constants import CONSTANTS
from historyad.data.images import Pixels
from historyad.method.networks import Critic
from historyad.randomness import Stream, numpy_generator
from historyad.score.bounded import bounded_score, total_of
from historyad.score.cells import (
    as_rows,
    cell_features,
    crop_scores,
    feature_counts,
    in_tiles,
    normalised,
)
from historyad.score.gaussian import Gaussian, principal_components
from historyad.score.neighbours import Bank
from historyad.score.result import Map, Scored
from historyad.score.scale import Scale
from historyad.score.score import Input, Score

Rows = NDArray[np.intp]


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


class MapScore(Score):
    """Anomaly maps of whole images at several scales, and the score that they make.

    Without ``banks`` and a ``gaussian``, the maps are D_TV's own score of crops.
    """

    names = ("map",)

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
        self.total_scale = Scale(1)

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

    def of(self, samples: NDArray[Any], *, views: bool = False, maps: bool = False) -> Scored:
        """Return the scores, maps at the resolution of the images, and how far out each is."""
        totals, found = [self.total_scale.center.new_empty(0)], []
        for row in range(len(samples)):
            cells = self.cell_map(samples[row])
            totals.append(worst(cells, self.kind.cell)[None])
            if maps:
                found.append(self._at_pixels(cells, samples[row]))
        standardised = self.total_scale(torch.cat(totals)[None])
        return Scored(
            bounded_score(standardised)[0].cpu().numpy(),
            views={"map": standardised[0].cpu().numpy()} if views else None,
            maps=found if maps else None,
        )

    def of_prepared(self, prepared: NDArray[Any]) -> None:
        """Return nothing: networks see crops, and the score is of images."""

    def fit_scale(self, samples: NDArray[Any], rows: Rows) -> NDArray[np.float32]:
        """Put the views, and the worst cells, on a scale by 100 of ``rows``, not fitted on."""
        some = rows[
            np.linspace(0, len(rows) - 1, min(len(rows), CONSTANTS.map_scale_images)).astype(int)
        ]
        raw = [self.raw(samples[row]) for row in some.tolist()]
        for scale, values in zip(self._cell_scales, zip(*raw, strict=True), strict=True):
            scale.fit(torch.cat([value.flatten(1) for value in values], dim=1))
        totals = [worst(self.cells(one), self.kind.cell) for one in raw]
        self.total_scale.fit_tail(torch.stack(totals)[None])
        return self.of_rows(samples, rows)

    def unbounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far out the worst cells are: the score nears 1 and hides it."""
        return total_of(scores)

    def total_at(self, score: float) -> float:
        """Return the mean of its worst cells that gives an image this score."""
        scale = self.total_scale
        return float(total_of(score) * scale.spread + scale.center)

    @torch.inference_mode()
    def cell_map(self, image: Pixels) -> Tensor:
        """Return the map of an image (H, W, C), a value for each of its cells, (rows, columns)."""
        return self.cells(self.raw(image))

    @torch.inference_mode()
    def raw(self, image: Pixels) -> list[Tensor]:
        """Return what the views say of each cell of an image (H, W, C), not yet on a scale.

        For each scale of the image, (views, rows, columns).
        """
        levels = (level[0] for level in self.kind.pyramid(image[None]))
        floats = partial(self.kind.floats, device=self.device)
        return [
            in_tiles(level, self.kind.cell, floats, partial(self._views, scale=scale))
            for scale, level in enumerate(levels)
        ]

    def cells(self, raw: Sequence[Tensor]) -> Tensor:
        """Return the map of one image from its `raw` views, (rows, columns) of the finest scale.

        It is the sum of all views at all scales, each 0 where a cell is typical of normal ones.
        """
        rows, columns = raw[0].shape[1:]
        total = raw[0].new_zeros(rows, columns)
        for level, (scale, values) in enumerate(zip(self._cell_scales, raw, strict=True)):
            summed = scale(values.flatten(1)).view(values.shape).sum(0)
            total += enlarge(summed, 2**level, rows, columns)
        return total

    @property
    def _cell_scales(self) -> Sequence[Scale]:
        return cast(Sequence[Scale], self.cell_scales)

    def _views_at(self, scale: int) -> tuple[str, ...]:
        """Return the names of the views of a cell at one scale."""
        if self.gaussian is None:
            return ("history",)
        return ("neighbours", "gaussian") if scale == 0 else ("neighbours",)

    def _views(self, tile: Tensor, scale: int) -> Tensor:
        """Return the views of the cells of a tile (1, C, h, w) but for its halo, (views, n, m)."""
        if self.gaussian is None:
            return crop_scores(self.d_tv, tile)[None]
        layers = cell_features(self.d_tv, tile, self.kind.cell)
        found = {"neighbours": cast(Bank, self.banks[scale]).closest(as_rows(layers[-1]))}
        if scale == 0:
            found["gaussian"] = self.gaussian(as_rows(normalised(layers)))
        views = torch.stack([found[name] for name in self._views_at(scale)])
        return views.view(len(views), *layers[0].shape[2:])

    def _at_pixels(self, cells: Tensor, image: Pixels) -> Map:
        found: Map = enlarge(cells, self.kind.cell, *image.shape[:2]).cpu().numpy()
        return found


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
    """Return the mean over the highest cells of a map (rows, columns), as many as 16 x 16 pixels.

    ``cell`` is the side of one. The area is the same in an image of any size: what is around a
    defect must not make it less of one.
    """
    k = max(1, CONSTANTS.worst_pixels // cell**2)
    return cells.flatten().topk(min(k, cells.numel())).values.mean()


def enlarge(cells: Tensor, factor: int, height: int, width: int) -> Tensor:
    """Return a map (rows, columns) ``factor`` times as large, bilinear, cut to (height, width)."""
    if factor == 1:
        return cells[:height, :width]
    large = functional.interpolate(
        cells[None, None], scale_factor=factor, mode="bilinear", align_corners=False
    )
    return large[0, 0, :height, :width]
