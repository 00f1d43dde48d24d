"""What the commands say and do about where samples come from."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image
from storing import too_deep
from tiny import TINY_OPTIONS

from historyad import HistoryAD
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


def save_images(folder, images):
    for i, image in enumerate(images):
        path = folder / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def save_photos(folder, seed):
    """Save grey and colour photos, 120 of 8 x 8, in a folder with other things."""
    random = np.random.default_rng(seed)
    save_images(folder / "grey", random.integers(0, 256, (60, 8, 8), np.uint8))
    save_images(folder / "colour", random.integers(0, 256, (60, 8, 8, 3), np.uint8))
    (folder / "notes.txt").touch()
    (folder / ".thumbnails").mkdir()
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of photos, and a model that was fitted on them."""
    folder = save_photos(tmp_path_factory.mktemp("data") / "photos", 0)
    run = folder.parent / "run"
    arguments = ["fit", str(folder), "--out", str(run), "--channels", "3", *TINY_OPTIONS]
    assert main(arguments) == 0
    return folder, run


LEFT_OUT = "left out of {}: .txt files (1), hidden folders (1)"


def test_grey_and_colour_together_need_an_option_at_the_fit_alone(photos, tmp_path, out_of, capsys):
    run, folder = photos[1], save_photos(tmp_path / "fresh", 1)
    fit = ["fit", folder, "--out", tmp_path / "other", *TINY_OPTIONS]
    assert main([*map(str, fit)]) == 2
    assert "make all grey or colour with --channels 1 or 3" in capsys.readouterr().err
    for command in (
        ["score", run, folder],
        ["drift", run, folder],
        ["evaluate", run, "--normal", folder, "--anomalous", folder / "grey"],
        ["probe", run, folder, "--limit", "2"],
        ["report", run, "--normal", folder, "--anomalous", folder, "--out", tmp_path / "r.html"],
        ["calibrate", shutil.copytree(run, tmp_path / "copy"), folder],
    ):
        error = out_of(*command).err
        assert LEFT_OUT.format(folder) in error, command
        assert "skipped" not in error, command
    assert len(out_of("score", run, folder / "grey").out.splitlines()) == 61
    assert main(["score", str(run), str(folder / "grey"), "--channels", "1"]) == 2
    assert "the images have 1 channel, the detector was fitted on 3" in capsys.readouterr().err
    estimator = HistoryAD.load(run)
    assert len(estimator.anomaly_score(folder)) == 120


def test_what_is_left_out_is_said_of_a_fit_and_of_parts(photos, tmp_path, out_of):
    folder, run = photos
    arguments = ["fit", folder, "--channels", "3", *TINY_OPTIONS, "--out"]
    assert LEFT_OUT.format(folder) in out_of(*arguments, run).err  # finished, and given again
    parts = ["--out", tmp_path, "--format", "csv", "--shard", "1/2"]
    error = out_of("score", run, folder, *parts).err
    assert LEFT_OUT.format(folder) in error
    assert "60 scored" in error


def test_a_folder_that_cannot_be_entered_is_an_error_of_a_strict_score(photos, tmp_path, capsys):
    run = photos[1]
    folder = shutil.copytree(photos[0] / "colour", tmp_path / "inbox")
    closed = too_deep(folder / "deep")
    assert main(["score", str(run), str(folder)]) == 0
    captured = capsys.readouterr()
    assert f"historyad: skipped {closed}: the folder cannot be entered" in captured.err
    assert "60 scored" in captured.err
    assert main(["score", str(run), str(folder), "--strict"]) == 2
    parts = ["--out", str(tmp_path / "parts"), "--format", "csv", "--strict", "--shard"]
    assert main(["score", str(run), str(folder), *parts, "0/2"]) == 2
    assert main(["score", str(run), str(folder), *parts, "1/2"]) == 0
    capsys.readouterr()
    assert main(["fit", str(folder), "--out", str(tmp_path / "run"), *TINY_OPTIONS]) == 2
    assert "cannot be entered" in capsys.readouterr().err


def test_a_whole_data_set_is_not_fitted_on(photos, tmp_path, capsys):
    folder, run = photos
    root = tmp_path / "bottle"
    for name in ("train/good", "test/good", "test/crack", "ground_truth/crack"):
        shutil.copytree(folder / "grey", root / name)
    for command in (["fit", root, "--out", tmp_path / "run"], ["calibrate", run, root / "test"]):
        assert main([*map(str, command)]) == 2
        assert f"what to learn from is in {root}/train/good" in capsys.readouterr().err


def test_a_named_set_is_preferred_and_says_so(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = (
        ["score", str(photos[1]), "digits"],
        ["drift", str(photos[1]), "digits"],
        ["score", str(photos[1]), "digits", "--shard", "0/2", "--out", "parts"],
        ["probe", str(photos[1]), "digits"],
    )
    for n_notes in (0, 1):
        for command in commands:
            main(command)  # which takes no digits, that are grey
            assert capsys.readouterr().err.count("write ./digits") == n_notes, command
        (tmp_path / "digits").mkdir(exist_ok=True)
