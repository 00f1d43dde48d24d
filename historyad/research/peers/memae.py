"""Memory-augmented autoencoder (Gong et al., 2019): only what is in memory can be decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from historyad.method.networks import initialise
from historyad.randomness import Stream, torch_generator
from historyad.research.peers.training import (
    Encoder,
    NetworkPeer,
    freeze,
    take_step,
)

_LEARNING_RATE = 1e-3


class Memory(nn.Module):
    """Replace a code by a mixture of a few of the items that it is most like (section 3.3)."""

    def __init__(self, n_items: int, size: int, random: torch.Generator) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(n_items, size, generator=random))

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes (B, size) to mixtures (B, size) and their weights (B, n_items)."""
        cosines = functional.normalize(codes) @ functional.normalize(self.items).T
        # The low end of the paper's range, 1 / N to 3 / N: the largest weight never lies below it.
        weights = hard_shrinkage(cosines.softmax(1), 1 / len(self.items))
        return weights @ self.items, weights


@dataclass(kw_only=True, eq=False)
class MemAE(NetworkPeer):
    """Autoencoder with a memory between its halves, scored by its reconstruction error.

    ``n_items`` and ``entropy_weight`` are the paper's, the first for MNIST. ``n_images`` is the
    length of training, in images seen.
    """

    n_images: int = 300_000
    n_items: int = 100
    entropy_weight: float = 2e-4

    def fit(self, samples: NDArray[Any]) -> Self:
        """Minimise reconstruction error and entropy of the weights (eq. 11)."""
        networks = self._look_at(samples)
        self._encoder = Encoder(networks, self.latent_dim)
        self._decoder = networks.generator()
        random = torch_generator(self.seed, Stream.WEIGHTS)
        for network in (self._encoder, self._decoder):
            initialise(network, random)
        self._memory = Memory(self.n_items, self.latent_dim, random)
        trained = nn.ModuleList([self._encoder, self._memory, self._decoder])
        optimizer = Adam(trained.parameters(), _LEARNING_RATE, fused=True)
        for x, _ in self._steps(samples, self.n_images):
            error, weights = self._reconstruct(x)
            take_step(optimizer, (error + self.entropy_weight * entropy(weights)).mean())
        freeze(trained)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the squared error of the reconstruction of each sample, (N,)."""
        return self._in_batches(lambda x: self._reconstruct(x)[0], samples)

    def _reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared error of each sample, (B,), and its weights, (B, n_items)."""
        code, weights = self._memory(self._encoder(x))
        return (x - self._decoder(code)).square().flatten(1).sum(1), weights


def hard_shrinkage(weights: Tensor, threshold: float) -> Tensor:
    """Drop weights (B, n) up to ``threshold`` and let the others sum to 1 (eqs. 6 and 7)."""
    return functional.normalize(weights * (weights > threshold), p=1)


def entropy(weights: Tensor) -> Tensor:
    """Return the entropy of the weights (B, n) of each sample, in nats, (B,)."""
    tiny = torch.finfo(weights.dtype).tiny  # 0 log 0 is 0, with a finite gradient
    return -(weights * weights.clamp(min=tiny).log()).sum(1)
