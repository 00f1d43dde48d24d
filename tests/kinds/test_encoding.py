import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny import tiny_config

from historyad.kinds.columns import Columns
from historyad.kinds.encoding import Encoding
from historyad.kinds.scaling import constant_step

LEVELS = ((), ("red", "blue", "green"), ())
NAN = np.float32(np.nan)


def table(n=400, seed=0):
    """Rows: a number; red half of the time, blue the other; a number that is missing in a tenth."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, 3)).astype(np.float32)
    rows[:, 1] = np.arange(n) % 2
    rows[::10, 2] = NAN
    return rows


def kind_of(rows, levels=LEVELS):
    return Columns.choose(rows.shape[1:], tiny_config(), levels).learnt_from(rows)


def test_shares_are_those_of_what_was_seen():
    shares = kind_of(table()).encoding.shares
    assert [one.tolist() for one in shares] == [[0], [0.5, 0.5, 0, 0], [np.float32(0.1)]]


def test_texts_become_dummies_and_missing_numbers_medians_with_one():
    kind = kind_of(table())
    rows = np.float32([[0, 0, 0], [0, 1, NAN], [0, 2, 0], [0, NAN, 0], [NAN, 7, 0], [0, 0.5, 0]])
    found = kind.prepare(rows)
    step, dummy = constant_step(3), np.arcsinh(2**0.5)
    rare = np.arcsinh(10**0.5)  # as of a column that is 1 in a tenth of the rows, and 0 in others
    assert found.shape == (6, 2 + 1 + 5)
    assert kind.encoding.owners.tolist() == [0, 2, 3, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(found[1, 1:3], [0, rare], rtol=1e-6)  # the median, and so much
    np.testing.assert_allclose(found[:, 2], [0, rare, 0, 0, 0, 0], atol=1e-6)
    expected = np.zeros((6, 5))
    expected[0, 0] = expected[1, 1] = dummy
    expected[2, 2] = expected[3, 3] = expected[4, 4] = expected[5, 4] = step  # never seen
    np.testing.assert_allclose(found[:, 3:], expected, rtol=1e-6)
    assert found[4, 0] == np.float32(step)  # missing where none ever was


@pytest.mark.parametrize("n_texts", [2, 5, 40, 200])
def test_texts_of_one_column_weigh_as_one_column_of_numbers(n_texts):
    """However many they are: rows differ in them about as much as in a number."""
    random = np.random.default_rng(0)
    rows = random.integers(0, n_texts, (4000, 1)).astype(np.float32)
    levels = (tuple(map(str, range(n_texts))),)
    encoded = kind_of(rows, levels).prepare(rows)
    assert 0.6 < encoded.var(0).sum() < 1.2


def test_the_rarer_the_text_the_further_out():
    random = np.random.default_rng(0)
    rows = np.float32(random.permutation(np.repeat([0, 1, 2], [1990, 100, 10])))[:, None]
    weights = kind_of(rows, (("a", "b", "c"),)).encoding.weights(0)
    assert weights[0] < weights[1] < weights[2] < weights[3] == constant_step(1)


def test_a_table_of_numbers_alone_is_as_without_an_encoding():
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    kind = kind_of(rows, ())
    np.testing.assert_array_equal(kind.prepare(rows), kind.scaled(rows))
    assert kind.levels == ()
    assert kind.encoding.is_plain


@given(
    arrays(np.float32, (30, 3), elements=st.sampled_from([*map(float, range(-1, 5)), 0.5, np.nan])),
    arrays(np.float32, (9, 3), elements=st.sampled_from([0.0, 1, 2, 7, -3, 2.5, np.nan, np.inf])),
)
def test_a_graph_encodes_alike(rows, others):
    kind = kind_of(rows)
    graph = kind.onnx((3,))
    for samples in (rows, others):
        found = graph(torch.from_numpy(samples)).numpy()
        np.testing.assert_allclose(found, kind.prepare(samples), rtol=1e-5, atol=1e-5)


def test_what_is_encoded_is_decoded():
    kind = kind_of(table())
    rows = np.float32([[0.5, 0, 1], [0, 1, NAN], [0, 0, -2]])
    for row, encoded in zip(rows, kind.prepare(rows), strict=True):
        np.testing.assert_array_equal(kind.encoding.decode(encoded, row), row)
    holed = rows.copy()
    holed[:, 1] = NAN
    others = kind_of(np.concatenate([table(), holed]))
    assert np.isnan(others.encoding.decode(others.prepare(holed)[0], holed[0])[1])
    nothing = np.zeros(8, np.float32)
    assert kind.encoding.decode(nothing, rows[0])[1] == 0  # the most frequent


def test_values_are_called_what_they_were():
    encoding = kind_of(table()).encoding
    assert [encoding.called(1, value) for value in (0.0, 2.0, 3.0, 0.5)] == [
        "red",
        "green",
        "something else",
        "something else",
    ]
    assert encoding.called(1, NAN) == encoding.called(0, NAN) == "missing"
    assert encoding.called(0, 2.5) == 2.5


def test_rows_of_a_service_are_numbered():
    encoding = kind_of(table()).encoding
    assert encoding.numbered([1, "blue", 2.5]) == [1, 1, 2.5]
    assert encoding.numbered([1, "pink", 2.5])[1] == 3
    assert np.isnan(encoding.numbered([None, None, None])).all()
    assert encoding.numbered(["x", "red", 2]) == ["x", 0, 2]  # is refused elsewhere
    assert encoding.numbered([1, 2]) == [1, 2]


def test_damage_leaves_texts_and_holes():
    rows = table()
    kind = kind_of(rows)
    for damage in kind.damages((3,)):
        damaged = kind.damage(damage, rows, damage.strengths[-1], np.random.default_rng(0))
        np.testing.assert_array_equal(damaged[:, 1], rows[:, 1])
        np.testing.assert_array_equal(np.isnan(damaged), np.isnan(rows))
        assert (damaged[:, 0] != rows[:, 0]).any()


def test_it_is_read_again_from_json():
    kind = kind_of(table())
    content = json.loads(json.dumps(kind.to_json()))
    again = Columns.from_json(content, kind.tensors())
    rows = table(seed=1)
    np.testing.assert_array_equal(again.prepare(rows), kind.prepare(rows))
    assert again.levels == LEVELS


def test_json_of_an_encoding_that_contradicts_itself_is_refused():
    shares = torch.ones(8)
    content = [[], ["a", "b", "c"], []]
    Encoding.from_json(content, shares, 3)
    for wrong, error in (
        ([[], ["a", "b"], []], "texts of 3 columns of 3"),
        ([[], ["a", "b", "c"]], "texts of 2 columns of 3"),
        ([[], ["a", "b", "b"], []], "some of them twice"),
        ([[], [*map(str, range(501))], []], "texts of 3 columns of 3"),
    ):
        with pytest.raises(ValueError, match=error):
            Encoding.from_json(wrong, shares, 3)
    with pytest.raises(ValueError, match="501 texts"):
        Encoding.from_json([[*map(str, range(501))]], torch.ones(504), 1)
    with pytest.raises(TypeError, match="texts that are none"):
        Encoding.from_json([[], ["a", 1, "c"], []], shares, 3)
    with pytest.raises(ValueError, match="shares below 0"):
        Encoding.from_json(content, -shares, 3)


def test_a_column_that_is_missing_in_all_rows_of_a_fold():
    rows = table()
    rows[:, 2] = NAN
    kind = kind_of(rows)
    found = kind.prepare(np.float32([[0, 0, NAN], [0, 0, 1]]))
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 3


def test_learning_leaves_the_kind_as_it_was():
    kind = Columns.choose((3,), tiny_config(), LEVELS)
    before = dataclasses.replace(kind)
    kind.learnt_from(table())
    assert kind.encoding is before.encoding
