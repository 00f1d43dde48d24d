"""One bar for a whole job: what it is told, and how it is shown."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from historyad import progress
from historyad.progress import Phases, each, opening, reach, resume, share, show_progress, watching


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


def test_phases_divide_a_job_by_their_weights():
    told = []
    with watching(told.append):
        phases = Phases({"short": 1, "long": 3})
        phases.begin("short")
        phases.begin("long")
        reach(0.5)
    assert [(one["phase"], one["done"]) for one in told] == [
        ("short", 0.0),
        ("long", 0.25),
        ("long", 0.625),
        ("done", 1.0),
    ]


def test_loops_within_loops_fill_a_phase_from_its_beginning_to_its_end():
    told = []
    with watching(told.append):
        Phases({"one": 1, "two": 1}).begin("one")
        for _ in each("ab"):
            with share(0.0, 0.5):
                assert [*each(iter("xy"), 2)] == ["x", "y"]
            with share(0.5, 1.0):
                reach(1.0)
    done = [one["done"] for one in told]
    assert done == [0, 0.0625, 0.125, 0.25, 0.3125, 0.375, 0.5, 1]


def test_a_loop_that_is_left_early_leaves_the_rest_of_the_phase_as_it_was():
    told = []
    with watching(told.append):
        Phases({"all": 1}).begin("all")
        for _ in each("abcd"):
            break
        reach(0.5)
    assert told[-2]["done"] == 0.5


def test_loops_before_the_first_phase_say_nothing():
    told = []
    with watching(told.append):
        assert [*each("ab")] == ["a", "b"]
        Phases({"all": 1}).begin("all")
    assert [one["phase"] for one in told] == ["all", "done"]


def test_many_steps_make_few_records():
    told = []
    with watching(told.append):
        Phases({"all": 1}).begin("all")
        for _ in each(range(100_000)):
            pass
    assert len(told) < 250


def test_what_is_left_is_judged_by_the_rate_so_far(clock):
    told = []
    with watching(told.append):
        opening()
        clock.seconds += 50  # of which nothing is known
        phases = Phases({"one": 1, "two": 1})
        phases.begin("one")
        clock.seconds += 10
        reach(1.0)
    assert [one["left"] for one in told[:2]] == [None, None]
    assert told[2]["left"] == pytest.approx(10)
    assert told[2]["seconds"] == 60


def test_what_was_done_before_an_interruption_took_no_time(clock):
    told = []
    with watching(told.append):
        phases = Phases({"before": 1, "training": 8, "after": 1})
        phases.begin("training")
        resume(0.75)
        clock.seconds += 20
        reach(1.0)
    assert told[1]["done"] == pytest.approx(0.9)
    assert told[1]["left"] == pytest.approx(10)


def test_a_phase_that_is_left_out_took_no_time(clock):
    told = []
    with watching(told.append):
        phases = Phases({"one": 1, "left out": 8, "two": 1})
        phases.begin("one")
        clock.seconds += 10
        phases.begin("two")
        reach(0.0, {"step": "x"})
    assert told[-2]["left"] == pytest.approx(10)


def test_nobody_watches_and_nothing_is_told():
    opening()
    phases = Phases({"one": 1})
    phases.begin("one")
    reach(0.5)
    assert [*each("ab")] == ["a", "b"]


def test_a_job_that_fails_is_not_done():
    told = []

    def fail():
        with watching(told.append):
            opening()
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert [one["phase"] for one in told] == ["reading samples"]


def job():
    opening("reading a\x1b[31m")
    phases = Phases({"learning": 1})
    phases.begin("learning")
    for _ in each(range(1000)):
        pass


def test_a_log_gets_a_line_for_a_phase_and_for_each_fifth(capsys):
    with show_progress():
        job()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["reading a\\x1b[31m: 0%", "learning: 5%"]
    assert [line.split(",")[0] for line in lines[2:]] == [
        f"learning: {share}%" for share in (20, 40, 60, 80, 100)
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_bar_that_ends_full(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with show_progress("digit [3]"):
        job()
    shown = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", terminal.getvalue())
    last = re.split(r"[\r\n]+", shown.strip())[-1]
    assert re.fullmatch(r"digit \[3\]: done ━{16} 100 % \d s", last.strip())
    assert terminal.getvalue().count("\n") == 1


def test_a_notebook_gets_one_bar_that_is_updated(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=shown.append)
    shell = type("ZMQInteractiveShell", (), {})()
    display = SimpleNamespace(HTML=str, display=lambda *_, display_id: handle)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with show_progress("<b>"):
        job()
    assert shown[0].startswith('<progress value="0.000"')
    assert "&lt;b&gt;: reading a" in shown[0]
    assert shown[-1].startswith('<progress value="1.000"')
    assert "done: 100%" in shown[-1]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (89.4, "89 s"), (600, "10 min"), (7200, "2.0 h")]
)
def test_a_duration_is_said_as_people_do(seconds, said):
    assert progress.duration(seconds) == said
