import numpy as np
import pandas
import pytest
import torch

from historyad import HistoryAD, Model, fit_model, open_source
from historyad.config import make_config
from historyad.data.rows import rows_between
from historyad.data.series import in_windows
from historyad.errors import ConfigError, InputError
from historyad.judge.metrics import auroc
from historyad.model.plan import as_samples
from historyad.model.run import RunDirectory
from historyad.model.split import split_folds, split_rows
from historyad.model.steps import Interval, find_intervals, rows_of_intervals
from historyad.model.untrained import of_others
from historyad.score.calibration import Calibration
from historyad.score.result import Scored


def series(n, seed=0, period=40):
    """Return two noisy waves of one period, (n, 2)."""
    t = np.arange(n)[:, None]
    noise = np.random.default_rng(seed).standard_normal((n, 2))
    return np.sin(2 * np.pi * t / period + [0, 1]) * [1, 50] + noise * [0.1, 5] + [0, 300]


@pytest.fixture(scope="module")
def detector():
    return HistoryAD(window="auto").fit(series(4000))


@pytest.fixture(scope="module")
def spoilt():
    """A series that stands still from step 500 on, and is another wave from 1,200 on."""
    steps = series(2000, seed=1)
    steps[500:530] = steps[499]
    steps[1200:1260, 1] = 300 + 50 * np.sin(np.arange(60) / 3)
    return steps


def test_every_step_has_a_score_and_anomalies_are_found(detector, spoilt):
    y = np.zeros(2000, int)
    y[500:530] = y[1200:1260] = 1
    scores = detector.anomaly_score(spoilt)
    assert scores.shape == (2000,)
    assert auroc(y, scores) > 0.97
    found = detector.intervals(spoilt)
    assert len(found) == 2
    for interval, (start, end) in zip(
        sorted(found, key=lambda i: i.start), [(500, 530), (1200, 1260)], strict=True
    ):
        assert start - 40 < interval.start < start + 20
        assert end - 20 < interval.end < end + 40
        assert interval.anomaly_score == scores[interval.peak]
    verdicts = detector.predict(spoilt) == -1
    assert verdicts.sum() <= sum(i.end - i.start + 1 for i in found)
    assert set(detector.view_scores(spoilt)) >= {"neighbours", "shape", "level", "spectrum"}
    assert detector.view_scores(spoilt)["level"].shape == (2000,)


def test_the_window_is_chosen_and_kept(detector, tmp_path, spoilt):
    assert detector.model_.config.window == 40
    detector.save(tmp_path)
    loaded = HistoryAD.load(tmp_path)
    assert loaded.n_features_in_ == 2
    np.testing.assert_array_equal(loaded.anomaly_score(spoilt), detector.anomaly_score(spoilt))
    assert Model.load(tmp_path).calibration.reach == 40  # windows of 40 steps, one apart


def test_p_values_of_a_new_normal_series_keep_their_promise(detector):
    p = detector.p_value(series(8000, seed=2))
    for level in (0.1, 0.2, 0.5):
        assert (p <= level).mean() <= 1.3 * level
    assert (p <= 0.5).mean() > 0.1


def test_p_values_of_windows_are_uniform_in_every_block_of_time():
    """Of windows that share no step, in quarters of new normal series, over ten detectors.

    They err to the safe side: a detector that learnt from all calls new windows a little more
    normal than those of the folds did, which learnt from less.
    """
    found = []
    for seed in range(10):
        model = HistoryAD(window=20).fit(series(1600, seed=seed, period=20)).model_
        fresh = model.takes(open_source(series(1600, seed=100 + seed, period=20)))
        p = model(fresh.samples[:: fresh.reach]).p_value
        found.append(np.array_split(p, 4))
    for block in zip(*found, strict=True):
        p = np.concatenate(block)  # some 200
        assert abs(p.mean() - 0.5) < 0.09
        for level in (0.1, 0.25, 0.5, 0.75):
            assert level - 0.16 < (p <= level).mean() < level + 0.08


def test_nothing_is_trained_unless_it_is_asked_for(tmp_path):
    source = open_source(series(1000))
    config = make_config(window=20, epoch_images=512, n_epochs=2.0, views="all", hidden=16)
    run = RunDirectory(tmp_path / "run")
    model = fit_model(source, config, run)
    assert {record["step"] for record in run.read_log()} == {"gan", "detector"}
    assert model.view_names[0] == "history"
    alone = fit_model(source, make_config(window=20), RunDirectory(tmp_path / "alone"))
    assert "history" not in alone.view_names


def test_a_score_does_not_depend_on_what_comes_later(detector, spoilt):
    whole, part = (detector.anomaly_score(steps) for steps in (spoilt, spoilt[:1005]))
    np.testing.assert_array_equal(whole[:960], part[:960])


def test_columns_come_by_name(spoilt):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(series(3000), columns=["flow", "heat"])
    detector = HistoryAD(window=40).fit(frame)
    other = pandas.DataFrame(spoilt[:, ::-1], columns=["heat", "flow"])
    np.testing.assert_array_equal(
        detector.model_.takes(open_source(other)).series.steps, spoilt.astype(np.float32)
    )


def test_a_series_may_be_calibrated_anew(detector):
    fresh = HistoryAD(window=40).fit(series(4000))
    louder = 1.3 * series(4000, seed=6)
    before = (fresh.predict(louder) == -1).mean()
    fresh.calibrate(1.3 * series(6000, seed=5))
    assert before > 0.2
    assert (fresh.predict(louder) == -1).mean() < 0.05
    assert fresh.model_.calibration.reach == 10  # windows of 40 steps, 4 apart


def test_what_does_not_fit_is_refused(detector):
    with pytest.raises(InputError, match="holds 30 steps, and a window has 40"):
        detector.anomaly_score(series(30))
    with pytest.raises(ValueError, match="3 features"):
        detector.anomaly_score(np.zeros((100, 3)))
    with pytest.raises(InputError, match="fit with window, perhaps 'auto'"):
        HistoryAD(preset="instant").fit(series(300)).intervals(series(300))
    with pytest.raises(InputError, match="holds images, and window is for series"):
        HistoryAD(window="auto").fit(np.zeros((50, 8, 8), np.uint8))
    with pytest.raises(InputError, match="are too few"):
        HistoryAD(window=40).fit(series(60))
    for settings, message in (
        ({"window": 1}, "window is 1: take 0 for rows"),
        ({"window": "long"}, "it must be of type int or 'auto'"),
        ({"stride": 2}, "stride is that of the windows"),
        ({"window": 10, "stride": 11}, "stride is 11 and window 10"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_config(**settings)


def test_a_constant_series_can_be_learnt(tmp_path):
    detector = HistoryAD(window=20).fit(np.ones((1000, 1)))
    steps = np.ones((500, 1))
    steps[200:210] = 2
    (found,) = detector.intervals(steps)
    assert 180 < found.start <= found.peak <= found.end < 230


def test_a_frame_whose_index_is_a_time_has_no_gaps_and_is_sorted():
    times = pandas.date_range("2026-01-01", periods=600, freq="min", tz="Europe/Berlin")
    frame = pandas.DataFrame(series(600), index=times, columns=["flow", "heat"])
    detector = HistoryAD(window=40).fit(frame)
    assert len(detector.anomaly_score(frame)) == 600
    rows = np.arange(600)
    for call in (detector.anomaly_score, HistoryAD(window=40).fit):
        with pytest.raises(
            InputError, match=r"there is a gap of 101 usual steps: fill it, .* index"
        ):
            call(frame.iloc[(rows < 200) | (rows >= 300)])
        with pytest.raises(InputError, match=r"stands below .*: sort the rows by time"):
            call(frame.iloc[np.r_[100:300, 0:100]])
        with pytest.raises(InputError, match="holds 30 steps, and a window has 40"):
            call(frame.iloc[:30])
    with pytest.raises(InputError, match="columns that the detector was not fitted on"):
        detector.anomaly_score(frame.assign(new=1.0))


def test_the_window_is_settled_before_the_fit():
    source, config = as_samples(open_source(series(3000)), make_config(window="auto"))
    assert (config.window, source.samples.shape[1:]) == (40, (40, 2))
    again, config = as_samples(source, make_config(window=3))
    assert (again, config.window, config.stride) == (source, 40, 1)


# --- what is held out


def test_no_step_is_trained_on_and_held_out():
    for seed in range(5):
        for window, stride in ((40, 5), (40, 1), (300, 37)):
            source = in_windows(open_source(series(6000)), window, stride)
            config = make_config(window=window, stride=stride, seed=seed)
            train, held_out = split_rows(len(source), config, None, source.reach)
            steps = [
                {step for row in rows for step in range(row * stride, row * stride + window)}
                for rows in (train.tolist(), held_out.tolist())
            ]
            assert not steps[0] & steps[1]
            assert len(train) > len(held_out) / 2
            near = np.diff(np.flatnonzero(np.diff(held_out, prepend=-9) > 1))
            assert (near >= 4 * source.reach - 1).all()


def test_folds_of_a_series_are_stretches_and_nobody_learns_from_what_reaches_into_one():
    source = in_windows(open_source(series(3000)), 40, 5)
    config = make_config(window=40)
    n = len(source)
    folds = split_folds(n, 10, config, np.arange(n), source.reach)
    assert np.concatenate(folds).tolist() == list(range(n))
    assert {len(fold) // source.reach for fold in folds} == {7}
    whole = HistoryAD(window=40).fit(series(3000)).model_
    assert whole.n_folds == 10
    assert whole.calibration.n_apart == n // source.reach
    for score, rows in of_others(source.samples, folds, whole.config, whole.score, source.reach):
        kept = score.companions.neighbours
        near = kept.place(score.kind.floats(score.kind.prepare(source.samples[rows])))
        closest = torch.cdist(near, kept.bank).min()
        assert closest > 0.5  # no window, nor one that is moved by a few steps


def test_how_far_rows_are_from_others():
    assert rows_between(np.arange(7), np.array([2, 5])).tolist() == [2, 1, 0, 1, 1, 0, 1]
    assert rows_between(np.arange(4), np.array([3])).tolist() == [3, 2, 1, 0]


def test_rows_that_share_nothing_are_split_as_ever():
    train, held_out = split_rows(1000, make_config())
    assert len(train) + len(held_out) == 1000


def test_so_many_windows_count_as_lie_apart():
    scores = np.repeat(np.arange(99, dtype=np.float32), 8)
    one, eight = Calibration.fit(scores[::8], 0.05), Calibration.fit(scores, 0.05, reach=8)
    assert eight.threshold == one.threshold
    queries = np.array([-1, 3, 50.5, 98, 200, np.nan])
    np.testing.assert_allclose(eight.p_value(queries), one.p_value(queries))
    assert eight.rate_quantiles([0.95]) == one.rate_quantiles([0.95])
    assert (eight.n_apart, eight.smallest_p_value) == (99, 0.01)
    with pytest.raises(InputError, match=r"99 held-out normal samples are too few .* needs 999"):
        Calibration.fit(scores, 0.001, reach=8)


# --- intervals


def test_intervals_are_merged_within_a_window_and_the_worst_comes_first():
    flagged = np.zeros(60, bool)
    flagged[[3, 4, 7, 20, 21, 50]] = True
    scores = np.where(flagged, 0.5, -0.8).astype(np.float32)
    scores[[7, 21, 50]] = 0.6, 0.9, 0.7
    scored = Scored(scores, np.where(flagged, 0.01, 0.9), flagged)
    windows = in_windows(open_source(np.zeros((60, 1))), 13, 0).series
    assert find_intervals(scored, windows) == [
        Interval(20, 21, 21, pytest.approx(0.9), 0.01),
        Interval(50, 50, 50, pytest.approx(0.7), 0.01),
        Interval(3, 7, 7, pytest.approx(0.6), 0.01),
    ]
    wider = in_windows(open_source(np.zeros((60, 1))), 14, 0).series
    assert [(i.start, i.end) for i in find_intervals(scored, wider)] == [(3, 21), (50, 50)]
    (first, *_) = rows_of_intervals(find_intervals(scored, windows), windows)
    assert first == {"start": "20", "end": "21", "steps": 2, "peak": "21",
                     "anomaly_score": pytest.approx(0.9), "p_value": 0.01}  # fmt: skip
    nothing = Scored(scores, np.ones(60), np.zeros(60, bool))
    assert find_intervals(nothing, windows) == []
