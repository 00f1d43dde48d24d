"""Fence GAN (Ngo et al., 2019): a generator that stands around the data, and its discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.method.networks import initialise
from historyad.randomness import Stream, torch_generator
from historyad.research.peers.training import (
    NetworkPeer,
    cross_entropy,
    dcgan_adam,
    freeze,
    take_step,
)

_PRETRAINED_SHARE = 15 / 115  # epochs in which the discriminator trains alone


def encirclement_loss(logits: Tensor, alpha: float) -> Tensor:
    """Pull D of generated samples to ``alpha``: their mean cross-entropy to it.

    The paper writes log |alpha - D|, which has no lower bound; this is what the authors' program
    minimises, with its minimum at the same D = alpha.
    """
    return cross_entropy(logits, alpha).mean()


def dispersion_loss(generated: Tensor) -> Tensor:
    """Return the inverse of the mean distance of generated samples to their centre."""
    distances = (generated - generated.mean(0)).flatten(1).norm(dim=1)
    mean: Tensor = distances.mean()
    return 1 / mean


def discriminator_loss(real_logits: Tensor, generated_logits: Tensor, gamma: float) -> Tensor:
    """Return E[-log D(x)] + gamma E[-log(1 - D(G(z)))]."""
    return cross_entropy(real_logits, 1).mean() + gamma * cross_entropy(generated_logits, 0).mean()


@dataclass(kw_only=True, eq=False)
class FenceGAN(NetworkPeer):
    """A GAN whose generated samples are held at the level ``alpha`` of D, and apart.

    ``beta`` weighs the dispersion and ``gamma`` the generated samples in D's loss; the defaults are
    the paper's for MNIST. ``n_images`` is the length of training, in images seen, and no epoch is
    picked: 180,000 are meant for five minutes of one CPU core at 32 x 32 pixels. ``learning_rate``
    is the generator's, and half of it the discriminator's: ten times the paper's, for a training
    some thirty times shorter than its 100 epochs.
    """

    n_images: int = 180_000
    learning_rate: float = 2e-4
    alpha: float = 0.1
    beta: float = 30.0
    gamma: float = 0.1

    def fit(self, samples: NDArray[Any]) -> Self:
        """Train the discriminator alone for a while, then both in turn."""
        networks = self._look_at(samples)
        generator, self._critic = networks.generator(), networks.critic()
        weights = torch_generator(self.seed, Stream.WEIGHTS)
        for network in (generator, self._critic):
            initialise(network, weights)
        generator_adam = dcgan_adam(generator, self.learning_rate)
        critic_adam = dcgan_adam(self._critic, self.learning_rate / 2)
        seen = 0
        for real, random in self._steps(samples, self.n_images):
            z = torch.randn(len(real), self.latent_dim, generator=random)
            generated = generator(z)
            real_logits, logits = self._critic(torch.cat([real, generated.detach()])).chunk(2)
            take_step(critic_adam, discriminator_loss(real_logits, logits, self.gamma))
            seen += len(real)
            if seen > _PRETRAINED_SHARE * self.n_images:
                encirclement = encirclement_loss(self._critic(generated), self.alpha)
                take_step(generator_adam, encirclement + self.beta * dispersion_loss(generated))
        freeze(self._critic)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the logit of 1 - D(x) of each sample, (N,): 1 - D(x) itself would round to 1."""
        return self._in_batches(lambda x: -self._critic(x), samples)
