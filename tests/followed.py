"""Pages whose scripts and commands are run in order, as who follows them does."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def follow(page, folder):
    """Return each command of a page, what the page shows after it, and what came out."""
    reader = Reader(folder)
    found = []
    try:
        for language, title, text in BLOCK.findall(page.read_text()):
            assert (language == "python") == bool(title)
            if language == "text":  # nobody types it
                continue
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


def assert_shown(session):
    """Assert that commands showed what their page shows, but for numbers."""
    for command, shown, output in session:
        lines = iter([pattern(line) for line in output.splitlines()])
        for line in shown.splitlines():
            assert line == "..." or pattern(line) in lines, (command, line, output)
