"""ADGAN (Deecke et al., 2018): search latents and the generator's own weights for each image."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam

from historyad.randomness import Stream, torch_generator
from historyad.research.peers.training import NetworkPeer, freeze, take_step

_LATENT_RATE = 0.25
_WEIGHT_RATE = 5e-5


@dataclass(kw_only=True, eq=False)
class ADGAN(NetworkPeer):
    """A WGAN, and for each image ``n_steps`` of Adam on z and theta from each of ``n_seeds``.

    ``n_images`` is the length of training, in images that the critic sees: 240,000 are meant for
    five minutes of one CPU core at 32 x 32 pixels.
    """

    n_images: int = 240_000
    learning_rate: float = 5e-4
    n_seeds: int = 8
    n_steps: int = 5

    def fit(self, samples: NDArray[Any]) -> Self:
        """Train the generator."""
        self._look_at(samples)
        gan = self._train_wgan(samples, self.n_images, self.learning_rate)
        self._generator = gan.generator
        freeze(self._generator)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the mean over seeds of |G(z) - x|^2 after the search (algorithm 1), (N,)."""
        return self._in_batches(self._search, samples, size=1, grain=1)

    def _search(self, x: Tensor) -> Tensor:
        random = torch_generator(self.seed, Stream.PEER)
        starts = torch.randn(self.n_seeds, 1, self.latent_dim, generator=random)
        return torch.stack([self._search_from(start, x) for start in starts]).mean(0)

    def _search_from(self, start: Tensor, x: Tensor) -> Tensor:
        z = start.clone().requires_grad_()
        generator = deepcopy(self._generator).requires_grad_(True)
        weights = {"params": list(generator.parameters()), "lr": _WEIGHT_RATE}
        adam = Adam([{"params": [z], "lr": _LATENT_RATE}, weights], fused=True)
        for _ in range(self.n_steps):
            take_step(adam, _squared_distance(generator(z), x).sum())
        return _squared_distance(generator(z), x).detach()


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).sum(1)
