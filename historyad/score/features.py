"""D_TV over the cells of a frozen network's maps: an anomaly map, and an image's score from it.

=============  =================================================================================
view           what it says of a cell
=============  =================================================================================
`history`      output of D_TV on what is left of a cell beside its nearest good ones: trained to
               tell this of further good images from the history of a GAN of it
`neighbours`   distance to the nearest of a coreset of good cells, on principal components
`place`        distance to a Gaussian of the cells in the same place of good images, where these are
               aligned
`gaussian`     distance to one Gaussian of all good cells, where they are not
=============  =================================================================================

Beside the map stand two views of an image. `damage` is what a D_TV says of its worst cells that was
trained to tell cells of good images from those of good images on which defects were drawn. What is
spread over an image and nowhere strange shows in the mean and the deviation of all its cells: how
far they are from those of good images is a view of the whole, `whole`.

Whether images are aligned is decided without labels: by what explains some good images better that
neither Gaussian was fitted on. Each view is standardised by cells of further good images, and a
cell has the sum. By default D_TV of the history is left out, as it was measured to add next to
nothing; ``views="all"`` takes it in, and ``views="history"`` leaves it alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.backbones.parts import Part
from historyad.constants import CONSTANTS
from historyad.data.images import Pixels
from historyad.data.rows import stretches
from historyad.method.networks import Critic
from historyad.progress import each
from historyad.randomness import Stream, numpy_generator
from historyad.score.batching import side_by_side
from historyad.score.coreset import Cells, components_of, coreset, drawn, standardise
from historyad.score.damage import Damaged, DamageView, parts_of
from historyad.score.gaussian import Gaussian
from historyad.score.mapped import Mapped, mean_parts
from historyad.score.neighbours import Bank
from historyad.score.places import Places
from historyad.score.residuals import Residuals
from historyad.score.result import Map
from historyad.score.scale import Scale
from historyad.score.score import Input
from historyad.score.spread import Whole, sums_of

T = TypeVar("T")


class CellSource(Input, Protocol):
    """What the score has to know of its kind: the cells of an image."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The features of a cell, by what they are of."""

    def cells(self, image: Pixels, device: torch.device | str = "cpu") -> Tensor:
        """Return the cells of an image (H, W, C), (features, rows, columns)."""

    def strips(self, image: Pixels, device: torch.device | str = "cpu") -> Iterator[Tensor]:
        """Yield these from the top down, not all at once where there are many."""

    @property
    def has_places(self) -> bool:
        """Whether all images have the same places."""

    @property
    def aligned(self) -> bool | None:
        """Whether images show the same in the same place, if that is known."""

    def covered(self, rows: int, columns: int, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the height and width of what so many cells cover, at least those of ``shape``."""


class FeatureScore(Mapped):
    """Maps of what D_TV says of the ``residuals`` of cells, and its companions of the cells.

    Both see cells on the scale ``standard``. Without residuals, D_TV was not trained, and has no
    view.
    """

    def __init__(
        self,
        kind: CellSource,
        d_tv: Critic,
        standard: Scale,
        residuals: Residuals | None = None,
        bank: Bank | None = None,
        gaussian: Gaussian | Places | None = None,
        whole: Whole | None = None,
        damage: DamageView | None = None,
    ) -> None:
        super().__init__()
        self.kind: CellSource = kind
        self.d_tv = d_tv
        self.standard = standard
        self.residuals = residuals
        self.bank = bank
        self.gaussian = gaussian
        self.whole = whole
        self.damage = damage
        self.cell_scales = nn.ModuleList([Scale(len(self.cell_views))])
        self.total_scale = Scale(len(self.names))
        self.sum_scale = Scale(1) if self.beside else None

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        kind: CellSource,
        d_tv: Critic,
        standard: Scale,
        cells: Cells,
        seed: int,
        residuals: Residuals | None = None,
        damaged: Damaged | None = None,
        groups: NDArray[np.intp] | None = None,
    ) -> FeatureScore:
        """Return ``d_tv`` with companions fitted on ``cells`` of good images; no scale is set.

        Whether images are aligned is decided by these, where the kind does not know. Some of them
        are there ``damaged``, too; ``groups`` (N,) number what each image shows.
        """
        device = d_tv.device
        some = drawn(cells, CONSTANTS.cells_fitted, seed)
        x = standardise(some, standard).to(device)
        pca = components_of(x, kind.parts)
        bank = Bank.keep(x[coreset(x, CONSTANTS.cell_bank, seed)], CONSTANTS.cell_bank, pca=pca)
        # Of images that have the same places, all cells are looked at, and not some alone.
        placed = _placed(cells, standard, bank) if kind.has_places else x.new_empty(0)
        gaussian: Gaussian | Places | None = None
        if kind.aligned:
            gaussian = Places.fit(_some(placed))
        elif kind.aligned is None and len(placed) >= CONSTANTS.images_for_places:
            gaussian = _aligned(_some(placed), seed)
        if gaussian is None:
            gaussian = Gaussian.fit(x, ridge=CONSTANTS.map_ridge)
        n_whole = _n_whole(kind)
        whole = Whole.fit(cells, standard, n_whole) if n_whole else None
        damage = None
        if damaged is not None:
            parts = parts_of(len(cells), groups, seed)
            bad = _placed(damaged.cells, standard, bank)
            aligned = isinstance(gaussian, Places)
            damage = DamageView.fit(placed, bad, damaged.of, parts, seed, aligned=aligned)
        return cls(kind, d_tv, standard, residuals, bank, gaussian, whole, damage).to(device)

    @classmethod
    def build(cls, kind: CellSource, d_tv: Critic, sizes: dict[str, int]) -> FeatureScore:
        """Return an unfitted one of these sizes, to be loaded into."""
        n = _n_features(kind)
        standard = Scale(n)
        residuals = Residuals(n, sizes["known"], sizes["values"]) if "known" in sizes else None
        if "bank" not in sizes:
            return cls(kind, d_tv, standard, residuals)
        n_components = sum(part.n_components for part in kind.parts)
        bank = Bank(n, sizes["bank"], n_components=n_components)
        gaussian = (
            Places(sizes["places"], len(bank.components))
            if "places" in sizes
            else Gaussian(n, sizes["components"])
        )
        whole = Whole(_n_whole(kind), sizes["whole"]) if "whole" in sizes else None
        damage = None
        if "damage" in sizes:
            n = len(bank.components)
            damage = DamageView(n, None if "places" in sizes else Places(1, n))
        return cls(kind, d_tv, standard, residuals, bank, gaussian, whole, damage)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the residuals, and of the companions, of those that there are."""
        found = {} if self.residuals is None else self.residuals.sizes
        if self.bank is None or self.gaussian is None:
            return found
        found = {**found, "bank": len(self.bank.bank)}
        if self.whole is not None:
            found["whole"] = self.whole.n_components
        if self.damage is not None:
            found["damage"] = len(self.bank.components)
        if isinstance(self.gaussian, Places):
            return {**found, "places": len(self.gaussian.means)}
        return {**found, "components": len(self.gaussian.components)}

    @property
    def is_aligned(self) -> bool:
        """Whether images are aligned, so that each place has a Gaussian."""
        return isinstance(self.gaussian, Places)

    @property
    def cell_views(self) -> tuple[str, ...]:
        """Names of the views of a cell."""
        if self.bank is None:
            return ("history",)
        last = "place" if self.is_aligned else "gaussian"
        return (*(() if self.residuals is None else ("history",)), "neighbours", last)

    @property
    def beside(self) -> tuple[str, ...]:
        """Names of the views beside the map."""
        there = {"damage": self.damage, "whole": self.whole}
        return tuple(name for name, view in there.items() if view is not None)

    def smallest_spreads(self) -> dict[int, float]:
        """Return that of D_TV's output, which may be all but constant on good cells."""
        return {} if self.residuals is None else {0: CONSTANTS.smallest_history_spread}

    def each(self, function: Callable[[int], T], rows: Sequence[int]) -> list[T]:
        """Return what a function makes of each row: of several at a time on a processor."""
        if self.device.type != "cpu":
            return super().each(function, rows)
        return side_by_side(function, rows)

    def raw(self, image: Pixels) -> list[Tensor]:
        """Return what the views say of each cell of an image (H, W, C), not yet on a scale."""
        return self.looked(image)[0]

    @torch.inference_mode()
    def looked(self, image: Pixels) -> tuple[list[Tensor], Tensor]:
        """Return that, and what the views beside the map say, (n,)."""
        views, sums, n = [], torch.zeros(2, 1, _n_features(self.kind), device=self.device), 0
        told = []
        for strip in self.kind.strips(image, self.device):
            x = self.standardised(strip[None])
            views.append(self.views_of(x).view(-1, *strip.shape[1:]))
            told.append(self.damage_of(x))
            sums, n = sums + torch.stack(sums_of(x)), n + x.shape[1]
        beside = [self._worst(torch.cat(told, 1))] if self.damage is not None else []
        return [torch.cat(views, 1)], torch.cat([*beside, self.whole_of(sums[0], sums[1], n)])

    @torch.inference_mode()
    def place(self, samples: NDArray[Any]) -> NDArray[np.float32] | None:
        """Return the mean cells of a few parts of each image, as its cells are compared."""
        if self.bank is None:
            return None
        bank, found = self.bank, []
        for image in each(samples):
            parts = mean_parts(torch.cat([*self.kind.strips(image, self.device)], 1))
            found.append(bank.place(self.standard(parts).T).flatten())
        return torch.stack(found).cpu().numpy()

    def whole_of(self, sums: Tensor, squares: Tensor, n: int) -> Tensor:
        """Map `sums_of` n cells of images to their view of the whole, (N,), or (0,)."""
        if self.whole is None:
            return sums.new_empty(0)
        seen = self.whole.n_features
        found: Tensor = self.whole(sums[:, :seen], squares[:, :seen], n)
        return found

    def standardised(self, cells: Tensor) -> Tensor:
        """Map cells (N, features, rows, columns) to their scale, (N, places, features)."""
        x: Tensor = self.standard(cells.movedim(1, 0).flatten(1)).T
        return x.view(cells.shape[0], -1, cells.shape[1])

    def views_of(self, x: Tensor) -> Tensor:
        """Map standardised cells (N, places, features) to their views, (views, N, places)."""
        flat = x.flatten(0, 1)
        found = [] if self.residuals is None else [self.d_tv(self.residuals(flat))]
        if self.bank is not None:
            found.append(self.bank.closest(flat))
        if isinstance(self.gaussian, Places) and self.bank is not None:
            found.append(self.gaussian(self.bank.place(flat).view(*x.shape[:2], -1)).flatten())
        elif self.gaussian is not None:
            found.append(self.gaussian(flat))
        return torch.stack(found).view(-1, *x.shape[:2])

    def damage_of(self, x: Tensor) -> Tensor:
        """Map standardised cells to what D_TV says of damage, (N, places), or (N, 0)."""
        if self.damage is None or self.bank is None:
            return x.new_empty(len(x), 0)
        placed = self.bank.place(x.flatten(0, 1)).view(*x.shape[:2], -1)
        places = self.gaussian if isinstance(self.gaussian, Places) else None
        found: Tensor = self.damage(placed, places)
        return found

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Map cells (N, features, rows, columns) to scores (N,) and maps (N, rows, columns)."""
        x = self.standardised(cells)
        values = self.views_of(x)
        (scale,) = self.cell_scales
        maps = scale(values.flatten(1)).view(values.shape).sum(0).view(-1, *cells.shape[2:])
        totals = [self.worst_of(maps)]
        if self.damage is not None:
            totals.append(self._worst(self.damage_of(x)))
        if self.whole is not None:
            totals.append(self.whole_of(*sums_of(x), x.shape[1]))
        return self.score_of(torch.stack(totals)), maps

    def in_graph(self, x: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return the scores of cells (N, features, rows, columns), and maps at pixels."""
        scores, maps = self(x)
        return scores, self._stretched(maps, shape)

    def worst_of(self, cells: Tensor) -> Tensor:
        """Return the mean over the worst cells of maps (..., rows, columns), (...)."""
        return self._worst(cells.flatten(-2))

    def _worst(self, cells: Tensor) -> Tensor:
        """Return the mean over the worst of cells (..., places), (...)."""
        return cells.topk(min(CONSTANTS.worst_cells, cells.shape[-1]), dim=-1).values.mean(-1)

    def at_pixels(self, cells: Tensor, image: Pixels) -> Map:
        """Return a map of cells at the resolution of their image, (H, W)."""
        found: Map = self._stretched(cells[None], image.shape)[0].cpu().numpy()
        return found

    def _stretched(self, cells: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return maps of cells (N, rows, columns) at the pixels of images of ``shape``."""
        covered = self.kind.covered(cells.shape[1], cells.shape[2], shape)
        return stretched(cells, *covered)[:, : shape[0], : shape[1]]


def stretched(cells: Tensor, height: int, width: int) -> Tensor:
    """Return maps of cells (N, rows, columns) at another size, bilinear, (N, height, width)."""
    return functional.interpolate(
        cells[:, None], size=(height, width), mode="bilinear", align_corners=False
    )[:, 0]


def _n_features(kind: CellSource) -> int:
    return sum(part.n_features for part in kind.parts)


def _n_whole(kind: CellSource) -> int:
    """Return how many features, the first, say what an image is as a whole."""
    return sum(part.n_features for part in kind.parts if not part.of_filters)


def _placed(images: Cells, standard: Scale, bank: Bank) -> Tensor:
    """Return cells (n, places, features) on the principal components of the bank."""
    x = bank.place(standardise(images, standard).to(bank.bank.device))
    return x.view(*images.shape[:2], -1)


def _some(placed: Tensor) -> Tensor:
    """Return as many images as are looked at for their places."""
    return placed[:: math.ceil(len(placed) / CONSTANTS.most_images_for_places)]


def _aligned(placed: Tensor, seed: int) -> Places | None:
    """Return a Gaussian for each place, where they explain good images better than one of all."""
    random = numpy_generator(seed, Stream.CELL, 1)
    others = stretches(len(placed), max(1, len(placed) // 5), random)
    is_other = torch.from_numpy(np.isin(np.arange(len(placed)), others))
    fitted, judged = placed[~is_other], placed[is_other]
    by_place, as_one = Places.fit(fitted), Places.fit(fitted.flatten(0, 1)[:, None])
    surprises = by_place.surprise(judged), as_one.surprise(judged.flatten(0, 1)[:, None])
    return Places.fit(placed) if surprises[0] < surprises[1] else None
