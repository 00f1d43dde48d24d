"""The guide is executed: its scripts and commands run in order and show what the page shows."""

import re
from pathlib import Path

import pytest
from followed import assert_shown, follow, needs_curl
from quoted import assert_as_quoted, rates

PAGE = Path(__file__).parents[2] / "docs" / "guide.md"


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Each command of the guide, what the page shows after it, and what came out."""
    return follow(PAGE, tmp_path_factory.mktemp("guide"))


@needs_curl
def test_every_command_shows_what_the_page_shows(sessions):
    assert_shown(sessions)


@needs_curl
def test_the_rates_are_those_that_the_page_shows(sessions):
    assert {name for _, shown, _ in sessions for name in rates(shown)} >= {
        *("AUROC", "false positives", "anomalies found", "share since", "scratch")
    }
    for command, shown, output in sessions:
        # A probe takes fewer samples.
        assert_as_quoted(shown, output, 0.1 if " probe " in command else 0.05)


@needs_curl
def test_the_drift_is_found_where_the_page_says(sessions):
    (drift,) = (output for command, _, output in sessions if " drift " in command)
    assert abs(int(re.search(r"about sample (\d+)", drift)[1]) - 151) < 20


def test_the_text_speaks_of_the_numbers_that_the_page_shows():
    page = " ".join(PAGE.read_text().split())
    found = re.findall(r"anomalies found ([\d.]+)", page)
    assert f"{float(found[1]):.0%} of the zeros".replace("%", " %") in page
    degrees = float(re.search(r"rotation seen from ([\d.]+) degrees", page)[1])
    assert f"turned by {degrees:.0f} degrees" in page
    assert len(set(re.findall(r"threshold \+(\d\.\d{3})\b", page))) == 1


def test_the_guide_names_every_step():
    page = PAGE.read_text()
    for command in ("fit", "inspect", "probe", "score", "report", "export", "serve", "calibrate"):
        assert f"$ historyad {command} " in page
