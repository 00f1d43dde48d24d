"""Gaussians of normal samples: distances that grow with what no normal sample varies by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.constants import CONSTANTS
from historyad.method.networks import Shape

if TYPE_CHECKING:
    from sklearn.decomposition import PCA


class Gaussian(nn.Module):
    """Mahalanobis distance of a sample to the normal ones, by a Gaussian of few components.

    The model is probabilistic PCA (Tipping and Bishop, 1999): the largest principal variances, and
    one variance for all directions that are left. A ridge keeps each of them away from 0. Several
    distances may share the components, each with variances of its own: ``n_distances``.
    """

    mean: Tensor
    components: Tensor
    precisions: Tensor
    rest_precisions: Tensor

    def __init__(self, n_values: int, n_components: int, n_distances: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_values))
        self.register_buffer("components", torch.zeros(n_components, n_values))
        self.register_buffer("precisions", torch.ones(n_components, n_distances))
        self.register_buffer("rest_precisions", torch.ones(n_distances))

    @classmethod
    def fit(cls, x: Tensor, *, ridge: float, pca: PCA | None = None) -> Gaussian:
        """Estimate from normal samples (N, values), N > 1.

        The ridge is a share of their mean variance. By default as many principal components are
        kept as have room.
        """
        pca = principal_components(x) if pca is None else pca
        ridge = _ridge(x, ridge)
        variances, rest = pca.explained_variance_[:, None], np.array([pca.noise_variance_])
        return cls.of(pca, 1 / (variances + ridge), 1 / (rest + ridge)).to(x.device)

    @classmethod
    def of(cls, pca: PCA, precisions: NDArray[Any], rest_precisions: NDArray[Any]) -> Gaussian:
        """Return one with precisions (components, distances), and those of the rest."""
        gaussian = cls(pca.components_.shape[1], *precisions.shape)
        gaussian.mean.copy_(torch.from_numpy(pca.mean_))
        gaussian.components.copy_(torch.from_numpy(pca.components_))
        gaussian.precisions.copy_(torch.from_numpy(precisions))
        gaussian.rest_precisions.copy_(torch.from_numpy(rest_precisions))
        return gaussian

    def forward(self, x: Tensor) -> Tensor:
        """Return the first distance of each sample of (B, values), (B,)."""
        return self.squares(x)[:, 0].sqrt()

    def squares(self, x: Tensor) -> Tensor:
        """Return the squared distances of each sample of (B, values), (B, distances)."""
        centred = x - self.mean
        coordinates = centred @ self.components.T
        squares = coordinates.square() @ self.precisions
        if len(self.components) < len(self.mean):
            rest = centred - coordinates @ self.components
            squares = squares + rest.square().sum(1, keepdim=True) * self.rest_precisions
        return squares


class ImageGaussian(nn.Module):
    """Two Mahalanobis distances of an image to the normal ones, a fine and a coarse one.

    Colours are turned to the principal axes of the colours of all pixels. Of photographs these are
    about brightness and two contrasts of colours, which hardly go together; so each axis has a
    Gaussian of its own, and there is room for more components than one of all values could have.

    In the fine distance every component has its own variance. In the coarse one only the largest
    few have, of all axes together, and the others share their mean: it says how much there is to
    be seen, and the fine one, besides, what normal images never show. These few are no more than
    the images estimate: images that were fitted on lie within their own span, where new ones do
    not, and would look plainer than any of these if each of its directions counted by itself.
    """

    axes: Tensor

    def __init__(self, gaussians: Sequence[Gaussian]) -> None:
        super().__init__()
        self.gaussians = nn.ModuleList(gaussians)
        # In columns; not an identity, for which torch would import its compiler on the device
        # without memory on which a model is first built.
        self.register_buffer("axes", torch.zeros(len(gaussians), len(gaussians)))

    @classmethod
    def fit(cls, x: Tensor, *, ridge: float, coarse_ridge: float) -> ImageGaussian:
        """Estimate from normal images (N, C, H, W), N > 1; a ridge is a share of mean variance."""
        axes = _axes_of_colours(x)
        n_axes, n_values = len(axes), x[0].numel()
        pcas = [principal_components(turned, room_for(x.shape[1:])) for turned in _turn(x, axes)]
        variances = np.stack([pca.explained_variance_ for pca in pcas])
        rest = np.array([pca.noise_variance_ for pca in pcas])
        n_rest = min(len(x), n_values // n_axes) - variances.shape[1]
        most = max(1, min(_room(n_values), len(x) // CONSTANTS.images_for_a_variance))
        few, few_rest = _sharing(variances, rest, n_rest, most)
        fine, coarse = _ridge(x, ridge), _ridge(x, coarse_ridge)
        precisions = np.stack([1 / (variances + fine), 1 / (few + coarse)], axis=-1)
        rest_precisions = np.stack([1 / (rest + fine), 1 / (few_rest + coarse)], axis=-1)
        parts = zip(pcas, precisions, rest_precisions, strict=True)
        gaussian = cls([Gaussian.of(*part) for part in parts]).to(x.device)
        gaussian.axes.copy_(axes)
        return gaussian

    @classmethod
    def build(cls, shape: Shape, n_components: int) -> ImageGaussian:
        """Return an unfitted one for images of ``shape``."""
        n_axes, n_pixels = shape[0], math.prod(shape[1:])
        return cls([Gaussian(n_pixels, n_components, 2) for _ in range(n_axes)])

    @property
    def n_components(self) -> int:
        """Components of each axis."""
        return len(cast(Gaussian, self.gaussians[0]).components)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fine and the coarse distance of each image of (B, C, H, W), (B,) each."""
        gaussians = cast(Sequence[Gaussian], self.gaussians)
        axes = zip(gaussians, _turn(x, self.axes), strict=True)
        squares = reduce(torch.add, [gaussian.squares(turned) for gaussian, turned in axes])
        fine, coarse = squares.sqrt().unbind(1)
        return fine, coarse


def _axes_of_colours(x: Tensor) -> Tensor:
    """Return the principal axes of the colours of all pixels (N, C, H, W), in columns, (C, C)."""
    if x.shape[1] == 1:
        return x.new_ones(1, 1)
    colours = x.transpose(0, 1).flatten(1).double()
    axes: Tensor = torch.linalg.eigh(torch.cov(colours))[1]
    return axes.to(x.dtype)


def _turn(x: Tensor, axes: Tensor) -> Tensor:
    """Return each axis of images (B, C, H, W) as vectors, (C, B, H * W)."""
    if len(axes) == 1:
        return x.flatten(2).transpose(0, 1) * axes[0]
    return torch.einsum("bcp,ca->abp", x.flatten(2), axes)


def _sharing(
    variances: NDArray[Any], rest: NDArray[Any], n_rest: int, most: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Let all but the ``most`` largest of these variances, (C, K), share their mean.

    So do the others of each axis: ``n_rest``, of which ``rest`` (C,) is the mean.
    """
    small = variances < np.sort(variances, axis=None)[-min(most, variances.size)]
    n = small.sum() + n_rest * len(rest)
    mean = (variances[small].sum() + n_rest * rest.sum()) / max(n, 1)
    return np.where(small, mean, variances), np.full_like(rest, mean)


def _ridge(x: Tensor, share: float) -> float:
    flat = x.flatten(1).cpu().numpy()
    return max(share * float(flat.var(axis=0).mean()), CONSTANTS.smallest_ridge)


def principal_components(x: Tensor, most: int | None = None) -> PCA:
    """Fit a PCA of samples (N, values), of some where they are many.

    At ``most`` so many components are kept; by default, as many as a Gaussian has room for.
    """
    # Slow to import, and scoring does without.
    from sklearn.decomposition import PCA

    flat = x[: CONSTANTS.pca_samples].cpu().numpy()
    n_values = flat.shape[1]
    n_components = min(n_values, len(x) - 1, most or _room(n_values))
    # Exact, and for features of images faster than random projections. It subtracts the mean from
    # products, where float32 would lose samples that vary little about a large one.
    solver = "covariance_eigh" if len(flat) >= n_values else "auto"
    center = flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    with np.errstate(invalid="ignore"):  # shares of a variance that may be 0
        pca = PCA(n_components, svd_solver=solver, random_state=0).fit(flat - center)
    pca.mean_ = pca.mean_ + center
    return pca


def _room(n_values: int) -> int:
    """Return for how many components of samples of ``n_values`` there is room."""
    return max(CONSTANTS.fewest_components, CONSTANTS.gaussian_values // n_values)


def room_for(shape: Shape) -> int:
    """Return for how many components of each axis of images of ``shape`` there is room."""
    return max(
        CONSTANTS.fewest_components // shape[0], CONSTANTS.image_gaussian_values // math.prod(shape)
    )
