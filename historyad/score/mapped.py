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
from historyad.score.bounded import bounded_score, total_of
from historyad.score.result import Map, Scored
from historyad.score.scale import Scale
from historyad.score.score import Part, Score

Rows = NDArray[np.intp]
T = TypeVar("T")


class Mapped(Score):
    """Anomaly maps of images of any size, and the scores that their worst cells make.

    What the views say of a cell is put on a scale by cells of normal images, and so is the mean of
    an image's worst ones. There is a scale of cells for each scale of the image.
    """

    names = ("map",)
    makes_maps = True
    cell_scales: nn.ModuleList
    total_scale: Scale

    @abstractmethod
    def raw(self, image: Pixels) -> list[Tensor]:
        """Return what the views say of each cell of an image (H, W, C), not yet on a scale.

        For each scale of the image, (views, rows, columns).
        """

    def _raw_at(self, samples: NDArray[Any], row: int) -> list[Tensor]:
        return self.raw(samples[row])

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
        return [function(row) for row in rows]

    def of(self, samples: NDArray[Any], *, views: bool = False, maps: bool = False) -> Scored:
        """Return the scores, maps at the resolution of the images, and how far out each is."""

        def of_one(row: int) -> tuple[Tensor, Map | None]:
            cells = self.cell_map(samples[row])
            shown = self.at_pixels(cells, samples[row]) if maps else None
            return self.worst_of(cells)[None], shown

        found = self.each(of_one, range(len(samples)))
        none = self.total_scale.center.new_empty(0)
        standardised = self.total_scale(torch.cat([none, *(total for total, _ in found)])[None])
        return Scored(
            bounded_score(standardised)[0].cpu().numpy(),
            views={"map": standardised[0].cpu().numpy()} if views else None,
            maps=[cast(Map, shown) for _, shown in found] if maps else None,
        )

    def of_prepared(self, prepared: NDArray[Any]) -> None:
        """Return nothing: networks see parts, and the score is of images."""

    def fit_scale_by(self, samples: NDArray[Any], parts: Sequence[Part]) -> NDArray[np.float32]:
        """Put the views, and the worst cells, on a scale by 100 of all rows, not fitted on."""
        scores = cast(Sequence[tuple[Mapped, Rows]], parts)
        raw = []
        for score, rows in _thinned(scores, CONSTANTS.map_scale_images):
            raw += score.each(partial(score._raw_at, samples), rows.tolist())
        for scale, values in zip(self._cell_scales, zip(*raw, strict=True), strict=True):
            found = torch.cat([value.flatten(1) for value in values], dim=1)
            scale.fit(found, smallest=self.smallest_spreads())
        totals = [self.worst_of(self.cells(one)) for one in raw]
        self.total_scale.fit_tail(torch.stack(totals)[None])
        for score, _ in scores:
            score.cell_scales, score.total_scale = self.cell_scales, self.total_scale
        return np.concatenate([score.of_rows(samples, rows) for score, rows in scores])

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


def enlarge(cells: Tensor, factor: int, height: int, width: int) -> Tensor:
    """Return a map (rows, columns) ``factor`` times as large, bilinear, cut to (height, width)."""
    if factor == 1:
        return cells[:height, :width]
    large = functional.interpolate(
        cells[None, None], scale_factor=factor, mode="bilinear", align_corners=False
    )
    return large[0, 0, :height, :width]
