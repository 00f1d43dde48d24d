"""Known damage in graded strength: what `probe_model` shows a detector in place of anomalies.

``apply(samples, strength, random)`` returns damaged copies, of the same shape and type. Strength
0 changes nothing. What is drawn from ``random`` (where, which way) does not depend on the
strength, so that the same damage grows when the generator starts from the same state.

Images are uint8 (N, H, W, C) of any size and number of channels. Vectors are float (N, F) in
units of their features' spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # which imports its parts, slow ones among them, where they are first used
from numpy.typing import NDArray

Samples = NDArray[Any]
Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Random = np.random.Generator

_FEWEST_PIXELS = 32  # of an image's longer side, for the strengths that are in pixels


@dataclass(frozen=True)
class Damage:
    """One kind of damage: ``apply(samples, strength, random)`` and the strengths to try."""

    name: str
    unit: str  # of the strength
    apply: Callable[[Samples, float, Random], Samples]
    strengths: tuple[float, ...]


def image_damages(height: int, width: int) -> list[Damage]:
    """Return the damage to try on images of this size, weakest strength first."""
    levels = (2, 4, 8, 16, 32, 64, 96, 128)
    shares = (5, 10, 20, 30, 45, 60, 80, 95)
    area = (0.5, 1, 2, 4, 8, 12, 18, 25)
    degrees = (2, 4, 8, 15, 30, 45, 60, 90)
    pixels = max(height, width, _FEWEST_PIXELS) / _FEWEST_PIXELS
    sigmas = tuple(round(pixels * sigma, 2) for sigma in (0.25, 0.35, 0.5, 0.7, 1, 1.4, 2, 4))
    lengths = tuple(round(max(height, width) * part / 16, 1) for part in (1, 2, 3, 4, 6, 8, 12, 16))
    return [
        Damage("noise", "grey levels (standard deviation)", add_noise, levels),
        Damage("blur", "pixels (standard deviation)", blur, sigmas),
        Damage("brighter", "grey levels", brighten, levels),
        Damage("darker", "grey levels", darken, levels),
        Damage("less contrast", "% of the contrast lost", reduce_contrast, shares),
        Damage("covered patch", "% of the area", cover_patch, area),
        Damage("scratch", "pixels long", scratch, lengths),
        Damage("swapped patches", "% of the area each", swap_patches, area),
        Damage("rotation", "degrees", rotate, degrees),
        Damage("other texture", "% blended in", blend_texture, shares),
    ]


def vector_damages(n_features: int) -> list[Damage]:
    """Return the damage to try on vectors of ``n_features``, weakest strength first."""
    spreads = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16)
    pairs = sorted({round(p) for p in np.geomspace(1, max(1, n_features // 2), 8)})
    found = [
        Damage("noise", "spreads (standard deviation)", add_noise_to_features, spreads),
        Damage("one feature shifted", "spreads", shift_feature, spreads),
    ]
    if n_features > 1:
        found.append(Damage("features swapped", "pairs", swap_features, tuple(pairs)))
    return found


def window_damages() -> list[Damage]:
    """Return the damage to try on windows of a series, weakest strength first."""
    spreads = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16)
    return [
        Damage("noise", "spreads (standard deviation)", add_noise_to_features, spreads),
        Damage("spike", "spreads, of one value", spike, spreads),
        Damage("shift", "spreads, of one channel", shift_channel, spreads),
        Damage("standstill", "% of the steps", freeze, (5, 10, 20, 40, 60, 80, 100)),
    ]


def add_noise(images: Images, strength: float, random: Random) -> Images:
    """Add Gaussian noise with a standard deviation of ``strength`` grey levels."""
    return _to_uint8(images + strength * random.standard_normal(images.shape, np.float32))


def blur(images: Images, strength: float, random: Random) -> Images:
    """Convolve with a Gaussian of standard deviation ``strength`` pixels."""
    return _to_uint8(
        scipy.ndimage.gaussian_filter(images.astype(np.float32), (0, strength, strength, 0))
    )


def brighten(images: Images, strength: float, random: Random) -> Images:
    """Add ``strength`` grey levels."""
    return _to_uint8(images + np.float32(strength))


def darken(images: Images, strength: float, random: Random) -> Images:
    """Subtract ``strength`` grey levels."""
    return brighten(images, -strength, random)


def reduce_contrast(images: Images, strength: float, random: Random) -> Images:
    """Move every pixel ``strength`` % of the way to the mean of its image and channel."""
    mean = images.mean((1, 2), keepdims=True, dtype=np.float32)
    return _blend(images, mean, strength / 100)


def cover_patch(images: Images, strength: float, random: Random) -> Images:
    """Paint a patch of ``strength`` % of the area, somewhere, in one random grey or colour."""
    n, height, width, channels = images.shape
    places, paints = random.random((n, 2)), random.integers(0, 256, (n, channels), np.uint8)
    rows, columns = _patch_size(height, width, strength)
    covered = images.copy()
    for image, place, paint in zip(covered, places, paints, strict=True):
        top, left = _corner(place, height - rows, width - columns)
        image[top : top + rows, left : left + columns] = paint
    return covered


def scratch(images: Images, strength: float, random: Random) -> Images:
    """Draw a straight line ``strength`` pixels long, somewhere, black or white by contrast.

    It is as wide as 1/32 of the image's longer side, but at least one pixel.
    """
    n, height, width, _ = images.shape
    # From the middle of the image, so that the line lies inside as long as it is short.
    angle, down, right = random.random((3, n, 1, 1), np.float32)
    y = np.arange(height, dtype=np.float32)[:, None] - (0.25 + down / 2) * (height - 1)
    x = np.arange(width, dtype=np.float32) - (0.25 + right / 2) * (width - 1)
    sin, cos = np.sin(np.pi * angle), np.cos(np.pi * angle)
    along, across = np.abs(x * cos + y * sin), np.abs(y * cos - x * sin)
    half_width = max(1.0, max(height, width) / _FEWEST_PIXELS) / 2
    # The part of a pixel that the line covers, about: its edges are as soft as a camera's.
    cover = np.clip(half_width + 0.5 - across, 0, 1) * np.clip(strength / 2 + 0.5 - along, 0, 1)
    dark = images.mean((1, 2, 3), keepdims=True) < 127.5
    return _blend(images, np.where(dark, 255, 0), cover[..., None] * (strength > 0))


def swap_patches(images: Images, strength: float, random: Random) -> Images:
    """Exchange two patches of ``strength`` % of the area each, from two halves of the image."""
    n, height, width, _ = images.shape
    places = random.random((n, 2, 2))
    tall = height > width
    swapped = images.swapaxes(1, 2).copy() if tall else images.copy()
    height, width = swapped.shape[1:3]
    rows, columns = _patch_size(height, width, strength)
    half = width // 2
    columns = min(columns, half)
    for image, (first, second) in zip(swapped, places, strict=True):
        top, left = _corner(first, height - rows, half - columns)
        bottom, right = _corner(second, height - rows, half - columns)
        one = image[top : top + rows, left : left + columns]
        other = image[bottom : bottom + rows, half + right : half + right + columns]
        one[:], other[:] = other.copy(), one.copy()
    return swapped.swapaxes(1, 2) if tall else swapped


def rotate(images: Images, strength: float, random: Random) -> Images:
    """Turn by ``strength`` degrees about the centre, either way; edge pixels are repeated."""
    rotated = images.astype(np.float32)
    left = random.random(len(images)) < 0.5
    for chosen, angle in ((left, strength), (~left, -strength)):
        if chosen.any():
            rotated[chosen] = scipy.ndimage.rotate(
                rotated[chosen], angle, axes=(1, 2), reshape=False, order=1, mode="nearest"
            )
    return _to_uint8(rotated)


def blend_texture(images: Images, strength: float, random: Random) -> Images:
    """Blend in ``strength`` % of stripes in a random direction, 2 to 8 across the image.

    Their wavelength is at least 2.5 pixels.
    """
    n, height, width, _ = images.shape
    angle, phase, number = random.random((3, n, 1, 1), np.float32)
    frequency = np.minimum((2 + 6 * number) / max(height, width), 0.4)
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    along = x * np.cos(np.pi * angle) + y * np.sin(np.pi * angle)
    stripes = 127.5 * (1 + np.sin(2 * np.pi * (frequency * along + phase)))
    return _blend(images, stripes[..., None], strength / 100)


def add_noise_to_features(vectors: Floats, strength: float, random: Random) -> Floats:
    """Add Gaussian noise with a standard deviation of ``strength`` spreads to every feature."""
    return vectors + np.float32(strength) * random.standard_normal(vectors.shape, np.float32)


def shift_feature(vectors: Floats, strength: float, random: Random) -> Floats:
    """Shift one random feature of each vector by ``strength`` spreads, up or down."""
    n, n_features = vectors.shape
    shifted, rows = vectors.copy(), np.arange(n)
    shifted[rows, random.integers(n_features, size=n)] += strength * random.choice([-1, 1], n)
    return shifted


def swap_features(vectors: Floats, strength: float, random: Random) -> Floats:
    """Exchange the values, in spreads, of ``strength`` random pairs of features."""
    order = random.permuted(np.tile(np.arange(vectors.shape[1]), (len(vectors), 1)), axis=1)
    pairs = int(strength)
    # Taken from both ends of the order, so that a greater strength keeps the pairs of a smaller.
    one, other = order[:, :pairs], order[:, ::-1][:, :pairs]
    swapped = vectors.copy()
    rows = np.arange(len(vectors))[:, None]
    swapped[rows, one], swapped[rows, other] = vectors[rows, other], vectors[rows, one]
    return swapped


def spike(windows: Floats, strength: float, random: Random) -> Floats:
    """Shift one random value of each window (N, steps, channels) by ``strength`` spreads."""
    flat = shift_feature(windows.reshape(len(windows), -1), strength, random)
    return flat.reshape(windows.shape)


def shift_channel(windows: Floats, strength: float, random: Random) -> Floats:
    """Shift one random channel of each window by ``strength`` spreads, up or down."""
    shifted, rows = windows.copy(), np.arange(len(windows))
    channels = random.integers(windows.shape[2], size=len(windows))
    shifted[rows, :, channels] += strength * random.choice([-1, 1], (len(windows), 1))
    return shifted


def freeze(windows: Floats, strength: float, random: Random) -> Floats:
    """Let all channels of the last ``strength`` % of the steps stand still."""
    first = round(windows.shape[1] * (1 - strength / 100))
    stopped = windows.copy()
    stopped[:, first:] = windows[:, min(first, windows.shape[1] - 1)][:, None]
    return stopped


def _to_uint8(values: NDArray[np.floating]) -> Images:
    rounded: Images = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return rounded


def _blend(images: Images, other: Samples, share: Any) -> Images:
    return _to_uint8(images + share * (other - images.astype(np.float32)))


def _patch_size(height: int, width: int, percent: float) -> tuple[int, int]:
    """Rows and columns of a patch of that share of the area, in the image's proportions."""
    if percent == 0:
        return 0, 0
    edge = np.sqrt(percent / 100)
    return max(1, round(edge * height)), max(1, round(edge * width))


def _corner(place: NDArray[np.float64], rows: int, columns: int) -> tuple[int, int]:
    """Place (2,) in [0, 1) as one of the first ``rows`` + 1 rows and ``columns`` + 1 columns."""
    return int(place[0] * (rows + 1)), int(place[1] * (columns + 1))
