"""Large images made comparable everywhere: local contrast instead of grey, at several scales.

Surfaces differ in lighting and in the strength of their texture more than by a defect. What is
left here of a pixel is how far it stands out of its surroundings, in units of what is usual there.
"""

from __future__ import annotations

import numpy as np
import scipy  # which imports its parts, slow ones among them, where they are first used
from numpy.typing import NDArray

from historyad.constants import CONSTANTS
from historyad.data.images import Pixels

# As parts of a crop's side: 4 and 12 pixels for crops of 32.


def local_contrast(images: Pixels, patch: int) -> Pixels:
    """Return the local contrast of images (N, H, W, C), each channel alone, as uint8 around 128.

    A Gaussian mean of standard deviation ``patch / 8`` is subtracted, and what is left is divided
    by its own Gaussian root mean square over ``3 patch / 8``.
    """
    contrast = np.empty_like(images)
    for i, c in np.ndindex(len(images), images.shape[-1]):
        plane = images[i, :, :, c].astype(np.float32)
        plane -= scipy.ndimage.gaussian_filter(
            plane, CONSTANTS.contrast_detail * patch, truncate=CONSTANTS.contrast_reach
        )
        plane /= _strength(plane, CONSTANTS.contrast_surroundings * patch)
        contrast[i, :, :, c] = np.rint(np.clip(128 + CONSTANTS.contrast_grey * plane, 0, 255))
    return contrast


def halved(images: Pixels) -> Pixels:
    """Return images (N, H, W, C) of half the size, rounded up, each pixel the mean of four."""
    height, width = images.shape[1:3]
    padding = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    even = np.pad(images, padding, mode="edge") if height % 2 or width % 2 else images
    # The sum of four bytes fits 10 bits; 2 more than half of them rounds.
    total = even[:, ::2, ::2].astype(np.uint16) + 2
    for rows, columns in ((0, 1), (1, 0), (1, 1)):
        total += even[:, rows::2, columns::2]
    halves: Pixels = (total >> 2).astype(np.uint8)
    return halves


def _strength(detail: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return the Gaussian root mean square of ``detail`` (H, W) around each of its pixels."""
    height, width = detail.shape
    padding = ((0, -height % CONSTANTS.contrast_grid), (0, -width % CONSTANTS.contrast_grid))
    squares = np.pad(np.square(detail), padding, mode="symmetric")
    rows, columns = (side // CONSTANTS.contrast_grid for side in squares.shape)
    cells = squares.reshape(rows, CONSTANTS.contrast_grid, columns, CONSTANTS.contrast_grid)
    # In double precision, in which a graph comes to the same, whatever the order of a sum.
    coarse = cells.mean((1, 3), dtype=np.float64).astype(np.float32)
    coarse = scipy.ndimage.gaussian_filter(
        coarse, sigma / CONSTANTS.contrast_grid, truncate=CONSTANTS.contrast_reach
    )
    strength = np.sqrt(coarse + np.float32(CONSTANTS.contrast_flat**2))
    # Cells are averages around their middles: that is where zoom, too, sees them.
    fine = scipy.ndimage.zoom(
        strength, CONSTANTS.contrast_grid, order=1, mode="nearest", grid_mode=True
    )
    shown: NDArray[np.float32] = fine[:height, :width]
    return shown
