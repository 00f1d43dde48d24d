"""What is left of a cell beside its nearest good cells: what D_TV of the history is trained on.

D_TV that sees cells themselves takes what is merely new for strange: a part that no training image
showed. Hence the good images are cut in two. Cells of the one half are a bank, and of those of the
other half only the difference to their nearest in it is looked at: how new *good* images differ
from known ones. These differences, whitened, are what the history surrounds.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.constants import CONSTANTS
from historyad.data.rows import stretches, whole_groups
from historyad.randomness import Stream, numpy_generator
from historyad.score.coreset import Cells, coreset, drawn, standardise
from historyad.score.gaussian import principal_components
from historyad.score.neighbours import Bank
from historyad.score.scale import Scale

_PART = 4096  # cells that are compared with the bank at a time


class Residuals(nn.Module):
    """Maps standardised cells to their whitened differences from the nearest good ones."""

    known: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, n_features: int, n_bank: int, n_values: int) -> None:
        super().__init__()
        self.bank = Bank(n_features, n_bank, n_components=CONSTANTS.residual_components)
        self.register_buffer("known", torch.zeros(n_bank, n_features))
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("whitening", torch.zeros(n_features, n_values))

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        cells: Cells,
        standard: Scale,
        n_values: int,
        seed: int,
        groups: NDArray[np.intp] | None = None,
    ) -> tuple[Residuals, Tensor]:
        """Return the map that ``cells`` (N, places, features) give, N > 1, and what to train on.

        That is the residuals of a part of the images that the bank has no cell of, (n, n_values).
        Related images are mostly stored together: so the part is one of stretches, and of whole
        ``groups`` (N,), which number what each image shows, unless all show one thing.
        """
        others = _others(len(cells), groups, seed)
        x = standardise(drawn(cells[~others], CONSTANTS.residual_pool, seed), standard)
        x = x[coreset(x, CONSTANTS.residual_bank, seed)]
        found = cls(x.shape[1], len(x), n_values)
        pca = principal_components(x, CONSTANTS.residual_components)
        found.bank = Bank.keep(x, len(x), pca=pca)
        found.known.copy_(x)
        new = standardise(drawn(cells[others], CONSTANTS.residual_cells, seed), standard)
        return found, found._whiten(new)

    def _whiten(self, x: Tensor) -> Tensor:
        """Set the whitening by cells that are not in the bank, and return theirs."""
        residuals = torch.cat([self.beside(part) for part in torch.split(x, _PART)])
        self.mean.copy_(residuals.mean(0))
        centred = (residuals - self.mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        floor = CONSTANTS.residual_floor * values.mean().clamp(min=CONSTANTS.smallest_spread)
        scaled = vectors / (values.clamp(min=0) + floor).sqrt()
        self.whitening.copy_(scaled.flip(1)[:, : self.whitening.shape[1]])
        return (residuals - self.mean) @ self.whitening

    def forward(self, x: Tensor) -> Tensor:
        """Map standardised cells (N, features) to (N, n_values)."""
        return (self.beside(x) - self.mean) @ self.whitening

    def beside(self, x: Tensor) -> Tensor:
        """Return cells (N, features) less the mean of their nearest in the bank."""
        closeness = torch.addmm(self.bank.offsets, self.bank.place(x), self.bank.bank.T)
        nearest = closeness.topk(min(CONSTANTS.residual_neighbours, len(self.known))).indices
        return x - self.known[nearest].mean(1)

    @property
    def sizes(self) -> dict[str, int]:
        """What it takes to build one anew."""
        return {"known": len(self.known), "values": self.whitening.shape[1]}


def _others(n: int, groups: NDArray[np.intp] | None, seed: int) -> NDArray[np.bool_]:
    """Return which of n images are to be new to the bank, (n,): some, not all."""
    n_others = max(1, round(CONSTANTS.residual_share * n))
    chosen = stretches(n, n_others, numpy_generator(seed, Stream.CELL, 2))
    others = np.isin(np.arange(n), chosen)
    if groups is None:
        return others
    whole = whole_groups(others, groups, numpy_generator(seed, Stream.CELL, 3))
    return whole if 0 < whole.sum() < n else others
