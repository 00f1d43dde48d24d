"""Scores that a map makes: that of an image, from its worst cells, whatever the cells are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.constants import CONSTANTS
from historyad.data.images import Pixels
from historyad.progress import each, share
from historyad.score.bounded import bounded_score, total_of
from historyad.score.result import Map, Scored
from historyad.score.scale import Scale
from historyad.score.score import Part, Score

Rows = NDArray[np.intp]
T = TypeVar("T")

_PARTS = 4  # of an image, each way, by which whole images are compared


class Mapped(Score):
    """Anomaly maps of images of any size, and the scores that their worst cells make.

    What the views say of a cell is put on a scale by cells of normal images, and so is the mean of
    an image's worst ones. There is a scale of cells for each scale of the image. Views of an image
    may stand ``beside`` the map: then their sum is put on a scale, too.
    """

    makes_maps = True
    cell_scales: nn.ModuleList
    total_scale: Scale  # of the worst cells, and of the views beside the map
    sum_scale: Scale | None

    @property
    def names(self) -> tuple[str, ...]:
        """The map, and what else makes the score."""
        return ("map", *self.beside)

    @property
    def beside(self) -> tuple[str, ...]:
        """What else there is; mostly nothing."""
        return ()

    @abstractmethod
    def raw(self, image: Pixels) -> list[Tensor]:
        """Return what the views say of each cell of an image (H, W, C), not yet on a scale.

        For each scale of the image, (views, rows, columns).
        """

    def looked(self, image: Pixels) -> tuple[list[Tensor], Tensor]:
        """Return `raw`, and what the views beside the map say, (n,)."""
        raw = self.raw(image)
        return raw, raw[0].new_empty(0)

    def _looked_at(self, samples: NDArray[Any], row: int) -> tuple[list[Tensor], Tensor]:
        return self.looked(samples[row])

    @abstractmethod
    def worst_of(self, cells: Tensor) -> Tensor:
        """Return the mean over the worst cells of a map (rows, columns)."""

    @abstractmethod
    def at_pixels(self, cells: Tensor, image: Pixels) -> Map:
        """Return a map of cells at the resolution of their image, (H, W)."""

    def smallest_spreads(self) -> dict[int, float]:
        """Return the smallest spreads of some views of a cell, by their numbers."""
        return {}

    def each(self, function: Callable[[int], T], rows: Sequence[int]) -> list[T]:
        """Return what a function makes of each of some rows."""
        return [function(row) for row in each(rows)]

    def of(self, samples: NDArray[Any], *, views: bool = False, maps: bool = False) -> Scored:
        """Return the scores, maps at the resolution of the images, and how far out each is."""

        @torch.inference_mode()
        def of_one(row: int) -> tuple[Tensor, Map | None]:
            raw, others = self.looked(samples[row])
            cells = self.cells(raw)
            shown = self.at_pixels(cells, samples[row]) if maps else None
            return torch.cat([self.worst_of(cells)[None], others]), shown

        found = self.each(of_one, range(len(samples)))
        none = self.total_scale.center.new_empty(len(self.names), 0)
        totals = torch.cat([none, *(total[:, None] for total, _ in found)], 1)
        standardised = self.total_scale(totals).cpu().numpy()
        return Scored(
            self.score_of(totals).cpu().numpy(),
            views=dict(zip(self.names, standardised, strict=True)) if views else None,
            maps=[cast(Map, shown) for _, shown in found] if maps else None,
        )

    def score_of(self, totals: Tensor) -> Tensor:
        """Return the scores of images from their worst cells, and the other views, (names, N)."""
        standardised = self.total_scale(totals)
        if self.sum_scale is not None:
            standardised = self.sum_scale(standardised.sum(0, keepdim=True))
        return bounded_score(standardised)[0]

    def of_prepared(self, prepared: NDArray[Any]) -> None:
        """Return nothing: networks see parts, and the score is of images."""

    def fit_scale_by(self, samples: NDArray[Any], parts: Sequence[Part]) -> NDArray[np.float32]:
        """Put the views, and the worst cells, on a scale by 100 of all rows, not fitted on."""
        scores = cast(Sequence[tuple[Mapped, Rows]], parts)
        looked = []
        with share(0.0, 0.5):
            for score, rows in each(_thinned(scores, CONSTANTS.map_scale_images), len(scores)):
                looked += score.each(partial(score._looked_at, samples), rows.tolist())
        raw = [found for found, _ in looked]
        for scale, values in zip(self._cell_scales, zip(*raw, strict=True), strict=True):
            found = torch.cat([value.flatten(1) for value in values], dim=1)
            scale.fit(found, smallest=self.smallest_spreads())
        columns = [torch.cat([self.worst_of(self.cells(one))[None], w]) for one, w in looked]
        totals = torch.stack(columns, 1)
        self.total_scale.fit_tail(totals)
        if self.sum_scale is not None:
            self.sum_scale.fit_tail(self.total_scale(totals).sum(0, keepdim=True))
        for score, _ in scores:
            score.cell_scales, score.total_scale = self.cell_scales, self.total_scale
            score.sum_scale = self.sum_scale
        with share(0.5, 1.0):
            return np.concatenate([one.of_rows(samples, rows) for one, rows in each(scores)])

    def unbounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far out the worst cells are: the score nears 1 and hides it."""
        return total_of(scores)

    def total_at(self, score: float) -> float:
        """Return the mean of its worst cells that gives an image this score.

        One that is typical by the views beside the map.
        """
        total = float(total_of(score))
        if self.sum_scale is not None:
            total = total * float(self.sum_scale.spread) + float(self.sum_scale.center)
        scale = self.total_scale
        return float(total * scale.spread[0] + scale.center[0])

    @torch.inference_mode()
    def cell_map(self, image: Pixels) -> Tensor:
        """Return the map of an image (H, W, C), a value for each of its cells, (rows, columns)."""
        return self.cells(self.raw(image))

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


def _thinned(parts: Sequence[tuple[Mapped, Rows]], most: int) -> Iterator[tuple[Mapped, Rows]]:
    """Yield parts with at ``most`` so many rows in all, from all over."""
    n = sum(len(rows) for _, rows in parts)
    places = np.linspace(0, n - 1, min(n, most)).astype(int)
    start = 0
    for score, rows in parts:
        yield score, rows[places[(places >= start) & (places < start + len(rows))] - start]
        start += len(rows)


def mean_parts(cells: Tensor) -> Tensor:
    """Return the means of a few parts of the cells (features, rows, columns), (features, parts)."""
    return functional.adaptive_avg_pool2d(cells[None], _PARTS)[0].flatten(1)


def enlarge(cells: Tensor, factor: int, height: int, width: int) -> Tensor:
    """Return maps (..., rows, columns) ``factor`` times as large, bilinear, cut to a size."""
    if factor == 1:
        return cells[..., :height, :width]
    large = functional.interpolate(
        cells.view(-1, 1, *cells.shape[-2:]),
        scale_factor=factor,
        mode="bilinear",
        align_corners=False,
    )
    return large[..., :height, :width].reshape(*cells.shape[:-2], height, width)
