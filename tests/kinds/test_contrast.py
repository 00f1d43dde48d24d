import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from historyad.kinds.contrast import halved, local_contrast


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 50, 61, 2), np.uint8)


def test_contrast_is_that_of_the_formula_in_grey_levels(images):
    plane = images[1, :, :, 1].astype(float)
    detail = plane - gaussian_filter(plane, 4, truncate=3)
    strength = np.sqrt(gaussian_filter(detail**2, 12, truncate=3) + 1)
    expected = np.clip(128 + 32 * detail / strength, 0, 255)
    found = local_contrast(images, 32)[1, :, :, 1]
    # The strength is taken on a coarser grid: a few hundredths of itself.
    assert np.abs(found - expected).mean() < 1
    assert np.abs(found - expected).max() < 6


def test_lighting_and_the_strength_of_texture_do_not_matter(images):
    texture = images.astype(np.float32) / 255
    slope = np.linspace(0, 60, 61)[:, None]
    strong = np.rint(60 + 100 * texture + slope).astype(np.uint8)
    weak = np.rint(20 + 50 * texture).astype(np.uint8)
    difference = local_contrast(strong, 32).astype(int) - local_contrast(weak, 32)
    assert np.abs(difference).mean() < 3


def test_what_does_not_vary_shows_nothing():
    flat = np.full((1, 40, 40, 1), 77, np.uint8)
    assert (local_contrast(flat, 32) == 128).all()


@pytest.mark.parametrize("shape", [(2, 6, 8, 1), (1, 5, 7, 3), (1, 1, 1, 1)])
def test_half_the_size_is_the_mean_of_four(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    padded = np.pad(images, ((0, 0), (0, shape[1] % 2), (0, shape[2] % 2), (0, 0)), mode="edge")
    n, height, width, channels = padded.shape
    blocks = padded.reshape(n, height // 2, 2, width // 2, 2, channels)
    np.testing.assert_array_equal(halved(images), np.floor(blocks.mean((2, 4)) + 0.5))
