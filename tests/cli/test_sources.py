"""What the commands say and do about where samples come from."""

import csv
import shutil

import numpy as np
import pandas
import pytest
from PIL import Image
from storing import too_deep
from tiny import TINY_OPTIONS

from historyad import HistoryAD, Model, open_source
from historyad.cli import main
from historyad.data import datasets, delimited, frames
from historyad.data.in_memory import from_table
from historyad.errors import InputError
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
    assert "column 'part' holds 120 different texts in 120 rows" in capsys.readouterr().err
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


def test_of_a_whole_data_set_only_the_good_part_is_fitted_on(whole, tmp_path, out_of, capsys):
    root, run = tmp_path / "bottle", tmp_path / "run"
    shutil.copytree(whole.source_of("train"), root / "train" / "good")
    shutil.copytree(whole.source_of("normal"), root / "test" / "good")
    shutil.copytree(whole.source_of("anomalous"), root / "test" / "bad")
    said = out_of("fit", tmp_path, "--category", "bottle", "--out", run, *TINY_OPTIONS)
    assert f"{root} is a data set: learning from {root}/train/good" in said.err
    record = load_json(run / "config.json")["source"]
    assert record["n"] == len(whole.train)
    assert record["description"] == str(root / "train" / "good")
    table = out_of("evaluate", run, tmp_path, "--category", "bottle").out
    assert table == out_of("evaluate", run, root).out
    assert "bad" in table
    for more, words in (
        ([tmp_path], "holds 1 data set (bottle): choose with --category"),
        ([tmp_path, "--category", "screw"], "no data set screw: it holds 1 data set (bottle)"),
        (["--category", "bottle"], "--category chooses in a folder of data sets: give that, too"),
    ):
        assert main(["evaluate", str(run), *map(str, more)]) == 2
        assert words in capsys.readouterr().err


def test_a_folder_of_data_sets_and_a_part_with_defects_are_not_fitted_on(photos, tmp_path, capsys):
    folder, run = photos
    root = tmp_path / "bottle"
    for name in ("train/good", "test/good", "test/crack", "ground_truth/crack"):
        shutil.copytree(folder / "grey", root / name)
    for command in (
        ["fit", root / "test", "--out", tmp_path / "run"],
        ["calibrate", run, root],
        ["calibrate", run, root / "test"],
    ):
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


COMMANDS = {
    "score": ["score", "RUN", "SOURCE"],
    "score in parts": ["score", "RUN", "SOURCE", "--shard", "0/1", "--format", "csv"],
    "evaluate": ["evaluate", "RUN", "--normal", "SOURCE", "--anomalous", "SOURCE"],
    "calibrate": ["calibrate", "RUN", "SOURCE"],
    "drift": ["drift", "RUN", "SOURCE"],
    "probe": ["probe", "RUN", "SOURCE", "--limit", "4"],
    "report": ["report", "RUN", "--normal", "SOURCE", "--anomalous", "SOURCE"],
}


def write_columns(path, names, rows):
    """Write the columns ``names`` of rows of a, b, c, which have other ranges."""
    places = ["abcd".index(name) for name in names]
    lines = [",".join(names), *(",".join(f"{row[place]:.6f}" for place in places) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_are_known_by_their_names_to_every_command(tmp_path, out_of, capsys):
    rows = np.random.default_rng(0).normal(size=(200, 4)) * [1, 10, 100, 1] + [0, 50, 900, 0]
    run = tmp_path / "run"
    out_of("fit", write_columns(tmp_path / "x.csv", "abc", rows), "--out", run, *TINY_OPTIONS)
    fresh = np.random.default_rng(1).normal(size=(100, 4)) * [1, 10, 100, 1] + [0, 50, 900, 0]
    named = {names: write_columns(tmp_path / f"{names}.csv", names, fresh) for names in
             ("abc", "cab", "ab", "abcd", "abd")}  # fmt: skip
    for name, command in COMMANDS.items():
        said = {}
        for names, path in named.items():
            copy = shutil.copytree(run, tmp_path / f"{name} {names}")
            words = [{"RUN": str(copy), "SOURCE": str(path)}.get(word, word) for word in command]
            if name in ("score in parts", "report"):
                words += ["--out", str(copy / "out.html")]
            capsys.readouterr()
            status = main(words)
            captured = capsys.readouterr()
            shown = captured.out.partition("speed")[0].replace(str(path), "SOURCE")
            shown = shown.replace(str(copy), "RUN")
            said[names] = (status, shown, captured.err)
        assert said["abc"][0] == 0, (name, said["abc"][2])
        assert said["cab"][:2] == said["abc"][:2], name
        for names, words in (
            ("ab", "lacks columns that the detector was fitted on: 'c'"),
            ("abcd", "has columns that the detector was not fitted on: 'd'"),
            ("abd", "lacks columns that the detector was fitted on: 'c'"),
        ):
            assert said[names][0] == 2, (name, names)
            assert words in said[names][2], (name, names, said[names][2])
    scores = [list(csv.reader(out_of("score", run, named[n]).out.splitlines())) for n in said
              if n in ("abc", "cab")]  # fmt: skip
    assert scores[0] == scores[1]
    assert len(scores[0]) == 101


def test_a_group_is_trained_on_or_held_out_by_name_and_by_column(tmp_path, out_of, capsys):
    values = np.random.default_rng(0).normal(size=(120, 2))
    lines = [f"part{i // 4}_{i},lot{i // 3},{a},{b}" for i, (a, b) in enumerate(values)]
    table = tmp_path / "x.csv"
    table.write_text("\n".join(["name,lot,a,b", *lines]) + "\n")
    columns = ["--id", "name", "--group-column", "lot"]
    run = tmp_path / "run"
    out_of("fit", table, "--out", run, *columns, "--group", r"^(part\d+)_", *TINY_OPTIONS)
    source = open_source(table, id_column="name", group_column="lot")
    trained = Model.load(run).was_trained_on(source)
    for size in (3, 4):
        groups = np.arange(120) // size
        shares = np.bincount(groups, trained) / np.bincount(groups)
        assert set(shares) == {0, 1}
    other = tmp_path / "other"
    command = ["fit", str(table), "--out", str(other), *columns, *TINY_OPTIONS]
    assert main([*command, "--group", "^(lot"]) == 2
    assert "'^(lot' is no regular expression" in capsys.readouterr().err
    assert main([*command, "--group", "^x"]) == 2
    assert "'^x' matches no name of" in capsys.readouterr().err
    assert main([*command[: -len(TINY_OPTIONS) - 1], "nothing", *TINY_OPTIONS]) == 2
    assert "nothing" in capsys.readouterr().err


def test_groups_that_say_little_are_mentioned(tmp_path, out_of):
    values = np.random.default_rng(0).normal(size=(120, 2))
    lines = [f"day{i % 5}_{i},{a},{b}" for i, (a, b) in enumerate(values)]
    table = tmp_path / "x.csv"
    table.write_text("\n".join(["name,a,b", *lines]) + "\n")
    command = ["fit", table, "--id", "name", "--preset", "instant", "--out"]
    said = out_of(*command, tmp_path / "days", "--group", r"^day\d").err
    assert "120 samples of the threshold are of 5 groups: where those of a group are alike" in said
    assert "no lower rate than 0.17" in said
    assert "matches no part" not in said
    said = out_of(*command, tmp_path / "some", "--group", r"^(day3)_").err
    assert "--group '^(day3)_' matches no part of 96 of 120 names" in said
    assert "no lower rate than 0.01" in said
    assert "groups" not in out_of(*command, tmp_path / "none").err


def test_a_column_that_counts_the_rows_is_mentioned(tmp_path, out_of):
    values = np.random.default_rng(0).normal(size=(40, 2))
    table = tmp_path / "x.csv"
    table.write_text("nr,a,b\n" + "".join(f"{7 + i},{a},{b}\n" for i, (a, b) in enumerate(values)))
    command = ["fit", table, "--preset", "instant", "--out"]
    said = out_of(*command, tmp_path / "run").err
    assert "column 'nr' counts the rows, and is taken for a value" in said
    assert "add --id 'nr'" in said
    assert "counts" not in out_of(*command, tmp_path / "id", "--id", "nr").err


def test_what_is_read_is_not_written_over(columns, crops, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", a=columns.normal)
    table, photos = tmp_path / "x.csv", tmp_path / "photos"
    np.savetxt(table, columns.normal, delimiter=",")
    shutil.copytree(crops.source_of("normal"), photos)
    link = tmp_path / "link.csv"
    link.symlink_to(table)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    of_rows, of_photos = str(columns.run), str(crops.run)
    archive = f"{tmp_path / 'x.npz'}:a"
    for command in (
        ["score", of_rows, table, "--out", table],
        ["score", of_rows, table, "--out", link],
        ["score", of_rows, link, "--out", tmp_path / "photos" / ".." / "x.csv"],
        ["drift", of_rows, table, "--json", table],
        ["probe", of_rows, archive, "--json", tmp_path / "x.npz"],
        ["evaluate", of_rows, "--normal", table, "--anomalous", archive, "--json", table],
        ["report", of_rows, "--normal", table, "--out", table],
        ["score", of_photos, photos, "--maps", photos],
        ["score", of_photos, photos, "--maps", photos / "maps"],
        ["probe", of_photos, photos, "--out", photos / "a" / "b"],
    ):
        assert main([str(word) for word in command]) == 2, command
        assert "cannot write" in capsys.readouterr().err, command
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_large_table_is_scored_a_part_at_a_time(tmp_path, out_of, monkeypatch, suffix):
    random = np.random.default_rng(0)
    frame = pandas.DataFrame({"x": random.normal(size=50), "kind": random.choice(["a", "b"], 50)})
    frame.to_csv(tmp_path / "normal.csv", index=False)
    run, large = tmp_path / "run", tmp_path / f"large.{suffix}"
    out_of("fit", tmp_path / "normal.csv", "--out", run, "--preset", "instant")
    frame.loc[30, ["x", "kind"]] = 99, "new"
    frame.to_csv(large, index=False) if suffix == "csv" else frame.to_parquet(large, index=False)
    whole = HistoryAD.load(run).score_frame(frame)
    monkeypatch.setattr(frames, "_BATCH_ROWS", 8)
    monkeypatch.setattr(delimited, "_CHUNK_LINES", 8)
    parts = []

    def from_part(table, description):
        parts.append(len(table.values))
        return from_table(table, description)

    monkeypatch.setattr(datasets, "from_table", from_part)
    said = out_of("score", run, large, "--explain", "--view-scores", "--out", tmp_path / "s.csv")
    assert "50 scored" in said.err
    assert max(parts) <= 8
    assert sum(parts) == 50
    scores = pandas.read_csv(tmp_path / "s.csv", index_col="path")
    np.testing.assert_allclose(scores[whole.columns], whole.astype(float), atol=1e-6)
    assert scores.index.tolist() == list(range(50))
    assert "kind something else" in scores.because[30]


def test_columns_without_names_are_taken_in_their_order_and_said_to_be(tmp_path, out_of):
    values = np.random.default_rng(0).normal(size=(60, 2))
    lines = "".join(f"{a},{b}\n" for a, b in values)
    (tmp_path / "named.csv").write_text("a,b\n" + lines)
    (tmp_path / "bare.csv").write_text(lines)
    for fitted in ("named", "bare"):
        run = tmp_path / fitted
        out_of("fit", tmp_path / f"{fitted}.csv", "--out", run, "--preset", "instant")
        for scored in ("named", "bare"):
            said = out_of("score", run, tmp_path / f"{scored}.csv").err
            assert ("they are taken in their order" in said) == (scored != fitted)
    assert (
        "the detector was fitted on no names of columns"
        in out_of("drift", tmp_path / "bare", tmp_path / "named.csv").err
    )


def test_training_samples_that_were_saved_again_are_noticed(tmp_path, out_of):
    """Rounded, they are no copies that a digest knows, and look as normal as copies."""
    values = np.random.default_rng(0).normal(size=(500, 4))
    np.save(tmp_path / "x.npy", values[:200])
    out_of("fit", tmp_path / "x.npy", "--out", tmp_path / "run", "--preset", "instant")
    for rows, is_said in ((values[:200].round(2), True), (values[200:].round(2), False)):
        np.save(tmp_path / "y.npy", rows)
        said = out_of("calibrate", tmp_path / "run", tmp_path / "y.npy")
        assert f"{len(rows)} samples" in said.out
        assert ("saved again or rounded" in said.err) == is_said


def test_what_is_no_number_is_refused_by_every_command_and_in_python(fitted, tmp_path, capsys):
    for number, value in enumerate((np.nan, np.inf, -np.inf)):
        samples = fitted.normal[:30] / np.float32(255 if fitted.normal.dtype == np.uint8 else 1)
        samples.flat[samples.size // 2] = value
        source = tmp_path / f"{number}.npy"
        np.save(source, samples.astype(np.float32))
        for name, command in COMMANDS.items():
            words = [{"RUN": str(fitted.run), "SOURCE": str(source)}.get(w, w) for w in command]
            out = [] if name not in ("score in parts", "report") else ["--out", str(tmp_path / "o")]
            assert main([*words, *out]) == 2, (name, value)
            error = capsys.readouterr().err
            assert "finite" in error or "infinity" in error, (name, error)
        with pytest.raises(InputError, match=r"finite|infinity"):
            HistoryAD.load(fitted.run).anomaly_score(samples)
        if fitted.name == "columns":  # of images as a source holds them, none can be such
            scored = fitted.model(samples)
            assert scored.is_anomalous[15 - 1 : 16].any()
            assert scored.p_value.min() == 1 / (len(fitted.model.calibration.scores) + 1)


def test_auto_says_which_backbone_it_took_and_the_run_keeps_that(whole, tmp_path, out_of):
    run = tmp_path / "run"
    said = out_of("fit", whole.source, "--out", run, "--backbone", "auto", *TINY_OPTIONS).err
    assert "backbone none: images of 8 x 8 pixels are too small for it" in said
    assert load_json(run / "config.json")["config"] == whole.model.describe()["config"]
    weights = [path / "detector.safetensors" for path in (run, whole.run)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
