"""From scores to decisions on new data: re-calibration, false discoveries, the page about them."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quoted import assert_as_quoted
from tiny import TINY, tiny_config

from historyad import HistoryAD, Model, fit_model, open_source
from historyad.cli import main
from historyad.errors import ConfigError, InputError, RunError
from historyad.files import load_json
from historyad.judge.drift import detect_drift
from historyad.judge.metrics import auroc
from historyad.model.files import _save_content
from historyad.model.fit import calibrate_model
from historyad.model.run import RunDirectory
from historyad.score.calibration import Calibration, benjamini_hochberg

JSON, TENSORS = "detector.json", "detector.safetensors"


@pytest.fixture(scope="module")
def images(digits):
    """All digits in a random order: theirs is that of the writers, whose change is a drift, too."""
    return np.random.default_rng(0).permutation(digits[0])


@pytest.fixture(scope="module")
def fitted(images, tmp_path_factory):
    """A folder with a model, and normal samples that it has not seen."""
    folder = tmp_path_factory.mktemp("fitted")
    np.save(folder / "train.npy", images[:300])
    np.save(folder / "new.npy", images[300:500])
    source = open_source(folder / "train.npy")
    fit_model(source, tiny_config(), RunDirectory(folder / "run"))
    return folder


@pytest.fixture
def run(fitted, tmp_path):
    """A copy of the run, to be calibrated anew."""
    return shutil.copytree(fitted / "run", tmp_path / "run")


# --- re-calibration


def test_new_scores_replace_the_held_out_ones_and_nothing_else(fitted, run, capsys):
    before = Model.load(run)
    tensors, config = (run / TENSORS).read_bytes(), (run / "config.json").read_bytes()
    assert main(["calibrate", str(run), str(fitted / "new.npy")]) == 0
    after, new = Model.load(run), open_source(fitted / "new.npy")
    assert after.calibration.scores.tolist() == sorted(after.anomaly_score(new.samples).tolist())
    assert after.calibration_source == {
        "description": str(fitted / "new.npy"),
        "fingerprint": new.fingerprint,
        "n": 200,
        "unreadable": 0,
        "known": 0,
    }
    assert (after.source, after.config.seed) == (before.source, before.config.seed)
    assert (run / TENSORS).read_bytes() == tensors
    assert (run / "config.json").read_bytes() == config
    output = capsys.readouterr().out
    assert f"{after.calibration.threshold:+.4f}, before {before.calibration.threshold:+.4f}" in (
        output
    )


def test_the_rate_may_change_with_it(fitted, run, capsys):
    new = str(fitted / "new.npy")
    assert main(["calibrate", str(run), new, "--false-positive-rate", "0.2"]) == 0
    model = Model.load(run)
    flagged = model.anomaly_score(open_source(new).samples) > model.calibration.threshold
    assert flagged.mean() == pytest.approx(0.2, abs=0.01)
    assert model.config.false_positive_rate == model.calibration.false_positive_rate == 0.2
    capsys.readouterr()
    assert main(["inspect", str(run)]) == 0
    output = capsys.readouterr().out
    assert re.search(rf"calibration.description +{re.escape(new)}", output)
    assert re.search(r"calibration.n +200", output)


def test_a_finished_fit_is_still_what_its_command_returns(fitted, run):
    assert main(["calibrate", str(run), str(fitted / "new.npy")]) == 0
    source = open_source(fitted / "train.npy")
    again = fit_model(source, tiny_config(), RunDirectory(run))
    assert again.calibration_source["n"] == 200


def test_too_few_samples_are_refused_before_they_are_scored(fitted, run, capsys, monkeypatch):
    monkeypatch.setattr(Model, "anomaly_score", lambda *_: pytest.fail("they are scored"))
    before = (run / JSON).read_bytes()
    command = ["calibrate", str(run), str(fitted / "new.npy"), "--false-positive-rate", "0.001"]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "200 held-out normal samples are too few" in message
    assert "needs 999" in message
    assert (run / JSON).read_bytes() == before


def test_the_training_samples_are_refused(fitted, run, images):
    model = Model.load(run)
    with pytest.raises(InputError, match="what the detector was trained on"):
        calibrate_model(model, open_source(images[:300]))


def test_a_rate_of_0_is_the_usual_one_or_the_lowest_that_is_promised(fitted, run):
    model = Model.load(run)
    few = np.load(fitted / "new.npy")[:40]
    for samples, rate in ((open_source(fitted / "new.npy"), 0.01), (open_source(few), 1 / 41)):
        assert calibrate_model(model, samples, 0.0).calibration.false_positive_rate == rate


@pytest.mark.parametrize("rate", [-0.1, 1e-6, 0.9, float("nan")])
def test_a_rate_out_of_range_is_refused(fitted, run, rate):
    with pytest.raises(ConfigError, match="false_positive_rate is"):
        calibrate_model(Model.load(run), open_source(fitted / "new.npy"), rate)


def test_a_reader_finds_the_old_decision_or_the_new_one(fitted, run, tmp_path):
    """The tensors do not change, so that either JSON goes with them, each with its scale."""
    model, new, folder = Model.load(run), open_source(fitted / "new.npy"), tmp_path / "model"
    shutil.copytree(run, folder)
    renewed = calibrate_model(model, new)
    renewed.save_calibration(folder)
    for expected in (renewed, model):
        found = Model.load(folder)
        assert found.calibration.threshold == expected.calibration.threshold
        assert (found.anomaly_score(new.samples) == expected.anomaly_score(new.samples)).all()
        shutil.copy(run / JSON, folder / JSON)
    assert (renewed.anomaly_score(new.samples) != model.anomaly_score(new.samples)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score.nothing": [1.0]}, "a scale score.nothing"),
        ({"scale.spread": [1.0]}, "a scale scale.spread"),
        ({"total_scale.spread": [0.0]}, "that is not positive"),
    ],
)
def test_a_scale_that_cannot_be_is_damage(run, change, message):
    content = load_json(run / JSON)
    del content["sha256"]
    _save_content(run / JSON, {**content, "scale": change})
    with pytest.raises(RunError, match=message):
        Model.load(run)


def test_what_has_changed_for_all_samples_does_not_outweigh_the_rest(digits):
    """Dark images are strange to one view; calibrated on such, it is not that which decides."""
    images, labels = digits
    normal, zeros = images[labels != 0], images[labels == 0]
    model = HistoryAD(folds=1).fit(normal[:800]).model_
    dark, dark_zeros = ((0.6 * part).astype(np.uint8) for part in (normal[800:], zeros))

    def told_apart(model):
        scores = np.concatenate([model.anomaly_score(part) for part in (dark[200:], dark_zeros)])
        return auroc(np.repeat([0, 1], [len(dark) - 200, len(dark_zeros)]), scores)

    assert told_apart(model) < 0.85
    assert told_apart(calibrate_model(model, open_source(dark[:200]))) > 0.95
    few = calibrate_model(model, open_source(dark[:29]), 0.1)
    assert (few.anomaly_score(dark) == model.anomaly_score(dark)).all()


def test_calibrating_waits_for_who_writes_and_needs_a_model(fitted, run, capsys):
    command = [str(fitted / "new.npy")]
    before = (run / JSON).read_bytes()
    with RunDirectory(run).lock():
        assert main(["calibrate", str(run), *command]) == 2
    assert "another process is writing" in capsys.readouterr().err
    assert (run / JSON).read_bytes() == before
    assert main(["calibrate", str(run.parent / "none"), *command]) == 2
    assert "detector.json is missing" in capsys.readouterr().err
    assert not (run.parent / "none").exists()


def test_a_model_without_its_run_is_calibrated_in_its_json_alone(fitted, run, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (JSON, TENSORS):
        shutil.copy(run / name, folder / name)
    (folder / TENSORS).chmod(0o444)
    before = (folder / TENSORS).stat()
    assert main(["calibrate", str(folder), str(fitted / "new.npy")]) == 0
    assert (folder / TENSORS).stat().st_ino == before.st_ino
    assert Model.load(folder).calibration_source is not None


def test_the_estimator_calibrates_too(digits):
    images = digits[0]
    detector = HistoryAD(**TINY).fit(images[:300])
    assert detector.set_params(false_positive_rate=0.1).calibrate(images[300:500]) is detector
    assert (detector.predict(images[300:500]) == -1).mean() == pytest.approx(0.1, abs=0.01)
    assert detector.threshold_ == detector.model_.calibration.threshold


# --- false discoveries


def chosen_by_definition(p_values, rate):
    """What Benjamini and Hochberg choose, in fractions, which do not round."""
    n = len(p_values)
    ks = [k for k, p in enumerate(sorted(p_values), 1) if p <= rate * k / n]
    return [bool(ks) and p <= sorted(p_values)[ks[-1] - 1] for p in p_values]


@given(
    st.lists(st.integers(1, 40).map(lambda i: Fraction(i, 40)), min_size=1, max_size=30),
    st.integers(1, 99).map(lambda i: Fraction(i, 100)),
)
def test_benjamini_hochberg_is_what_it_says(p_values, rate):
    chosen = benjamini_hochberg(np.array(p_values, float), float(rate))
    assert chosen.tolist() == chosen_by_definition(p_values, rate)


def test_a_p_value_at_the_bound_itself_is_a_discovery_and_one_just_above_is_not():
    n = 41  # k / n does not end, neither in decimal nor in binary numbers
    for hundredths, k in product((1, 5, 7, 10, 20), range(1, n + 1)):
        p_values = np.ones(n)
        p_values[:k] = float(Fraction(hundredths, 100) * k / n)
        assert benjamini_hochberg(p_values, hundredths / 100).sum() == k
        p_values[:k] *= 1 + 1e-12
        assert not benjamini_hochberg(p_values, hundredths / 100).any()


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=30), st.floats(0.01, 0.5))
def test_a_higher_rate_or_a_smaller_p_value_never_takes_a_discovery_away(p_values, rate):
    p_values = np.array(p_values)
    chosen = benjamini_hochberg(p_values, rate)
    assert (benjamini_hochberg(p_values, 1.5 * rate) >= chosen).all()
    p_values[0] /= 2
    assert (benjamini_hochberg(p_values, rate) >= chosen).all()


def test_nothing_gives_no_discoveries():
    assert benjamini_hochberg(np.empty(0), 0.1).shape == (0,)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, float("nan")])
def test_a_false_discovery_rate_that_is_none_is_refused(rate):
    with pytest.raises(InputError, match="must be between 0 and 1"):
        benjamini_hochberg(np.array([0.5]), rate)


def test_false_discoveries_of_conformal_p_values_are_as_rare_as_promised():
    """They share the held-out scores, and so depend on each other, positively."""
    random = np.random.default_rng(0)
    rate, shares = 0.2, []
    for _ in range(2000):
        calibration = Calibration.fit(random.normal(size=199).astype(np.float32), 0.05)
        scores = np.concatenate([random.normal(size=90), random.normal(4, size=10)])
        chosen = benjamini_hochberg(calibration.p_value(scores), rate)
        shares.append(chosen[:90].sum() / max(1, chosen.sum()))
    # Benjamini-Hochberg holds rate times the share of normals, 0.9.
    assert np.mean(shares) <= 0.9 * rate + 4 * np.std(shares) / np.sqrt(2000)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_score_adds_a_column_of_discoveries(fitted, tmp_path, suffix, capsys):
    out = tmp_path / f"scores.{suffix}"
    train = str(fitted / "train.npy")
    assert main(["score", str(fitted / "run"), train, "--fdr", "0.3", "--out", str(out)]) == 0
    if suffix == "csv":
        rows = list(csv.DictReader(out.read_text().splitlines()))
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert list(rows[0]) == [
        *("path", "anomaly_score", "p_value", "is_anomalous"),
        "is_discovery",
    ]
    model = Model.load(fitted / "run")
    p_values = model.calibration.p_value(model.anomaly_score(open_source(train).samples))
    chosen = benjamini_hochberg(p_values, 0.3)
    assert [int(row["is_discovery"]) for row in rows] == chosen.astype(int).tolist()
    assert f"{chosen.sum()} discoveries at a false discovery rate of 0.3" in capsys.readouterr().err


def test_score_says_when_there_can_be_no_discoveries(fitted, capsys):
    train = str(fitted / "train.npy")
    assert main(["score", str(fitted / "run"), train, "--fdr", "0.02"]) == 0
    # 300 / (0.02 * 61) = 245.9
    assert "only 246 or more of 300 can be discoveries" in capsys.readouterr().err
    assert main(["score", str(fitted / "run"), train, "--fdr", "0.01"]) == 0
    # 300 / (0.01 * 61) = 491.8
    assert "none of 300 can be a discovery" in capsys.readouterr().err


def test_score_refuses_a_rate_of_one(fitted, capsys):
    assert main(["score", str(fitted / "run"), str(fitted / "new.npy"), "--fdr", "1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--fdr" in captured.err
    assert "Traceback" not in captured.err


# --- drift


@pytest.fixture(scope="module")
def stream(images, tmp_path_factory):
    """A file with 100 normal images and, from there on, their negatives."""
    file = tmp_path_factory.mktemp("stream") / "stream.npy"
    np.save(file, np.concatenate([images[300:400], 255 - images[400:500]]))
    return file


def test_drift_of_the_default(fitted, images, tmp_path):
    """Where it began is known but for chance: in which order normal samples came before it."""
    train = open_source(fitted / "train.npy")
    # As of so few images by default.
    model = fit_model(train, tiny_config(views="companions"), RunDirectory(tmp_path / "run"))
    off = []
    for seed in range(5):
        normal = np.random.default_rng(seed).permutation(images[300:400])
        scores = model.anomaly_score(np.concatenate([normal, 255 - images[400:500]]))
        found = detect_drift(model.calibration, scores)
        assert 100 <= found.alarm < 150
        off.append(abs(found.since - 100))
    assert np.median(off) < 15


def test_drift_of_a_run(fitted, stream, tmp_path, capsys):
    train = open_source(fitted / "train.npy")
    fit_model(train, tiny_config(views="history"), RunDirectory(tmp_path / "run"))
    out = tmp_path / "drift.json"
    assert main(["drift", str(tmp_path / "run"), str(stream), "--json", str(out)]) == 0
    found = load_json(out)
    assert 100 <= found["alarm"] < 150
    assert abs(found["since"] - 100) < 15
    assert found["since_name"] == str(found["since"])
    assert "since" in capsys.readouterr().out


# --- the page


PAGE = Path(__file__).parents[2] / "docs" / "decision.md"


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Each command of the page, what the page shows after it, what came out; and its folder."""
    folder = tmp_path_factory.mktemp("page")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    found = []
    for language, text in blocks:
        if language == "python":
            subprocess.run([sys.executable, "-c", text], cwd=folder, check=True)
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            done = subprocess.run(
                [sys.executable, "-m", *shlex.split(command)],
                cwd=folder,
                check=False,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, (command, done.stderr)
            found.append((command, shown, done.stderr + done.stdout))
    return found, folder


def test_every_command_of_the_page_shows_what_the_page_shows(sessions):
    found, folder = sessions
    used = {command.split()[1] for command, _, _ in found}
    assert used == {"fit", "evaluate", "score", "drift", "calibrate", "report"}
    for command, shown, output in found:
        lines = iter([names(line) for line in output.splitlines()])
        for line in shown.splitlines():
            assert line == "..." or names(line) in lines, (command, line, output)
        assert_as_quoted(shown, output, 0.1)
        for shown_count, count in zip(counts(shown), counts(output), strict=True):
            assert abs(shown_count - count) <= 15, (command, output)
    assert (folder / "report.html").exists()


def names(line):
    """Return a line without its numbers, which another machine has nearly."""
    return re.sub(r"[+-]?\d[\d.,]*", "#", line.partition("  (")[0]).strip()


def counts(text):
    """Return how many of the stream are anomalous, or discoveries, and where it drifted."""
    found = re.findall(
        r"scored, (\d+) anomalous|^(\d+) discoveries|sample (\d+)", text, re.MULTILINE
    )
    return [int("".join(groups)) for groups in found]


def test_the_text_speaks_of_what_was_scored(sessions):
    _, folder = sessions
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    page = " ".join(PAGE.read_text().split())
    dark = int(re.search(r"calls (\d+) of the 150 dark images anomalous", page)[1])
    assert abs(sum(int(row["is_anomalous"]) for row in rows[150:]) - dark) <= 15
    chosen = re.search(r"of the (\d+) discoveries, (\d+) are dark images and (\d+)", page)
    total, dark, bright = map(int, chosen.groups())
    assert total == dark + bright
    assert abs(sum(int(row["is_discovery"]) for row in rows[150:]) - dark) <= 15
    assert sum(int(row["is_discovery"]) for row in rows[:150]) <= 0.1 * total + 15
