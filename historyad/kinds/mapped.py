"""Images of any size that are scored by the worst places of their map."""

from __future__ import annotations

import dataclasses
import math

from historyad.data.images import Pixels
from historyad.kinds.images import ImageKind
from historyad.kinds.kind import Excess
from historyad.score.mapped import Mapped
from historyad.score.result import Map
from historyad.score.score import Score

_FULL = 3.0  # thresholds at which the hue of a map is full


@dataclasses.dataclass(frozen=True, eq=False)
class MappedKind(ImageKind):
    """Images (N, H, W, C) whose score is made from a map of their cells."""

    @property
    def takes_any_size(self) -> bool:
        """Images may have any size in which there is a cell."""
        return True

    @property
    def work_pixels(self) -> int | None:
        """Pixels of an image such as those of the fit: the work grows with them."""
        return math.prod(self.input_shape[:2])

    def maps(self, score: Score, images: Pixels, excess: Excess) -> list[Map]:
        """Return the detector's own maps, whose worst cells make the score."""
        return score.of(images, maps=True).maps or []

    def map_scale(self, score: Score, threshold: float) -> tuple[float, float]:
        """Return three times the threshold, and the threshold, of the worst cells of a map."""
        assert isinstance(score, Mapped)
        total = score.total_at(threshold)
        return _FULL * total, total
