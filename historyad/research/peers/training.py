"""What the deep peers share: how samples are seen, the rhythm of training, an encoder, losses.

Samples x are (B, *shape), as the networks see them, and latents z are (B, latent_dim).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from historyad.config import make_config
from historyad.kinds.choose import choose_kind
from historyad.method.gan import Gan, record_history
from historyad.method.history import History
from historyad.method.networks import Critic, Networks
from historyad.randomness import Stream, torch_generator

BATCH_SIZE = 64


class Encoder(nn.Module):
    """The critic's layers with more outputs: map samples (B, *shape) to codes (B, n_outputs)."""

    def __init__(self, networks: Networks, n_outputs: int) -> None:
        super().__init__()
        critic = networks.critic()
        inner = list(critic.head)[:-1]
        self.layers = nn.Sequential(critic.features, *inner, nn.Linear(critic.n_hidden, n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return one code per sample, (B, n_outputs)."""
        return self.layers(x)  # type: ignore[no-any-return]


@dataclass(kw_only=True, eq=False)
class NetworkPeer:
    """A method on our networks, of our default's size, that sees samples as our detector does."""

    width: int = 24
    hidden: int = 512
    latent_dim: int = 64
    seed: int = 0

    def _look_at(self, samples: NDArray[Any]) -> Networks:
        """Learn how samples are prepared; return the networks for them."""
        self._config = make_config(
            width=self.width, hidden=self.hidden, latent_dim=self.latent_dim, seed=self.seed
        )
        self._kind = choose_kind(samples, self._config)
        return self._kind.networks(self._config)

    def _steps(
        self, samples: NDArray[Any], n_images: int
    ) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Yield a batch of samples for each step, and the generator of the step's random draws."""
        batches = self._kind.batches(samples, self._config)
        for seen in range(0, n_images, BATCH_SIZE):
            yield batches.at(seen, BATCH_SIZE), torch_generator(self.seed, Stream.GAN, seen)

    def _train_wgan(self, samples: NDArray[Any], n_images: int, learning_rate: float) -> Gan:
        """Train the WGAN-GP of step 1 on ``n_images`` images."""
        config = make_config(
            learning_rate=learning_rate,
            width=self.width,
            hidden=self.hidden,
            latent_dim=self.latent_dim,
            seed=self.seed,
            n_epochs=1.0,
            epoch_images=n_images,
            # A history that nobody reads: one snapshot, at the end.
            saves_per_epoch=1,
            skip_epochs=0.0,
            mass_tolerance=0.0,
        )
        batches = self._kind.batches(samples, config)
        with tempfile.TemporaryDirectory(prefix="historyad-") as folder:
            return record_history(batches, History(Path(folder), config, batches.networks))


def dcgan_adam(network: nn.Module, learning_rate: float) -> Adam:
    """Return Adam with the momentum of Radford et al. (2016), which most GANs after it keep."""
    return Adam(network.parameters(), lr=learning_rate, betas=(0.5, 0.999), fused=True)


def take_step(optimizer: Adam, loss: Tensor) -> None:
    """Take one step down ``loss``; what the optimiser does not hold gets no gradient."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.zero_grad()
    loss.backward(inputs=held)  # type: ignore[no-untyped-call]
    optimizer.step()


def freeze(*networks: nn.Module) -> None:
    """Fix parameters and batch-norm statistics: from here on each sample is treated alone."""
    for network in networks:
        network.eval().requires_grad_(False)


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Return -t log D - (1 - t) log(1 - D) of each logit, for D = sigmoid(logit), (B,)."""
    targets = torch.full_like(logits, target)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def last_features(critic: Critic, x: Tensor) -> Tensor:
    """Return the layer before the critic's output, f(x), (B, hidden)."""
    return critic.head[:-1](critic.features(x))  # type: ignore[no-any-return]


def inversion_loss(
    x: Tensor, reconstruction: Tensor, critic: Critic, features: Tensor, weight: float
) -> Tensor:
    """Eq. 5 of AnoGAN: (1 - lambda) |x - G(z)| + lambda |f(x) - f(G(z))| of each sample, (B,).

    ``features`` are f(x), which a search computes once, and ``weight`` is lambda.
    """
    residual = l1_distance(x, reconstruction)
    discrimination = l1_distance(features, last_features(critic, reconstruction))
    return (1 - weight) * residual + weight * discrimination


def l1_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of absolute differences of each sample, (B,)."""
    return (x - y).abs().flatten(1).sum(1)
