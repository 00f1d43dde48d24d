"""Recordings as pictures of their loudness by frequency and time, seen whole."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from historyad.kinds.whole import Whole
from historyad.method.networks import Critic
from historyad.progress import share
from historyad.score.companions import Companions
from historyad.score.sounds import SoundCompanions
from historyad.score.views import features_of


class Sounds(Whole):
    """Pictures of recordings: what images have, and a view of their spectrum."""

    name: ClassVar[str] = "sounds"

    def fit_companions(
        self, d_tv: Critic, normal: Tensor, known: Companions | None = None
    ) -> Companions:
        """Return what compares pictures, and spectra, with normal ones."""
        with share(0.0, 0.2):
            features = features_of(d_tv, normal)
        with share(0.2, 1.0):
            others = known if isinstance(known, SoundCompanions) else None
            return SoundCompanions.fit(normal, features, others)

    def build_companions(self, d_tv: Critic, shape: Any, sizes: dict[str, int]) -> Companions:
        """Return unfitted ones of these sizes."""
        return SoundCompanions.build(d_tv, shape, **sizes)
