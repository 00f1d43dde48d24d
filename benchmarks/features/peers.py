"""What else finds defects in the features of a frozen network, on the very cells that ours sees.

Each is fitted on the cells of good images (N, places, features) and maps those of others to a value
for each cell, and for each image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from historyad.randomness import Stream, torch_generator
from historyad.score.coreset import coreset
from historyad.score.places import Places

_MOST_CELLS = 30_000  # from which a coreset is chosen
_PART = 16  # images at a time


class CellDetector(Protocol):
    """A detector on cells."""

    def fit(self, x: Tensor) -> Self:
        """Learn from the cells of good images, (N, places, features)."""

    def maps(self, x: Tensor) -> Tensor:
        """Return what is wrong with each cell, (N, places)."""

    def scores(self, x: Tensor) -> Tensor:
        """Return what is wrong with each image, (N,)."""


class PatchCore:
    """Distance to the nearest of a coreset (Roth et al., 2022), its image score reweighted.

    A tenth of the cells, as published, of at most 30,000 drawn at random.
    """

    share, n_around = 0.1, 9

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, x: Tensor) -> Self:
        """Choose the coreset."""
        flat = x.flatten(0, 1)
        random = torch_generator(self.seed, Stream.PEER)
        some = flat[torch.randperm(len(flat), generator=random)[:_MOST_CELLS]]
        self.bank = some[coreset(some, round(self.share * len(some)), self.seed)]
        return self

    def maps(self, x: Tensor) -> Tensor:
        """Return the distances."""
        return torch.cat(
            [torch.cdist(part, self.bank[None]).amin(2) for part in torch.split(x, _PART)]
        )

    def scores(self, x: Tensor) -> Tensor:
        """Return the largest distance, less where the nearest has few neighbours about it."""
        return torch.stack([self._score(image) for image in x])

    def _score(self, image: Tensor) -> Tensor:
        distances = torch.cdist(image, self.bank)
        nearest = distances.min(1)
        cell = nearest.values.argmax()
        center = self.bank[nearest.indices[cell]]
        around = torch.cdist(center[None], self.bank)[0].topk(self.n_around, largest=False).indices
        beside = torch.cdist(image[cell][None], self.bank[around])[0] / math.sqrt(image.shape[1])
        own = nearest.values[cell] / math.sqrt(image.shape[1])
        weight = 1 - (own.exp() / beside.exp().sum())
        return weight * nearest.values[cell]


class Padim:
    """A Gaussian for each place on 100 features drawn at random (Defard et al., 2021)."""

    n_features = 100

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, x: Tensor) -> Self:
        """Estimate the Gaussians."""
        random = torch_generator(self.seed, Stream.PEER)
        self.chosen = torch.randperm(x.shape[2], generator=random)[: self.n_features]
        self.places = Places.fit(x[..., self.chosen])
        return self

    def maps(self, x: Tensor) -> Tensor:
        """Return the distances."""
        found: Tensor = self.places(x[..., self.chosen])
        return found

    def scores(self, x: Tensor) -> Tensor:
        """Return the largest."""
        return self.maps(x).amax(1)


class SimpleNet:
    """An adapter and a discriminator against noised features (Liu et al., 2023, "SimpleNet").

    Noise of deviation 0.015 on adapted features, as published; features come on one scale each.
    """

    sigma, margin, batch, steps = 0.015, 0.5, 512, 3000

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, x: Tensor) -> Self:
        """Tell cells from noised ones by a hinge loss."""
        flat = x.flatten(0, 1)
        self.mean, self.deviation = flat.mean(0), flat.std(0).clamp(min=1e-6)
        n = flat.shape[1]
        random = torch_generator(self.seed, Stream.PEER)
        with torch.random.fork_rng(devices=[]):
            self.adapter = nn.Linear(n, n)
            hidden, last = nn.Linear(n, n), nn.Linear(n, 1, bias=False)
            self.discriminator = nn.Sequential(hidden, nn.BatchNorm1d(n), nn.LeakyReLU(0.2), last)
        for layer in (self.adapter, hidden, last):
            nn.init.xavier_normal_(layer.weight, generator=random)
        adam = Adam(
            [
                {"params": self.adapter.parameters(), "lr": 1e-4},
                {"params": self.discriminator.parameters(), "lr": 2e-4, "weight_decay": 1e-5},
            ]
        )
        for _ in range(self.steps):
            some = torch.randint(len(flat), (self.batch,), generator=random)
            good = self.adapter(self._scaled(flat[some]))
            bad = good + self.sigma * torch.randn(good.shape, generator=random)
            values = self.discriminator(torch.cat([good, bad]))
            good_values, bad_values = values.chunk(2)
            loss = functional.relu(self.margin - good_values).mean()
            loss = loss + functional.relu(self.margin + bad_values).mean()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        self.adapter.eval()
        self.discriminator.eval()
        return self

    def maps(self, x: Tensor) -> Tensor:
        """Return minus what the discriminator says."""
        with torch.no_grad():
            parts = [
                -self.discriminator(self.adapter(self._scaled(p.flatten(0, 1))))
                for p in torch.split(x, _PART)
            ]
        return torch.cat(parts).view(x.shape[:2])

    def scores(self, x: Tensor) -> Tensor:
        """Return the largest."""
        return self.maps(x).amax(1)

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class PooledNeighbours:
    """Mean distance of the mean cell of an image to its five nearest (no map of its own)."""

    k = 5

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, x: Tensor) -> Self:
        """Keep the mean cells."""
        pooled = x.mean(1)
        self.mean, self.deviation = pooled.mean(0), pooled.std(0).clamp(min=1e-6)
        self.bank = (pooled - self.mean) / self.deviation
        return self

    def maps(self, x: Tensor) -> Tensor:
        """Return the score of the image in all its cells."""
        return self.scores(x)[:, None].expand(x.shape[:2])

    def scores(self, x: Tensor) -> Tensor:
        """Return the distances."""
        pooled = (x.mean(1) - self.mean) / self.deviation
        k = min(self.k, len(self.bank))
        return torch.cdist(pooled, self.bank).topk(k, largest=False).values.mean(1)


PEERS: dict[str, Callable[[int], CellDetector]] = {
    "PatchCore": PatchCore,
    "PaDiM": Padim,
    "SimpleNet": SimpleNet,
    "5 neighbours, pooled": PooledNeighbours,
}
