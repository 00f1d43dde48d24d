"""D_TV over images larger than its crops: an anomaly map, and the image's score from its worst.

What D_TV's convolutions make of a cell is compared with what they make of normal cells: by the
nearest of them in the last layer, at every scale of the image, and by a Gaussian over all layers at
the finest. In place of both, with ``views="history"``, D_TV scores the crops around each cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.data.streams import in_parts
from historyad.kinds.preprocessing import Preprocessing
from historyad.method.batches import Crops
from historyad.method.detector import Detector, Score, Scores
from historyad.randomness import Stream, numpy_generator
from historyad.score.cells import (
    Bank,
    CellGaussian,
    as_rows,
    cell_features,
    cell_of,
    crop_scores,
    draw_cells,
    feature_counts,
    in_tiles,
    normalised,
)
from historyad.score.views import RANGE, ZERO, bounded_score, total_of

Map = NDArray[np.float32]

_VIEWS = 2  # at most, at one scale
_SCALE_IMAGES = 100  # held-out images that put the views on one scale
_TOP = 0.02  # share of the map that makes the score of an image
_SMALLEST_SPREAD = 1e-6


class PatchViews(Score):
    """Anomaly maps of whole images at several scales, and the score that they make.

    Without ``banks`` and a ``gaussian``, the maps are D_TV's own score of crops.
    """

    names = ("map",)
    center: Tensor
    spread: Tensor
    total_center: Tensor
    total_spread: Tensor

    def __init__(
        self,
        detector: Detector,
        scales: int,
        banks: Sequence[Bank] = (),
        gaussian: CellGaussian | None = None,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.banks = nn.ModuleList(banks)
        self.gaussian = gaussian
        self.register_buffer("center", torch.zeros(scales, _VIEWS))
        self.register_buffer("spread", torch.ones(scales, _VIEWS))
        self.register_buffer("total_center", torch.zeros(1))
        self.register_buffer("total_spread", torch.ones(1))

    @property
    def d_tv(self) -> Detector:
        """The detector whose features, or scores of crops, make the maps."""
        return self.detector

    @property
    def companion_sizes(self) -> dict[str, int] | None:
        """The sizes of the banks; None where the maps are D_TV's own."""
        banks = cast(Sequence[Bank], self.banks)
        return {f"bank {scale}": len(bank.cells) for scale, bank in enumerate(banks)} or None

    @property
    def cell(self) -> int:
        """Side of a cell, in pixels."""
        return cell_of(self.detector)

    def raw(self, pyramid: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Return what the views say of each cell of one image, not yet on a scale.

        ``pyramid`` holds the image (H, W, C) at each scale; the result, (views, rows, columns).
        """
        return [
            in_tiles(level, self.detector, partial(self._views, scale=scale))
            for scale, level in enumerate(pyramid)
        ]

    def cells(self, raw: Sequence[Tensor]) -> Tensor:
        """Return the map of one image from its `raw` views, (rows, columns) of the finest scale.

        It is the sum of all views at all scales, each 0 where a cell is typical of normal ones.
        """
        rows, columns = raw[0].shape[1:]
        total = self.center.new_zeros(rows, columns)
        for scale, values in enumerate(raw):
            center, spread = (
                x[scale, : len(values), None, None] for x in (self.center, self.spread)
            )
            total += enlarge(((values - center) / spread).sum(0), 2**scale, rows, columns)
        return total

    def _views(self, tile: Tensor, scale: int) -> Tensor:
        """Return the views of the cells of a tile (1, C, h, w) but for its halo, (views, n, m)."""
        if self.gaussian is None:
            return crop_scores(self.detector, tile)[None]
        layers = cell_features(self.detector, tile)
        views = [self.banks[scale](as_rows(layers[-1]))]
        if scale == 0:
            views.append(self.gaussian(as_rows(normalised(layers))))
        return torch.stack(views).view(len(views), *layers[0].shape[2:])

    def anomaly_scores(self, images: NDArray[np.uint8], prepare: Preprocessing) -> Scores:
        """Return the anomaly score of each image of (N, H, W, C), (N,)."""
        return self.scores_and_views(images, prepare)[0]

    def scores_and_views(
        self, images: NDArray[np.uint8], prepare: Preprocessing
    ) -> tuple[Scores, Scores]:
        """Return the score of each image of (N, H, W, C), (N,), and its `standardised` (1, N)."""
        total = patch_totals(self, images, prepare)
        return self.score(total).cpu().numpy(), self.standardised(total)[None].cpu().numpy()

    def unbounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `standardised`: the score nears 1 and hides how far out an image is."""
        return total_of(scores)

    def score(self, total: Tensor) -> Tensor:
        """Return the anomaly score, in (-1, 1), of images by the `worst` of their cells, (N,)."""
        return bounded_score(self.standardised(total))

    def standardised(self, total: Tensor) -> Tensor:
        """Put the `worst` of images (N,) on a scale: 0 is typical, above 1 is one in a hundred."""
        return (total - self.total_center) / self.total_spread

    def total_at(self, score: float) -> float:
        """Invert `score`: the mean of its worst cells that gives an image this score."""
        return float(total_of(score) * self.total_spread + self.total_center)

    def fit_scale(self, raw: Sequence[Sequence[Tensor]]) -> None:
        """Put the views on one scale by those of normal images that were not fitted on."""
        for scale, values in enumerate(zip(*raw, strict=True)):
            cells = torch.cat([value.flatten(1) for value in values], dim=1)
            center = cells.median(dim=1).values
            spread = (_quantile(cells, RANGE) - center).clamp(min=_SMALLEST_SPREAD)
            self.center[scale, : len(cells)] = center
            self.spread[scale, : len(cells)] = spread

    def fit_total(self, totals: Tensor) -> None:
        """Set the scale of the score by the worst cells of the same images, (N,)."""
        self.total_center.copy_(totals.median())
        spread = totals.quantile(ZERO) - self.total_center
        self.total_spread.copy_(spread.clamp(min=_SMALLEST_SPREAD))


@torch.no_grad()
def fit_patch_views(detector: Detector, crops: Crops, seed: int) -> PatchViews:
    """Return ``detector`` with a bank of normal cells at each scale, its own scale still unset."""
    random = numpy_generator(seed, Stream.CROP)
    banks = []
    for level in crops.levels:
        layers = draw_cells(detector, level, random)
        banks.append(Bank.fit(as_rows(layers[-1]), random))
        if len(banks) == 1:
            gaussian = CellGaussian.fit(as_rows(normalised(layers)))
    return PatchViews(detector, len(banks), banks, gaussian).to(crops.device).eval()


@torch.inference_mode()
def cell_map(views: PatchViews, image: NDArray[np.uint8], prepare: Preprocessing) -> Tensor:
    """Return the map of an image (H, W, C), a value for each of its cells, (rows, columns)."""
    return views.cells(views.raw([level[0] for level in prepare.pyramid(image[None])]))


def pixel_map(views: PatchViews, image: NDArray[np.uint8], prepare: Preprocessing) -> Map:
    """Return the map of an image (H, W, C) at its resolution, float32 (H, W)."""
    cells = cell_map(views, image, prepare)
    found: Map = enlarge(cells, views.cell, *image.shape[:2]).cpu().numpy()
    return found


@torch.inference_mode()
def patch_totals(views: PatchViews, images: NDArray[np.uint8], prepare: Preprocessing) -> Tensor:
    """Return the mean over the `worst` cells of each image of (N, H, W, C), (N,)."""
    prepare.check_samples(images)
    totals = [
        worst(cell_map(views, image, prepare))
        for part in in_parts(images, np.arange(len(images)))
        for image in part
    ]
    return torch.stack(totals) if totals else views.center.new_empty(0)


@torch.no_grad()
def fit_patch_scale(
    views: PatchViews, images: NDArray[np.uint8], rows: NDArray[np.intp], prepare: Preprocessing
) -> None:
    """Set the scale of ``views`` by normal ``images`` that were not fitted on: 100 of ``rows``."""
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SCALE_IMAGES)).astype(int)]
    raw = [views.raw([level[0] for level in prepare.pyramid(images[[row]])]) for row in some]
    views.fit_scale(raw)
    views.fit_total(torch.stack([worst(views.cells(one)) for one in raw]))


def worst(cells: Tensor) -> Tensor:
    """Return the mean over the highest ``_TOP`` of the cells of a map (rows, columns)."""
    k = max(1, round(_TOP * cells.numel()))
    return cells.flatten().topk(k).values.mean()


def enlarge(cells: Tensor, factor: int, height: int, width: int) -> Tensor:
    """Return a map (rows, columns) ``factor`` times as large, bilinear, cut to (height, width)."""
    if factor == 1:
        return cells[:height, :width]
    large = functional.interpolate(
        cells[None, None], scale_factor=factor, mode="bilinear", align_corners=False
    )
    return large[0, 0, :height, :width]


def build_patch_views(detector: Detector, bank_sizes: Sequence[int], scales: int) -> PatchViews:
    """Return views of these sizes, to be loaded into; without a bank, those of D_TV alone."""
    if not bank_sizes:
        return PatchViews(detector, scales)
    counts = feature_counts(detector)
    banks = [Bank(counts[-1], size) for size in bank_sizes]
    return PatchViews(detector, scales, banks, CellGaussian(sum(counts)))


def _quantile(values: Tensor, q: float) -> Tensor:
    """Return a quantile of each row, (n, N) to (n,); torch's own takes no more than 16 million."""
    return values.kthvalue(max(1, round(q * values.shape[1])), dim=1).values
