"""Randomness is an argument: every draw comes from a generator derived from the config's seed.

Nothing seeds or reads a global state, and no state is ever saved: a run that resumes at image
12,345 derives the same generator that the uninterrupted run derived there.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a generator is for; two streams of one seed are independent."""

    SPLIT = 0
    SHUFFLE = 1
    WEIGHTS = 2
    GAN = 3
    HISTORY = 4
    AUGMENT = 5
    MIX = 6
    PROBE = 7
    PEER = 8
    CROP = 9
    PART = 10
    CELL = 11
    SUSPECT = 12


def numpy_generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """Return the generator of ``stream`` at ``position`` (rank, images seen, pass ...)."""
    return np.random.default_rng(_sequence(seed, stream, position))


def torch_generator(seed: int, stream: Stream, *position: int) -> torch.Generator:
    """Return the CPU generator of ``stream`` at ``position`` (rank, images seen, pass ...)."""
    state = _sequence(seed, stream, position).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def _sequence(seed: int, stream: Stream, position: tuple[int, ...]) -> np.random.SeedSequence:
    # Each number goes in as two 32-bit words: SeedSequence would otherwise read [2**32] as [0, 1].
    words = [word for n in (seed, stream, *position) for word in (n & 0xFFFFFFFF, n >> 32)]
    return np.random.SeedSequence(words)
