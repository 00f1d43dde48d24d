"""What the paper leaves open and is no setting of the program: pooling, rates, snapshots, sides."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.config import Config
from historyad.data.sources import Source
from historyad.layers import PooledConv2d, WholeBatchNorm1d, WholeBatchNorm2d
from historyad.method.batches import Batches
from historyad.method.detector import train_detector
from historyad.method.gan import Fall, linear, record_history
from historyad.method.history import History
from historyad.method.networks import Critic, Generator, ImageNetworks
from historyad.model.plan import plan_fit
from historyad.randomness import Stream, torch_generator

BATCH = 1024  # samples that batch-norm statistics are of
_BARE = 28  # side of the images of MNIST
_AT_A_TIME = 500


@dataclass(frozen=True)
class Inside:
    """Networks in place of ours, what keeps the history, and how the rate of step 1 falls."""

    networks: Callable[[ImageNetworks], ImageNetworks] = lambda ours: ours
    history: type[History] = History
    fall: Fall = linear


class MaxPooledConv2d(nn.Conv2d):
    """A 3 x 3 convolution followed by the largest of 2 x 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H/2, W/2)."""
        return functional.max_pool2d(super().forward(x), 2)


class MaxPooled(ImageNetworks):
    """As ours, with a critic that takes the largest of 2 x 2 in place of the mean."""

    @classmethod
    def like(cls, ours: ImageNetworks) -> MaxPooled:
        """Return those of the same sizes."""
        return cls(ours.shape, ours.width, ours.hidden, ours.latent_dim)

    def critic(self) -> Critic:
        """Return a critic whose weights are yet to be drawn."""
        critic = super().critic()
        assert isinstance(critic.features, nn.Sequential)
        for i, layer in enumerate(critic.features):
            if isinstance(layer, PooledConv2d):
                critic.features[i] = MaxPooledConv2d(layer.in_channels, layer.out_channels)
        return critic.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Unpadded(ImageNetworks):
    """As ours, for images of 28 pixels as they are: two convolutions, down to 7 x 7."""

    @classmethod
    def like(cls, ours: ImageNetworks) -> Unpadded:
        """Return those of the same width."""
        shape = (ours.shape[0], _BARE, _BARE)
        return cls(shape, ours.width, ours.hidden, ours.latent_dim, coarsest=7)

    def floats(self, samples: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
        """Return images without the margin that pads them, if they have one, as floats."""
        margin = (samples.shape[1] - _BARE) // 2
        inner = slice(margin, margin + _BARE)
        return super().floats(samples[:, inner, inner], device)


class OfTheBatch(History):
    """A history whose generators take batch-norm statistics from what they make once trained."""

    @torch.no_grad()
    def load_generator(self, index: int) -> Generator:
        """Return the generator of a snapshot, with the statistics of a batch of its samples."""
        generator = super().load_generator(index)
        for layer in generator.modules():
            if isinstance(layer, WholeBatchNorm1d | WholeBatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None  # the statistics are those of all batches, here of one
        random = torch_generator(self.config.seed, Stream.HISTORY, index)
        generator.train()(torch.randn(BATCH, self.config.latent_dim, generator=random))
        return generator.eval()


class InFull(History):
    """A history whose snapshots are kept in 32 bits."""

    @staticmethod
    def compact(name: str, tensor: Tensor) -> Tensor:
        """Return a tensor as it is."""
        return tensor


def halved(left: float, times: int = 5) -> float:
    """Return the share of a rate that is halved after each fifth of the training."""
    return 0.5 ** min(math.floor(times * (1 - left) + 1e-9), times - 1)


def cosine(left: float) -> float:
    """Return the share of a rate that falls to 0 along half a cosine."""
    return (1 - math.cos(math.pi * left)) / 2


class Detector:
    """D_TV with its history, from networks that a model file cannot hold."""

    def __init__(self, way: Inside, train: Source, config: Config) -> None:
        plan = plan_fit(train, config)
        ours = plan.kind.networks(plan.config)
        assert isinstance(ours, ImageNetworks)
        self._kind, self.networks = plan.kind, way.networks(ours)
        reader = plan.batches(torch.device("cpu")).reader
        batches = Batches(reader, self.networks, seed=config.seed)
        self._folder = tempfile.TemporaryDirectory(prefix="historyad-choices-")
        self.history = way.history(Path(self._folder.name), plan.config, self.networks)
        record_history(batches, self.history, fall=way.fall)
        self.d_tv = train_detector(batches, self.history)

    def anomaly_score(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return what D_TV says of images as they come, (N,)."""
        return self.of_prepared(self._kind.prepare(images))

    @torch.inference_mode()
    def of_prepared(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return what D_TV says of images as they are at rest, (N,)."""
        parts = torch.split(self.networks.floats(images), _AT_A_TIME)
        scores: NDArray[Any] = torch.cat([self.d_tv(part) for part in parts]).numpy()
        return scores
