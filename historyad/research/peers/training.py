"""What the deep peers share: how samples are seen, the rhythm of training, an encoder, losses.

Samples x are (B, *shape), as the networks see them, and latents z are (B, latent_dim).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from historyad.config import Config, make_config
from historyad.kinds.choose import choose_kind
from historyad.method.batches import Batches
from historyad.method.gan import Gan, record_history
from historyad.method.history import History
from historyad.method.networks import Critic, Networks
from historyad.randomness import Stream, torch_generator
from historyad.score.batching import in_batches

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
    """A method on our networks, of our default's size, that sees samples as our detector does.

    Whatever a peer asks of our own method, it asks here.
    """

    width: int = 24
    hidden: int = 512
    latent_dim: int = 64
    seed: int = 0

    def _look_at(self, samples: NDArray[Any]) -> Networks:
        """Learn how samples are prepared; return the networks for them."""
        config = self._config()
        self._kind = choose_kind(samples, config)
        return self._kind.networks(config)

    def _steps(
        self, samples: NDArray[Any], n_images: int
    ) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Yield a batch of samples for each step, and the generator of the step's random draws."""
        batches = self._kind.batches(samples, self._config())
        for seen in range(0, n_images, BATCH_SIZE):
            yield batches.at(seen, BATCH_SIZE), torch_generator(self.seed, Stream.GAN, seen)

    def _train_wgan(self, samples: NDArray[Any], n_images: int, learning_rate: float) -> Gan:
        """Train the WGAN-GP of step 1 on ``n_images`` images."""
        settings = {"learning_rate": learning_rate, "n_epochs": 1.0, "epoch_images": n_images}
        # A history that nobody reads: one snapshot, at the end.
        settings |= {"saves_per_epoch": 1, "skip_epochs": 0.0, "mass_tolerance": 0.0}
        with self._history(samples, **settings) as (batches, history):
            return record_history(batches, history)

    @contextmanager
    def _history(self, samples: NDArray[Any], **settings: Any) -> Iterator[tuple[Batches, History]]:
        """Yield what steps 1 and 3 are made from: batches of samples, and an empty history."""
        config = self._config(**settings)
        batches = self._kind.batches(samples, config)
        with tempfile.TemporaryDirectory(prefix="historyad-") as folder:
            yield batches, History(Path(folder), config, batches.networks)

    def _in_batches(
        self, function: Callable[[Tensor], Tensor], samples: NDArray[Any], **sizes: Any
    ) -> NDArray[np.float32]:
        """Return ``function`` of all samples, (N,), where it maps a batch to (B,)."""
        return in_batches(function, samples, self._kind, **sizes)

    def _config(self, **settings: Any) -> Config:
        return make_config(
            width=self.width,
            hidden=self.hidden,
            latent_dim=self.latent_dim,
            seed=self.seed,
            **settings,
        )


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
