"""Variational autoencoders: one scored by reconstruction probability, and a plain one.

The first is that of An and Cho (2015), the other that of Kingma and Welling (2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam

from historyad.errors import InputError
from historyad.method.networks import VectorNetworks, initialise
from historyad.randomness import Stream, torch_generator
from historyad.research.peers.training import (
    Encoder,
    NetworkPeer,
    freeze,
    take_step,
)

_LEARNING_RATE = 1e-3
_LARGEST_DEVIATION = 10.0  # of a pixel or a feature; the smallest is its inverse


@dataclass(kw_only=True, eq=False)
class VAE(NetworkPeer):
    """Encoder and decoder that both return mean and deviation of a Gaussian.

    ``dense`` takes the pixels as a vector, for multilayer perceptrons as in the paper, instead of
    convolutions. ``n_draws`` is L of algorithm 4, the latents drawn for a score. ``n_images`` is
    the length of training, in images seen.
    """

    n_images: int = 300_000
    n_draws: int = 10
    dense: bool = False

    _n_parameters: ClassVar[int] = 2  # of the distribution of a value

    def fit(self, samples: NDArray[Any]) -> Self:
        """Maximise the evidence lower bound, with one latent drawn for every sample."""
        networks = self._look_at(samples)
        if self.dense:
            n_values = math.prod(networks.shape)
            networks = VectorNetworks((n_values,), self.hidden, self.latent_dim)
        self._encoder = Encoder(networks, 2 * self.latent_dim)
        outputs = (self._n_parameters * networks.shape[0], *networks.shape[1:])
        self._decoder = networks.reshaped(outputs).generator()
        weights = torch_generator(self.seed, Stream.WEIGHTS)
        for network in (self._encoder, self._decoder):
            initialise(network, weights)
        parameters = [*self._encoder.parameters(), *self._decoder.parameters()]
        optimizer = Adam(parameters, _LEARNING_RATE, fused=True)
        for x, random in self._steps(samples, self.n_images):
            noise = torch.randn(len(x), self.latent_dim, generator=random)
            mean, log_deviation = self._encode(x)
            likelihood = self._log_likelihood(x, mean + log_deviation.exp() * noise)
            take_step(optimizer, (divergence(mean, log_deviation) - likelihood).mean())
        freeze(self._encoder, self._decoder)
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the negative reconstruction probability (algorithm 4), in nats, (N,).

        It is the mean of -log p(x | z) over L latents z of q(z | x), made from the same standard
        normal draws for every sample.
        """
        random = torch_generator(self.seed, Stream.PEER)
        draws = torch.randn(self.n_draws, self.latent_dim, generator=random)

        def score(x: Tensor) -> Tensor:
            mean, log_deviation = self._encode(x)
            latents = (mean + log_deviation.exp() * noise for noise in draws)
            return -torch.stack([self._log_likelihood(x, z) for z in latents]).mean(0)

        return self._in_batches(score, samples)

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log deviation of q(z | x), (B, latent_dim) each."""
        mean, log_deviation = self._encoder(self._flat(x)).chunk(2, 1)
        return mean, log_deviation.clamp(-10, 10)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x | z) of each sample, (B,)."""
        mean, spread = self._decoder(z).chunk(2, 1)
        # Bounded, since a pixel that never varies would take its likelihood to infinity.
        log_deviation = math.log(_LARGEST_DEVIATION) * spread.tanh()
        return gaussian_log_likelihood(self._flat(x), mean, log_deviation)

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.dense else x


@dataclass(kw_only=True, eq=False)
class BernoulliVAE(VAE):
    """Plain VAE of images: perceptrons, for which the grey of a pixel is a probability.

    A score is the error of a reconstruction. ``latent_dim`` is one of the numbers that Kingma and
    Welling (2014) show on digits; between 10 and 20, labels chose.
    """

    latent_dim: int = 10
    dense: bool = field(default=True, init=False)  # convolutions would end in a tanh

    _n_parameters: ClassVar[int] = 1

    def fit(self, samples: NDArray[Any]) -> Self:
        """Maximise the evidence lower bound; InputError for vectors, which are no probabilities."""
        if samples.ndim == 2:
            raise InputError("a VAE of Bernoulli pixels takes images: give vectors to VAE")
        return super().fit(samples)

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return the squared error of the reconstruction from the mean of q(z | x), (N,)."""
        return self._in_batches(self._squared_error, samples)

    def _squared_error(self, x: Tensor) -> Tensor:
        mean, _ = self._encode(x)
        errors: Tensor = self._decoder(mean).sigmoid() - self._grey(x)
        return errors.square().sum(1)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        logits = self._decoder(z)
        return -functional.binary_cross_entropy_with_logits(
            logits, self._grey(x), reduction="none"
        ).sum(1)

    def _grey(self, x: Tensor) -> Tensor:
        return (self._flat(x) + 1) / 2  # networks see images in [-1, 1]


def gaussian_log_likelihood(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Return log N(x; mean, deviation^2), summed over the dimensions of a sample, (B,)."""
    squared = ((x - mean) / log_deviation.exp()).square()
    return -(squared / 2 + log_deviation + math.log(2 * math.pi) / 2).flatten(1).sum(1)


def divergence(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, deviation^2) from N(0, 1), (B,)."""
    variance = (2 * log_deviation).exp()
    return (mean.square() + variance - 1 - 2 * log_deviation).sum(1) / 2
