"""The examples that a notebook shows run, and say what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def said(name, folder):
    """Return what the cells of an example print."""
    script = EXAMPLES / f"{name}.py"
    assert script.read_text().startswith("# %% [markdown]\n# # ")
    done = subprocess.run(
        [sys.executable, script], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def share(text, what):
    return float(re.search(rf"{what}:? ([\d.]+)%", text)[1])


def test_images(tmp_path):
    text = said("images", tmp_path)
    assert share(text, "found") > 60
    assert share(text, "false alarms") < 6
    assert (tmp_path / "worst.png").exists()


def test_tables(tmp_path):
    text = said("tables", tmp_path)
    assert share(text, "found") > 60
    assert share(text, "false alarms") == pytest.approx(5, abs=6)
    assert text.count(": adds ") == 3


def test_series(tmp_path):
    text = said("series", tmp_path)
    found = sorted(re.findall(r"2026-01-08 (\S+) to 2026-01-08 (\S+): 0", text))
    assert len(found) == 2
    for (start, end), inside in zip(found, ("10:15:00", "17:50:00"), strict=True):
        assert start < inside < end
    assert "refused: " in text
    assert "there is a gap of 101 usual steps: fill it" in text
    assert (tmp_path / "pump.png").exists()


def test_sounds(tmp_path):
    text = said("sounds", tmp_path)
    assert share(text, "found") > 80
    assert share(text, "false alarms") < 20
    assert "spectrum" in text
