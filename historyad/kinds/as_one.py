"""Samples that networks see as one, and whose score is a sum of views."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from historyad.config import Config
from historyad.kinds.kind import Kind
from historyad.method.batches import Batches
from historyad.method.networks import Critic
from historyad.score.companions import Companions, samples_to_fit
from historyad.score.score import DetectorScore, Score
from historyad.score.views import Views, normal_samples


class AsOne(Kind):
    """A kind that has companions for whole samples, as networks see them."""

    @abstractmethod
    def fit_companions(
        self, d_tv: Critic, normal: Tensor, known: Companions | None = None
    ) -> Companions:
        """Return companions of D_TV that are fitted on normal samples.

        Others are perhaps ``known``, of these samples beside another D_TV.
        """

    @abstractmethod
    def build_companions(self, d_tv: Critic, shape: Any, sizes: dict[str, int]) -> Companions:
        """Return unfitted ones of these sizes, for samples of a ``shape`` as networks see them."""

    @torch.no_grad()
    def fit_score(
        self, d_tv: Critic, batches: Batches, config: Config, known: Score | None = None
    ) -> Score:
        """Return D_TV alone, or with companions."""
        if config.views == "history":
            return DetectorScore(self, d_tv)
        normal = normal_samples(batches, samples_to_fit(math.prod(batches.networks.shape)))
        others = known.companions if isinstance(known, Views) else None
        companions = self.fit_companions(d_tv, normal, others)
        return Views(self, d_tv, companions, is_trained=self.trains(config))

    def build_score(self, d_tv: Critic, sizes: dict[str, int] | None, config: Config) -> Score:
        """Return an unfitted score whose companions have these sizes."""
        if sizes is None:
            return DetectorScore(self, d_tv)
        companions = self.build_companions(d_tv, self.networks(config).shape, sizes)
        return Views(self, d_tv, companions, is_trained=self.trains(config))
