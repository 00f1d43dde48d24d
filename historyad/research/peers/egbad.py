"""EGBAD (Zenati et al., 2018): a BiGAN's encoder stands in for the search of AnoGAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.method.networks import Networks, initialise
from historyad.randomness import Stream, torch_generator
from historyad.research.peers.training import (
    Encoder,
    NetworkPeer,
    cross_entropy,
    dcgan_adam,
    freeze,
    l1_distance,
    take_step,
)


class PairDiscriminator(nn.Module):
    """D(x, z): tell pairs of a sample and its code from pairs of a latent and its image."""

    def __init__(self, networks: Networks, hidden: int, latent_dim: int) -> None:
        super().__init__()
        self.sample = nn.Sequential(Encoder(networks, hidden), nn.LeakyReLU(0.2))
        self.latent = nn.Sequential(nn.Linear(latent_dim, hidden), nn.LeakyReLU(0.2))
        self.pair = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.LeakyReLU(0.2))
        self.logit = nn.Linear(hidden, 1)

    def features(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the layer before the logit, f(x, z), (B, hidden)."""
        return self.pair(torch.cat([self.sample(x), self.latent(z)], 1))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the logit of each pair, (B,)."""
        return self.logit(self.features(x, z)).squeeze(1)  # type: ignore[no-any-return]


@dataclass(kw_only=True, eq=False)
class EGBAD(NetworkPeer):
    """A BiGAN (Donahue et al., 2017): generator, encoder and a discriminator of pairs.

    The score is (1 - w) |x - G(E(x))| + w L_D(x), w being ``discriminator_weight``. L_D is the
    cross-entropy of D(x, E(x)) to 1, or, with ``feature_matching``, |f(x, E(x)) - f(G(E(x)), E(x))|
    for the layer f before D's output. ``n_images`` is the length of training, in images seen:
    120,000 are meant for five minutes of one CPU core at 32 x 32 pixels. The paper's
    ``learning_rate`` of 1e-5 goes with 100 epochs: a training of a few takes DCGAN's.
    """

    feature_matching: bool = False
    discriminator_weight: float = 0.1
    n_images: int = 120_000
    learning_rate: float = 2e-4

    def fit(self, samples: NDArray[Any]) -> Self:
        """Train the three networks on the value function of BiGAN (eq. 1)."""
        networks = self._look_at(samples)
        self._generator = networks.generator()
        self._encoder = Encoder(networks, self.latent_dim)
        self._discriminator = PairDiscriminator(networks, self.hidden, self.latent_dim)
        random = torch_generator(self.seed, Stream.WEIGHTS)
        pair = nn.ModuleList([self._generator, self._encoder])
        for network in (pair, self._discriminator):
            initialise(network, random)
        pair_adam = dcgan_adam(pair, self.learning_rate)
        discriminator_adam = dcgan_adam(self._discriminator, self.learning_rate)

        for x, random in self._steps(samples, self.n_images):
            z = torch.randn(len(x), self.latent_dim, generator=random)
            # First the samples with their codes, then the latents with their images.
            samples_, latents = torch.cat([x, self._generator(z)]), torch.cat([self._encoder(x), z])
            encoded, generated = self._discriminator(samples_.detach(), latents.detach()).chunk(2)
            loss = cross_entropy(encoded, 1) + cross_entropy(generated, 0)
            take_step(discriminator_adam, loss.mean())
            encoded, generated = self._discriminator(samples_, latents).chunk(2)
            take_step(pair_adam, (cross_entropy(encoded, 0) + cross_entropy(generated, 1)).mean())
        freeze(pair, self._discriminator)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the score of each sample (section 3), (N,)."""
        return self._in_batches(self._score, samples)

    def _score(self, x: Tensor) -> Tensor:
        z = self._encoder(x)
        reconstruction = self._generator(z)
        if self.feature_matching:
            features = self._discriminator.features(x, z)
            judgement = l1_distance(features, self._discriminator.features(reconstruction, z))
        else:
            judgement = cross_entropy(self._discriminator(x, z), 1)
        weight = self.discriminator_weight
        return (1 - weight) * l1_distance(x, reconstruction) + weight * judgement
