import gzip
import math
import re
import sys
from functools import partial

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import on_disk

from historyad.data import bulk
from historyad.data.datasets import open_source, open_stream
from historyad.data.delimited import read_delimited
from historyad.data.delimited import read_parts as read_parts_of
from historyad.data.tables import Roles, joined
from historyad.errors import InputError


def read(path, text, encoding="utf-8", *, chunk_lines=1 << 14, **roles):
    path.write_bytes(text.encode(encoding))
    return read_delimited(path, Roles(**roles), chunk_lines)


# --- as people have them


AB = [[1.5, 2], [3, -40]]
READ = {
    "plain": "a,b\n1.5,2\n3,-4e1\n",
    "lines of Windows, blank ones, none at the end": "a,b\r\n1.5, 2\r\n\r\n3,-40",
    "lines of old Macs": "a,b\r1.5,2\r3,-40\r",
    "quotes": '"a","b"\n"1.5","2"\n"3","-40"\n',
    "semicolons and decimal commas": "a;b\n1,5;2\n3;-40\n",
    "decimal commas in quotes": 'a,b\n"1,5",2\n3,"-40,0"\n',
    "tabs": "a\tb\n1.5\t2\n3\t-40\n",
    "tabs and decimal commas": "a\tb\n1,5\t2\n3\t-40\n",
    "spaces": " a   b \n  1.5  2 \n 3   -40\n",
    "bars": "a|b\n1.5|2\n3|-40\n",
    "what Excel says of the separator": "sep=;\na;b\n1,5;2\n3;-40\n",
    "a line of units": "a,b\nmm,°C\n1.5,2\n3,-40\n",
    "units in brackets, and none": "a,b\n[s],-\n1.5,2\n3,-40\n",
    "numpy's comment": "# a,b\n1.5,2\n3,-40\n",
    "numpy's comment, with spaces": "# a b\n1.5 2\n3 -40\n",
    "comments": "# measured by hand\n# in 2024, or so\na,b\n1.5,2\n3,-40\n",
    "a separator at each end": "a,b,\n1.5,2,\n3,-40,\n",
    "a separator at the end of rows": "a,b\n1.5,2,\n3,-40,\n",
    "a separator at the end of the names": "a,b,,\n1.5,2\n3,-40\n",
    "empty cells of a sheet": "a;b;;\n1,5;2;;\n3;-40;;\n;;;\n;;;\n",
}


def test_tables_are_read_as_people_have_them(tmp_path):
    for name, text in READ.items():
        table = read(tmp_path / "x.csv", text)
        assert table.values.tolist() == AB, name
        assert table.columns == ("a", "b"), name
        assert list(table.names) == [], name


def test_rows_may_have_names_in_a_column_that_has_none(tmp_path):
    for text in (
        ",a,b\nx,1.5,2\ny,3,-40\n",
        '"a" "b"\n"x" 1.5 2\n"y" 3 -40\n',  # R, write.table
        '"","a","b"\n"x",1.5,2\n"y",3,-40\n',  # R, write.csv
        '"a","b"\n"x",1.5,2\n"y",3,-40\n',  # R, write.table(sep=",")
        ";a;b\nx;1,5;2\ny;3;-40\n",
        "Unnamed: 0,a,b\nx,1.5,2\ny,3,-40\n",  # pandas, of a file whose first column had none
    ):
        table = read(tmp_path / "x.csv", text)
        assert (table.values.tolist(), table.names) == (AB, ["x", "y"]), text
        assert table.columns == ("a", "b")


def test_rows_that_are_numbered_have_numbers_for_names(tmp_path):
    for text in ('"a" "b"\n"1" 1.5 2\n"2" 3 -40\n', '"a","b"\n"1",1.5,2\n"2",3,-40\n'):
        table = read(tmp_path / "x.csv", text)
        assert (table.values.tolist(), table.names) == (AB, ["1", "2"]), text
    assert read(tmp_path / "x.csv", '"a"\n"7" 1.5\n"9" 3\n').names == ["7", "9"]


def test_what_pandas_writes_is_what_it_had(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 8))
    path = tmp_path / "x.csv"
    for columns in (list("abcdefgh"), None):
        frame = pandas.DataFrame(values, columns=columns)
        frame.to_csv(path)
        table = read_delimited(path, Roles())
        np.testing.assert_array_equal(table.values, values)
        assert table.columns == tuple(map(str, frame.columns))
        assert table.names == [str(i) for i in range(50)]
    frame.index.name = "n"
    frame.to_csv(path)  # an index that has a name is a column like others
    assert read_delimited(path, Roles()).values.shape == (50, 9)
    frame.to_csv(path, index=False, header=False)
    np.testing.assert_array_equal(read_delimited(path, Roles()).values, values)
    frame.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"line 1: 0 to 7 looks like column numbers: .* header=Fa"):
        read_delimited(path, Roles())


def test_tables_without_names(tmp_path):
    for text in ("1.5,2\n3,-40\n", "1,5;2;\n3;-40;\n", "1.5 2\n3 -40"):
        table = read(tmp_path / "x.csv", text)
        assert table.values.tolist() == AB
        assert table.columns == ()
    assert read(tmp_path / "x.csv", "1\n2\n").values.tolist() == [[1], [2]]
    assert read(tmp_path / "x.csv", "width mm\n1\n").columns == ("width mm",)
    assert read(tmp_path / "x.csv", "#,a\n1,2\n").columns == ("#", "a")
    assert read(tmp_path / "x.csv", "1,2,3,4\n5,6,7,8\n").columns == ()
    spectra = ",".join(map(str, range(400, 480, 10)))
    assert read(tmp_path / "x.csv", f"n,{spectra}\n1{8 * ',.1'}\n").columns[:2] == ("n", "400")


def test_encodings(tmp_path):
    text = "größe;b\n1,5;2\n3;-40\n"
    for encoding in ("utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be"):
        table = read(tmp_path / "x.csv", text, encoding)
        assert (table.values.tolist(), table.columns) == (AB, ("größe", "b")), encoding
    assert read(tmp_path / "x.csv", "€,b\n1,2\n", "cp1252").columns == ("€", "b")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(text.encode("latin-1")))
    source = open_source(tmp_path / "x.csv.gz")
    assert (source.samples.tolist(), source.columns) == (AB, ("größe", "b"))
    late = "a,b\n" + 5000 * "1,2\n" + "3,4\n" + '"5",6 \xa0\n'
    assert len(read(tmp_path / "x.csv", late, "latin-1").values) == 5002


def test_booleans_are_0_and_1(tmp_path):
    table = read(tmp_path / "x.csv", "a,b,c\n1,True,TRUE\n2,false,FALSE\n")
    assert table.values.tolist() == [[1, 1, 1], [2, 0, 0]]
    assert read(tmp_path / "x.csv", "True,1\nFalse,2\n").values.tolist() == [[1, 1], [0, 2]]


def test_a_comma_that_may_be_one_of_thousands(tmp_path):
    path = tmp_path / "x.csv"
    assert read(path, "a;b\n1,234;2\n3,250;4\n").values[:, 0].tolist() == [1.234, 3.25]
    assert read(path, "a\tb\n0,234\t2\n3,250\t4\n").values[:, 0].tolist() == [0.234, 3.25]
    for text in ("a\tb\n1,234\t2\n3,250\t4\n", 'a,b\n"1,234",2\n"3,250",4\n'):
        with pytest.raises(InputError, match=r"line 2, column 1 \('a'\): '1,234' may be a decimal"):
            read(path, text)
    with pytest.raises(InputError, match=r"line 3, column 1 .*'2.5' has a point.*line 2.*'1,5'"):
        read(path, "a;b\n1,5;2\n2.5;4\n")


BAD = [
    ("a,b\n1,2\n3,x\n", "line 3, column 2 ('b'): 'x' is not a finite number"),
    ("1,2\n3,x\n", "line 2, column 2: 'x' is not a finite number"),
    ("a,b\n1,2\n3,1O\n", "'1O' is not a finite number: write it plainly"),
    ("a,b\n1,5%\n", "'5%' is not a finite number"),
    ("a,b\n1,1_000\n", "'1_000' is not a finite number"),
    ("a,b\n1,2\n3,inf\n", "line 3, column 2 ('b'): 'inf' is not a finite number"),
    ("a;b\n1.234,5;2\n", "'1.234,5' is not a finite number"),
    ("a,b\n1,red\n2,3\n4,5\n", "line 2, column 2 ('b'): 'red' is text, and most of the column is"),
    ("a,b\n1,\n2,red\n2,3\n", "line 3, column 2 ('b'): 'red' is text, and most of the column is"),
    ("0,1\n2,3\n", "line 1: 0 to 1 looks like column numbers"),
    ("a,b\n2024-01-01 10:00:00,2\n", "('a'): '2024-01-01 10:00:00' is a date or a time: leave"),
    ("a;b\n1;31.12.24\n", "('b'): '31.12.24' is a date"),
    ("a;b\n1;12 Jan 2024\n", "'12 Jan 2024' is a date"),
    ("a,b\n1,True\n2,1\n", "line 3, column 2 ('b'): '1' stands in a column of True and False"),
    ("a,b\n1,2\n2,True\n", "line 3, column 2 ('b'): 'True' is not a finite number"),
    ("1,2\n3\n", "line 2: 1 cells, 2 expected"),
    ("a,b,c\n1,2\n3,4\n", "line 1: 3 names, but the rows have 2 cells: give each column one name"),
    ("a,b\n1,5,2,5\n", "2 names, but the rows have 4 cells: .* decimals are written with points"),
    ("a\n3,5\n2,7\n", "1 names, but the rows have 2 cells: .* decimals are written with points"),
    ("a\n1,234\n2,345\n", "decimals are written with points"),
    ("a,b\n3,5,1\n2,7,4\n", "2 names, but the rows have 3 cells: .* decimals are written with"),
    ("2023,2024\n.1,.2\n", "line 1: 2023 to 2024 looks like column numbers: .* put a line"),
    ("1,2,3\n4,5,.5\n", "line 1: 1 to 3 looks like column numbers"),
    ("a,b\n.5,1,2\n.6,3,4\n", "line 1: 2 names, but the rows have 3 cells"),
    ("a,b,a\n1,2,3\n", "line 1: two columns are called 'a'"),
    ("a,,c\n1,2,3\n", "line 1: column 2 has no name"),
    (",b\n1,2\n1,3\n", "line 1: column 1 has no name"),  # and does not tell rows apart
    ("a,b,\n1,2,\n3,4,5\n", "line 1: column 3 has no name"),
    (",2,3\n1,2,3\n", "line 1: the first cell is empty: fill it or"),
    ("id,400,401\n1,.2,.3\n", "line 1: 'id' is no number and '400' is one: .* begin each with a l"),
    ("400,410,420,430,440,450,460,470\n", "line 1: 400 to 470 looks like column numbers: .* put a"),
    ("a,b\n", "no rows of numbers"),
    ("", "no rows of numbers"),
    (" \n\n", "no rows of numbers"),
    ("1e300,2", "row 0, column 0 (from 0) is 1e+300"),
    ("1e999,1e999\n", "'1e999' is not a finite number"),
    ("a,b\n1e300,2", "row 0, column 'a' is 1e+300"),
    ('a,b\n"1,2\n3,4\n', "cannot be read as a table (unexpected end of data); is a quote missing?"),
]


def test_what_has_no_one_reading_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "x.csv"
    for text, message in BAD:
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            open_source(path)
        pattern = ".*".join(map(re.escape, message.split(".*")))
        assert re.search(pattern, str(caught.value)), (text, str(caught.value))
        assert str(path) in str(caught.value)


def test_what_is_no_text(tmp_path):
    path = tmp_path / "x.csv"
    for data in (b"PK\3\4" + bytes(range(256)), b"a,b\n1,\0\n", "a,b\n1,2\n".encode("utf-32")):
        path.write_bytes(data)
        with pytest.raises(InputError, match="is no text: save it as a table of UTF-8 text"):
            open_source(path)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 999)[:-20])
    with pytest.raises(InputError, match=r"x.csv.gz cannot be read as a table \(Compressed file"):
        open_source(tmp_path / "x.csv.gz")
    (tmp_path / "x.csv.gz").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(InputError, match=r"cannot be read as a table \(Not a gzipped file"):
        open_source(tmp_path / "x.csv.gz")


# --- names of rows, groups


def test_a_column_that_says_what_rows_are_called(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("part,a,lot,b\np1,1.5,x,2\np2,3,y,-40\n")
    for opened in (open_source, open_stream):
        assert opened(path).levels == (("p1", "p2"), (), ("x", "y"), ())
    source = open_source(path, id_column="part", group_column="lot")
    assert source.samples.tolist() == AB
    assert source.columns == ("a", "b")
    assert source.names == ["p1", "p2"]
    assert source.groups == ["x", "y"]
    path.write_text("400,a,401\n7,1.5,2\n8,3,-40\n")  # of numbers, and told by its name alone
    source = open_stream(path, id_column="400")
    assert (source.samples.tolist(), source.names) == (AB, ["7", "8"])
    assert source.columns == ("a", "401")
    path.write_text(",part,a,b\n0,p1,1.5,2\n1,p2,3,-40\n")
    source = open_source(path, id_column="part")
    assert (source.samples.tolist(), source.names) == (AB, ["p1", "p2"])


def test_a_column_for_names_that_is_not_there(tmp_path):
    path = tmp_path / "x.csv"
    for text, name, message in (
        ("Part,a\n1,2\n", "part", r"has no column 'part', is it 'Part'\?; it has 'Part', 'a'"),
        ("1,2\n3,4\n", "part", "has no names of columns, and so no column 'part': write a line"),
        ("part\np1\n", "part", "there is no column of numbers besides"),
        ("part,a\n,1\np2,2\n", "part", "line 2, column 1: the cell is empty, but it says what"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            open_source(path, id_column=name)
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    for source in (tmp_path / "x.npy", tmp_path, "digits:test", np.ones((2, 2))):
        for opened in (open_source, open_stream):
            with pytest.raises(InputError, match=r"has no columns with names, .* leave out --id"):
                opened(source, id_column="part")


# --- texts and missing values


def test_texts_are_numbered_as_they_come_and_missing_values_are_nan(tmp_path):
    path = tmp_path / "x.csv"
    for text in (
        "a,kind,ok\n1.5,red,True\n,blue,\nNA,,false\n2,red,True\n",
        "a;kind;ok\n1,5;red;True\n;blue;\nnan;NA;false\n2; red ;True\n",
    ):
        table = read(path, text)
        np.testing.assert_array_equal(
            table.values, [[1.5, 0, 1], [np.nan, 1, np.nan], [np.nan, np.nan, 0], [2, 0, 1]]
        )
        assert table.levels == ((), ("red", "blue"), ())
    assert read(path, "red,1\nblue,2\nred,3\n").levels == (("red", "blue"), ())
    late = read(path, "a,b\n1,\n2,\n3,1\n", chunk_lines=3)  # nothing to go by at first
    np.testing.assert_array_equal(late.values[:, 1], [np.nan, np.nan, 1])


def test_columns_that_are_known_to_be_texts_are_whatever_they_look_like(tmp_path):
    table = read(tmp_path / "x.csv", "code,a\n01,1\n1,2\n01,3\n", texts=("code",))
    assert table.levels == (("01", "1"), ())
    assert table.values.tolist() == [[0, 1], [1, 2], [0, 3]]


def test_numbers_with_signs_are_no_texts(tmp_path):
    for cell in ("5%", "$5", "1_000", "1.234,5", "1'000"):
        with pytest.raises(InputError, match="is not a finite number: write it plainly"):
            read(tmp_path / "x.csv", f"a;b\n1;{cell}\n2;{cell}\n")


@pytest.mark.parametrize("with_arrow", [True, False])
def test_texts_and_missing_values_of_a_long_table(tmp_path, monkeypatch, with_arrow):
    if not with_arrow:
        monkeypatch.setattr(bulk, "_arrow", lambda: None)
    random = np.random.default_rng(0)
    kinds, values = random.choice(["a", "b b", "c"], 60), random.normal(size=60)
    oks = random.choice(["True", "False", ""], 60)
    holes = random.random(60) < 0.3
    lines = ["kind,x,ok"]
    for kind, value, hole, ok in zip(kinds, values.tolist(), holes, oks, strict=True):
        lines.append(f"{'' if hole else kind},{'' if hole else repr(value)},{ok}")
    table = read(tmp_path / "x.csv", "\n".join(lines), chunk_lines=7)
    np.testing.assert_array_equal(table.values[:, 1], np.where(holes, np.nan, values))
    found = [None if np.isnan(n) else table.levels[0][int(n)] for n in table.values[:, 0]]
    assert found == [None if hole else kind for kind, hole in zip(kinds, holes, strict=True)]
    flags = {"True": 1.0, "False": 0.0, "": np.nan}
    np.testing.assert_array_equal(table.values[:, 2], [flags[ok] for ok in oks])


# --- large ones


def long_table(n):
    """Rows of all that columns can be, in text and as numbers."""
    random = np.random.default_rng(0)
    values = np.stack([random.normal(size=n), random.integers(0, 2, n), np.arange(n)], axis=1)
    rows = [f"r{i};{a!r};{b > 0};{int(c)};" for i, (a, b, c) in enumerate(values.tolist())]
    return ["name;a;b;c;", *rows], values


@pytest.mark.parametrize("with_arrow", [True, False])
def test_a_long_table_is_read_a_part_at_a_time(tmp_path, monkeypatch, with_arrow):
    read_parts = partial(read, chunk_lines=7)
    if not with_arrow:
        monkeypatch.setattr(bulk, "_arrow", lambda: None)
    lines, values = long_table(50)
    path = tmp_path / "x.csv"
    for changed in (lines, [line.replace(".", ",") for line in lines]):
        table = read_parts(path, "\n".join(changed), id_column="name")
        np.testing.assert_array_equal(table.values, values)
        assert table.names == [f"r{i}" for i in range(50)]
    blank = [*lines[:20], "", *lines[20:], ";;;;", ";;;;"]
    np.testing.assert_array_equal(
        read_parts(path, "\n".join(blank), id_column="name").values, values
    )
    for at, line, message in (
        (40, "r;1.5;x;3;", "line 41, column 3 ('b'): 'x' stands in a column of True and False"),
        (40, "r;1.5;True;x;", "line 41, column 4 ('c'): 'x' is not a finite number"),
        (40, "r;inf;True;3;", "line 41, column 2 ('a'): 'inf' is not a finite number"),
        (40, ";1.5;True;3;", "line 41, column 1: the cell is empty"),
        (40, "r;1.5;True;3;4", "line 41, column 5: '4' stands in a column without a name"),
        (40, "r;1,5;True;3;", "line 41, column 2 ('a'): '1,5' has a comma, and other decimals"),
        (40, "r;1.5;True;3", "line 41: 4 cells, 5 expected"),
        (14, ";;;;", "line 15, column 1: the cell is empty, but it says what the row is called"),
        (21, '"r\n";1.5;True;x;', "line 23, column 4 ('c'): 'x' is not a finite number"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            read_parts(path, "\n".join([*lines[:at], line, *lines[at:]]), id_column="name")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_parts_of_a_long_table_are_its_rows_and_few_are_held(tmp_path, encoding, suffix):
    lines, values = long_table(50)
    lines[0] = lines[0].replace(";a;", ";ä;")
    path, data = tmp_path / f"x.{suffix}", "\n".join(lines).encode(encoding)
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    tables, shares = zip(*read_parts_of(path, Roles("name"), 7), strict=True)
    assert max(len(table.values) for table in tables) <= 7
    assert [*shares] == sorted(shares)
    assert shares[-1] == 1
    whole = joined(tables)
    np.testing.assert_array_equal(whole.values, values)
    assert whole.names == [f"r{i}" for i in range(50)]
    assert whole.columns == ("ä", "b", "c")


def test_decimals_that_come_late_are_told_from_thousands(tmp_path):
    read_parts = partial(read, chunk_lines=4)
    lines = ["a\tb", *(f"{i}\t{i}" for i in range(9))]
    path = tmp_path / "x.tsv"
    for late, expected in ((["1,25\t2", "1,250\t2"], 1.25), (["1.25\t2", "1.5\t3"], 1.25)):
        assert read_parts(path, "\n".join(lines + late)).values[9, 0] == expected
    with pytest.raises(InputError, match=r"line 11, .* '1,250' may be a decimal or thousands"):
        read_parts(path, "\n".join([*lines, "1,250\t2"]))
    with pytest.raises(InputError, match=r"line 12, .*'1.250' has a point"):
        read_parts(path, "\n".join([*lines, "1,25\t2", "1.250\t2"]))
    with pytest.raises(InputError, match=r"line 17, .*'1,25' has a comma"):
        read_parts(path, "\n".join([*lines, "1.25\t2", *lines[1:6], "1,25\t2"]))


def test_small_tables_do_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert read(tmp_path / "x.csv", READ["plain"]).values.tolist() == AB
    bulk._arrow.cache_clear()
    assert bulk.read_lines(["1,2\n"], [float, float], separator=",", decimal=".") is None
    bulk._arrow.cache_clear()


# --- any table, any text


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
names = st.text(
    st.characters(codec="latin-1", exclude_categories=("Cc", "Zs")), min_size=1, max_size=6
).filter(lambda name: not re.match(r"\s*[\d#,;|.+-]", name))
KEPT = ("nan", "inf", "infinity", "true", "false", "sep=", "na", "none", "null", "n/a")


@settings(on_disk, max_examples=80)
@given(data=st.data())
def test_a_table_that_is_written_is_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("tables") / "x.csv"
    n, f = data.draw(st.integers(2, 12)), data.draw(st.integers(2, 5))
    separator, decimal = data.draw(st.sampled_from([",.", ";,", ";.", "\t.", "|."]))
    column = st.lists(numbers, min_size=n, max_size=n)
    values = np.array(data.draw(st.lists(column, min_size=f, max_size=f))).T
    usable = names.filter(
        lambda name: separator not in name and not name.lower().startswith(KEPT) and '"' not in name
    )
    header = data.draw(st.lists(usable, min_size=f, max_size=f, unique=True))
    rows = [[repr(value).replace(".", decimal) for value in row] for row in values.tolist()]
    with_names = data.draw(st.booleans())
    if with_names:
        rows = [[f"row{i}", *row] for i, row in enumerate(rows)]
    lines = [separator.join(["", *header] if with_names else header)]
    if data.draw(st.booleans()):
        lines.append(separator.join(["", *["mm"] * f] if with_names else ["mm"] * f))
    lines += [separator.join(row) for row in rows]
    end = data.draw(st.sampled_from(["", separator]))
    text = data.draw(st.sampled_from(["\n", "\r\n"])).join(line + end for line in lines)
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    chunk = data.draw(st.sampled_from([3, 1 << 14]))
    table = read(path, text, encoding, chunk_lines=max(3, chunk))
    np.testing.assert_array_equal(table.values, values)
    if encoding != "latin-1":  # whose letters may by chance be those of UTF-8
        assert table.columns == tuple(name.strip() for name in header)
    assert list(table.names) == ([f"row{i}" for i in range(n)] if with_names else [])


CELLS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["", "1", "2.5", "1,5", "x", "True", '"', "#", "NA", "2024-01-01", "1e999"]),
    numbers.map(repr),
)


@settings(on_disk, max_examples=150)
@given(
    rows=st.lists(st.lists(CELLS, max_size=4), max_size=6),
    separator=st.sampled_from([",", ";", "\t", " ", "|"]),
    roles=st.sampled_from([{}, {"id_column": "x"}, {"group_column": "1"}]),
    chunk=st.sampled_from([1, 2, 99]),
)
def test_any_text_is_a_table_or_an_input_error(tmp_path_factory, rows, separator, roles, chunk):
    path = tmp_path_factory.mktemp("tables") / "x.csv"
    text = "\n".join(separator.join(row) for row in rows)
    try:
        content = text.encode(errors="replace").decode()
        table = read(path, content, chunk_lines=chunk, **roles)
    except InputError:
        return
    assert table.values.ndim == 2
    assert not np.isinf(table.values).any()
    for column, texts in zip(table.values.T, table.levels, strict=False):
        assert not texts or set(column[~np.isnan(column)]) == set(range(len(texts)))
    assert len(table.columns) in (0, table.values.shape[1])
    assert len(table.names) in (0, len(table.values))


@given(st.lists(numbers, min_size=1, max_size=20), st.sampled_from([".", ","]))
def test_many_lines_at_once_are_read_to_the_same_bit(values, decimal):
    lines = [f"{value!r};7;x\n".replace(".", decimal) for value in values]
    first, second, third = bulk.read_lines(
        lines, [float, float, str], separator=";", decimal=decimal
    )
    assert [math.copysign(1, v) for v in first] == [math.copysign(1, v) for v in values]
    assert first.tolist() == values
    assert set(second) == {7.0}
    assert set(third) == {"x"}
