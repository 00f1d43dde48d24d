import numpy as np
import pytest
import torch

from historyad import HistoryAD, Model
from historyad.cli import main
from historyad.config import make_config
from historyad.constants import CONSTANTS
from historyad.data.datasets import open_source
from historyad.data.digests import are_among, digests
from historyad.errors import ConfigError, InputError
from historyad.kinds.choose import choose_kind
from historyad.model.fit import calibrate_model, fit_model
from historyad.model.plan import plan_fit
from historyad.model.run import RunDirectory
from historyad.model.split import number_of_folds, split_folds
from historyad.model.untrained import untrained_score

INSTANT = make_config("instant")


def few_rows(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)


def instant(samples, folder, **settings):
    config = make_config("instant", **settings)
    return fit_model(open_source(samples), config, RunDirectory(folder))


# --- which folds


def test_each_row_is_in_one_fold_and_neighbours_are_in_several():
    for n, n_folds in ((3, 10), (30, 10), (97, 10), (659, 10), (4000, 7)):
        folds = split_folds(n, n_folds, INSTANT, np.arange(n))
        assert len(folds) == min(n, n_folds)
        assert sorted(np.concatenate(folds)) == list(range(n))
        assert max(map(len, folds)) - min(map(len, folds)) <= max(1, n // (30 * n_folds) + 1)
    blocks = np.split(folds[0], np.flatnonzero(np.diff(folds[0]) > 1) + 1)
    assert len(blocks) <= 30 < 4000 / 7 / 5  # rows that were stored together stay so
    again, other = (
        split_folds(97, 10, make_config("instant", seed=seed), np.arange(97)) for seed in (0, 1)
    )
    assert [rows.tolist() for rows in again] == [
        rows.tolist() for rows in split_folds(97, 10, INSTANT, np.arange(97))
    ]
    assert [rows.tolist() for rows in again] != [rows.tolist() for rows in other]


def test_no_group_is_in_two_folds():
    random = np.random.default_rng(0)
    for n_groups, n_folds in ((40, 10), (10, 10), (4, 4), (2, 2)):
        groups = np.concatenate([np.arange(n_groups), random.integers(n_groups, size=80)])
        folds = split_folds(len(groups), 10, INSTANT, groups)
        assert len(folds) == n_folds
        found = [set(groups[rows].tolist()) for rows in folds]
        assert sum(map(len, found)) == n_groups
        if n_groups == 40:
            assert max(map(len, folds)) <= 1.3 * len(groups) / 10
    with pytest.raises(InputError, match="are of 1 group, and so none is left"):
        split_folds(9, 10, INSTANT, np.zeros(9, int))


def test_folds_are_taken_where_a_share_would_be_too_few():
    for n, settings, trains, folds in (
        (659, {}, False, 10),
        (660, {}, False, 1),  # 15 % are the 99 that 1 % needs
        (659, {}, True, 1),
        (60, {"calibration_share": 0.3}, False, 1),
        (60, {"folds": 1}, False, 1),
        (5000, {"folds": 5}, False, 5),
        (126, {"false_positive_rate": 0.05}, False, 10),
        (127, {"false_positive_rate": 0.05}, False, 1),
        (1993, {"confidence": 0.95}, False, 10),
        (1994, {"confidence": 0.95}, False, 1),
    ):
        config = make_config("instant", **settings)
        assert number_of_folds(n, config, trains=trains) == folds, (n, settings, trains)
    few = CONSTANTS.few_samples
    assert number_of_folds(few - 1, INSTANT, trains=False, few=few) == 10
    assert number_of_folds(few, INSTANT, trains=False, few=few) == 1
    assert number_of_folds(few - 1, INSTANT, trains=True, few=few) == 1
    for settings, folds in (({}, 10), ({"patch": 8, "views": "companions"}, 0)):
        images = np.random.default_rng(0).integers(0, 256, (700, 16, 16, 1), np.uint8)
        plan = plan_fit(open_source(images), make_config("instant", **settings))
        assert (len(plan.split.folds), plan.config.folds) == (folds, folds)  # of maps, none
    with pytest.raises(ConfigError, match="folds is 5, and a network is trained: take --preset"):
        number_of_folds(60, make_config("default", folds=5), trains=True)
    with pytest.raises(ConfigError, match=r"folds is 5 and calibration_share 0\.2"):
        make_config("instant", folds=5, calibration_share=0.2)


# --- fits


@pytest.mark.parametrize(("n", "rate"), [(3, 1 / 4), (30, 1 / 31), (60, 1 / 61), (300, 0.01)])
def test_every_sample_is_learnt_from_and_calibrated_on(tmp_path, n, rate):
    rows = few_rows(n)
    model = instant(rows, tmp_path / "run")
    assert len(model.calibration.scores) == len(model.trained_on) == n
    assert model.calibration.false_positive_rate == model.config.false_positive_rate == rate
    assert are_among(digests(rows), model.trained_on).all()
    assert model.n_folds == model.config.folds == min(10, n)
    loaded = Model.load(tmp_path / "run")
    assert loaded.describe() == model.describe()
    assert instant(rows, tmp_path / "run").describe() == model.describe()  # which is finished


def test_a_fold_is_scored_by_a_detector_of_the_others(tmp_path):
    rows = few_rows(60)
    model = instant(rows, tmp_path / "run")
    raw = torch.empty(2, 60)
    for fold in split_folds(60, 10, model.config, np.arange(60)):
        others = np.setdiff1d(np.arange(60), fold)
        kind = choose_kind(rows, model.config, others)
        score = untrained_score(kind, rows, others, model.config)
        raw[:, fold] = torch.from_numpy(score.raw_of(rows[fold]).T)
    expected = np.sort(model.score.score(raw).numpy())
    np.testing.assert_allclose(model.calibration.scores, expected, atol=1e-6)
    # The detector itself knows all of them, and would find them more normal than they are.
    assert np.median(model.anomaly_score(rows)) < np.median(expected) - 0.02


@pytest.mark.parametrize("name", ["whole", "crops", "features", "columns"])
def test_every_kind_of_input_can_be_fitted_in_folds(request, tmp_path, name, capsys):
    fitted = request.getfixturevalue(name)
    left_out = {"calibration_share", "false_positive_rate", "views"}
    settings = {k: v for k, v in fitted.settings.items() if k not in left_out}
    samples = fitted.train[:30]
    model = instant(samples, tmp_path / "run", **settings)
    assert model.n_folds == 10
    y = [model.anomaly_score(some) for some in (fitted.normal, fitted.anomalous)]
    assert np.median(y[1]) > np.quantile(y[0], 0.8)
    known = np.sort(model.anomaly_score(samples))
    assert (known < model.calibration.scores).mean() > 0.7
    assert main(["inspect", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "held_out 30 folds 10" in said
    assert main(["drift", str(tmp_path / "run"), fitted.source_of("normal")]) == 0
    assert "was calibrated in folds" in capsys.readouterr().err


def test_copies_are_in_one_fold(tmp_path):
    """A copy among the others would make every out-of-fold distance 0."""
    rows = few_rows(30)
    model = instant(np.concatenate([rows, rows]), tmp_path / "run")
    fresh = model(few_rows(2000, seed=1))
    assert fresh.is_anomalous.mean() < 0.1


@pytest.mark.parametrize(("times", "settings"), [(10, {}), (5, {"calibration_share": 0.4})])
def test_copies_count_once_for_what_is_promised(tmp_path, times, settings):
    """Ten copies of a hundred rows promise what the hundred do, and keep to it."""
    alarms = []
    for seed in range(6):
        rows = few_rows(3000, seed)
        copies = np.repeat(rows[:100], times, axis=0)
        settings = {"false_positive_rate": 0.03, "seed": seed, **settings}
        model = instant(copies, tmp_path / f"{seed}", **settings)
        assert model.calibration.n_apart == (40 if "calibration_share" in settings else 100)
        alarms.append(model(rows[100:]).is_anomalous.mean())
        renewed = calibrate_model(model, open_source(np.repeat(rows[100:150], 3, axis=0)))
        assert renewed.calibration.n_apart == 50
        with pytest.raises(InputError, match="Copies count once, and 40 of 60 samples are copies"):
            calibrate_model(model, open_source(np.repeat(rows[100:120], 3, axis=0)))
    assert np.mean(alarms) < 0.045  # 0.05 and 0.12 where each copy counts
    with pytest.raises(InputError, match="Copies count once, and 450 of 500 samples are copies"):
        instant(np.repeat(few_rows(50), 10, axis=0), tmp_path / "few", false_positive_rate=0.01)


def test_calibration_afterwards_takes_new_samples_alone(tmp_path):
    rows = few_rows(60)
    model = instant(rows, tmp_path / "run")
    for known in (rows, rows[:30]):
        with pytest.raises(InputError, match="is what the detector was trained on"):
            calibrate_model(model, open_source(known))
    renewed = calibrate_model(model, open_source(few_rows(500, seed=1)))
    assert renewed.n_folds is None
    assert renewed.calibration.false_positive_rate == model.calibration.false_positive_rate
    np.testing.assert_array_equal(
        renewed.calibration.scores, np.sort(renewed.anomaly_score(few_rows(500, seed=1)))
    )


# --- what they promise


def test_few_samples_keep_their_promise():
    """On average over detectors; the page on calibration has more of them."""
    found = []
    for seed, n in enumerate([30, 60, 100] * 4):
        rows = few_rows(n + 500, seed)
        detector = HistoryAD("instant", seed=seed, device="cpu").fit(rows[:n])
        level = np.floor(0.3 * (n + 1)) / (n + 1)
        found.append((detector.p_value(rows[n:]) <= level).mean() / level)
    assert 0.75 < np.mean(found) < 1.0 + 3 * np.std(found) / np.sqrt(12)


def test_a_confidence_sets_the_threshold_higher(tmp_path, capsys):
    np.save(tmp_path / "x.npy", few_rows(60))
    np.save(tmp_path / "new.npy", few_rows(400, seed=1))
    run = str(tmp_path / "run")
    command = ["fit", str(tmp_path / "x.npy"), "--preset", "instant", "--out", run]
    assert main([*command, "--confidence", "0.95"]) == 0
    said = capsys.readouterr()
    assert "rate of 0.0487 at most, with a confidence of 0.95" in said.out
    assert "in 10 folds" in said.out
    assert "60 samples can promise no lower rate than 0.049; 299 samples in all" in said.err
    sure = Model.load(run)
    assert sure.calibration.rate_quantiles([0.95]) == pytest.approx([0.0487], abs=1e-4)
    assert main(["calibrate", run, str(tmp_path / "new.npy"), "--false-positive-rate", "0.05"]) == 0
    assert "0.05 at most, with a confidence of 0.95" in capsys.readouterr().out
    strict = Model.load(run)
    assert strict.calibration.rate_quantiles([0.95])[0] <= 0.05
    command = ["calibrate", run, str(tmp_path / "new.npy"), "--confidence", "0"]
    assert main(command) == 0
    assert Model.load(run).calibration.threshold < strict.calibration.threshold
    assert "with a confidence" not in capsys.readouterr().out
    with pytest.raises(InputError, match=r"4 samples are too few .* confidence of 0\.95: give at"):
        HistoryAD("instant", confidence=0.95).fit(few_rows(4))


def test_a_confidence_is_kept_by_calibration_in_python(tmp_path):
    detector = HistoryAD("instant", confidence=0.9, false_positive_rate=0.1).fit(few_rows(100))
    assert detector.model_.calibration.rate_quantiles([0.9])[0] <= 0.1
    detector.calibrate(few_rows(300, seed=1))  # with the same
    sure = detector.threshold_
    detector.set_params(confidence=0.0).calibrate(few_rows(300, seed=1))
    assert detector.threshold_ < sure
