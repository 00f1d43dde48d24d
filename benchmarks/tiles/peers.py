"""What else finds defects without labels or pretrained weights: simple detectors on windows.

Each is fitted on windows of good images, after the same local contrast as ours, and gives a map: a
pixel's value is the mean over the windows that cover it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from historyad.kinds.contrast import local_contrast
from historyad.method.networks import ImageNetworks, initialise
from historyad.randomness import Stream, numpy_generator, torch_generator
from historyad.research.peers.training import Encoder
from historyad.score.maps import worst

Pixels = NDArray[np.uint8]
Maps = NDArray[np.float32]

_FIT_WINDOWS = 20_000
_CONTRAST_OF = 32  # side of our crops, to which the local contrast belongs


class WindowDetector(Protocol):
    """A detector on windows of ``side`` pixels, ``stride`` apart."""

    side: int
    stride: int

    def fit(self, windows: Tensor) -> Self:
        """Learn from windows of good images, (N, places, side * side), all in [-1, 1]."""

    def errors(self, windows: Tensor) -> Tensor:
        """Return what is wrong with windows (N, places, side * side), in the same shape."""


class WindowPca:
    """Squared residual of each pixel outside the first principal components."""

    def __init__(self, n_components: int, side: int = 16, stride: int = 4) -> None:
        self.n_components, self.side, self.stride = n_components, side, stride

    def fit(self, windows: Tensor) -> Self:
        """Find the components of all windows."""
        self._pca = PCA(self.n_components, random_state=0).fit(windows.flatten(0, 1).numpy())
        return self

    def errors(self, windows: Tensor) -> Tensor:
        """Return the squared residuals."""
        components = torch.from_numpy(self._pca.components_)
        centred = windows - torch.from_numpy(self._pca.mean_)
        return (centred - centred @ components.T @ components).square()


class WindowGaussian:
    """Mahalanobis distance to a Gaussian of all windows, or to one of those at the same place.

    ``ridge`` is a share of the mean variance.
    """

    def __init__(
        self, *, per_place: bool, side: int = 16, stride: int = 4, ridge: float = 0.1
    ) -> None:
        self.per_place, self.side, self.stride, self.ridge = per_place, side, stride, ridge

    def fit(self, windows: Tensor) -> Self:
        """Estimate the Gaussians, (places or 1, values)."""
        places = windows.transpose(0, 1) if self.per_place else windows.flatten(0, 1)[None]
        self._means = places.mean(1, keepdim=True)
        self._precisions = torch.stack([_precision(x, self.ridge) for x in places - self._means])
        return self

    def errors(self, windows: Tensor) -> Tensor:
        """Return the distance of each window, the same for all its pixels."""
        shape = windows.shape
        places = windows.transpose(0, 1) if self.per_place else windows.flatten(0, 1)[None]
        centred = places - self._means
        distances = ((centred @ self._precisions) * centred).sum(2).clamp(min=0).sqrt()
        by_image = distances.T if self.per_place else distances.view(shape[:2])
        return by_image[..., None].expand(shape)


class WindowNeighbours:
    """Mean distance to the nearest three of 20,000 windows, by Euclid."""

    def __init__(self, seed: int, side: int = 8, stride: int = 2) -> None:
        self.seed, self.side, self.stride = seed, side, stride

    def fit(self, windows: Tensor) -> Self:
        """Keep a seeded choice of windows."""
        flat = windows.flatten(0, 1).numpy()
        order = numpy_generator(self.seed, Stream.CROP).permutation(len(flat))
        self._index = NearestNeighbors(n_neighbors=3, algorithm="brute")
        self._index.fit(flat[order[:_FIT_WINDOWS]])
        return self

    def errors(self, windows: Tensor) -> Tensor:
        """Return the distance of each window, the same for all its pixels."""
        distances, _ = self._index.kneighbors(windows.flatten(0, 1).numpy())
        found = torch.from_numpy(distances.mean(1)).float().view(windows.shape[:2])
        return found[..., None].expand(windows.shape)


class WindowAutoencoder:
    """Squared error of each pixel after a convolutional autoencoder of the blocks of our GAN."""

    def __init__(self, seed: int, n_windows: int = 100_000, side: int = 32, stride: int = 8):
        self.seed, self.n_windows, self.side, self.stride = seed, n_windows, side, stride

    def fit(self, windows: Tensor) -> Self:
        """Minimise the squared error on windows drawn at random."""
        flat = windows.flatten(0, 1).view(-1, 1, self.side, self.side)
        weights = torch_generator(self.seed, Stream.WEIGHTS)
        networks = ImageNetworks((1, self.side, self.side), width=24, hidden=512, latent_dim=64)
        parts = [Encoder(networks, networks.latent_dim), networks.generator()]
        for part in parts:
            initialise(part, weights)
        self._network = nn.Sequential(*parts)
        optimizer = Adam(self._network.parameters(), 1e-3, fused=True)
        draws = torch_generator(self.seed, Stream.CROP)
        for _ in range(0, self.n_windows, 64):
            x = flat[torch.randint(len(flat), (64,), generator=draws)]
            loss = functional.mse_loss(self._network(x), x)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self._network.eval().requires_grad_(False)
        return self

    def errors(self, windows: Tensor) -> Tensor:
        """Return the squared errors."""
        x = windows.flatten(0, 1).view(-1, 1, self.side, self.side)
        decoded = torch.cat([self._network(part) for part in torch.split(x, 512)])
        return (decoded - x).square().view(windows.shape)


PEERS: dict[str, Callable[[int], WindowDetector]] = {
    "window PCA residual": lambda seed: WindowPca(32),
    "window Mahalanobis": lambda seed: WindowGaussian(per_place=False),
    "window Mahalanobis, each place": lambda seed: WindowGaussian(per_place=True),
    "window neighbours": WindowNeighbours,
    "window autoencoder": WindowAutoencoder,
}


def fit_windows(detector: WindowDetector, images: Pixels) -> None:
    """Fit on the windows of good images (N, H, W, 1)."""
    detector.fit(cut(prepared(images), detector.side, detector.stride))


@torch.no_grad()
def window_maps(detector: WindowDetector, images: Pixels) -> Maps:
    """Return the maps of images (N, H, W, 1), (N, H, W); each depends on its image alone."""
    maps = []
    for part in torch.split(prepared(images), 16):
        errors = detector.errors(cut(part, detector.side, detector.stride))
        maps.append(mean_of_windows(errors, detector.side, detector.stride, part.shape[2:]))
    found: Maps = torch.cat(maps).numpy()
    return found


def worst_of(maps: Maps) -> NDArray[np.float32]:
    """Return the score of each map (N, H, W), (N,): as in ours, the mean of its worst pixels."""
    scores: NDArray[np.float32] = torch.stack(
        [worst(one, 1) for one in torch.from_numpy(maps)]
    ).numpy()
    return scores


def prepared(images: Pixels) -> Tensor:
    """Return the local contrast of images (N, H, W, 1), in [-1, 1], (N, 1, H, W)."""
    contrast = torch.from_numpy(local_contrast(images, _CONTRAST_OF))
    return contrast.permute(0, 3, 1, 2).float() / 127.5 - 1


def cut(images: Tensor, side: int, stride: int) -> Tensor:
    """Return the windows of images (N, 1, H, W), (N, places, side * side)."""
    if any((length - side) % stride for length in images.shape[2:]):
        raise ValueError(f"windows of {side} at a stride of {stride} do not cover {images.shape}")
    return functional.unfold(images, side, stride=stride).transpose(1, 2)


def mean_of_windows(values: Tensor, side: int, stride: int, size: torch.Size) -> Tensor:
    """Invert `cut`: the mean over the windows that cover each pixel, (N, H, W)."""
    columns = values.transpose(1, 2)
    total, count = (
        functional.fold(x, size, side, stride=stride) for x in (columns, torch.ones_like(columns))
    )
    return (total / count)[:, 0]


def _precision(centred: Tensor, ridge: float) -> Tensor:
    """Return the inverse covariance, with a ridge, of centred rows (N, values)."""
    covariance = centred.T @ centred / len(centred)
    added = ridge * covariance.diagonal().mean()
    inverse: Tensor = torch.linalg.inv(covariance + added * torch.eye(len(covariance)))
    return inverse
