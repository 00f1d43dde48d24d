import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fitted import save_images
from PIL import Image
from tiny import TINY, TINY_OPTIONS, save_table

from historyad import HistoryAD, __version__
from historyad.cli import _continues, _in_flags, app, judging, main
from historyad.config import PRESETS, settings
from historyad.files import load_json
from historyad.model.files import VERSION
from historyad.model.run import RunDirectory

COMMANDS = [name for name in app if not name.startswith("-")]
COLUMNS = ["path", "anomaly_score", "p_value", "is_anomalous"]


@pytest.fixture(scope="module")
def images(whole):
    return whole.train


@pytest.fixture(scope="module")
def folder(whole):
    """A folder of 300 PNG images in subfolders."""
    return Path(whole.source)


@pytest.fixture(scope="module")
def run(whole):
    """The directory of a finished fit on `folder`."""
    return whole.run


@pytest.fixture
def few(images, tmp_path):
    """A folder of five images, to be spoilt."""
    return save_images(tmp_path / "few", images[:5])


@pytest.fixture
def refused(capsys):
    """Run a command that must end with status 2, and return its one line of explanation."""

    def run_refused(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out in ("", ",".join(COLUMNS) + "\n")
        *_, message = (one for one in captured.err.splitlines() if one.startswith("historyad: "))
        assert "Traceback" not in captured.err
        return message.removeprefix("historyad: ")

    return run_refused


def called(*arguments, **options):
    command = [sys.executable, "-m", "historyad", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


# --- the whole path


def test_fit_says_what_it_did_and_what_comes_next(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["fit", str(folder), "--out", str(out), *TINY_OPTIONS]) == 0
    captured = capsys.readouterr()
    assert re.match(
        rf"{out}: 300 normal samples, threshold [+-]\d\.\d{{3}} at a false-positive rate of 0.05, "
        rf"\d+ s\nnext: historyad score {out} SOURCE\n",
        captured.out,
    )
    assert "reading samples: 0%\nlearning what is normal: 5%\n" in captured.err
    assert "training: telling them apart: " in captured.err
    assert load_json(out / "config.json")["config"]["hidden"] == TINY["hidden"]


def test_fitting_again_returns_at_once(run, folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.*")}
    assert main(["fit", str(folder), "--out", str(run), *TINY_OPTIONS]) == 0
    captured = capsys.readouterr()
    assert "300 normal samples" in captured.out
    assert captured.err == "reading samples: 0%\n"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.*")} == before


def test_scores_of_a_folder_are_those_of_python(run, folder, images, tmp_path, capsys):
    assert main(["score", str(run), str(folder), "--out", str(tmp_path / "s.jsonl")]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    detector = HistoryAD.load(run)
    assert [row["anomaly_score"] for row in rows] == detector.anomaly_score(images).tolist()
    assert [row["p_value"] for row in rows] == detector.p_value(images).tolist()
    assert [row["is_anomalous"] for row in rows] == (detector.predict(images) == -1).tolist()
    assert [row["path"] for row in rows] == [f"{i // 50}/{i:04d}.png" for i in range(300)]
    n_anomalous = sum(row["is_anomalous"] for row in rows)
    assert captured.err == f"300 scored, {n_anomalous} anomalous\n"


def test_csv_has_the_same_rows_rounded(run, folder, tmp_path, capsys):
    for name in ("s.csv", "s.jsonl"):
        assert main(["score", str(run), str(folder), "--out", str(tmp_path / name)]) == 0
    capsys.readouterr()
    assert main(["score", str(run), str(folder)]) == 0
    assert (tmp_path / "s.csv").read_bytes().decode() == capsys.readouterr().out
    exact = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(exact[0]) == COLUMNS
    for row, other in zip(rows, exact, strict=True):
        assert row["path"] == other["path"]
        assert float(row["anomaly_score"]) == pytest.approx(other["anomaly_score"], abs=5e-7)
        assert float(row["p_value"]) == pytest.approx(other["p_value"], abs=5e-7)
        assert row["is_anomalous"] == str(int(other["is_anomalous"]))


@pytest.mark.parametrize("kind", ["x.npy", "x.npz", "0000.png"])
def test_files_are_sources_too(run, images, tmp_path, capsys, kind):
    path = tmp_path / kind
    if kind == "x.npy":
        np.save(path, images[:3])
    elif kind == "x.npz":
        np.savez(path, x=images[:3])
    else:
        Image.fromarray(images[0].squeeze()).save(path)
    assert main(["score", str(run), str(path)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["path"] for row in rows] == (
        ["0000.png"] if kind == "0000.png" else ["0", "1", "2"]
    )
    expected = HistoryAD.load(run).anomaly_score(images[: len(rows)])
    assert [float(row["anomaly_score"]) for row in rows] == pytest.approx(expected, abs=5e-7)


def test_a_table_of_numbers_all_the_way(tmp_path, capsys):
    table = np.random.default_rng(0).normal(size=(120, 3))
    np.savetxt(tmp_path / "x.csv", table, delimiter=",", header="a,b,c", comments="")
    assert (
        main(["fit", str(tmp_path / "x.csv"), "--out", str(tmp_path / "run"), *TINY_OPTIONS]) == 0
    )
    assert main(["score", str(tmp_path / "run"), str(tmp_path / "x.csv")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 1 + 120


def test_evaluate_prints_and_writes_its_figures(run, tmp_path, capsys):
    arguments = ["--normal", "digits:test:!0", "--anomalous", "digits:test:0"]
    out = tmp_path / "figures.json"
    assert main(["evaluate", str(run), *arguments, "--json", str(out)]) == 0
    figures = load_json(out)
    assert figures.keys() >= {
        "auroc", "auroc_low", "auroc_high", "auprc", "auprc_low", "auprc_high", "prevalence",
        "fpr_at_95_tpr", "n_normal", "n_anomalous", "seconds", "images_per_second", "command",
    }  # fmt: skip
    assert figures["n_normal"] + figures["n_anomalous"] == 599
    assert figures["prevalence"] == figures["n_anomalous"] / 599
    for name in ("auroc", "auprc"):
        assert 0 <= figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"] <= 1
    table = capsys.readouterr().out
    assert f"{figures['auroc']:.4f}" in table
    assert f"prevalence {figures['prevalence']:.3f}" in table


def test_evaluate_says_when_the_normals_are_those_fitted_on(whole, capsys):
    for normal, n_notes in ((whole.source, 1), (whole.source_of("normal"), 0)):
        anomalous = whole.source_of("anomalous")
        command = ["evaluate", str(whole.run), "--normal", normal, "--anomalous", anomalous]
        assert main(command) == 0
        assert capsys.readouterr().err.count(f"samples of {normal}: these") == n_notes


def test_evaluate_and_probe_leave_out_what_cannot_be_read(refused, run, unreadable, capsys):
    commands = [
        ["evaluate", run, "--normal", unreadable, "--anomalous", unreadable],
        ["probe", run, unreadable, "--limit", "2"],
    ]
    for command in commands:
        assert "leave them out with --skip-unreadable" in refused(*command)
        assert main([*map(str, command), "--skip-unreadable"]) == 0
        assert "historyad: skipped 0/0002a.png: " in capsys.readouterr().err
    for path in unreadable.rglob("*.png"):
        path.write_bytes(b"damaged")
    for command in commands:
        assert "6 of 6 images" in refused(*command, "--skip-unreadable")


def test_a_probe_that_cannot_be_drawn_is_kept(run, few, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "out"
    assert main(["probe", str(run), str(few), "--limit", "2", "--out", str(out)]) == 2
    assert "drawing needs matplotlib" in capsys.readouterr().err
    assert load_json(out / "probe.json")["n_samples"] == 2


def test_inspect_shows_data_config_and_checks(run, folder, capsys):
    assert main(["inspect", str(run)]) == 0
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["input"] == "8 x 8 x 1"
    assert rows["source.description"] == str(folder)
    assert rows["config.hidden"] == "16"
    assert rows["history"] == "9 snapshots"
    assert rows["checks"] == "format, version and checksums are right"
    assert "versions.torch" in rows


def test_the_two_files_of_a_model_are_enough(run, folder, tmp_path, capsys):
    for name in ("detector.json", "detector.safetensors"):
        shutil.copy(run / name, tmp_path)
    for command in (["inspect", str(tmp_path)], ["score", str(tmp_path), str(folder)]):
        assert main(command) == 0
    assert "0 snapshots" in capsys.readouterr().out


def test_demo_runs_the_whole_path(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(PRESETS, "default", TINY)
    assert main(["demo", "--anomaly", "3", "--out", str(tmp_path / "run")]) == 0
    output = capsys.readouterr().out
    for words in ("digit 3 is the anomaly", "AUROC", "AUPRC", "prevalence", "historyad fit FOLDER"):
        assert words in output
    assert RunDirectory(tmp_path / "run").is_finished


def test_images_of_several_sizes_on_a_chosen_grid(images, tmp_path, capsys):
    folder = save_images(tmp_path / "mixed", images[:100])
    Image.new("L", (30, 20)).save(folder / "large.png")
    out = tmp_path / "run"
    arguments = ["--out", str(out), *TINY_OPTIONS, "--image-size", "8"]
    assert main(["fit", str(folder), *arguments]) == 0
    assert main(["score", str(out), str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 1 + 101


def test_who_fits_large_images_whole_is_told_of_crops(tmp_path, capsys):
    small = np.random.default_rng(0).integers(0, 256, (100, 40, 80, 1), np.uint8)
    for name, images, words in (
        ("large", small.repeat(2, 1).repeat(2, 2), "160 x 80 pixels are reduced to 8 x 8"),
        ("small", small, ""),
    ):
        np.save(tmp_path / f"{name}.npy", images)
        source, out = str(tmp_path / f"{name}.npy"), str(tmp_path / name)
        assert main(["fit", source, "--out", out, *TINY_OPTIONS, "--image-size", "8"]) == 0
        notes = [line for line in capsys.readouterr().err.splitlines() if "reduced to" in line]
        assert len(notes) == bool(words)
        assert words in "".join(notes)


@pytest.mark.parametrize(("top", "said"), [(4095, "16 of 255"), (255, "1 of 255"), (8191, "")])
def test_who_fits_nearly_black_images_is_told(tmp_path, capsys, top, said):
    pixels = np.random.default_rng(0).integers(0, top + 1, (100, 8, 8), np.uint16)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    assert main(["fit", str(tmp_path), "--out", str(tmp_path / "run"), *TINY_OPTIONS]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "values reach" in line]
    assert len(notes) == bool(said)
    assert f"values reach only {said}" in "".join(notes) or not said


# --- settings


def test_every_setting_is_an_option(folder, tmp_path):
    given = {"width": 5, "decay": 2.5, "augment": "flip", "detector_start": "random", "seed": 3}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    out = tmp_path / "run"
    arguments = ["fit", str(folder), "--out", str(out), "--preset", "quick"]
    options += [option for option in TINY_OPTIONS if not option.startswith("--width")]
    assert main([*arguments, *options]) == 0
    config = load_json(out / "config.json")["config"]
    assert config == {**config, **PRESETS["quick"], **TINY, **given}


def test_messages_spell_settings_as_options():
    message = "detector_learning_rate is 5 in my_width/n_epochs.png: raise false_positive_rate."
    assert _in_flags(message) == (
        "--detector-learning-rate is 5 in my_width/n_epochs.png: raise --false-positive-rate."
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "papr"], 'Invalid value "papr" for --preset. Choose from: "instant"'),
        (["--widht", "3"], "Unknown option: --widht. Did you mean --width?"),
        (["--width", "two"], 'unable to convert "two" into int'),
        (["--width", "1"], "width is 1: it must be at least 4 and at most 256"),
        (["--learning-rate", "7"], "--learning-rate is 7.0: it must be at least 1e-06"),
        (["--decay", "nan"], "decay is nan: it must be"),
        (["--image-size", "9"], "--image-size is 9: take 0, 8, 16, 32, 64 or 128"),
        (
            ["--detector-start", "day"],
            '"day" for --detector-start. Choose from: "average", "standardised"',
        ),
        (["--augment", "mirror"], "unknown augmentation 'mirror': choose flip"),
        (["--device", "abacus"], "device 'abacus' cannot be used here: take auto or cpu"),
        (
            ["--n-epochs", "0.75"],
            "--skip-epochs (0.75) leaves nothing of a history that ends at 0.75",
        ),
    ],
)
def test_settings_that_are_refused(refused, folder, tmp_path, arguments, words):
    out = tmp_path / "run"
    assert words in refused("fit", folder, "--out", out, "--false-positive-rate=0.1", *arguments)
    assert not out.exists()


def test_unknown_and_missing_words(refused, run):
    assert 'Unknown command "scor"' in refused("scor", run, "x")
    assert "--out" in refused("fit", "digits:train")
    assert '"score" parameter --source requires an argument' in refused("score", run)


@pytest.mark.parametrize(
    ("typed", "instead"),
    [
        ("fitt good --out run", "Type: historyad fit good --out run"),
        ("fit good --ut run", "Type: historyad fit good --out run"),
        (
            "fit 'my good' --out r --preset quik",
            "Type: historyad fit 'my good' --out r --preset quick",
        ),
        ("fit good --out r --views al", "Type: historyad fit good --out r --views all"),
        ("fit", "For example: historyad fit good --out runs/parts"),
        ("list nothing", "For example: historyad list presets"),
        ("--nothing", "For example: historyad --help"),
    ],
)
def test_a_command_that_is_refused_ends_with_what_to_type(capsys, typed, instead):
    assert main(shlex.split(typed)) == 2
    assert capsys.readouterr().err.splitlines()[-1] == instead


@pytest.mark.parametrize("choice", ["instant", "quick", "average", "companions", "local"])
def test_help_and_completion_know_choices(capsys, choice):
    assert main(["fit", "--help"]) == 0
    assert choice in capsys.readouterr().out.partition("choices")[2]
    assert choice in app.generate_completion(shell="bash")


# --- input that cannot be used


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no/such/folder", "no/such/folder does not exist"),
        ("minst:train", "did you mean the set 'mnist'"),
        ("digits:tests", "digits has no split 'tests'; its splits are test, train"),
        ("digits:train:11", "'11' leaves nothing or names an absent label"),
    ],
)
def test_sources_that_are_not_there(refused, run, tmp_path, source, words):
    out = tmp_path / "run"
    for command in (["fit", source, "--out", out], ["score", run, source]):
        assert words in refused(*command)
    assert words in refused("evaluate", run, "--normal", source, "--anomalous", "digits:test:0")
    assert not out.exists()


def test_an_empty_folder(refused, run, tmp_path):
    (tmp_path / "empty").mkdir()
    for command in (
        ["fit", tmp_path / "empty", "--out", tmp_path / "run"],
        ["score", run, tmp_path],
    ):
        assert "no images in" in refused(*command)


def test_too_few_images(refused, few, tmp_path):
    fit = ("fit", few, "--out", tmp_path / "run", "--false-positive-rate", 0.01)
    message = refused(*fit)
    assert "5 samples are too few for a false-positive rate of 0.01: give at least 99" in message
    message = refused(*fit, "--views", "all")
    assert message.startswith(
        "5 samples are too few: a false-positive rate of 0.01 needs 99 held-out"
    )
    assert message.endswith("or raise --calibration-share or --false-positive-rate")


def test_few_images_are_enough_and_what_they_promise_is_said(whole, tmp_path, capsys):
    for n, said in (
        (3, "3 samples can promise no lower rate than 0.25; 99 samples in all"),
        (20, "0.048"),
    ):
        np.save(tmp_path / f"{n}.npy", whole.train[:n])
        command = ["fit", str(tmp_path / f"{n}.npy"), "--out", str(tmp_path / f"{n}")]
        assert main([*command, "--preset", "instant"]) == 0
        assert said in capsys.readouterr().err
        assert main(["score", str(tmp_path / f"{n}"), str(tmp_path / f"{n}.npy")]) == 0


@pytest.fixture(params=["truncated", "text", "empty", "bomb"])
def unreadable(request, few):
    """The folder `few` with one more image that cannot be read."""
    path = few / "0" / "0002a.png"
    good = (few / "0" / "0002.png").read_bytes()
    if request.param == "bomb":
        Image.new("1", (8_000, 8_000)).save(path)
    else:
        path.write_bytes({"truncated": good[:-30], "text": b"hello", "empty": b""}[request.param])
    return few


def test_unreadable_images_are_skipped_and_counted_when_scoring(run, unreadable, capsys):
    assert main(["score", str(run), str(unreadable)]) == 0
    captured = capsys.readouterr()
    paths = [row["path"] for row in csv.DictReader(captured.out.splitlines())]
    assert paths == [f"0/{i:04d}.png" for i in range(5)]
    assert "historyad: skipped 0/0002a.png: " in captured.err
    assert captured.err.splitlines()[-1].endswith(" anomalous, 1 could not be read")
    assert main(["score", str(run), str(unreadable), "--strict"]) == 2
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_unreadable_images_are_refused_when_fitting(refused, unreadable, tmp_path, capsys):
    save_images(unreadable, np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8))
    arguments = ["fit", unreadable, "--out", tmp_path / "run", *TINY_OPTIONS]
    message = refused(*arguments)
    assert "1 of 101 images in" in message
    assert "0002a.png" in message
    assert "--skip-unreadable" in message
    assert not (tmp_path / "run").exists()
    assert main([*map(str, arguments), "--skip-unreadable"]) == 0
    assert "100 normal samples (1 could not be read)" in capsys.readouterr().out


def test_who_leaves_out_unreadable_images_names_them(run, few, tmp_path, capsys):
    save_images(few, np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8))
    (few / "x.png").write_bytes(b"hello")
    copy, out = shutil.copytree(run, tmp_path / "copy"), str(tmp_path / "report.html")
    for command in (
        ["calibrate", str(copy), str(few), "--skip-unreadable"],
        ["report", str(run), "--normal", str(few), "--anomalous", "digits:test:0", "--out", out],
    ):
        assert main(command) == 0
        assert capsys.readouterr().err.startswith("historyad: skipped x.png: ")


def test_a_folder_without_any_readable_image(refused, run, tmp_path):
    (tmp_path / "x.png").write_bytes(b"hello")
    for extra in ([], ["--skip-unreadable"]):
        message = refused("fit", tmp_path, "--out", tmp_path / "run", *extra)
        assert "1 of 1 images" in message


@pytest.mark.parametrize(
    ("mode", "size", "words"),
    [
        ("L", (9, 8), "is 8 x 8 pixels with 1 channel but other.png is 9 x 8 pixels with 1"),
        ("RGB", (8, 8), "is 8 x 8 pixels with 1 channel but other.png is 8 x 8 pixels with 3"),
    ],
)
def test_images_of_mixed_sizes_or_channels(refused, run, few, tmp_path, capsys, mode, size, words):
    Image.new(mode, size).save(few / "other.png")
    assert words in refused("fit", few, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Scoring sets them aside.
    assert main(["score", str(run), str(few)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1 + 5
    assert "historyad: skipped other.png: the i" in captured.err
    assert captured.err.endswith(" anomalous, 1 could not be read\n")
    assert main(["score", str(run), str(few), "--strict"]) == 2
    assert main(["drift", str(run), str(few)]) == 0
    assert "skipped other.png" in capsys.readouterr().err


def test_names_that_are_not_utf8(run, few, tmp_path):
    (few / "0" / "0001.png").rename(few / os.fsdecode(b"caf\xe9.png"))
    assert main(["score", str(run), str(few), "--out", str(tmp_path / "s.csv")]) == 0
    assert "\ncaf\\udce9.png," in (tmp_path / "s.csv").read_text()
    scored = called("score", run, few, env=os.environ | {"PYTHONUTF8": "1"})
    assert scored.stdout == (tmp_path / "s.csv").read_text()
    assert main(["drift", str(run), str(few)]) == 0


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 8, 3), "the images have 3 channels, the detector was fitted on 1 channel: convert"),
        ((9, 8), "the input has shape 9 x 8 x 1, the detector was fitted on 8 x 8 x 1: give it"),
    ],
)
def test_images_that_the_model_does_not_know(refused, run, tmp_path, shape, words):
    Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "x.png")
    assert words in refused("score", run, tmp_path)
    arguments = ["--normal", tmp_path, "--anomalous", "digits:test:0"]
    assert words in refused("evaluate", run, *arguments)


def test_numbers_that_are_none(refused, tmp_path):
    """In an array; in a table they are holes."""
    table = np.zeros((10, 2))
    table[3, 1] = np.nan
    np.save(tmp_path / "x.npy", table)
    message = refused("fit", tmp_path / "x.npy", "--out", tmp_path / "run")
    assert "row 3, column 1" in message
    assert "nan" in message.lower()


# --- runs that cannot be used


def test_an_output_of_another_config_is_left_alone(refused, run, folder):
    before = (run / "config.json").read_bytes()
    options = [*TINY_OPTIONS, "--decay", "2"]
    message = refused("fit", folder, "--out", run, *options)
    assert f"{run} already holds a run with decay = 3.0, not 2.0: choose another --out" in message
    assert (run / "config.json").read_bytes() == before


def test_an_output_of_something_else_is_left_alone(refused, folder, few):
    message = refused("fit", folder, "--out", few, *TINY_OPTIONS)
    assert f"{few} holds other files and no run: choose another --out" in message
    assert [path.name for path in few.iterdir()] == ["0"]


@pytest.mark.parametrize("command", ["score", "evaluate", "inspect"])
def test_models_that_are_missing_altered_or_unknown(refused, run, tmp_path, command):
    sources = {
        "score": ["digits:test"],
        "evaluate": ["--normal", "digits:test:!0", "--anomalous", "digits:test:0"],
        "inspect": [],
    }[command]
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert "detector.json is missing: " in refused(command, tmp_path, *sources)

    text = (copy / "detector.json").read_text()
    (copy / "detector.json").write_text(text.replace(f'"version": {VERSION}', '"version": 99'))
    assert f"has version 99, this program reads {VERSION}" in refused(command, copy, *sources)

    (copy / "detector.json").write_text(text.replace('"hidden": 16', '"hidden": 17'))
    assert "detector.json was altered" in refused(command, copy, *sources)

    (copy / "detector.json").write_text(text)
    with (copy / "detector.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    assert "detector.safetensors was altered" in refused(command, copy, *sources)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"versions": 1, "command": ""}'])
def test_inspect_refuses_an_altered_config_file(refused, run, tmp_path, content):
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text(content)
    assert "config.json" in refused("inspect", tmp_path / "copy")


def test_a_device_that_is_not_there(refused, run):
    assert "device 'cuda:77' cannot be used here" in refused(
        "score", run, "digits:test", "--device", "cuda:77"
    )


# --- names that are commands


@pytest.fixture
def odd_names(few):
    """Names that a terminal, a log or a spreadsheet would act on; the last of no image."""
    image = (few / "0" / "0000.png").read_bytes()
    for name in ("=HYPERLINK(1).png", "a\x1b[2J.png", "ü.png"):
        (few / name).write_bytes(image)
    (few / "b\nhistoryad: all is well.png").write_bytes(b"no image")
    return few


def test_names_reach_neither_terminal_nor_table_as_commands(run, odd_names, tmp_path, capsys):
    assert main(["score", str(run), str(odd_names)]) == 0
    captured = capsys.readouterr()
    paths = [row["path"] for row in csv.DictReader(captured.out.splitlines())]
    assert {"'=HYPERLINK(1).png", r"a\x1b[2J.png", "ü.png"} <= set(paths)
    lines = captured.err.splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith(r"historyad: skipped b\nhistoryad: all is well.png: ")
    assert main(["score", str(run), str(odd_names), "--out", str(tmp_path / "s.jsonl")]) == 0
    rows = map(json.loads, (tmp_path / "s.jsonl").read_text().splitlines())
    assert {"=HYPERLINK(1).png", "a\x1b[2J.png", "ü.png"} <= {row["path"] for row in rows}
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "a\nb")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_that_knows_no_umlauts_shows_escapes(run, odd_names):
    found = called("score", run, odd_names, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert found.returncode == 0, found.stderr
    assert r"\xfc.png," in found.stdout


def test_a_run_whose_files_never_end_is_refused(refused, run, few, tmp_path):
    for name in ("detector.json", "detector.safetensors"):
        copied = tmp_path / f"of {name}"
        shutil.copytree(run, copied)
        (copied / name).unlink()
        os.mkfifo(copied / name)
        for command in (("score", copied, few), ("inspect", copied)):
            assert f"{name} cannot be read: it is no regular file" in refused(*command)
    (copied / "lock").unlink(missing_ok=True)
    os.mkfifo(copied / "lock")
    assert f"cannot write {copied}: No such device" in refused("calibrate", copied, few)


# --- output that cannot be written


def test_scores_of_an_unknown_type_or_place(refused, run, few, tmp_path):
    for name in ("s.txt", "s"):
        assert "name a .csv or .jsonl file" in refused("score", run, few, "--out", tmp_path / name)
    message = refused("score", run, few, "--out", tmp_path / "none" / "s.csv")
    assert "s.csv: No such file or directory" in message


def test_older_scores_stay_until_the_new_ones_are_complete(refused, run, few, tmp_path):
    out = tmp_path / "s.csv"
    out.write_text("old")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"damaged")
    message = refused("score", run, tmp_path / "bad", "--out", out)
    assert message.startswith("none of 1 images can be scored. x.png: ")
    assert out.read_text() == "old"
    assert main(["score", str(run), str(few), "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 6
    assert not list(tmp_path.glob("s.csv.*"))


def test_a_benchmark_of_what_does_not_exist(refused, tmp_path):
    ask = ["benchmark", "--split", "digits-without-0", "--out", str(tmp_path)]
    assert "unknown method 'magic'" in refused(*ask, "--method", "magic")
    assert "no list of seeds" in refused(*ask, "--method", "neighbours", "--seeds", "x")
    (tmp_path / "rows.jsonl").write_text("{}\n{]\n{}\n")
    assert "rows.jsonl, line 2 is damaged" in refused(*ask, "--method", "neighbours")


def test_figures_that_cannot_be_written(refused, run, few, capsys):
    arguments = ["--normal", few, "--anomalous", few, "--json", few / "0" / "0000.png" / "x.json"]
    assert main(["evaluate", str(run), *map(str, arguments)]) == 2
    assert "cannot write" in capsys.readouterr().err


# --- our own mistakes, help, and the process


def test_a_benchmark_with_a_fit_that_fails_has_status_1_and_the_other_rows(capsys, tmp_path):
    bad = "digits:train|digits:test|./nowhere"
    ask = ["benchmark", "--method", "pca-residual", "--out", str(tmp_path), "--jobs", "2"]
    assert main([*ask, "--split", "digits-without-0", bad]) == 1
    out, error = capsys.readouterr()
    assert re.search(r"digits-without-0 +pca-residual +seed 0  AUROC 0\.\d{4}", out)
    assert "1 of 2 fits failed" in error
    assert "nowhere does not exist" in error
    assert main([*ask, "--split", "digits-without-0"]) == 0  # from the row that is there


def test_an_interrupted_command_is_said_to_continue_only_where_it_does(run, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(judging, "load_model", interrupt)
    assert main(["inspect", str(run)]) == 130
    assert capsys.readouterr().err == "historyad: interrupted\n"
    commands = {"fit X --out R", "benchmark", "reproduce all", "score R X --shard 1/2"}
    commands |= {"score R X --engine=ray", "score R fit", "evaluate R", "demo", ""}
    assert {command for command in commands if _continues(command.split())} == {
        *("fit X --out R", "benchmark", "reproduce all"),
        *("score R X --shard 1/2", "score R X --engine=ray"),
    }


def test_our_own_mistakes_have_status_1_and_a_traceback(monkeypatch, capsys):
    @app.command(name="fail")
    def fail():
        raise ZeroDivisionError

    assert main(["fail"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert f"historyad {__version__}: this is our mistake, please report it" in error
    del app["fail"]


def test_version(capsys):
    for flag in ("--version", "-V"):
        assert main([flag]) == 0
        assert capsys.readouterr().out == f"{__version__}\n"


def test_a_quiet_command_shows_its_result_alone(run, folder, few, tmp_path, capsys):
    (few / "spoilt.png").write_bytes(b"no picture")
    assert main(["--quiet", "score", str(run), str(few)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 6
    assert captured.err.count("\n") == 1
    assert "skipped spoilt.png" in captured.err
    out = tmp_path / "run"
    assert main(["fit", str(folder), "--out", str(out), "--quiet", *TINY_OPTIONS]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{out}: 300 normal samples")
    assert "next:" not in captured.out
    assert captured.err == ""
    assert main(["score", str(run), str(few)]) == 0
    assert "5 scored" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_ends_with_an_example_that_can_be_typed(command, capsys):
    assert main([command, "--help"]) == 0
    *_, line = capsys.readouterr().out.strip().splitlines()
    example = line.removeprefix("Example: historyad ")
    assert example.split()[0] == command
    app.parse_args(example.split(), exit_on_error=False, print_error=False)


def test_what_has_a_name_is_listed(tmp_path, capsys):
    save_table(tmp_path)
    names = {"methods": "memae", "splits": "vectors-blob", "sets": "kmnist", "presets": "instant"}
    for what, name in names.items():
        assert main(["list", what, "--data-root", str(tmp_path)]) == 0
        assert name in [line.split()[0] for line in capsys.readouterr().out.splitlines()]


def test_a_shell_is_taught_to_complete(tmp_path, capsys):
    script = tmp_path / "completion"
    assert main(["--install-completion", "--shell", "bash", "--output", str(script)]) == 0
    assert "--false-positive-rate" in script.read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_mentions_each_option(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    arguments = app[command].assemble_argument_collection()
    names = {name for argument in arguments for name in argument.names}
    assert len(names) >= 1
    for name in names:
        assert name in text
    if command == "fit":
        for name in settings():
            assert f"--{name.replace('_', '-')}" in text


def test_help_names_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"\b{command}\b", text) for command in COMMANDS)
    assert "SOURCE is a folder of images" in text


def loaded(names, *calls):
    """Return which of the modules are loaded after these calls of the command line."""
    code = (
        "import sys; from historyad.cli import main\n"
        f"for call in {calls!r}: main(list(call))\n"
        f"print({names!r} & set(sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return finished.stdout.splitlines()[-1]


def test_help_does_not_wait_for_what_it_does_not_need():
    names = {"torch", "numpy", "sklearn", "PIL", "historyad.research"}
    helps = [(command, "--help") for command in ("fit", "benchmark", "reproduce")]
    assert loaded(names, ("--help",), *helps) == "set()"


def test_scoring_does_not_wait_for_what_it_does_not_need(run, folder):
    names = {"torch._dynamo", "sympy", "sklearn", "pandas", "scipy.ndimage", "matplotlib"}
    names |= {"historyad.research"}
    assert loaded(names, ("score", str(run), str(folder))) == "set()"


def test_a_process_of_its_own_has_the_same_exit_statuses(run, folder):
    scored = called("score", run, folder)
    assert scored.returncode == 0
    assert scored.stdout.splitlines()[0] == ",".join(COLUMNS)
    assert scored.stderr.startswith("300 scored, ")
    refused = called("score", run, "no/such/folder")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("historyad: no/such/folder does not exist")


def test_a_reader_that_goes_away_is_no_mistake(run, folder):
    command = f"{sys.executable} -m historyad score {run} digits:train | head -n 1"
    finished = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert finished.stdout == ",".join(COLUMNS) + "\n"
    assert "Error" not in finished.stderr
    assert "mistake" not in finished.stderr


def test_an_interrupted_fit_says_how_to_go_on_and_does(folder, run, tmp_path):
    out = tmp_path / "run"
    arguments = ["fit", str(folder), "--out", str(out), *TINY_OPTIONS]
    command = [sys.executable, "-m", "historyad", *arguments]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A shell makes its background jobs ignore the signal, and they pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        while not (out / "config.json").exists():  # training begins, and is over in a moment
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130
    assert error.endswith("historyad: interrupted; the same command continues\n")
    assert main(arguments) == 0
    for name in ("detector.safetensors", "detector.json"):
        assert (out / name).read_bytes() == (run / name).read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_views_say_why(run, folder, images, tmp_path, suffix):
    out = tmp_path / f"s{suffix}"
    assert main(["score", str(run), str(folder), "--view-scores", "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    rows = [*csv.DictReader(lines)] if suffix == ".csv" else [json.loads(line) for line in lines]
    views = ["history", "blocks", "edges", "gaussian", "simplicity", "smoothness"]
    assert list(rows[0]) == [*COLUMNS, *views]
    for name, values in HistoryAD.load(run).view_scores(images).items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, atol=1e-5)


def test_maps_and_masks_of_images_larger_than_the_network(tmp_path, capsys):
    random = np.random.default_rng(0)
    for name, n in (("good", 110), ("fresh", 6), ("bad", 6), ("masks", 6)):
        (tmp_path / name).mkdir()
        for i in range(n):
            image = random.integers(90, 160, (24, 30)).astype(np.uint8)
            mask = np.zeros_like(image)
            mask[8:14, 10:18] = 255
            if name == "bad":
                image[mask > 0] = np.tile([0, 0, 255, 255], 12)
            suffix = "_mask.png" if name == "masks" else ".png"
            picture = mask if name == "masks" else image
            Image.fromarray(picture).save(tmp_path / name / f"{i:03}{suffix}")
    run, good, fresh, bad, masks, maps = (
        str(tmp_path / name) for name in ("run", "good", "fresh", "bad", "masks", "maps")
    )
    assert main(["fit", good, "--out", run, "--patch=8", *TINY_OPTIONS]) == 0
    Image.new("L", (40, 30)).save(tmp_path / "bad" / "006.bmp")
    Image.new("L", (40, 30)).save(tmp_path / "bad" / "006.jpg")
    assert main(["score", run, bad, "--maps", maps]) == 0
    for name, size in (("003.png", (64, 24)), ("006.bmp.png", (84, 30)), ("006.jpg.png", (84, 30))):
        with Image.open(tmp_path / "maps" / name) as shown:
            assert shown.size == size
    for name in ("006.bmp", "006.jpg"):
        (tmp_path / "bad" / name).unlink()
    capsys.readouterr()
    found = tmp_path / "figures.json"
    judged = ["evaluate", run, "--normal", fresh, "--anomalous", bad]
    assert main([*judged, "--masks", masks, "--json", str(found)]) == 0
    assert "AUPRO" in capsys.readouterr().out
    figures = json.loads(found.read_text())
    assert figures["pixel_auroc"] > 0.7
    assert figures["aupro"] > 0.3
    assert (figures["n_masks"], figures["n_empty_masks"]) == (6, 0)
    for file in (tmp_path / "masks").iterdir():
        Image.fromarray(np.zeros((24, 30), np.uint8)).save(file)
    assert main([*judged, "--masks", masks]) == 2
    captured = capsys.readouterr()
    assert "both" in captured.err
    assert "AUROC" in captured.out  # which has been measured, and is not lost
    (tmp_path / "masks" / "004_mask.png").unlink()
    assert main([*judged, "--masks", masks]) == 2
    assert "004.png has no mask" in capsys.readouterr().err
