import numpy as np
import pytest

from historyad.backbones import defects as module
from historyad.backbones.defects import damaged


def square(seed=0, side=64):
    grey = np.random.default_rng(seed).normal(127, 45, (1, side, side)).astype(np.float32)
    return np.repeat(grey, 3, 0)


def test_a_part_of_each_quarter_is_changed_and_grey_stays_grey():
    changed = np.zeros((2, 2))
    for seed in range(20):
        before = square()
        after = damaged(before, np.random.default_rng(seed))
        np.testing.assert_array_equal(before, square())
        assert (after.shape, after.dtype) == (before.shape, np.float32)
        np.testing.assert_array_equal(after[0], after[2])
        moved = np.abs(after - before).max(0) > 1
        assert 0 < moved.mean() < 0.9
        changed += moved.reshape(2, 32, 2, 32).any((1, 3))
    assert (changed >= 18).all()


def test_the_same_draw_gives_the_same_defects():
    found = [damaged(square(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize("content", [content for _, content in module._DEFECTS])
def test_every_content_fills_a_square_with_grey_values(content):
    before = square()
    after = content(before, np.random.default_rng(3))
    assert (after.shape, after.dtype) == (before.shape, np.float32)
    assert np.isfinite(after).all()
    assert 5 < np.abs(after - before).mean() < 200


def test_a_scar_is_long_and_thin():
    shares = [
        module._scar(160, np.array([80.0, 80.0]), np.random.default_rng(seed)) for seed in range(20)
    ]
    assert all(one.min() >= 0 and one.max() <= 1 for one in shares)
    for one in shares:
        rows, columns = np.nonzero(one > 0.5)
        assert np.hypot(np.ptp(rows), np.ptp(columns)) > 2 * len(rows) ** 0.5
