import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from historyad.data.columns import align, check_usable
from historyad.data.datasets import open_source
from historyad.errors import InputError

TABLE = pandas.DataFrame({"width": [1, 2], "height": [3, 4], "depth": [5, 6]})


def test_columns_in_order_are_left_as_they_are():
    source = open_source(TABLE)
    assert align(source, ("width", "height", "depth")) is source
    assert align(source, ()) is source  # fitted on an array
    array = open_source(TABLE.to_numpy())
    assert align(array, ["width", "height", "depth"]) is array


@given(st.permutations(list(TABLE)))
def test_columns_in_another_order_are_put_right(order):
    source = align(open_source(TABLE[order]), list(TABLE))
    assert source.columns == ("width", "height", "depth")
    assert source.samples.tolist() == [[1, 3, 5], [2, 4, 6]]
    assert source.names == ["0", "1"]
    assert source.fingerprint == open_source(TABLE).fingerprint


def test_texts_are_numbered_as_those_of_the_fit():
    levels = (("red", "blue"), ())
    frame = pandas.DataFrame({"n": [1, 2, 3, 4], "kind": ["blue", "green", None, "red"]})
    found = align(open_source(frame), ("kind", "n"), levels)
    np.testing.assert_array_equal(found.samples, np.float32([[1, 1], [2, 2], [np.nan, 3], [0, 4]]))
    assert found.levels == levels
    with pytest.raises(InputError, match="column 'kind' holds text, such as 'blue', and the detec"):
        align(open_source(frame), ("kind", "n"))


def test_columns_of_which_nothing_can_be_learnt_are_refused():
    n = 40
    good = pandas.DataFrame({"n": range(n), "kind": ["a", "b"] * 20})
    check_usable(open_source(good))
    with pytest.raises(InputError, match="column 'empty' is empty in all 40 rows: leave it out"):
        check_usable(open_source(good.assign(empty=[None] * n)))
    named = good.assign(part=[f"p{i}" for i in range(n)])
    with pytest.raises(InputError, match=r"column 'part' holds 40 different .*: .* with --id"):
        check_usable(open_source(named))


def test_columns_that_are_missing_or_too_many_are_named():
    names = list(TABLE)
    with pytest.raises(InputError, match=r"lacks .*: 'width', is it 'Widht'\?\. It has 'Widht', "):
        align(open_source(TABLE.rename(columns={"width": "Widht"})), names)
    with pytest.raises(InputError, match=r"lacks .*: 'height'; 'depth'\. It has 'width'$"):
        align(open_source(TABLE[["width"]]), names)
    with pytest.raises(InputError, match=r"has columns that .* not fitted on: 'x'. Leave them out"):
        align(open_source(TABLE.assign(x=1)), names)
    with pytest.raises(InputError, match="holds 2 columns, and the detector takes the 3 columns"):
        align(open_source(np.ones((2, 2))), names)
    with pytest.raises(InputError, match="holds images, and the detector takes the 3 columns"):
        align(open_source(np.zeros((2, 4, 4), np.uint8)), names)
