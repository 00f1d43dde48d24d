import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kstest

from historyad.errors import InputError
from historyad.judge.drift import (
    _BETS,
    change_point,
    detect_drift,
    log_bets,
    log_martingale,
    online_p_values,
    table_of,
)
from historyad.score.calibration import Calibration

BETS = pytest.mark.parametrize("bet", [bet for _, bet in _BETS], ids=[name for name, _ in _BETS])


def calibration_on(random, n=500, rate=0.02):
    return Calibration.fit(random.normal(size=n).astype(np.float32), rate)


# --- the martingale, in closed form


@BETS
def test_a_bet_is_a_density(bet):
    total, _ = quad(lambda p: float(bet(np.array(p))), 0, 1, points=[0.1], limit=200)
    assert total == pytest.approx(1, abs=1e-6)


@given(st.lists(st.floats(1e-9, 1 - 1e-9), min_size=1, max_size=30))
def test_capital_is_the_mixture_that_its_docstring_promises(p_values):
    logs = log_bets(np.array(p_values))
    bets, n = np.exp(logs), len(p_values)
    for t in range(1, n + 1):
        capital = 1 / (t + 1)  # at rest
        for s in range(1, t + 1):
            capital += bets[:, s - 1 : t].prod(axis=1).mean() / (s * (s + 1))
        assert log_martingale(logs)[t - 1] == pytest.approx(math.log(capital), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.integers(0, 49))
def test_capital_depends_on_the_past_alone(p_values, cut):
    logs = log_bets(np.clip(p_values, 1e-9, 1 - 1e-9))
    cut = min(cut, len(p_values) - 1)
    whole, part = log_martingale(logs), log_martingale(logs[:, : cut + 1])
    assert part == pytest.approx(whole[: cut + 1], abs=1e-9)


# --- online p-values


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=10),
    st.lists(st.integers(0, 4), min_size=1, max_size=10),
    st.integers(0, 2**32),
)
def test_an_online_p_value_ranks_a_score_among_all_before_it(held_out, scores, seed):
    held_out, scores = np.array(held_out, float), np.array(scores, float)
    p_values = online_p_values(held_out, scores, np.random.default_rng(seed))
    for i, score in enumerate(scores):
        seen = np.concatenate([held_out, scores[:i]])
        higher, as_high = (seen > score).sum(), (seen == score).sum()
        n = len(seen) + 1
        assert higher / n - 1e-12 <= p_values[i] <= (higher + as_high + 1) / n + 1e-12


@pytest.mark.parametrize("n_values", [3, 10**6])
def test_online_p_values_are_uniform_and_independent_with_ties_and_without(n_values):
    random = np.random.default_rng(1)
    p_values = []
    for _ in range(300):
        scores = random.integers(0, n_values, 40).astype(float)
        p_values.append(online_p_values(scores[:20], scores[20:], random))
    p_values = np.array(p_values)
    assert kstest(p_values.ravel(), "uniform").pvalue > 0.001
    correlation = np.corrcoef(p_values[:, :-1].ravel(), p_values[:, 1:].ravel())[0, 1]
    assert abs(correlation) < 4 / math.sqrt(p_values[:, 1:].size)


# --- false alarms, detection and change points


@pytest.mark.parametrize("level", [0.01, 0.1])
def test_false_alarms_are_as_rare_as_promised(level):
    """On streams ten times as long as the calibration set, whose noise they share."""
    random = np.random.default_rng(2)
    n_streams = 400
    alarms = sum(
        detect_drift(calibration_on(random, 100), random.normal(size=1000), level=level).alarm
        is not None
        for _ in range(n_streams)
    )
    assert alarms <= n_streams * level + 3 * math.sqrt(n_streams * level)


CHANGES = {
    "higher": (lambda random, n: random.normal(1, size=n), "higher scores", 100),
    "lower": (lambda random, n: random.normal(-1, size=n), "lower scores", 100),
    "wider": (lambda random, n: random.normal(0, 2, size=n), "more extreme", 100),
    "narrower": (lambda random, n: random.normal(0, 0.5, size=n), "fewer extreme", 150),
    "a fifth anomalous": (
        lambda random, n: random.normal(np.where(random.random(n) < 0.2, 5, 0)),
        "",  # more anomalies or, when they fill the tail, higher scores
        150,
    ),
    "none of the highest tenth": (
        lambda random, n: (x := random.normal(size=2 * n))[x < 1.28][:n],
        "fewer high",
        400,
    ),
}


@pytest.mark.parametrize(("draw", "words", "delay"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_found_soon_with_its_beginning_and_its_kind(draw, words, delay):
    change, delays, errors, kinds = 300, [], [], []
    for seed in range(9):
        random = np.random.default_rng(seed)
        calibration = calibration_on(random, 2000)
        stream = np.concatenate([random.normal(size=change), draw(random, 600)])
        found = detect_drift(calibration, stream, seed=seed)
        assert found.alarm is not None
        assert found.since <= found.alarm
        delays.append(found.alarm - change)
        errors.append(abs(found.since - change))
        kinds.append(words in found.change)
    assert 0 < np.median(delays) < delay
    assert np.median(errors) < 20
    assert sum(kinds) >= 7


def test_a_long_calm_does_not_hide_a_change():
    random = np.random.default_rng(3)
    stream = np.concatenate([random.normal(size=20_000), random.normal(1, size=300)])
    found = detect_drift(calibration_on(random, 2000), stream)
    assert 20_000 < found.alarm < 20_120
    assert abs(found.since - 20_000) < 30


def test_a_change_point_is_exact_where_the_evidence_is_clear():
    p_values = np.concatenate([np.full(50, 0.5), np.full(40, 1e-4)])
    assert change_point(log_bets(p_values))[0] == 50


def test_effect_and_description_are_those_of_the_stream():
    random = np.random.default_rng(4)
    calibration = calibration_on(random)
    stream = np.concatenate([random.normal(size=200), random.normal(5, size=100)])
    found = detect_drift(calibration, stream)
    unusual = calibration.p_value(stream) <= calibration.false_positive_rate
    assert found.share_since == unusual[found.since :].mean() > 0.9
    assert found.share_before == unusual[: found.since].mean() < 0.1
    rows = dict(table_of(found, [f"{i}.png" for i in range(300)]))
    assert rows["since"] == f"about sample {found.since + 1}, named {found.since}.png"
    assert rows["drift"].endswith(f"found at sample {found.alarm + 1} of 300")

    calm = detect_drift(calibration, stream[:200])
    assert (calm.alarm, calm.since, calm.change, calm.share_since) == (None, None, None, None)
    assert calm.evidence < 2
    assert dict(table_of(calm, []))["drift"] == "none found in 200 samples"


def test_a_stream_that_is_wrong_from_the_start_has_no_before():
    random = np.random.default_rng(5)
    found = detect_drift(calibration_on(random), random.normal(6, size=50))
    assert found.since == 0
    assert found.share_before is None
    assert "share before" not in dict(table_of(found, ["x"] * 50))


def test_the_seed_decides_and_nothing_else():
    random = np.random.default_rng(6)
    calibration, stream = calibration_on(random), random.integers(0, 2, 100).astype(float)
    assert detect_drift(calibration, stream) == detect_drift(calibration, stream)
    assert detect_drift(calibration, stream) != detect_drift(calibration, stream, seed=1)


@pytest.mark.parametrize("level", [0, 1, -1, float("nan")])
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(InputError, match="must be between 0 and 1"):
        detect_drift(calibration_on(np.random.default_rng(0)), np.zeros(3), level=level)


def test_an_empty_stream_is_refused():
    with pytest.raises(InputError, match="the stream is empty"):
        detect_drift(calibration_on(np.random.default_rng(0)), np.zeros(0))
