import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from historyad.errors import InputError
from historyad.score.calibration import (
    Calibration,
    chance_of_so_normal,
    check_number,
    lowest_rate,
    samples_needed,
)

# Few different values, so that ties abound; and rates that equal a p-value, or just miss it.
levels = st.integers(-5, 5).map(lambda n: n / 4)
rates = st.one_of(
    st.floats(1e-3, 0.5),
    st.tuples(st.integers(1, 30), st.integers(2, 60), st.sampled_from([-1, 0, 1])).map(
        lambda parts: _beside(min(parts[0] / parts[1], 0.5), parts[2])
    ),
)


def _beside(rate, direction):
    return math.nextafter(rate, direction) if direction else rate


@given(rates, st.lists(levels, max_size=40), st.integers(0, 2**32), levels)
def test_above_the_threshold_exactly_where_the_p_value_is_small(rate, ties, seed, probe):
    n = max(samples_needed(rate), len(ties))
    more = np.random.default_rng(seed).normal(size=n - len(ties)).astype(np.float32)
    held_out = np.concatenate([np.array(ties, np.float32), more])
    calibration = Calibration.fit(held_out, rate)
    scores = np.array([probe, *held_out[:50]], np.float32)
    anomalous = scores > calibration.threshold
    assert (anomalous == (calibration.p_value(scores) <= rate)).all()


@given(st.lists(levels, min_size=1, max_size=40), levels)
def test_p_value_counts_the_held_out_scores_that_are_as_high(held_out, score):
    calibration = Calibration.fit(np.array(held_out, np.float32), 0.5)
    as_high = sum(other >= score for other in held_out)
    assert calibration.p_value(np.array([score])) == (1 + as_high) / (len(held_out) + 1)


@given(rates)
def test_samples_needed_is_the_smallest_number_that_reaches_the_rate(rate):
    n = samples_needed(rate)
    assert 1 / (n + 1) <= rate
    assert n == 1 or 1 / n > rate


@pytest.mark.parametrize(
    ("rate", "needed"), [(0.5, 1), (0.3, 3), (0.1, 9), (0.01, 99), (1e-5, 99_999)]
)
def test_too_few_samples_are_refused_with_the_number_needed(rate, needed):
    Calibration.fit(np.zeros(needed, np.float32), rate)
    with pytest.raises(InputError, match=f"{needed - 1} held-out .* needs {needed}: give more"):
        Calibration.fit(np.zeros(needed - 1, np.float32), rate)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(value):
    scores = np.array([0.0] * 98 + [value], np.float32)
    with pytest.raises(InputError, match="1 of 99 held-out scores are not finite"):
        Calibration.fit(scores, 0.01)


def test_more_samples_than_a_model_file_holds_are_refused():
    check_number(2**21, 0.01)
    with pytest.raises(InputError, match=r"2,097,153 .* more than the 2,097,152"):
        check_number(2**21 + 1, 0.01)
    # A line of the file for each: the longest of a float32.
    line = f"   {np.float32(-1.1754944e-38)!s},\n"
    assert 2**21 * len(line) < 0.7 * 64 * 2**20


def test_p_values_of_normal_samples_are_super_uniform():
    """P(p <= a) <= a for every a, over the draw of held-out and new scores (simulated)."""
    random = np.random.default_rng(0)
    n_trials, n = 20_000, 39
    levels = np.linspace(0.025, 1, 40)
    for draw in (random.normal, lambda size: random.integers(0, 4, size)):  # without, with ties
        p_values = np.empty(n_trials)
        for i in range(n_trials):
            scores = draw(size=n + 1).astype(np.float32)
            p_values[i] = Calibration(np.sort(scores[1:]), 0.1).p_value(scores[:1])[0]
        share = (p_values[:, None] <= levels + 1e-12).mean(0)
        noise = np.sqrt(levels * (1 - levels) / n_trials)
        assert (share <= levels + 4 * noise).all()
    assert p_values.min() > 0


def test_the_rate_of_one_detector_follows_the_law_of_its_order_statistic():
    random = np.random.default_rng(0)
    for n, rate, m in ((99, 0.01, 1), (199, 0.05, 10)):
        calibration = Calibration.fit(np.arange(n, dtype=np.float32), rate)
        low, high = calibration.rate_quantiles([0.05, 0.95])
        # Of uniform scores, the share above a threshold is what is left to 1.
        thresholds = np.sort(random.random((4000, n)), axis=1)[:, n - m]
        np.testing.assert_allclose(np.quantile(1 - thresholds, [0.05, 0.95]), [low, high], rtol=0.1)
    (highest,) = Calibration.fit(np.arange(99, dtype=np.float32), 0.01).rate_quantiles([0.95])
    assert highest == pytest.approx(1 - 0.05 ** (1 / 99))  # 0.0298


# --- with a confidence


@pytest.mark.parametrize(
    ("rate", "confidence", "needed"),
    [(0.01, 0.95, 299), (0.5, 0.95, 5), (0.05, 0.99, 90), (0.1, 0.5, 7), (1e-5, 0.95, 299_572)],
)
def test_samples_needed_for_a_confidence_are_what_the_highest_score_promises(
    rate, confidence, needed
):
    assert samples_needed(rate, confidence) == needed
    assert (1 - rate) ** needed <= 1 - confidence < (1 - rate) ** (needed - 1)
    Calibration.fit(np.zeros(needed, np.float32), rate, confidence)
    with pytest.raises(InputError, match=rf"rate of {rate:g} with a confidence of {confidence}"):
        check_number(needed - 1, rate, confidence)


def test_the_lowest_rate_is_one_that_as_many_samples_promise():
    for n in (1, 5, 24, 60, 99, 299, 5000):
        for confidence in (0.0, 0.5, 0.95, 0.9999):
            rate = lowest_rate(n, confidence)
            assert samples_needed(rate, confidence) == n
            assert samples_needed(rate * (1 - 1e-6), confidence) == n + 1
            assert Calibration(np.arange(n), rate, confidence).threshold == n - 1


def test_with_a_confidence_the_threshold_is_the_lowest_that_keeps_the_promise():
    for n, rate, confidence in ((99, 0.05, 0.9), (300, 0.01, 0.95), (1000, 0.01, 0.95)):
        calibration = Calibration.fit(np.arange(n, dtype=np.float32), rate, confidence)
        m = n - int(calibration.threshold)
        # Beta(m, n + 1 - m) of the share above the m-th highest, by its sum of binomial terms.
        exceeds = [
            sum(math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(at))
            for at in (m, m + 1)
        ]
        assert exceeds[0] <= 1 - confidence < exceeds[1]
        (highest,) = calibration.rate_quantiles([confidence])
        assert highest <= rate
        assert calibration.threshold > Calibration.fit(calibration.scores, rate).threshold


def test_so_many_detectors_keep_the_rate_as_the_confidence_says():
    random = np.random.default_rng(0)
    for n, rate, confidence in ((60, 0.1, 0.9), (299, 0.01, 0.95)):
        scores = np.sort(random.random((4000, n)).astype(np.float32), axis=1)
        thresholds = np.array([Calibration(one, rate, confidence).threshold for one in scores[:50]])
        m = n - int(np.searchsorted(scores[0], thresholds[0]))
        assert (thresholds == scores[:50, n - m]).all()
        kept = (1 - scores[:, n - m] <= rate).mean()
        low = binom.cdf(m - 1, n, rate)
        assert kept == pytest.approx(1 - low, abs=4 * math.sqrt(low * (1 - low) / 4000))
        assert kept >= confidence - 0.015


def test_the_false_positive_rate_is_met_without_ties():
    random = np.random.default_rng(1)
    rates = []
    for _ in range(400):
        calibration = Calibration.fit(random.normal(size=199).astype(np.float32), 0.05)
        rates.append((random.normal(size=500) > calibration.threshold).mean())
    assert np.mean(rates) == pytest.approx(0.05, abs=4 * np.std(rates) / math.sqrt(400))


@pytest.mark.parametrize("n", [30, 60, 100, 660, 10_000])
def test_fresh_samples_are_called_anomalous_as_often_as_promised(n):
    random = np.random.default_rng(n)
    rate = max(0.01, lowest_rate(n))
    share = math.floor(rate * (n + 1) + 1e-9) / (n + 1)  # of ranks that are above the threshold
    found, p_found = [], []
    for _ in range(400):
        calibration = Calibration.fit(random.random(n).astype(np.float32), rate)
        fresh = random.random(1000).astype(np.float32)
        found.append(np.mean(fresh > calibration.threshold))
        p_found.append(np.mean(calibration.p_value(fresh) <= rate))
    band = 4 * np.std(found) / math.sqrt(400)
    assert share - band < np.mean(found) < share + band
    assert share <= rate + 1e-9
    np.testing.assert_allclose(found, p_found)


def test_order_of_held_out_scores_does_not_matter():
    scores = np.random.default_rng(2).normal(size=50).astype(np.float32)
    one, other = Calibration.fit(scores, 0.1), Calibration.fit(scores[::-1], 0.1)
    assert one.threshold == other.threshold
    assert (np.diff(one.scores) >= 0).all()


def test_the_chance_of_scores_as_low_is_exact():
    """Of like samples, a chance of a or less comes with a probability of a at most."""
    random = np.random.default_rng(0)
    chances = np.array(
        [
            chance_of_so_normal(random.normal(size=80), random.normal(size=60))[1]
            for _ in range(4000)
        ]
    )
    for level in (0.01, 0.05, 0.2):
        assert level / 2 < (chances <= level).mean() < level + 3 * np.sqrt(level / 4000)
    before = np.arange(20.0)  # one is below the second lowest
    assert chance_of_so_normal(before + 1, before) == (0, 1.0)
    low, chance = chance_of_so_normal(np.array([-1.0, -1.0, 30.0]), before)
    # 2 or 3 of the first 3 of 23 are among 3.
    assert low == 2
    assert chance == pytest.approx((3 * 20 + 1) / math.comb(23, 3))
