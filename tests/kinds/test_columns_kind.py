import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tiny import tiny_config

from historyad.errors import ConfigError, InputError
from historyad.kinds.choose import choose_kind
from historyad.kinds.columns import Columns

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
tables = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=float32s)


def columns_of(table):
    return Columns.choose(table.shape[1:], tiny_config()).learnt_from(table)


@pytest.fixture
def normal_table():
    """Vectors (2000, 4) of very different centres and spreads; the last column is constant."""
    table = np.random.default_rng(0).normal([0, 1e4, -3, 0.1], [1, 100, 1e-4, 0], (2000, 4))
    return table.astype(np.float32)


def test_vectors_of_another_length_are_refused(normal_table):
    kind = columns_of(normal_table)
    kind.check((4,))
    for other in ((5,), (8, 8, 1)):
        with pytest.raises(InputError, match="the detector was fitted on 4: give"):
            kind.check(other)


def test_what_is_no_number_is_refused(normal_table):
    kind = columns_of(normal_table)
    for samples in (normal_table.astype(str), normal_table.astype(object)):
        with pytest.raises(InputError, match=r"the vectors are of type .*: give numbers"):
            kind.prepare(samples)
    for samples in (normal_table.astype(int), normal_table > 0, normal_table.astype(np.float64)):
        assert kind.prepare(samples).dtype == np.float32


def test_every_column_is_centred_and_scaled(normal_table):
    kind = columns_of(normal_table)
    scaled = np.sinh(kind.prepare(normal_table).astype(np.float64))
    assert kind.networks(tiny_config()).shape == (4,)
    np.testing.assert_allclose(np.median(scaled, axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(scaled[:, :3].std(axis=0), 1, atol=0.05)


def test_scaling_is_robust_and_linear_near_the_centre(normal_table):
    spoilt = normal_table.copy()
    spoilt[:100] = 1e9  # 5 % of the rows
    clean, robust = columns_of(normal_table), columns_of(spoilt)
    np.testing.assert_allclose(robust.spread[:3], clean.spread[:3], rtol=0.15)
    steps = np.arange(-0.1, 0.1, 0.01, dtype=np.float32)[:, None] * clean.spread + clean.center
    np.testing.assert_allclose(clean.prepare(steps)[:, 0], np.arange(-0.1, 0.1, 0.01), atol=1e-3)


def test_a_constant_column_has_no_spread(normal_table):
    """0.1 has no exact mean in floats: rounding must not pass for spread."""
    assert columns_of(normal_table).spread[3] == 0
    assert columns_of(np.zeros((5, 1), np.float32)).spread[0] == 0


def test_a_new_value_of_a_constant_column_is_as_far_in_any_unit():
    for unit in (2.0**-100, 2.0**-20, 1.0, 1000.0, 2.0**100):
        for value in (0, 20, -3):
            kind = columns_of(np.full((50, 4), value * unit, np.float32))
            new = np.float32([[value + step] for step in (0.5, -0.5, 0, 1e-9 * value)]) * unit
            found = kind.prepare(np.repeat(new, 4, axis=1).astype(np.float32))
            assert (found == np.float32([[20.0], [-20.0], [0], [0]])).all()


def test_a_new_value_is_worth_less_where_normal_rows_have_some_now_and_then():
    rows = np.full((100, 16), 7, np.float32)
    rows[:, 0] = np.arange(100)
    new = rows[:1].copy()
    new[0, 15] = 8
    assert columns_of(rows).prepare(new)[0, 15] == 40  # ten times the root of 16 columns
    rows[5, 1], rows[80, 2] = 9, -3  # two of a hundred rows have what no other has
    assert columns_of(rows).prepare(new)[0, 15] == np.float32(50**0.5)
    rows[81, 2] = -3  # now it is one of a hundred
    assert columns_of(rows).prepare(new)[0, 15] == 10
    rows[81, 3] = np.nan  # what is missing is nothing new
    assert columns_of(rows).prepare(new)[0, 15] == 10


def test_the_next_whole_number_is_a_new_value_of_a_constant_column():
    for lot in (1_000_000, 8_388_607, 16_777_214, 20_231_104):
        step = float(np.spacing(np.float32(lot), dtype=np.float32)) if lot > 2**24 else 1.0
        kind = columns_of(np.full((50, 1), lot, np.float32))
        found = kind.prepare(np.float32([[lot], [lot + step], [lot - step]]))
        assert (found == np.float32([[0], [10], [-10]])).all(), lot
    mixed = np.float32([[1_000_000]] * 49 + [[1_000_001]])
    assert columns_of(mixed).spread[0] > 0


def test_what_is_not_finite_stays_so_in_a_constant_column():
    kind = columns_of(np.float32([[1, 2], [1, 3], [1, 4]]))
    bad = np.float32([[np.inf, 3], [-np.inf, 3]])
    assert np.isnan(kind.prepare(bad)[:, 0]).all()
    assert torch.isnan(kind.onnx((2,))(torch.from_numpy(bad))[:, 0]).all()


@given(tables, st.data())
def test_a_graph_prepares_alike(table, data):
    kind = columns_of(table)
    graph = kind.onnx(table.shape[1:])
    other = data.draw(arrays(np.float32, table.shape, elements=float32s))
    for samples in (table, other):
        found = graph(torch.from_numpy(samples)).numpy()
        np.testing.assert_allclose(found, kind.prepare(samples), rtol=1e-4, atol=1e-4)


def test_examples_leave_constant_columns_in_every_second_row():
    kind = columns_of(np.float32([[7, 2], [7, 3], [7, 4]]))
    found = kind.example(8, np.random.default_rng(0))
    assert (found[::2, 0] == 7).all()
    assert (found[1::2, 0] != 7).all()


def test_constant_columns_are_not_damaged():
    kind = columns_of(np.float32([[7, 2, 1], [7, 3, 5], [7, 4, 8]]))
    rows = np.float32([[7, 4, 1]] * 50)
    for damage in kind.damages((3,)):
        damaged = kind.damage(damage, rows, damage.strengths[-1], np.random.default_rng(0))
        assert (damaged[:, 0] == 7).all()
        assert (damaged[:, 1:] != rows[:, 1:]).any(1).all()


def test_one_value_far_out_does_not_hide_the_rare_ones_of_a_column():
    table = np.zeros((100, 1), np.float32)
    table[:10] = 5
    plain = columns_of(table).spread[0]
    assert plain == pytest.approx(5 * 0.1**0.5)  # their root mean square
    table[0] = 1e9
    assert columns_of(table).spread[0] == plain


@given(
    arrays(np.float32, (12, 3), elements=st.integers(-3, 3).map(float)),
    st.lists(st.integers(-30, 30), min_size=3, max_size=3),
    st.lists(st.integers(-64, 64), min_size=3, max_size=3),
)
def test_units_and_origins_do_not_matter(table, exponents, shifts):
    """Of columns of whole numbers, whose multiples by powers of two and shifts are exact."""
    other = ((table + np.float32(shifts)) * 2.0 ** np.float32(exponents)).astype(np.float32)
    far = np.float32([[5, -7, 0], [0, 0, 1000]])
    far_other = ((far + np.float32(shifts)) * 2.0 ** np.float32(exponents)).astype(np.float32)
    one, two = columns_of(table), columns_of(other)
    for samples, moved in ((table, other), (far, far_other)):
        np.testing.assert_allclose(one.prepare(samples), two.prepare(moved), rtol=1e-5, atol=1e-6)


@given(tables, st.data())
def test_finite_for_every_float32(table, data):
    kind = columns_of(table)
    other = data.draw(arrays(np.float32, table.shape, elements=float32s))
    for samples in (table, other):
        prepared = kind.prepare(samples)
        assert prepared.dtype == np.float32
        assert np.isfinite(prepared).all()
        assert np.abs(prepared).max() < 200


def test_rows_choose_what_the_scaling_is_fitted_on_and_what_batches_hold(normal_table):
    rows = np.arange(0, 2000, 3)
    chosen = choose_kind(normal_table, tiny_config(), rows)
    assert (chosen.center == columns_of(normal_table[rows]).center).all()
    assert (chosen.spread == columns_of(normal_table[rows]).spread).all()
    batches = chosen.batches(normal_table, tiny_config(), rows=rows)
    found = batches.at(0, len(batches)).numpy()
    expected = chosen.prepare(normal_table[rows])
    assert len(batches) == len(rows)
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(expected, axis=0))


def test_each_vector_is_treated_alone(normal_table):
    kind = columns_of(normal_table)
    together = kind.prepare(normal_table[:20])
    for i in range(20):
        assert (kind.prepare(normal_table[i : i + 1])[0] == together[i]).all()


def test_what_is_for_images_is_refused(normal_table):
    with pytest.raises(ConfigError, match="augment is 'flip', which is for images: leave it empty"):
        Columns.choose(normal_table.shape[1:], tiny_config(augment="flip"))
    kind = columns_of(normal_table)
    with pytest.raises(InputError, match=r"there are maps of images, and this .* scores vectors"):
        kind.maps(None, normal_table, None)
    with pytest.raises(InputError, match=r"there are maps of images, and this .* scores vectors"):
        kind.map_scale(None, 0.0)


def test_unusual_vectors_each_hold_one_value_that_is_not_finite(normal_table):
    (found,) = columns_of(normal_table).unusual((4,))
    assert (np.isfinite(found).sum(1) == 3).all()
    assert (~np.isfinite(found)).sum(0).tolist() == [3, 3, 3, 3]
    assert np.isnan(found).any()
    assert set(found[np.isinf(found)]) == {np.inf, -np.inf}


def test_what_is_decided_is_read_again_from_json(normal_table):
    kind = columns_of(normal_table)
    again = Columns.from_json(kind.to_json(), kind.tensors())
    assert again.input_shape == kind.input_shape
    np.testing.assert_array_equal(again.prepare(normal_table), kind.prepare(normal_table))


def test_json_that_contradicts_itself_is_refused():
    content, ones = {"input_shape": [3], "levels": [], "step": 5.0}, torch.ones(3)
    shares = torch.ones(5)
    Columns.from_json(content, {"center": ones, "spread": ones, "shares": shares})
    for center, spread in (
        (ones[:2], ones),
        (ones, ones[:2]),
        (ones, -ones),
        (ones, ones * torch.nan),
    ):
        with pytest.raises(ValueError, match="the scaling of"):
            Columns.from_json(
                content, {"center": center, "spread": spread, "shares": torch.ones(5)}
            )
    for step in (-1.0, float("nan"), float("inf"), "5", None):
        with pytest.raises(ValueError, match="a step of"):
            Columns.from_json(
                content | {"step": step}, {"center": ones, "spread": ones, "shares": shares}
            )
    for shape in ([8, 8, 1], [3.0], [0], [], [2**28]):
        with pytest.raises(ValueError, match="samples of shape"):
            Columns.from_json({"input_shape": shape}, {"center": ones, "spread": ones})
    with pytest.raises(KeyError):
        Columns.from_json(content, {"center": ones})
