"""Defects drawn on good images as a backbone sees them: what a detector can learn to tell apart.

None is meant to look like a real one. There are pieces of the image in another place, as in
CutPaste (Li et al., 2021), or next to their own, scars, spots, smudges and patches of another
texture, from a part of a cell to several, faint and strong.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy  # which imports its parts, slow ones among them, where they are first used
from numpy.typing import NDArray

from historyad.constants import CONSTANTS

Square = NDArray[np.float32]  # grey values (channels, side, side) on the level of all images
Random = np.random.Generator
Content = Callable[[Square, Random], Square]  # what takes the place of a square's own
Outline = Callable[[int, NDArray[np.float64], Random], Square]  # the share of it in each pixel

_SIZES = (4.0, 30.0)  # radius of a patch, in pixels
_LONGEST = 6.0  # times as long as wide
_BENDS = (-0.25, 0.0), (0.25, 2 * math.pi)  # depth and turn of a dent
_SCARS = (20.0, 140.0)  # pixels long
_SCAR_WIDTHS = (1.5, 7.0)
_SHARES = (0.6, 1.0)  # of what is drawn, the rest being what was there
_FARTHEST = 24  # pixels, that a piece comes from next to its place


def damaged(square: Square, random: Random) -> Square:
    """Return a copy of a square (channels, side, side) with a defect in each quarter."""
    found = square.copy()
    for quarter in range(4):
        center = (np.array(divmod(quarter, 2)) + random.uniform(0.1, 0.9, 2)) * square.shape[1] / 2
        outline, content = _DEFECTS[random.integers(len(_DEFECTS))]
        share = random.uniform(*_SHARES) * outline(square.shape[1], center, random)
        found += share * (content(found, random) - found)
    return found


def _axes(side: int, center: NDArray[np.float64], random: Random) -> tuple[Square, Square]:
    """Return how far each pixel is from the centre along a random direction, and across it."""
    angle = random.uniform(0, math.pi)
    y, x = np.mgrid[:side, :side].astype(np.float32) - center[:, None, None].astype(np.float32)
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _patch(side: int, center: NDArray[np.float64], random: Random) -> Square:
    """Return the share (side, side) of a dented ellipse in each pixel, its edge sharp or soft."""
    along, across = _axes(side, center, random)
    size = math.exp(random.uniform(*np.log(_SIZES)))
    stretch = math.exp(random.uniform(0, math.log(_LONGEST) / 2))
    width = size / stretch
    along, across = along / (size * stretch), across / width
    angle = np.arctan2(across, along)
    edge: Square = np.ones_like(along)
    for waves, (dent, turn) in enumerate(random.uniform(*_BENDS, (4, 2)).tolist(), 2):
        edge += dent / waves * np.cos(waves * angle + turn)
    softness = random.choice([1.5, 1.5, 5.0])
    found: Square = np.clip((edge - np.hypot(along, across)) * width / softness + 0.5, 0, 1)
    return found


def _scar(side: int, center: NDArray[np.float64], random: Random) -> Square:
    """Return the share (side, side) of a bent line in each pixel."""
    along, across = _axes(side, center, random)
    length, width = random.uniform(*_SCARS), random.uniform(*_SCAR_WIDTHS)
    bent = across - random.uniform(-0.6, 0.6) * np.square(along) / length
    found: Square = np.clip(width / 2 + 0.5 - np.abs(bent), 0, 1)
    return found * np.clip(length / 2 + 0.5 - np.abs(along), 0, 1)


def _contrast(random: Random, low: float, high: float) -> float:
    """Return grey values, in units of the deviation that all images have."""
    return float(random.uniform(low, high)) * CONSTANTS.level_contrast


def _relit(square: Square, random: Random) -> Square:
    return square * np.float32(random.uniform(0.8, 1.2)) + np.float32(_contrast(random, -0.3, 0.3))


def _from_elsewhere(square: Square, random: Random) -> Square:
    side = square.shape[1]
    turned = np.rot90(square, int(random.integers(4)), (1, 2))
    shifts = random.integers(side // 6, side - side // 6, 2)
    return _relit(np.roll(turned, shifts, (1, 2)), random)


def _from_beside(square: Square, random: Random) -> Square:
    shifts = random.choice([-1, 1], 2) * random.integers(_FARTHEST // 4, _FARTHEST, 2)
    return _relit(np.roll(square, shifts, (1, 2)), random)


def _marked(square: Square, random: Random) -> Square:
    shift = random.choice([-1, 1]) * _contrast(random, 0.4, 2.2)
    level = np.float32(CONSTANTS.level_brightness)
    return level + (square - level) * np.float32(random.uniform(0.3, 1)) + np.float32(shift)


def _smudged(square: Square, random: Random) -> Square:
    sigma = random.uniform(2, 7)
    found: Square = scipy.ndimage.gaussian_filter(square, (0, sigma, sigma))
    return found


def _rough(square: Square, random: Random) -> Square:
    noise = random.standard_normal(square.shape[1:], np.float32)
    noise = scipy.ndimage.gaussian_filter(noise, random.uniform(0.7, 4))
    noise *= np.float32(_contrast(random, 0.4, 1.5)) / noise.std()
    found: Square = (square + np.float32(CONSTANTS.level_brightness)) / 2 + noise
    return found


_DEFECTS: tuple[tuple[Outline, Content], ...] = (
    (_patch, _from_elsewhere),
    (_patch, _from_beside),
    (_scar, _marked),
    (_patch, _marked),
    (_patch, _smudged),
    (_patch, _rough),
)
