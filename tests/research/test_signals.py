import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from benchmarks.signals.data import bearings_of, series_of
from benchmarks.signals.measure import measure_series, uniformity
from benchmarks.signals.peers import PEERS, z_normalised
from benchmarks.signals.vus import faded, intervals_of, range_auc_pr, vus_pr


def test_intervals_are_where_labels_are_not_0():
    y = np.array([1, 1, 0, 0, 1, 0, 1])
    assert intervals_of(y).tolist() == [[0, 2], [4, 5], [6, 7]]
    assert intervals_of(np.zeros(3)).tolist() == []


def test_labels_fade_by_a_root_within_half_a_buffer():
    y = np.zeros(12, int)
    y[5:7] = 1
    np.testing.assert_array_equal(faded(y, 0), y)
    half, quarter = np.sqrt(3 / 4), np.sqrt(2 / 4)
    np.testing.assert_allclose(faded(y, 4), [0, 0, 0, quarter, half, 1, 1, half, 0, 0, 0, 0])
    y[9] = 1  # two fade into the same step
    assert faded(y, 8).max() == 1


def test_without_a_buffer_and_with_one_interval_it_is_average_precision():
    random = np.random.default_rng(0)
    y = np.zeros(200, int)
    y[50:90] = 1
    scores = y + random.standard_normal(200)
    assert range_auc_pr(y, scores, 0) == pytest.approx(average_precision_score(y, scores))
    scores = scores.round()  # with ties
    assert range_auc_pr(y, scores, 0) == pytest.approx(average_precision_score(y, scores))


def test_an_interval_that_is_never_found_costs_recall():
    y = np.zeros(100, int)
    y[10:30] = y[60:62] = 1
    scores = np.where(y == 1, 1.0, 0.0)
    assert range_auc_pr(y, scores, 0) == pytest.approx(1)
    scores[60:62] = -1  # the last of all
    assert range_auc_pr(y, scores, 0) < 0.6  # though 20 of 22 steps are the first


def test_close_alarms_count_with_a_buffer_and_not_without():
    y = np.zeros(300, int)
    y[100:120] = 1
    beside = np.zeros(300)
    beside[122:126] = 1
    far = np.zeros(300)
    far[222:226] = 1
    assert range_auc_pr(y, beside, 0) == pytest.approx(range_auc_pr(y, far, 0))
    assert range_auc_pr(y, beside, 20) > 1.5 * range_auc_pr(y, far, 20)
    assert vus_pr(y, beside, 20) > vus_pr(y, far, 20)
    assert vus_pr(y, y.astype(float), 0) == 1


def test_peers_find_a_window_unlike_all_others():
    random = np.random.default_rng(0)
    train = np.sin(np.arange(300) / 3 + 6 * random.random((300, 1)))[:, :24, None]
    odd = np.sign(train[:1])
    for name, peer in PEERS.items():
        if name in ("rolling mean", "change"):  # one number each
            continue
        scores_of = peer(train[:250] + 0.05 * random.standard_normal((250, 24, 1)), 0)
        assert (
            scores_of(5 * odd + 3 * (np.arange(24)[:, None] > 12))[0]
            > scores_of(train[250:] + 0.05 * random.standard_normal((50, 24, 1))).max()
        ), name


def test_one_number_of_a_window_is_its_largest_value_its_mean_or_its_change():
    train = np.random.default_rng(0).standard_normal((200, 24, 2))
    flat, shifted, spiked = np.zeros((1, 24, 2)), train[:1] + 2, train[:1].copy()
    spiked[0, 3, 1] = 9
    for name, odd in (("change", flat), ("rolling mean", shifted), ("largest z-score", spiked)):
        scores_of = PEERS[name](train, 0)
        assert scores_of(odd)[0] > scores_of(train).max(), name


def test_p_values_of_windows_that_share_no_step_are_counted_in_ten_parts():
    starts = np.arange(0, 1000, 5)
    p_values = np.where(starts % 10 == 0, (starts % 100) / 100 + 0.05, 0.001)
    found = uniformity(p_values, starts, 10)
    assert found["p_parts"] == [10] * 10
    assert found["p_above"] == pytest.approx(0.05)
    assert uniformity(p_values / 2, starts, 10)["p_above"] > 0.4


def test_the_matrix_profile_is_the_distance_to_the_nearest_z_normalised_window():
    train, some = np.random.default_rng(0).standard_normal((2, 20, 8, 2))
    a, b = (z_normalised(x).reshape(20, -1) for x in (some, train))
    wanted = np.sqrt(np.square(a[:, None] - b).sum(2)).min(1)
    np.testing.assert_allclose(PEERS["matrix profile"](train, 0)(some), wanted)
    np.testing.assert_allclose(z_normalised(train).std(1), 1)


def test_nothing_is_learnt_from_marked_steps(data_root):
    found = {one.name: one for one in series_of(data_root)}
    assert len(found) == 20 + 16
    for one in found.values():
        assert not one.labels[: one.n_train].any()
        assert one.labels[one.n_train :].any()
        assert one.n_train <= len(one.steps) / 2
    assert found["skab/valve1/3"].steps.shape[1] == 8
    assert found["nab/realKnownCause/nyc_taxi"].labels.sum() > 1000
    signals = bearings_of(data_root)
    assert len(signals.faults) == 10
    assert len(signals.train) + len(signals.normal) == 60985


def test_a_series_is_measured(data_root):
    (data,) = (one for one in series_of(data_root) if one.name.endswith("art_daily_jumpsup"))
    (row,) = measure_series(data, "5 neighbours", 0)
    assert row["auroc"] > 0.9
    assert row["vus_pr"] > 0.6
    (ours,) = measure_series(data, "historyad", 0)
    assert ours["auroc"] > 0.9
    assert ours["found"] > 5 * ours["false_positive_rate"]
