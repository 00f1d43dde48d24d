"""GANomaly (Akcay et al., 2018): an image's code against the code of its reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.method.networks import initialise
from historyad.randomness import Stream, torch_generator
from historyad.research.peers.training import (
    Encoder,
    NetworkPeer,
    cross_entropy,
    dcgan_adam,
    freeze,
    l1_distance,
    last_features,
    take_step,
)


@dataclass(kw_only=True, eq=False)
class GANomaly(NetworkPeer):
    """Encoder, decoder and second encoder, trained with a discriminator of reconstructions.

    The weights are those of eq. 4. ``n_images`` is the length of training, in images seen, and no
    epoch is picked: 120,000 are meant for five minutes of one CPU core at 32 x 32 pixels.
    """

    n_images: int = 120_000
    learning_rate: float = 2e-4
    adversarial_weight: float = 1.0
    contextual_weight: float = 50.0
    encoder_weight: float = 1.0

    def fit(self, samples: NDArray[Any]) -> Self:
        """Train the networks, discriminator and the rest in turn."""
        networks = self._look_at(samples)
        self._encoder, self._second = (Encoder(networks, self.latent_dim) for _ in range(2))
        self._decoder, critic = networks.generator(), networks.critic()
        generator = nn.ModuleList([self._encoder, self._decoder, self._second])
        weights = torch_generator(self.seed, Stream.WEIGHTS)
        for network in (generator, critic):
            initialise(network, weights)
        generator_adam = dcgan_adam(generator, self.learning_rate)
        critic_adam = dcgan_adam(critic, self.learning_rate)
        for x, _ in self._steps(samples, self.n_images):
            code = self._encoder(x)
            reconstruction = self._decoder(code)
            loss = cross_entropy(critic(x), 1) + cross_entropy(critic(reconstruction.detach()), 0)
            take_step(critic_adam, loss.mean())
            features = last_features(critic, x).detach()
            adversarial = (last_features(critic, reconstruction) - features).square().mean()
            contextual = (x - reconstruction).abs().mean()
            encoder = (self._second(reconstruction) - code).square().mean()
            take_step(
                generator_adam,
                self.adversarial_weight * adversarial
                + self.contextual_weight * contextual
                + self.encoder_weight * encoder,
            )
        freeze(generator)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return |G_E(x) - E(G(x))| of each sample (eq. 5), not scaled to the test set, (N,)."""
        return self._in_batches(self._score, samples)

    def _score(self, x: Tensor) -> Tensor:
        code = self._encoder(x)
        return l1_distance(code, self._second(self._decoder(code)))
