"""WGAN with encoder (Haloui et al., 2018): an encoder trained after the WGAN, to invert it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from historyad.method.networks import initialise
from historyad.randomness import Stream, torch_generator
from historyad.research.peers.training import (
    Encoder,
    NetworkPeer,
    dcgan_adam,
    freeze,
    inversion_loss,
    last_features,
    take_step,
)

_ENCODER_SHARE = 1 / 3  # of the images seen


@dataclass(kw_only=True, eq=False)
class WGANEncoder(NetworkPeer):
    """A WGAN-GP, then an encoder E that brings G(E(x)) near to x in pixels and critic features.

    Loss and score are AnoGAN's at z = E(x), with lambda the ``feature_weight``; the search is
    learnt once. ``n_images`` is the length of both trainings, in images seen: 240,000 are meant for
    five minutes of one CPU core at 32 x 32 pixels.
    """

    n_images: int = 240_000
    learning_rate: float = 5e-4
    feature_weight: float = 0.1

    def fit(self, samples: NDArray[Any]) -> Self:
        """Train generator and critic, and then, with those fixed, the encoder."""
        networks = self._look_at(samples)
        encoder_images = round(_ENCODER_SHARE * self.n_images)
        gan = self._train_wgan(samples, self.n_images - encoder_images, self.learning_rate)
        self._generator, self._critic = gan.generator, gan.critic
        freeze(self._generator, self._critic)

        self._encoder = Encoder(networks, self.latent_dim)
        initialise(self._encoder, torch_generator(self.seed, Stream.PEER))
        adam = dcgan_adam(self._encoder, self.learning_rate)
        for x, _ in self._steps(samples, encoder_images):
            take_step(adam, self._loss(x).mean())
        freeze(self._encoder)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the encoder's loss at each sample, (N,)."""
        return self._in_batches(self._loss, samples)

    def _loss(self, x: Tensor) -> Tensor:
        reconstruction = self._generator(self._encoder(x))
        features = last_features(self._critic, x)
        return inversion_loss(x, reconstruction, self._critic, features, self.feature_weight)
