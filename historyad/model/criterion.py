"""Which of two detectors sees more, judged without labels: by normal samples that are damaged.

An anomaly is something else than any damage, and so this says less than labels would. But it is of
samples that neither detector was fitted on, of many damages, weak and strong ones, and no detector
knows them.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.kinds.damages import Damage
from historyad.kinds.kind import Kind
from historyad.randomness import Stream, numpy_generator
from historyad.score.score import Score

_MOST_VALUES, _FEWEST = 2**20, 5  # of the samples that are looked at

Samples = NDArray[Any]


def damages_seen(score: Score, samples: Samples, seed: int) -> dict[str, list[float]]:
    """Return how well damaged samples are told from these, by damage: AUROC for each strength.

    ``samples`` are normal, as a source holds them, and were not fitted on; of many, some are looked
    at. Two strengths of each damage are tried, neither too weak nor too strong to tell anything.
    The same seed damages them alike.
    """
    kind = score.kind
    assert isinstance(kind, Kind)
    damages = kind.damages(samples.shape[1:])
    cases = [(damage, strength) for damage in damages for strength in _strengths(damage)]
    damaged = (_damaged(kind, *case, samples, seed) for case in cases)
    scores = score.of(np.concatenate([samples, *damaged])).anomaly_score
    normal, *others = np.split(scores, len(cases) + 1)
    seen = defaultdict(list)
    for (damage, _), found in zip(cases, others, strict=True):
        seen[damage.name].append(_auroc(normal, found))
    return dict(seen)


def share_seen(score: Score, samples: Samples, seed: int) -> float:
    """Return the mean of `damages_seen`."""
    return float(np.mean([np.mean(found) for found in damages_seen(score, samples, seed).values()]))


def is_kept(untrained: float, trained: float) -> bool:
    """Whether what was trained is kept, by the shares that either sees: unless it sees less."""
    return trained >= untrained - CONSTANTS.criterion_margin


def is_judged(kind: Kind, config: Config) -> bool:
    """Whether what was trained is compared with what was not: on images seen whole.

    Unless D_TV is asked for. Maps of large images take too long for as many damages.
    """
    return config.views == "auto" and kind.is_picture and kind.work_pixels is None


def some_of(samples: Samples, rows: NDArray[np.intp]) -> Samples:
    """Return as many of ``rows`` of samples as are looked at, from all over; few large ones."""
    n = int(np.clip(_MOST_VALUES // samples[rows[0]].size, _FEWEST, CONSTANTS.criterion_samples))
    found: Samples = samples[rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)]]
    return found


def _strengths(damage: Damage) -> list[float]:
    places = CONSTANTS.criterion_weak, CONSTANTS.criterion_strong
    return [damage.strengths[min(place, len(damage.strengths) - 1)] for place in places]


def _damaged(kind: Kind, damage: Damage, strength: float, samples: Samples, seed: int) -> Samples:
    random = numpy_generator(seed, Stream.PROBE, zlib.crc32(damage.name.encode()))
    return kind.damage(damage, samples, strength, random)


def _auroc(normal: NDArray[np.float32], damaged: NDArray[np.float32]) -> float:
    """Return the share of pairs in which the damaged one has the higher score, a tie half."""
    low = np.searchsorted(np.sort(normal), damaged, side="left")
    high = np.searchsorted(np.sort(normal), damaged, side="right")
    return float((low + high).mean() / (2 * len(normal)))
