import datetime
import sys
from decimal import Decimal

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from pyarrow import feather, parquet

from historyad.data.datasets import open_source, open_stream
from historyad.errors import InputError

COLUMNS = {"a": [1.5, 3.0], "b": [2, -40], "c": [True, False]}
VALUES = [[1.5, 2, 1], [3, -40, 0]]
KINDS = [pandas.DataFrame, polars.DataFrame, pyarrow.table]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_tables(kind):
    for opened in (open_source, open_stream):
        source = opened(kind(COLUMNS))
        assert source.kind == "vector"
        assert source.samples.tolist() == VALUES
        assert source.samples.dtype == np.float32
        assert source.columns == ("a", "b", "c")
        assert source.names == ["0", "1"]
    assert "(2, 3)" in source.description


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_hold_no_values(kind):
    frame = kind({"part": ["p", "q"], **COLUMNS, "lot": [7, 8]})
    source = open_source(frame, id_column="part", group_column="lot")
    assert source.samples.tolist() == VALUES
    assert (source.names, source.groups) == (["p", "q"], ["7", "8"])
    with pytest.raises(InputError, match=r"has no column 'prt', is it 'part'\?"):
        open_source(frame, id_column="prt")
    with pytest.raises(InputError, match="no columns of numbers"):
        open_source(kind({"part": ["p", "q"]}), id_column="part")
    with pytest.raises(InputError, match="column 'part': a value is missing that names a row"):
        open_source(kind({"part": ["p", None], "a": [1, 2]}), id_column="part")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([datetime.date(2024, 1, 2), None], "column 'z': '2024-01-02.*' is a date or a time"),
        ([datetime.datetime(2024, 1, 2), None], "column 'z': '2024-01-02.*' is a date or a time"),
        ([datetime.timedelta(1), datetime.timedelta(2)], "column 'z': .* is a date or a time"),
        ([1.0, float("inf")], "row 1, column 'z' is inf"),
        ([[1], [2]], "column 'z' holds a (list|ndarray): give numbers or texts"),
    ],
)
def test_columns_that_cannot_be_used_are_named(kind, values, message):
    with pytest.raises(InputError, match=message):
        open_source(kind({"a": [1, 2], "z": values}))


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_numbered_and_missing_values_are_nan(kind):
    frame = kind({"a": [1.5, None, 2.0], "z": ["x", None, "y"], "c": [True, None, False]})
    source = open_source(frame)
    np.testing.assert_array_equal(
        source.samples, np.float32([[1.5, 0, 1], [np.nan] * 3, [2, 1, 0]])
    )
    assert source.levels == ((), ("x", "y"), ())
    codes = open_source(kind({"a": [1.0, 2.0], "b": [3, 4]}), texts=("a",))
    assert codes.levels == (("1", "2"), ())  # as a file would have them


def test_most_of_a_column_says_whether_it_is_of_texts():
    source = open_source(pandas.DataFrame({"z": ["V27", 401, "401"]}))
    assert source.levels == (("V27", "401"),)
    with pytest.raises(InputError, match="column 'z': 'x' is text, and most of the column is not"):
        open_source(pandas.DataFrame({"z": ["x", 1, 2]}))


def test_categories_are_texts_also_those_of_numbers():
    for frame, texts in (
        (pandas.DataFrame({"z": pandas.Categorical([1, 2])}), ("1", "2")),
        (pandas.DataFrame({"z": pandas.Categorical(["x", "y"])}), ("x", "y")),
        (polars.DataFrame({"z": ["x", "y"]}, schema={"z": polars.Categorical}), ("x", "y")),
        (pyarrow.table({"z": pyarrow.array([1, 2]).dictionary_encode()}), ("1", "2")),
    ):
        assert open_source(frame).levels == (texts,)


def test_numbers_of_every_kind():
    frame = pandas.DataFrame({"a": pandas.array([1, 2], "Int64"), "b": [Decimal("1.5"), 2]})
    assert open_source(frame).samples.tolist() == [[1, 1.5], [2, 2]]
    assert open_source(frame.astype({"a": "Float32"})[["a"]]).samples.tolist() == [[1], [2]]
    table = pyarrow.table({"a": pyarrow.array([Decimal("1.5"), Decimal(2)]), "b": [1, 2]})
    assert open_source(table).samples.tolist() == [[1.5, 1], [2, 2]]
    chunked = pyarrow.concat_tables([table, table])
    assert open_source(chunked).samples.tolist() == [[1.5, 1], [2, 2]] * 2
    assert open_source(polars.DataFrame({"a": [1, 2]}, schema={"a": polars.UInt8})).columns == (
        "a",
    )


def test_the_index_of_pandas_names_the_rows_unless_it_counts_them():
    frame = pandas.DataFrame({"a": [1, 2, 3]})
    assert open_source(frame).names == ["0", "1", "2"]
    assert open_source(frame[frame.a != 2]).names == ["0", "2"]
    named = pandas.DataFrame({"a": [1, 2]}, index=pandas.Index(["x", "y"], name="part"))
    assert open_source(named).names == ["x", "y"]
    assert open_source(named, id_column="part").names == ["x", "y"]
    assert open_source(named.reset_index(), id_column="part").names == ["x", "y"]
    with pytest.raises(InputError, match="two columns are called 'a'"):
        open_source(pandas.concat([frame, frame], axis=1))
    assert open_source(pandas.DataFrame({0: [1, 2], ("b", 1): [3, 4]})).columns == ("0", "('b', 1)")


def test_a_first_column_that_pandas_found_without_a_name_names_the_rows(tmp_path):
    pandas.DataFrame({"a": [1.5, 2.5], "b": [3, 4]}).to_csv(tmp_path / "x.csv")
    again = pandas.read_csv(tmp_path / "x.csv")
    again.to_csv(tmp_path / "y.csv", index=False)
    for source in (again, polars.from_pandas(again), tmp_path / "x.csv", tmp_path / "y.csv"):
        opened = open_source(source)
        assert (opened.columns, list(opened.names)) == (("a", "b"), ["0", "1"])


def test_frames_without_rows_or_columns():
    with pytest.raises(InputError, match="holds no rows"):
        open_source(pandas.DataFrame({"a": [1.0]})[:0])
    with pytest.raises(InputError, match="no columns of numbers"):
        open_source(pandas.DataFrame(index=[1, 2]))


# --- files


def write(path, table):
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        feather.write_feather(table, path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_files_of_arrow(tmp_path, suffix):
    n = 2**16 + 7  # more than are read at a time
    values = np.random.default_rng(0).normal(size=(n, 2))
    table = {
        "a": values[:, 0],
        "b": values[:, 1],
        "c": [True] * n,
        "part": [f"p{i}" for i in range(n)],
    }
    path = write(tmp_path / f"x{suffix}", pyarrow.table(table))
    source = open_source(path, id_column="part")
    np.testing.assert_array_equal(source.samples[:, :2], values.astype(np.float32))
    assert source.columns == ("a", "b", "c")
    assert source.names == table["part"]
    assert open_stream(str(path), id_column="part").names == source.names
    assert len(open_source(path).levels[3]) == n
    table["a"] = [*values[:-1, 0], None]
    assert np.isnan(open_source(write(path, pyarrow.table(table)), id_column="part").samples[-1, 0])


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_the_index_that_pandas_keeps_in_a_file_names_the_rows(tmp_path, suffix):
    frame = pandas.DataFrame({"a": [1, 2], "b": [3, 4]}, index=["x", "y"])
    path = write(tmp_path / f"x{suffix}", pyarrow.Table.from_pandas(frame))
    assert open_source(path).columns == ("a", "b")
    assert open_source(path).names == ["x", "y"]
    write(path, pyarrow.Table.from_pandas(frame.reset_index(drop=True)))
    assert open_source(path).names == ["0", "1"]


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_damaged_files_of_arrow(tmp_path, suffix):
    path = write(tmp_path / f"x{suffix}", pyarrow.table({"a": list(range(9999))}))
    whole = path.read_bytes()
    for data in (b"", whole[:100], whole[: len(whole) // 2], b"a,b\n1,2\n"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"x{suffix} cannot be read as a table"):
            open_source(path)


def test_without_pyarrow_an_error_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow: install historyad\[tables\]"):
        open_source(tmp_path / "x.parquet")
