"""D_TV over images larger than its crops: an anomaly map, and the image's score from its worst.

A cell is a square of a quarter of the crop's side. D_TV's convolutions run once over the image,
and what they make of a cell is compared with what they make of normal cells: by the nearest of
them in the last layer, at every scale of the image, and by a Gaussian over all layers at the
finest. In place of both, with ``views="history"``, D_TV scores the crops around each cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.batches import Crops, mirrored, to_float
from historyad.detector import Detector, Score, Scores
from historyad.networks import COARSEST, Critic
from historyad.preprocessing import Preprocessing
from historyad.randomness import Stream, numpy_generator
from historyad.streams import in_parts
from historyad.views import RANGE, ZERO, bounded_score, total_of

Map = NDArray[np.float32]

_VIEWS = 2  # at most, at one scale
_TILE = 64  # cells a side that are held at a time
_HALO = 3  # cells around them: two for the crops of the head, one for the padding of convolutions
_BANK = 4096  # cells that are kept
_COMPONENTS = 48  # of their features
_FIT_CELLS = 20_000  # of which components and the Gaussian are estimated
_RIDGE = 0.01  # of the Gaussian, as a share of the mean variance
_QUERIES = 256  # cells compared with the bank at a time: their distances stay in the cache
_SCALE_IMAGES = 100  # held-out images that put the views on one scale
_TOP = 0.02  # share of the map that makes the score of an image
_SMALLEST_SPREAD = 1e-6


class Bank(nn.Module):
    """Distance of features to the nearest of those of normal cells, on principal components."""

    mean: Tensor
    components: Tensor
    cells: Tensor

    def __init__(self, n_features: int, n_cells: int) -> None:
        super().__init__()
        n_components = min(_COMPONENTS, n_features, n_cells)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("components", torch.zeros(n_components, n_features))
        self.register_buffer("cells", torch.zeros(n_cells, n_components))

    @classmethod
    def fit(cls, features: Tensor, random: np.random.Generator) -> Bank:
        """Keep as many of normal cells (N, features) as have room, drawn with ``random``."""
        order = torch.from_numpy(random.permutation(len(features))).to(features.device)
        some = features[order[:_FIT_CELLS]]
        bank = cls(features.shape[1], min(_BANK, len(features))).to(features.device)
        bank.mean.copy_(some.mean(0))
        _, vectors = torch.linalg.eigh((some - bank.mean).T.double().cov())
        bank.components.copy_(vectors.T.flip(0)[: len(bank.components)])
        bank.cells.copy_(bank._place(features[order[: len(bank.cells)]]))
        return bank

    def forward(self, features: Tensor) -> Tensor:
        """Return the distance of each of (B, features), (B,)."""
        norms = self.cells.square().sum(1) / 2
        parts = []
        for part in torch.split(self._place(features), _QUERIES):
            # |a - b|^2 / 2 = |a|^2 / 2 - (ab - |b|^2 / 2), smallest where the bracket is largest.
            closest = torch.addmm(-norms, part, self.cells.T).amax(1)
            parts.append((part.square().sum(1) - 2 * closest).clamp(min=0).sqrt())
        return torch.cat(parts)

    def _place(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.components.T


class CellGaussian(nn.Module):
    """Mahalanobis distance of features to those of normal cells."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("whitening", torch.zeros(n_features, n_features))

    @classmethod
    def fit(cls, features: Tensor) -> CellGaussian:
        """Estimate from normal cells (N, features)."""
        gaussian = cls(features.shape[1]).to(features.device)
        gaussian.mean.copy_(features.mean(0))
        variances, directions = torch.linalg.eigh((features - gaussian.mean).T.double().cov())
        ridge = (_RIDGE * variances.mean()).clamp(min=_SMALLEST_SPREAD)
        gaussian.whitening.copy_(directions / (variances.clamp(min=0) + ridge).sqrt())
        return gaussian

    def forward(self, features: Tensor) -> Tensor:
        """Return the distance of each of (B, features), (B,)."""
        return ((features - self.mean) @ self.whitening).square().sum(1).sqrt()


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
            _in_tiles(level, self.detector, partial(self._views, scale=scale))
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
        views = [self.banks[scale](_rows(layers[-1]))]
        if scale == 0:
            views.append(self.gaussian(_rows(_alike(layers))))
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
        layers = _draw_cells(detector, level, random)
        banks.append(Bank.fit(_rows(layers[-1]), random))
        if len(banks) == 1:
            gaussian = CellGaussian.fit(_rows(_alike(layers)))
    return PatchViews(detector, len(banks), banks, gaussian).to(crops.device).eval()


def _draw_cells(
    detector: Detector, images: NDArray[np.uint8], random: np.random.Generator
) -> list[Tensor]:
    """Return the features of about 20,000 cells of images (N, H, W, C), each (1, n, cells, 1)."""
    images = images[random.permutation(len(images))[:_FIT_CELLS]]
    # Of many images, some; of few, as many cells of each as are needed.
    n_of_each = math.ceil(_FIT_CELLS / len(images))
    parts = []
    for image in images:
        layers = _in_tiles(
            image, detector, lambda tile: torch.cat(cell_features(detector, tile), 1)[0]
        )
        flat = layers.flatten(1)
        chosen = torch.from_numpy(random.permutation(flat.shape[1])[:n_of_each])
        parts.append(flat[:, chosen.to(flat.device)])
    sizes = [layer.out_channels for layer in _convolutions(detector)]
    return list(torch.split(torch.cat(parts, 1)[None, :, :, None], sizes, dim=1))


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


def cell_of(detector: Detector) -> int:
    """Return the side of a cell, in pixels."""
    return cast(Critic, detector.members[0]).shape[1] // COARSEST


def build_patch_views(detector: Detector, bank_sizes: Sequence[int], scales: int) -> PatchViews:
    """Return views of these sizes, to be loaded into; without a bank, those of D_TV alone."""
    if not bank_sizes:
        return PatchViews(detector, scales)
    channels = [layer.out_channels for layer in _convolutions(detector)]
    banks = [Bank(channels[-1], size) for size in bank_sizes]
    return PatchViews(detector, scales, banks, CellGaussian(sum(channels)))


def cell_features(detector: Detector, tile: Tensor) -> list[Tensor]:
    """Return the features of the cells of a tile but for its halo, each (1, n, rows, columns).

    ``tile`` is (1, C, h, w). They are the first member's, after each convolution: the highest value
    in the cell.
    """
    cell, x = cell_of(detector), tile
    layers = []
    for layer in cast(nn.Sequential, cast(Critic, detector.members[0]).features):
        x = layer(x)
        if not isinstance(layer, nn.Conv2d):
            pooled = functional.max_pool2d(x, cell * x.shape[-1] // tile.shape[-1])
            layers.append(pooled[:, :, _HALO:-_HALO, _HALO:-_HALO])
    return layers


def crop_scores(detector: Detector, tile: Tensor) -> Tensor:
    """Return D_TV's mean score of the four crops around each cell but for the halo, (n, m)."""
    scores = []
    for critic in cast(Sequence[Critic], detector.members):
        features = critic.features(tile)[:, :, 1:-1, 1:-1]
        first = cast(nn.Linear, critic.head[1])
        # The head's first layer at every place: a convolution over the grid that it flattens.
        kernel = first.weight.view(len(first.weight), COARSEST, COARSEST, -1).permute(0, 3, 1, 2)
        hidden = functional.conv2d(features, kernel, first.bias)
        score = critic.head[2:](hidden.permute(0, 2, 3, 1))[..., 0]
        scores.append(functional.avg_pool2d(score[None], 2, stride=1)[0, 0])
    return torch.stack(scores).mean(0)


def _convolutions(detector: Detector) -> list[nn.Conv2d]:
    features = cast(nn.Sequential, cast(Critic, detector.members[0]).features)
    return [layer for layer in features if isinstance(layer, nn.Conv2d)]


def _alike(layers: Sequence[Tensor]) -> Tensor:
    """Return layers (1, n, h, w) as one, each normalised, since their values differ in size."""
    return torch.cat([functional.normalize(layer, dim=1) for layer in layers], dim=1)


def _rows(features: Tensor) -> Tensor:
    """Map (1, n, h, w) to one row for each cell, (h * w, n)."""
    return features[0].flatten(1).T


def _in_tiles(
    image: NDArray[np.uint8], detector: Detector, function: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return ``function`` of all cells of an image (H, W, C), (n, rows, columns).

    It maps a tile (1, C, h, w), with a halo that holds all that its cells depend on, to values of
    the cells within. Beyond the image's edges, and up to whole cells, it is mirrored.
    """
    device = detector.device
    cell = cell_of(detector)
    rows, columns = (-(-side // cell) for side in image.shape[:2])
    strips = []
    for top in range(0, rows, _TILE):
        strip = []
        for left in range(0, columns, _TILE):
            y = _places(top, min(top + _TILE, rows), cell, image.shape[0])
            x = _places(left, min(left + _TILE, columns), cell, image.shape[1])
            strip.append(function(to_float(image[y[:, None], x][None], device)))
        strips.append(torch.cat(strip, dim=-1))
    return torch.cat(strips, dim=-2)


def _places(start: int, stop: int, cell: int, length: int) -> NDArray[np.intp]:
    """Return the pixels of cells ``start`` to ``stop`` and their halo, along one side."""
    return mirrored((start - _HALO) * cell, (stop - start + 2 * _HALO) * cell, length)


def _quantile(values: Tensor, q: float) -> Tensor:
    """Return a quantile of each row, (n, N) to (n,); torch's own takes no more than 16 million."""
    return values.kthvalue(max(1, round(q * values.shape[1])), dim=1).values
