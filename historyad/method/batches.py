"""Shuffled, augmented batches of normal samples, each a function of (seed, position) alone.

There is no iterator state to save, so that a resumed run sees exactly the batches of an
uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.method.networks import Networks
from historyad.randomness import Stream, torch_generator

_WHOLE = slice(None)

Toss = Callable[[], Tensor]  # a coin for each sample of a batch, (B, 1, 1, 1)
Augmentation = Callable[[Tensor, Toss], Tensor]


class Reader(Protocol):
    """Samples at rest, in the order in which they are trained on."""

    def __len__(self) -> int:
        """Return how many there are."""

    def read(self, position: int, size: int, part: slice) -> NDArray[Any]:
        """Return ``part`` of the ``size`` samples that follow the first ``position`` ones."""


class Batches:
    """Batches of what ``reader`` reads, as floats, with ``augmentations`` at random.

    ``seed`` decides the augmentations, as it does the order of the reader.
    """

    def __init__(
        self,
        reader: Reader,
        networks: Networks,
        *,
        seed: int = 0,
        augmentations: Sequence[Augmentation] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.networks = networks
        self.device = device
        self.reader = reader
        self._seed = seed
        self._augmentations = augmentations

    def __len__(self) -> int:
        return len(self.reader)

    def at(self, position: int, size: int, part: slice = _WHOLE) -> Tensor:
        """Return the ``size`` samples that follow the first ``position`` ones, as floats.

        Of ``part``, which is this process's part of a batch, only those samples are read.
        """
        batch = self.networks.floats(self.reader.read(position, size, part), self.device)
        if self._augmentations:
            random = torch_generator(self._seed, Stream.AUGMENT, position)

            def toss() -> Tensor:  # for the whole batch, so that a part of it gets the same
                heads = torch.rand(size, generator=random)[part].lt(0.5)
                return heads.to(batch.device).view(-1, 1, 1, 1)

            for augmentation in self._augmentations:
                batch = augmentation(batch, toss)
        return batch
