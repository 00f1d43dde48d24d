"""Every command on a detector of a series."""

import csv
import json
import re
import shutil

import numpy as np
import pytest

from historyad import Model
from historyad.cli import main
from historyad.model.run import RunDirectory


def write(path, n, *, seed=0, spoil=slice(0), start=0):
    t = np.arange(start, start + n)
    random = np.random.default_rng(seed)
    flow = np.sin(2 * np.pi * t / 30) + 0.1 * random.standard_normal(n)
    heat = 20 + np.cos(2 * np.pi * t / 30) + 0.1 * random.standard_normal(n)
    flow[spoil] = 0
    rows = [f"{t[i]},{flow[i]:.4f},{heat[i]:.4f}\n" for i in range(n)]
    path.write_text("time,flow,heat\n" + "".join(rows))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, fresh.csv like what it learnt from, and spoilt.csv of 600 steps, wrong from 300."""
    folder = tmp_path_factory.mktemp("series")
    write(folder / "fresh.csv", 1500, seed=1, start=6)
    write(folder / "spoilt.csv", 600, seed=2, spoil=slice(300, 330))
    source = write(folder / "normal.csv", 4000)
    assert main(["fit", source, "--time-column", "time", "--out", str(folder / "run")]) == 0
    return folder


def run(folder, command, *options):
    return main([command, str(folder / "run"), *map(str, options)])


def test_fit_chooses_the_window_and_trains_nothing(folder):
    model = Model.load(folder / "run")
    assert model.config.window == 30
    assert model.feature_names == ("flow", "heat")
    assert RunDirectory(folder / "run").read_log() == []


def test_score_has_a_row_for_each_step_and_intervals(folder, tmp_path, capsys):
    out, intervals = tmp_path / "scores.csv", tmp_path / "intervals.csv"
    options = ["--time-column", "time", "--out", out, "--intervals", intervals, "--view-scores"]
    assert run(folder, "score", folder / "spoilt.csv", *options) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["path"] for row in rows] == [str(step) for step in range(600)]
    assert float(rows[315]["anomaly_score"]) > 0.9 > float(rows[100]["anomaly_score"])
    assert float(rows[315]["shape"]) > 1 > float(rows[100]["shape"])
    (found,) = csv.DictReader(intervals.read_text().splitlines())
    assert 270 < int(found["start"]) < 310
    assert 320 < int(found["end"]) < 360
    assert int(found["steps"]) == int(found["end"]) - int(found["start"]) + 1
    said = capsys.readouterr().err
    assert f"{found['start']} to {found['end']}: {found['steps']} steps, score +" in said


def test_columns_come_in_any_order_and_by_name(folder, tmp_path):
    shuffled = tmp_path / "shuffled.csv"
    cells = [line.split(",") for line in (folder / "spoilt.csv").read_text().splitlines()]
    shuffled.write_text("".join(f"{heat},{time},{flow}\n" for time, flow, heat in cells))
    for name, out in (("spoilt.csv", "a.jsonl"), (shuffled, "b.jsonl")):
        options = ["--time-column", "time", "--out", tmp_path / out]
        assert run(folder, "score", folder / name, *options) == 0
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[7])["path"] == "7"


def test_other_commands(folder, tmp_path, capsys):
    fresh, spoilt = folder / "fresh.csv", folder / "spoilt.csv"
    time = ["--time-column", "time"]
    assert run(folder, "inspect") == 0
    assert "30 steps x 2 channels" in capsys.readouterr().out
    assert run(folder, "drift", fresh, *time) == 0
    assert "none found in 50 samples" in capsys.readouterr().out
    assert run(folder, "probe", fresh, *time, "--limit", 20) == 0
    assert "standstill" in capsys.readouterr().out
    options = ["--normal", fresh, "--anomalous", spoilt, *time]
    assert run(folder, "evaluate", *options) == 0
    out = tmp_path / "report.html"
    assert run(folder, "report", *options, "--source", folder / "normal.csv", "--out", out) == 0
    page = out.read_text()
    assert "spoilt.csv</h2>" in page
    assert "1 anomalous interval." in page
    assert page.count("The series ") == 3


def test_calibrate_on_a_new_series(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    fresh = write(tmp_path / "fresh.csv", 3000, seed=3)
    assert run(tmp_path, "calibrate", fresh, "--time-column", "time") == 0
    calibrated = Model.load(tmp_path / "run").calibration
    assert calibrated.reach == 15  # windows of 30 steps, 2 apart
    assert calibrated.n_apart == 99
    assert calibrated.false_positive_rate == 0.01


def test_bad_input_is_refused_in_one_sentence(folder, tmp_path, capsys):
    def refused(*arguments):
        capsys.readouterr()
        assert run(folder, "score", *arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    time = ["--time-column", "time"]
    lines = (folder / "spoilt.csv").read_text().splitlines(keepends=True)

    def spoilt(*kept):
        path = tmp_path / "log.csv"
        path.write_text("".join(kept))
        return path

    assert "the time 9 stands below 10: sort" in refused(
        spoilt(*lines[:10], lines[11], lines[10], *lines[12:]), *time
    )
    assert "from 99 to 200 there is a gap of 101 usual steps: fill it" in refused(
        spoilt(*lines[:101], *lines[201:]), *time
    )
    assert "holds 20 steps, and a window has 30: give a longer series" in refused(
        spoilt(*lines[:21]), *time
    )
    without = [line.rpartition(",")[0] + "\n" for line in lines]
    assert "lacks columns that the detector was fitted on: 'heat'" in refused(
        spoilt(*without), *time
    )
    wider = [line[:-1] + f",{'new' if not i else 1}\n" for i, line in enumerate(lines)]
    assert "has columns that the detector was not fitted on: 'new'. Leave them out" in refused(
        spoilt(*wider), *time
    )
    assert "of column flow the value at 49 is missing, 1 in all: fill" in refused(
        spoilt(*lines[:50], "49,,20\n", *lines[51:]), *time
    )
    assert "column 'heat' holds text, such as 'hot', and the detector was fitted on" in refused(
        spoilt("time,flow,heat\n", *(f"{i},1,hot\n" for i in range(60))), *time
    )
    assert "has no column 'when'" in refused(folder / "spoilt.csv", "--time-column", "when")
    assert "give --id or --time-column" in refused(folder / "spoilt.csv", *time, "--id", "time")
    assert "steps of a series are not" in refused(folder / "spoilt.csv", *time, "--fdr", 0.1)
    options = [*time, "--shard", "0/2", "--out", tmp_path / "parts", "--format", "csv"]
    assert "a series is scored in one piece" in refused(folder / "spoilt.csv", *options)
    maps = ["--maps", tmp_path / "maps"]
    assert "--maps are of images: of a series, see" in refused(folder / "spoilt.csv", *time, *maps)
    assert "--explain is for rows" in refused(folder / "spoilt.csv", *time, "--explain")


def test_a_detector_of_rows_has_no_intervals(folder, tmp_path, capsys):
    source = str(folder / "fresh.csv")
    out = tmp_path / "run"
    options = ["--id", "time", "--preset", "instant"]
    assert main(["fit", source, "--out", str(out), *options]) == 0
    intervals = ["--intervals", tmp_path / "i.csv"]
    assert run(tmp_path, "score", source, "--id", "time", *intervals) == 2
    assert "--intervals are those of a series: fit with --window" in capsys.readouterr().err
    assert run(tmp_path, "export", tmp_path / "a.onnx") == 0


def test_fit_says_what_a_short_series_can_promise(folder, tmp_path, capsys):
    source = str(folder / "fresh.csv")
    assert main(["fit", source, "--time-column", "time", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "49 windows end to end can promise no lower rate than 0.02; 2970 steps in all" in said


# --- rows of a table, explained


def test_score_explains_the_rows_that_are_anomalous(tmp_path, capsys):
    random = np.random.default_rng(0)
    speed = random.uniform(10, 90, 400)
    rows = [
        f"{s:.2f},{2 * s + n:.2f}" for s, n in zip(speed, random.normal(0, 1, 400), strict=True)
    ]
    for name, lines in (("good.csv", rows), ("new.csv", ["50,100", "50,20"])):
        (tmp_path / name).write_text("\n".join(["speed,pressure", *lines]))
    options = ["--out", str(tmp_path / "run"), "--preset", "instant"]
    assert main(["fit", str(tmp_path / "good.csv"), *options]) == 0
    out = tmp_path / "scores.csv"
    assert run(tmp_path, "score", tmp_path / "new.csv", "--explain", "--out", out) == 0
    usual, odd = csv.DictReader(out.read_text().splitlines())
    assert (usual["is_anomalous"], usual["because"]) == ("0", "")
    assert odd["is_anomalous"] == "1"
    found = dict(re.findall(r"(\w+ \d+), usually ([\d.]+)", odd["because"]))
    assert float(found["pressure 20"]) == pytest.approx(100, abs=5)  # beside that speed
    assert float(found["speed 50"]) == pytest.approx(10, abs=3)  # beside that pressure
    parts = ["--shard", "0/2", "--out", tmp_path / "parts", "--explain"]
    assert run(tmp_path, "score", tmp_path / "new.csv", *parts) == 2
    assert "--explain explains in one process" in capsys.readouterr().err
