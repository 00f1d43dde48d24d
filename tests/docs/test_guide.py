"""The guide is executed: its scripts and commands run in order and show what the page shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from quoted import assert_as_quoted, rates

PAGE = Path(__file__).parents[2] / "docs" / "guide.md"
BLOCK = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


class Reader:
    """Who follows the guide: one terminal, and another in which the service runs."""

    def __init__(self, folder):
        # The programs of this environment come first, as in one that was activated.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.at = {"cwd": folder, "env": {**os.environ, "PATH": path}}
        self.service, self.url = None, ADDRESS

    def run(self, command):
        """Return what the terminal shows after the command, and the error output before it."""
        if command.startswith("historyad serve "):
            return self.serve(command.replace("--port 8000", "--port 0"))
        command = command.replace(ADDRESS, self.url)
        done = subprocess.run(
            ["bash", "-c", command], **self.at, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stderr + done.stdout

    def serve(self, command):
        self.service = subprocess.Popen(
            command.split(), **self.at, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        line = self.service.stdout.readline()
        self.url = re.search(r"http://\S+", line)[0]
        return line.replace(self.url, ADDRESS)

    def stop(self):
        self.service.terminate()
        self.service.communicate()
        return self.service.returncode


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Each command of the guide, what the page shows after it, and what came out."""
    folder = tmp_path_factory.mktemp("guide")
    reader = Reader(folder)
    found = []
    try:
        for language, title, text in BLOCK.findall(PAGE.read_text()):
            assert (language == "python") == bool(title)
            if language == "python":
                (folder / title).write_text(text)
                continue
            assert language == "console"
            for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                found.append((command, shown, reader.run(command)))
        assert reader.stop() == 0
    finally:
        if reader.service is not None:
            reader.service.kill()
    return found


def pattern(line):
    """Return what stays of a line on another machine: no numbers, of a table only the names."""
    name, *value = re.split(r" {2,}", line.strip())
    return name if value else re.sub(r"[+-]?\d[\d.,]*(e[+-]\d+)?", "#", name)


needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None and "CI" not in os.environ, reason="needs curl"
)


@needs_curl
def test_every_command_shows_what_the_page_shows(sessions):
    for command, shown, output in sessions:
        lines = iter([pattern(line) for line in output.splitlines()])
        for line in shown.splitlines():
            assert line == "..." or pattern(line) in lines, (command, line, output)


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
