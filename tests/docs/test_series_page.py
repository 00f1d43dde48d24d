"""The page on series is executed: its scripts and commands show what the page shows."""

import re
from pathlib import Path

import pytest
from test_guide import BLOCK, Reader, pattern

PAGE = Path(__file__).parents[2] / "docs" / "series.md"


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    reader = Reader(folder)
    found = []
    for language, title, text in BLOCK.findall(PAGE.read_text()):
        if language == "python":
            (folder / title).write_text(text)
            continue
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            found.append((command, shown, reader.run(command)))
    return found


def test_every_command_shows_what_the_page_shows(sessions):
    for command, shown, output in sessions:
        lines = iter([pattern(line) for line in output.splitlines()])
        for line in shown.splitlines():
            assert pattern(line) in lines, (command, line, output)


def test_both_faults_are_found_and_nothing_else(sessions):
    (printed,) = (output for command, _, output in sessions if command == "python pump.py")
    (first, second) = sorted(tuple(map(int, line.split()[:2])) for line in printed.splitlines())
    assert 570 < first[0] < 610
    assert 620 < first[1] < 660
    assert 1000 < second[0] < 1080
    assert 1070 < second[1] < 1140
