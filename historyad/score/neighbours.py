"""K-nearest neighbours: distance to the nearest of the normal samples that are kept in a bank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.constants import CONSTANTS
from historyad.score.batching import of_parts
from historyad.score.gaussian import principal_components

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

_CHUNK = 128  # samples of the bank that are compared with it at a time; stays in the cache
_QUERIES = 256  # compared with the bank at a time: their distances stay in the cache


class Bank(nn.Module):
    """Normal samples that others are compared with: vectors as they are, or features of samples.

    By Euclid, or by cosine around the mean. Features are taken on principal components; for
    cosines, these are brought halfway to equal variances, which the few largest would decide
    otherwise.
    """

    mean: Tensor
    components: Tensor
    bank: Tensor
    offsets: Tensor  # kept, since to take them for each batch costs a tenth of a single image

    def __init__(
        self, n_values: int, n_bank: int, *, n_components: int = 0, cosine: bool = False
    ) -> None:
        super().__init__()
        self.cosine = cosine
        self.project = n_components > 0
        self.register_buffer("mean", torch.zeros(n_values))
        if self.project:
            n_components = min(n_components, n_values, n_bank - 1)
            self.register_buffer("components", torch.zeros(n_components, n_values))
        self.register_buffer("bank", torch.zeros(n_bank, n_components or n_values))
        self.register_buffer("offsets", torch.zeros(n_bank), persistent=False)

    @classmethod
    def keep(cls, x: Tensor, n: int, *, pca: PCA | None = None, cosine: bool = False) -> Self:
        """Keep the first ``n`` of normal samples (N, values), on these principal components."""
        x = x[:n]
        n_components = 0 if pca is None else len(pca.components_)
        bank = cls(x.shape[1], len(x), n_components=n_components, cosine=cosine).to(x.device)
        bank.mean.copy_(x.mean(0))
        if pca is not None:
            n_components = len(bank.components)
            directions = pca.components_[:n_components]
            if cosine:
                variances = pca.explained_variance_[:n_components]
                directions = directions / _roots_of_deviations(variances)[:, None]
            bank.components.copy_(torch.from_numpy(directions))
        bank.bank.copy_(bank.place(x))
        bank.offsets.copy_(_offsets(bank.bank))
        return bank

    @classmethod
    def of_features(cls, x: Tensor) -> Self:
        """Keep features (N, values), to be compared by cosine on principal components."""
        pca = principal_components(x, CONSTANTS.bank_components)
        return cls.keep(x, _kept(CONSTANTS.bank_components), pca=pca, cosine=True)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        if not self.offsets.is_meta:
            self.offsets.copy_(_offsets(self.bank))

    def place(self, x: Tensor) -> Tensor:
        """Map (B, values) to the places between which distances are taken, (B, components)."""
        places = x - self.mean
        if self.project:
            places = places @ self.components.T
        return functional.normalize(places) if self.cosine else places

    def closest(self, x: Tensor) -> Tensor:
        """Return the distance of each of (B, values) to the nearest of the bank, (B,)."""
        parts = []
        placed = self.place(x)
        # A graph has no loop over a batch of any size.
        exporting = torch.compiler.is_exporting()
        for places in [placed] if exporting else torch.split(placed, _QUERIES):
            # |a - b|^2 / 2 = |a|^2 / 2 - (ab - |b|^2 / 2), smallest where the bracket is largest.
            nearest = torch.addmm(self.offsets, places, self.bank.T).argmax(1, keepdim=True)
            parts.append(self.nearest(places, nearest, 1)[0][:, 0])
        return torch.cat(parts)

    @property
    def is_dense(self) -> bool:
        """Whether vectors may be so close, and so far from 0, that products lose the difference."""
        return True

    def candidates(self, places: Tensor) -> Tensor:
        """Return which samples of the bank are near each place, (B, K), in no order.

        They are the nearest few of each part of the bank, 64 in all. Of vectors, which may have
        many values, they are only as many as it needs.
        """
        bank, offsets, size = (
            self.bank,
            self.offsets,
            math.ceil(len(self.bank) / CONSTANTS.bank_parts),
        )
        if not self.project:
            size = CONSTANTS.vector_bank
            if self.is_dense:
                places, bank = places.double(), bank.double()
                offsets = _offsets(bank)
        found, columns = [], []
        for start in range(0, len(bank), size):
            part = bank[start : start + size]
            # |a - b|^2 = |a|^2 - 2 (ab - |b|^2 / 2), smallest where the bracket is largest.
            closeness = torch.addmm(offsets[start : start + size], places, part.T)
            nearest = largest(closeness, min(CONSTANTS.candidates_of_a_part, len(part)))
            found.append(closeness.gather(1, nearest))
            columns.append(start + nearest)
        if self.project or len(columns) == 1:
            return torch.cat(columns, 1)
        few = torch.cat(found, 1).topk(min(CONSTANTS.candidates_of_a_part, len(bank))).indices
        return torch.cat(columns, 1).gather(1, few)

    def candidates_of_bank(self) -> Tensor:
        """Return the candidates of each sample of the bank, itself among them, (N, K)."""
        return torch.cat(of_parts(self.candidates, self.bank, size=_CHUNK))

    def others(self, candidates: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Return at ``most`` so many other samples of the bank that are nearest to each.

        They are among its candidates, (N, K), itself being one. Their distances rise; (N, most)
        each.
        """

        def nearest(places: Tensor, few: Tensor) -> tuple[Tensor, Tensor]:
            return self.nearest(places, few, most + 1)  # of each, the first is itself

        found = of_parts(nearest, self.bank, candidates, size=_CHUNK)
        distances, others = (torch.cat(part)[:, 1:] for part in zip(*found, strict=True))
        return distances, others

    def nearest(self, places: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return distances to the ``k`` nearest candidates, rising, and which of the bank, (B, k).

        From differences, not from products: rows of a table may be close and far from 0.
        """
        differences = functional.embedding(candidates, self.bank).sub_(places[:, None])
        squares = differences.square_().sum(2)
        found, order = squares.topk(min(k, candidates.shape[1]), largest=False)
        # Of normalised places, half the squared distance is 1 - cosine.
        return found / 2 if self.cosine else found.sqrt(), candidates.gather(1, order)


class Neighbours(Bank):
    """Mean distance of a sample to its k nearest neighbours among the normal ones in the bank.

    The distance is divided by the root of the gap that normal samples have between them in that
    place: where they are dense, less is as rare. That is halfway between the plain distance and the
    ratio of the local outlier factor (Breunig et al., 2000).
    """

    gaps: Tensor

    def __init__(self, n_values: int, n_bank: int, **options: Any) -> None:
        super().__init__(n_values, n_bank, **options)
        self.register_buffer("gaps", torch.zeros(n_bank))

    @classmethod
    def of_vectors(cls, x: Tensor) -> Self:
        """Keep vectors (N, values), N > 1, as they are, as many as have room."""
        neighbours = cls.keep(x, min(_kept(x.shape[1]), CONSTANTS.vector_bank))
        neighbours.fit_gaps(neighbours.candidates_of_bank())
        return neighbours

    @property
    def is_dense(self) -> bool:
        """Whether the error of products in float32 is much beside the usual gap."""
        if torch.compiler.is_exporting():  # a graph does not decide
            return True
        error = torch.finfo(torch.float32).eps * self.bank.square().sum(1).mean()
        return bool(error > CONSTANTS.product_error * self.gaps.median().square())

    def fit_gaps(self, candidates: Tensor) -> None:
        """Measure how far each sample of the bank is from its own neighbours.

        They are among its candidates, (N, K), itself being one.
        """
        self.gaps.copy_(gaps_between(self.others(candidates, CONSTANTS.neighbours)[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the relative distance of each sample of (B, values) to its neighbours, (B,)."""
        places = self.place(x)
        distances, nearest = self.nearest(places, self.candidates(places), CONSTANTS.neighbours)
        return relative(distances, self.gaps[nearest])

    def usual(self, x: Tensor, owners: Tensor) -> Tensor:
        """Return the value that each of (values,) has in its nearest neighbours by other columns.

        It is their median: one far value may hide from what the others say, but not from this.
        ``owners`` (values,) number the column that each value belongs to.
        """
        bank = self.bank + self.mean
        squares = (bank - x).square()
        n_columns = int(owners.max()) + 1
        of_columns = squares.new_zeros(len(bank), n_columns).index_add_(1, owners, squares)
        others = squares.sum(1, keepdim=True) - of_columns[:, owners]
        nearest = others.topk(min(CONSTANTS.neighbours, len(bank)), dim=0, largest=False).indices
        return bank.gather(0, nearest).median(0).values


def _offsets(bank: Tensor) -> Tensor:
    """Return -|b|^2 / 2 of each sample of a bank (N, values), (N,)."""
    return -bank.square().sum(1) / 2


def relative(distances: Tensor, gaps: Tensor) -> Tensor:
    """Return the mean of rising distances to neighbours by the root of their mean gap.

    (B, k) and (B, k) to (B,); the first few columns count.
    """
    return (
        distances[:, : CONSTANTS.neighbours].mean(1)
        / gaps[:, : CONSTANTS.neighbours].mean(1).sqrt()
    )


def gaps_between(distances: Tensor) -> Tensor:
    """Return the gap around each normal sample, (N,), from rising distances to others, (N, k)."""
    gaps = distances[:, : CONSTANTS.neighbours].mean(1)
    # Between equal samples there is no gap, but nor is there one that is infinitely small.
    return gaps.clamp(min=(CONSTANTS.smallest_gap * gaps.mean()).clamp(min=CONSTANTS.smallest_gap))


def _roots_of_deviations(variances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the root of each standard deviation as a share of the largest, which comes first."""
    if variances[0] == 0:
        return np.ones_like(variances)
    shares: NDArray[np.float32] = np.maximum(
        variances / variances[0], CONSTANTS.smallest_variance_share
    )
    return shares**0.25


def _kept(n_values: int) -> int:
    """Return for how many samples of so many values a bank has room."""
    return max(2, CONSTANTS.bank_values // n_values)


def largest(values: Tensor, k: int) -> Tensor:
    """Return the columns of the ``k`` largest of each row of (B, n), falling, (B, k).

    They lie in the k groups of columns whose largest is largest. A maximum of each group costs
    less than torch's selection from whole rows.
    """
    # About the root of n; a power of two, as a part of a full bank, which then needs no padding.
    n_groups = max(k, 2 ** round(math.log2(values.shape[1]) / 2))
    padding = -values.shape[1] % n_groups
    if padding:
        values = functional.pad(values, (0, padding), value=-math.inf)
    grouped = values.reshape(-1, values.shape[1] // n_groups, n_groups)
    groups = grouped.amax(1).topk(k).indices
    few = grouped.gather(2, groups[:, None].expand(-1, grouped.shape[1], -1))
    places = few.flatten(1).topk(k).indices
    columns: Tensor = places // k * n_groups + groups.gather(1, places % k)
    return columns
