"""An image as a whole: what is spread over it, and nowhere strange."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from historyad.constants import CONSTANTS
from historyad.score.coreset import Cells, standardise
from historyad.score.gaussian import Gaussian
from historyad.score.scale import Scale


class Whole(nn.Module):
    """Distance to good images by the mean and the deviation of the cells, feature by feature.

    Two images of one texture have both alike, wherever its parts are. The distance is that to a
    Gaussian, of deviations by their logarithms.
    """

    def __init__(self, n_features: int, n_components: int) -> None:
        super().__init__()
        self.standard = Scale(2 * n_features)
        self.gaussian = Gaussian(2 * n_features, n_components)

    @classmethod
    def fit(cls, images: Cells, standard: Scale, n_features: int) -> Whole:
        """Estimate from the first features of cells (N, places, features) of N > 1 good images."""
        found = [sums_of(standardise(image, standard)[None, :, :n_features]) for image in images]
        sums, squares = (torch.cat(part) for part in zip(*found, strict=True))
        x = spread_of(sums, squares, images.shape[1])
        whole = cls(n_features, 0)
        whole.standard.center.copy_(x.mean(0))
        whole.standard.spread.copy_(x.std(0).clamp(min=CONSTANTS.smallest_spread))
        whole.gaussian = Gaussian.fit(whole.standard(x.T).T, ridge=CONSTANTS.whole_ridge)
        return whole

    @property
    def n_features(self) -> int:
        """Features of a cell that it looks at, the first."""
        return self.standard.center.shape[0] // 2

    @property
    def n_components(self) -> int:
        """Components of its Gaussian."""
        return len(self.gaussian.components)

    def forward(self, sums: Tensor, squares: Tensor, n: int) -> Tensor:
        """Map the sums of ``n`` standardised cells, and of squares, (N, features) each, to (N,)."""
        found: Tensor = self.gaussian(self.standard(spread_of(sums, squares, n).T).T)
        return found


def sums_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of standardised cells (N, places, features) and of their squares."""
    return x.sum(1), x.square().sum(1)


def spread_of(sums: Tensor, squares: Tensor, n: int) -> Tensor:
    """Return means and logarithms of deviations of ``n`` cells, (N, twice the features)."""
    means = sums / n
    variances = (squares / n - means.square()).clamp(min=CONSTANTS.smallest_cell_spread**2)
    return torch.cat([means, variances.log() / 2], -1)
