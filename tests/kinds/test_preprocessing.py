import numpy as np
import pytest
from historyad.kinds.preprocessing import Preprocessing
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from historyad.errors import InputError

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
tables = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=float32s)


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def normal_table():
    """Vectors (2000, 4) of very different centres and spreads; the last feature is constant."""
    table = np.random.default_rng(0).normal([0, 1e4, -3, 0.1], [1, 100, 1e-4, 0], (2000, 4))
    return table.astype(np.float32)


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(1, 1, 8), (8, 8, 8), (9, 3, 16), (28, 28, 32), (33, 8, 64), (64, 64, 64), (300, 200, 64)],
)
def test_the_smallest_grid_that_holds_the_images(height, width, side):
    samples = images(2, height, width, 3)
    prepare = Preprocessing.fit(samples, image_size=0)
    assert (prepare.kind, prepare.side, prepare.any_size) == ("image", side, False)
    assert prepare.network_shape == (3, side, side)
    assert prepare(samples).shape == (2, side, side, 3)
    assert prepare.shrinks == (max(height, width) > side)


def test_a_chosen_grid_takes_images_of_any_size():
    prepare = Preprocessing.fit(images(2, 20, 30, 1), image_size=16)
    assert prepare.any_size
    for height, width in ((20, 30), (5, 5), (100, 7), (16, 16)):
        assert prepare(images(1, height, width, 1)).shape == (1, 16, 16, 1)


def test_images_that_fill_the_grid_are_not_touched():
    samples = images(3, 8, 8, 1)
    assert Preprocessing.fit(samples, 0)(samples) is samples


def test_padding_repeats_the_edge_and_keeps_the_pixels():
    samples = images(1, 28, 28, 1)
    padded = Preprocessing.fit(samples, 0)(samples)
    assert (padded[:, 2:30, 2:30] == samples).all()
    assert (padded[:, 0] == padded[:, 2]).all()
    assert (padded[:, :, 31] == padded[:, :, 29]).all()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 8, 3), "the images have 3 channels, the detector was fitted on 1 channel: convert"),
        ((9, 8, 1), "shape 9 x 8 x 1, the detector was fitted on 8 x 8 x 1: .*--image-size"),
        ((64,), "shape 64, the detector was fitted on 8 x 8 x 1: give it the same shape$"),
    ],
)
def test_other_shapes_than_the_fitted_one_are_refused(shape, words):
    prepare = Preprocessing.fit(images(2, 8, 8, 1), 0)
    prepare.check((8, 8, 1))
    with pytest.raises(InputError, match=words):
        prepare.check(shape)


def test_other_numbers_of_channels_are_refused_at_any_size():
    prepare = Preprocessing.fit(images(2, 8, 8, 4), 8)
    prepare.check((50, 20, 4))
    with pytest.raises(InputError, match="1 channel, the detector was fitted on 4 channels"):
        prepare.check((8, 8, 1))


def test_vectors_of_another_length_are_refused(normal_table):
    prepare = Preprocessing.fit(normal_table, 0)
    for other in ((5,), (8, 8, 1)):
        with pytest.raises(InputError, match="the detector was fitted on 4: give"):
            prepare.check(other)


def test_every_feature_is_centred_and_scaled(normal_table):
    prepare = Preprocessing.fit(normal_table, 0)
    scaled = np.sinh(prepare(normal_table).astype(np.float64))
    assert prepare.network_shape == (4,)
    np.testing.assert_allclose(np.median(scaled, axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(scaled[:, :3].std(axis=0), 1, atol=0.05)


def test_scaling_is_robust_and_linear_near_the_centre(normal_table):
    spoilt = normal_table.copy()
    spoilt[:100] = 1e9  # 5 % of the rows
    clean, robust = Preprocessing.fit(normal_table, 0), Preprocessing.fit(spoilt, 0)
    np.testing.assert_allclose(robust.scale[:3], clean.scale[:3], rtol=0.15)
    steps = np.arange(-0.1, 0.1, 0.01, dtype=np.float32)[:, None] * clean.scale + clean.center
    np.testing.assert_allclose(clean(steps)[:, 0], np.arange(-0.1, 0.1, 0.01), atol=1e-3)


def test_a_constant_feature_has_no_scale_of_its_own(normal_table):
    """0.1 has no exact mean in floats: rounding must not pass for spread."""
    assert Preprocessing.fit(normal_table, 0).scale[3] == 1
    assert Preprocessing.fit(np.zeros((5, 1), np.float32), 0).scale[0] == 1


def test_a_feature_that_is_mostly_constant_is_scaled_by_its_deviation():
    table = np.zeros((100, 1), np.float32)
    table[:10] = 5
    assert Preprocessing.fit(table, 0).scale[0] == pytest.approx(table.std())


def test_units_do_not_matter(normal_table):
    plain = Preprocessing.fit(normal_table, 0)(normal_table)
    small = normal_table * np.float32(2**-40)  # a power of two: no rounding
    np.testing.assert_allclose(
        Preprocessing.fit(small, 0)(small)[:, :3], plain[:, :3], rtol=1e-4, atol=1e-4
    )


@given(tables, st.data())
def test_finite_for_every_float32(table, data):
    prepare = Preprocessing.fit(table, 0)
    other = data.draw(arrays(np.float32, table.shape, elements=float32s))
    for samples in (table, other):
        prepared = prepare(samples)
        assert prepared.dtype == np.float32
        assert np.isfinite(prepared).all()
        assert np.abs(prepared).max() < 200


def test_rows_choose_what_the_scaling_is_fitted_on(normal_table):
    rows = np.arange(0, 2000, 3)
    chosen = Preprocessing.fit(normal_table, 0, rows)
    assert (chosen.center == Preprocessing.fit(normal_table[rows], 0).center).all()


@pytest.mark.parametrize("shape", [(20, 11, 13, 2), (20, 80, 40, 1), (20, 5)])
def test_each_sample_is_treated_alone(shape):
    samples = images(*shape)
    samples = samples.astype(np.float32) if len(shape) == 2 else samples
    prepare = Preprocessing.fit(samples, 0)
    together = prepare(samples)
    for i in range(len(samples)):
        assert (prepare(samples[i : i + 1])[0] == together[i]).all()


def test_validate_takes_what_fit_decides(normal_table):
    for samples, side in ((normal_table, 0), (images(2, 9, 9, 1), 0), (images(2, 9, 9, 1), 128)):
        Preprocessing.fit(samples, side).validate()


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "sound"},
        {"side": 9},
        {"side": 8.0},
        {"side": 0},
        {"any_size": 1},
        {"input_shape": (8, 8)},
        {"kind": "vector"},
        {"kind": "vector", "input_shape": (8,), "side": 0},
        {"center": np.zeros(8, np.float32)},
    ],
)
def test_validate_refuses_contradictions(fields):
    good = {"kind": "image", "input_shape": (8, 8, 1), "side": 8, "any_size": False}
    Preprocessing(**good).validate()
    with pytest.raises(ValueError, match="contradicts itself"):
        Preprocessing(**{**good, **fields}).validate()
