import csv
import json

import numpy as np
import pytest

from historyad.deploy.tables import open_table
from historyad.errors import InputError

COLUMNS = ("path", "anomaly_score", "is_anomalous")
NAMES = ["=HYPERLINK(1)", "a\nb,\x1b[2J", 'ü"q"', "-1"]
CELLS = ["'=HYPERLINK(1)", r"a\nb,\x1b[2J", 'ü"q"', "'-1"]


def row(name):
    return {"path": np.array([name], object)}


def write(out, names, score=-0.5):
    with open_table(str(out), COLUMNS) as write_rows:
        for some in (names[:3], names[3:]):
            scores = np.full(len(some), score, np.float32)
            odd = np.ones(len(some), np.bool_)
            columns = (np.array(some, object), scores, odd)
            write_rows(dict(zip(COLUMNS, columns, strict=True)))


def test_csv_holds_text_and_numbers_but_no_formulas(tmp_path, capsys):
    write(tmp_path / "s.csv", NAMES)
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [list(COLUMNS), *([cell, "-0.500000", "1"] for cell in CELLS)]
    write("-", NAMES)
    assert capsys.readouterr().out == (tmp_path / "s.csv").read_text("utf-8")


def test_names_may_be_of_any_type_of_text(tmp_path):
    with open_table(str(tmp_path / "s.csv"), ("start", "steps")) as write_rows:
        write_rows({"start": np.array(["2026-01-31 10:00", "=1"]), "steps": np.array([7, 8])})
    assert (tmp_path / "s.csv").read_text() == "start,steps\n2026-01-31 10:00,7\n'=1,8\n"


def test_json_lines_hold_names_as_they_are(tmp_path):
    write(tmp_path / "s.jsonl", NAMES)
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == NAMES


def test_of_two_that_write_one_table_the_last_is_whole(tmp_path):
    out = tmp_path / "s.csv"
    with open_table(str(out), COLUMNS) as first:
        first(row("first"))
        with open_table(str(out), COLUMNS) as second:
            second(row("second"))
            first(row("first"))
        assert out.read_text().splitlines()[1:] == ["second"]
        first(row("first"))
    assert out.read_text().splitlines()[1:] == ["first"] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]


def test_an_error_leaves_the_old_table_and_an_interruption_its_rows(tmp_path):
    out = tmp_path / "s.csv"
    out.write_text("old")

    def stop(error):
        with open_table(str(out), COLUMNS) as write_rows:
            write_rows(row("a"))
            raise error

    with pytest.raises(ZeroDivisionError):
        stop(ZeroDivisionError)
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]
    with pytest.raises(KeyboardInterrupt):
        stop(KeyboardInterrupt)
    assert out.read_text() == "old"
    (left,) = tmp_path.glob("s.csv.*.tmp")
    assert left.read_text().splitlines()[1:] == ["a"]


def test_a_full_disk_leaves_nothing(disk):
    out = disk.path / "s.csv"
    disk.fill()
    with pytest.raises(InputError, match=r"cannot write .*s\.csv: "):
        write(out, ["x" * 10_000])
    disk.free()
    assert not list(disk.path.glob("s.csv*"))
