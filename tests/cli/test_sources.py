"""What the commands say and do about where samples come from."""

import csv

import numpy as np
import pytest
from tiny import TINY_OPTIONS

from historyad.cli import main
from historyad.files import load_json


@pytest.fixture
def out_of(capsys):
    """Run a command that works, and return what it wrote to standard output and error."""

    def run(*arguments):
        capsys.readouterr()
        status = main([*map(str, arguments)])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured

    return run


def write_table(path, n=120, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, 3))
    rows = [f"part {i};{a:.6f};{b:.6f};{c > 0}" for i, (a, b, c) in enumerate(values)]
    path.write_text("part;width;height;ok\n" + "\n".join(rows).replace(".", ",") + "\n")
    return path


def test_the_id_column_of_a_table_is_carried_through(tmp_path, out_of, capsys):
    table, run = write_table(tmp_path / "x.csv"), tmp_path / "run"
    assert main(["fit", str(table), "--out", str(run), *TINY_OPTIONS]) == 2
    assert "'part 0' is text: " in capsys.readouterr().err
    out_of("fit", table, "--out", run, "--id", "part", *TINY_OPTIONS)
    named = ["--id", "part"]
    rows = list(csv.DictReader(out_of("score", run, table, *named).out.splitlines()))
    assert [row["path"] for row in rows] == [f"part {i}" for i in range(120)]
    out_of("score", run, table, *named, "--shard", "1/2", "--format", "csv", "--out", tmp_path)
    part = (tmp_path / "part-00001-of-00002.csv").read_text()
    assert next(row["path"] for row in csv.DictReader(part.splitlines())) == "part 60"
    other = write_table(tmp_path / "y.csv", n=60, seed=1)
    out_of("drift", run, other, *named, "--json", tmp_path / "drift.json")
    assert load_json(tmp_path / "drift.json")["since_name"] in (None, *(r["path"] for r in rows))
    out_of("evaluate", run, "--normal", other, "--anomalous", table, *named)
    out_of("probe", run, other, *named, "--limit", "2")
    out_of(
        "report",
        run,
        "--normal",
        other,
        "--anomalous",
        table,
        *named,
        "--out",
        tmp_path / "report.html",
    )
    out_of("calibrate", run, other, *named)
    assert main(["score", str(run), str(tmp_path), *named]) == 2
    assert "has no columns with names" in capsys.readouterr().err
