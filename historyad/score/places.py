"""A Gaussian for each place of aligned images (Defard et al., 2021, "PaDiM")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from historyad.constants import CONSTANTS


class Places(nn.Module):
    """Mahalanobis distances of cells to the good ones in the same place.

    The covariance of a place is drawn towards that of all places, as if by so many more images: of
    few images there is too little to estimate it from.
    """

    means: Tensor
    factors: Tensor

    def __init__(self, n_places: int, n_values: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(n_places, n_values))
        # Of the precision matrices: their lower triangles.
        self.register_buffer("factors", torch.zeros(n_places, n_values, n_values))

    @classmethod
    def fit(cls, x: Tensor) -> Places:
        """Estimate from cells (N, places, values) of good images, N > 1."""
        n, n_places, n_values = x.shape
        places = cls(n_places, n_values).to(x.device)
        places.means.copy_(x.mean(0))
        centred = (x - places.means).transpose(0, 1)
        scatters = centred.transpose(1, 2) @ centred
        pooled = scatters.sum(0) / (n * n_places)
        prior = CONSTANTS.place_prior
        ridge = CONSTANTS.place_ridge * pooled.diagonal().mean().clamp(
            min=CONSTANTS.smallest_spread
        )
        covariances = (scatters + prior * pooled) / (n + prior)
        covariances.diagonal(dim1=1, dim2=2).add_(ridge)
        precisions = torch.cholesky_inverse(torch.linalg.cholesky(covariances.double()))
        places.factors.copy_(torch.linalg.cholesky(precisions))
        return places

    def forward(self, x: Tensor) -> Tensor:
        """Return the distances of cells (N, places, values), (N, places)."""
        return self.turned(x).square().sum(2).sqrt()

    def turned(self, x: Tensor) -> Tensor:
        """Return cells (N, places, values) in directions in which good ones vary by 1."""
        # By place: (places, N, values) times (places, values, values).
        return ((x - self.means).transpose(0, 1) @ self.factors).transpose(0, 1)

    def surprise(self, x: Tensor) -> float:
        """Return the mean negative log-likelihood of cells (N, places, values), less a constant."""
        logarithms = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        return float((self(x).square() / 2 - logarithms).mean())
