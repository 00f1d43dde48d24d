"""``score --follow``: a log that grows, in a process of its own."""

import csv
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from historyad.cli import main

LENGTH = 20


def lines(start, stop, *, spoil=slice(0)):
    """Lines of a log of steps: flow and heat swing, with some noise of their own each."""
    t = np.arange(start, stop)
    noise = np.random.default_rng(0).normal(0, 0.1, (5000, 2))[t]
    flow, heat = np.sin(2 * np.pi * t / 20) + noise[:, 0], np.cos(2 * np.pi * t / 20) + noise[:, 1]
    flow[spoil] = 9
    return "".join(f"{i},{a:.4f},{b:.4f}\n" for i, a, b in zip(t, flow, heat, strict=True))


HEAD = "time,flow,heat\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("follow")
    (folder / "normal.csv").write_text(HEAD + lines(0, 2000))
    fit = ["fit", str(folder / "normal.csv"), "--quiet"]
    series = [*fit, "--time-column", "time", "--window", str(LENGTH)]
    assert main([*series, "--out", str(folder / "series")]) == 0
    assert main([*fit, "--id", "time", "--preset", "instant", "--out", str(folder / "rows")]) == 0
    return folder


class Follower:
    """``historyad score RUN LOG --follow``, and the rows that it has written so far."""

    def __init__(self, run, log, *options):
        command = [sys.executable, "-m", "historyad", "score", run, log, "--follow", *options]
        self.log, self.rows = log, []
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
        self.head = self.process.stdout.readline().strip().split(",")

    def wait_for(self, n):
        """Return the names of all rows once there are ``n``; what is written has come by then."""
        while len(self.rows) < n:
            self.rows.append(self.process.stdout.readline().strip().split(","))
        return [row[0] for row in self.rows]

    def write(self, text):
        with self.log.open("a") as file:
            file.write(text)

    def end(self):
        """Press Ctrl-C, and return what was said beside the rows."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=300)[1]


@pytest.fixture
def following(tmp_path):
    started = []

    def start(run, text, *options):
        log = tmp_path / "log.csv"
        log.write_text(text)
        started.append(Follower(run, log, *options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_steps_of_a_series_as_a_whole_log_has_them(folder, following, tmp_path):
    one = following(folder / "series", HEAD + lines(0, 50), "--time-column", "time")
    assert one.head == ["path", "anomaly_score", "p_value", "is_anomalous"]
    assert one.wait_for(31)[:31] == [str(i) for i in range(31)]
    one.write(lines(50, 90, spoil=slice(10, 20)))
    one.wait_for(60)
    one.write(lines(90, 95)[:-20])  # a line that is not finished
    one.write(lines(90, 95)[-20:] + lines(95, 130))
    names = one.wait_for(100)
    assert names == [str(i) for i in range(len(names))]
    whole = tmp_path / "whole.csv"
    out = tmp_path / "scores.csv"
    whole.write_text(one.log.read_text())
    command = ["score", folder / "series", whole, "--time-column", "time", "--out", out]
    assert main([*map(str, command)]) == 0
    rows = list(csv.reader(out.read_text().splitlines()))[1:]
    for ours, theirs in zip(one.rows[:100], rows[:100], strict=True):
        assert ours[0] == theirs[0]
        assert float(ours[1]) == pytest.approx(float(theirs[1]), abs=1e-5)
        assert ours[3] == theirs[3]
    assert one.rows[65][3] == "1"
    said = one.end()
    assert one.process.returncode == 0
    assert re.search(r"\d+ scored, \d+ anomalous", said)
    assert "Traceback" not in said


def test_a_log_that_is_rotated_or_cut_goes_on(folder, following):
    one = following(folder / "series", HEAD + lines(0, 60), "--time-column", "time")
    one.wait_for(41)
    one.log.rename(one.log.with_name("log.1.csv"))
    one.log.write_text(HEAD + lines(60, 100))
    assert one.wait_for(80)[:80] == [str(i) for i in range(80)]
    one.log.write_text(HEAD + lines(100, 110))  # cut
    one.wait_for(90)
    said = one.end()
    assert said.count("was replaced: it is read from its start") == 2


def test_lines_that_cannot_be_used_are_named_and_left_out(folder, following):
    one = following(folder / "series", HEAD + lines(0, 40), "--time-column", "time")
    one.wait_for(21)
    one.write("40,ERR,1\n" + lines(41, 75))
    names = one.wait_for(50)
    assert names[:50] == [*map(str, range(40)), *map(str, range(41, 51))]
    one.write("75,1,\n" + "70,1,1\n" + lines(300, 330))
    expected = [*range(40), *range(41, 75), *range(300, 311)]
    assert one.wait_for(len(expected)) == [*map(str, expected)]
    said = one.end()
    assert "left out: " in said
    assert "'ERR' is not a finite number" in said
    assert "left out: 75, of which a value is missing" in said
    assert "left out: 70, which does not come after" in said
    assert re.search(r"a gap of \d+ usual steps before 300: windows begin anew", said)


def test_rows_of_a_table_come_at_once(folder, following):
    one = following(folder / "rows", HEAD + "x,0.1,1.0\n", "--id", "time", "--view-scores")
    assert one.wait_for(1) == ["x"]
    assert one.head[4:] == ["neighbours", "gaussian"]
    one.write("y,99,1\nz,,1\n")
    assert one.wait_for(3) == ["x", "y", "z"]
    assert [row[3] for row in one.rows] == ["0", "1", "1"]
    one.end()
    assert one.process.returncode == 0


def test_what_cannot_be_followed_is_refused(folder, capsys):
    log = folder / "normal.csv"
    for options, message in (
        (["--out", "x.csv"], "--follow writes as it goes: leave out --out"),
        (["--fdr", "0.1"], "leave out --explain, --maps, --intervals and --fdr"),
        (["--shard", "0/2", "--out", "parts"], "--follow scores in one process"),
    ):
        assert main(["score", str(folder / "rows"), str(log), "--follow", *options]) == 2
        assert message in capsys.readouterr().err
    for source in ("missing.csv", str(folder)):
        assert main(["score", str(folder / "rows"), source, "--follow"]) == 2
        assert "cannot be followed: give a file that is there" in capsys.readouterr().err
    absent = ["--follow", "--id", "nme"]
    assert main(["score", str(folder / "rows"), str(log), *absent]) == 2
    assert "has no column 'nme'" in capsys.readouterr().err
