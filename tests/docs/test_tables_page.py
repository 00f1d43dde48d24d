"""The page on tables is executed: its scripts and commands show what the page shows."""

import csv
import re
from pathlib import Path

import pytest
from followed import BLOCK, Reader, pattern
from quoted import assert_as_quoted, rates

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Each command of the page, what the page shows after it, and what came out."""
    folder = tmp_path_factory.mktemp("tables")
    reader, found = Reader(folder), []
    for language, title, text in BLOCK.findall(PAGE.read_text()):
        if language == "python":
            (folder / title).write_text(text)
            continue
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            found.append((command, shown, reader.run(command)))
    return found


def test_every_command_shows_what_the_page_shows(sessions):
    assert len(sessions) == 10
    for command, shown, output in sessions:
        lines = iter([pattern(line) for line in output.splitlines()])
        for line in shown.splitlines():
            assert line == "..." or pattern(line) in lines, (command, line, output)


def test_the_rates_are_those_that_the_page_shows(sessions):
    assert {"AUROC", "anomalies found"} <= {n for _, shown, _ in sessions for n in rates(shown)}
    for _, shown, output in sessions:
        assert_as_quoted(shown, output, 0.03)


def test_the_columns_that_make_a_row_odd_are_those_of_the_page(sessions):
    shown, output = next(rest for command, *rest in sessions if command == "python why.py")
    assert [line.split("  ")[1] for line in output.splitlines()] == [
        line.split("  ")[1] for line in shown.splitlines()
    ]


def test_the_reasons_of_categories_are_those_of_the_page(sessions):
    _, shown, output = sessions[-1]
    rows, found = (list(csv.DictReader(text.splitlines())) for text in (shown, output))
    for row, other in zip(rows, found, strict=True):
        assert (row["path"], row["is_anomalous"]) == (other["path"], other["is_anomalous"])
        assert row["because"].split(",")[0] == other["because"].split(",")[0]
