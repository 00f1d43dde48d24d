import numpy as np
import torch

from historyad.backbones.cells import cells_of, levelled


def images(*shape, seed=0):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, shape, dtype=np.uint8))


def test_brightness_and_contrast_of_an_image_are_taken_out():
    dark = images(2, 40, 30, 3) // 4
    bright = dark * 3 + 60
    one, other = levelled(dark, 32), levelled(bright, 32)
    assert one.shape == (2, 3, 32, 32)
    torch.testing.assert_close(one, other, atol=1e-2, rtol=0)
    torch.testing.assert_close(one.mean((2, 3)), torch.full((2, 3), 127.0), atol=1e-2, rtol=0)
    spread = (one - 127).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(spread, torch.full((2,), 45.0), atol=1e-2, rtol=0)
    grey = levelled(images(1, 40, 30, 1), 32)
    assert grey.shape == (1, 3, 32, 32)
    assert (grey[:, 0] == grey[:, 2]).all()


def test_an_image_that_shows_nothing_stays_flat():
    flat = torch.full((1, 40, 40, 3), 200, dtype=torch.uint8)
    flat[0, 3, 3] += 1
    assert (levelled(flat, 32) - 127).abs().max() < 20
    even = levelled(flat[:, 10:], 32)
    torch.testing.assert_close(even, torch.full_like(even, 127), atol=1e-2, rtol=0)


def test_a_smaller_image_is_the_mean_and_a_larger_one_lies_between():
    step = torch.zeros(1, 64, 64, 1, dtype=torch.uint8)
    step[:, :, 32:] = 100
    small = levelled(step, 32)[0, 0]
    assert (small[:, :14] == small[0, 0]).all()
    assert 127 - 47 < small[0, 0] < 127 - 45
    assert (small.diff(dim=1) >= 0).all()
    wide = levelled(step[:, ::8, ::8], 32)[0, 0]
    assert wide.shape == (32, 32)
    assert (wide.diff(dim=1) >= 0).all()
    assert 4 <= (wide.diff(dim=1)[0] > 0).sum() <= 5


def test_cells_are_means_over_3_x_3_on_the_finest_grid():
    fine = torch.zeros(1, 1, 4, 4)
    fine[0, 0, 1, 1] = 9
    coarse = torch.arange(4.0).view(1, 1, 2, 2)
    found = cells_of([coarse, fine])
    assert found.shape == (1, 2, 4, 4)
    expected = torch.tensor([[2.25, 1.5, 1.5, 0], [1.5, 1, 1, 0], [1.5, 1, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(found[0, 1], expected)
    torch.testing.assert_close(found[0, 0], torch.full((4, 4), 1.5))  # 3 x 3 of 2 x 2 are all
