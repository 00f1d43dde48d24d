"""The pages on series and sounds are executed: they show what their scripts and commands show."""

import re
from functools import cache
from pathlib import Path

import pytest
from followed import BLOCK, Reader, pattern

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Each command of a page, what the page shows after it, and what came out."""

    @cache
    def follow(page):
        folder = tmp_path_factory.mktemp(page)
        reader = Reader(folder)
        found = []
        for language, title, text in BLOCK.findall((DOCS / f"{page}.md").read_text()):
            if language == "text":  # it has no end; tests/cli/test_follow.py runs it
                continue
            if language == "python":
                (folder / title).write_text(text)
                continue
            for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                found.append((command, shown, reader.run(command)))
        return found

    return follow


@pytest.mark.parametrize("page", ["series", "sounds"])
def test_every_command_shows_what_the_page_shows(sessions, page):
    for command, shown, output in sessions(page):
        lines = iter([pattern(line) for line in output.splitlines()])
        for line in shown.splitlines():
            assert line == "..." or pattern(line) in lines, (command, line, output)


def test_both_faults_of_the_pump_are_found_and_nothing_else(sessions):
    (printed,) = (out for command, _, out in sessions("series") if command == "python pump.py")
    (first, second) = sorted(tuple(map(int, line.split()[:2])) for line in printed.splitlines())
    assert 570 < first[0] < 610
    assert 620 < first[1] < 660
    assert 1000 < second[0] < 1080
    assert 1070 < second[1] < 1140


def test_every_scraping_fan_is_heard(sessions):
    (printed,) = (out for command, _, out in sessions("sounds") if " evaluate " in command)
    assert float(re.search(r"AUROC +([\d.]+)", printed)[1]) > 0.99
    assert float(re.search(r"anomalies found +([\d.]+)", printed)[1]) > 0.9
