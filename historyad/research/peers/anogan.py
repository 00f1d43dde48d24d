"""AnoGAN (Schlegl et al., 2017): how near to an image a GAN can come, by searching its latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam

from historyad.method.networks import initialise
from historyad.randomness import Stream, torch_generator
from historyad.research.peers.training import (
    NetworkPeer,
    cross_entropy,
    dcgan_adam,
    freeze,
    inversion_loss,
    last_features,
    take_step,
)

_SEARCH_RATE = 0.01
_SEARCH_BATCH = 32


@dataclass(kw_only=True, eq=False)
class AnoGAN(NetworkPeer):
    """A DCGAN, and for each image to score ``n_steps`` of gradient descent from one fixed latent.

    ``feature_weight`` is lambda of the paper's eq. 5. ``n_images`` is the length of training, in
    images seen: 180,000 are meant for five minutes of one CPU core at 32 x 32 pixels.
    """

    n_images: int = 180_000
    learning_rate: float = 2e-4
    n_steps: int = 500
    feature_weight: float = 0.1

    def fit(self, samples: NDArray[Any]) -> Self:
        """Train generator and discriminator (eq. 1, with the generator's loss -log D(G(z)))."""
        networks = self._look_at(samples)
        self._generator, self._critic = networks.generator(), networks.critic()
        weights = torch_generator(self.seed, Stream.WEIGHTS)
        for network in (self._generator, self._critic):
            initialise(network, weights)
        generator_adam = dcgan_adam(self._generator, self.learning_rate)
        critic_adam = dcgan_adam(self._critic, self.learning_rate)
        for real, random in self._steps(samples, self.n_images):
            z = torch.randn(len(real), self.latent_dim, generator=random)
            generated = self._generator(z)
            real_logits, logits = self._critic(torch.cat([real, generated.detach()])).chunk(2)
            loss = cross_entropy(real_logits, 1) + cross_entropy(logits, 0)
            take_step(critic_adam, loss.mean())
            take_step(generator_adam, cross_entropy(self._critic(generated), 1).mean())
        freeze(self._generator, self._critic)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the loss that is left at the end of each image's search (eq. 6), (N,)."""
        # Descent makes much of a small difference: all batches have one size.
        size = _SEARCH_BATCH
        return self._in_batches(self._search, samples, size=size, grain=size)

    def _search(self, x: Tensor) -> Tensor:
        """Search the latents of all images at once: their losses and Adam's steps are separate."""
        start = torch.randn(self.latent_dim, generator=torch_generator(self.seed, Stream.PEER))
        z = start.repeat(len(x), 1).requires_grad_()
        adam = Adam([z], lr=_SEARCH_RATE)
        features = last_features(self._critic, x)
        for _ in range(self.n_steps):
            take_step(adam, self._loss(x, features, z).sum())
        return self._loss(x, features, z)

    def _loss(self, x: Tensor, features: Tensor, z: Tensor) -> Tensor:
        generated = self._generator(z)
        return inversion_loss(x, generated, self._critic, features, self.feature_weight)
