import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from historyad.errors import InputError
from historyad.judge.metrics import auprc, aupro, auroc, bootstrap_interval, fpr_at_tpr

METRICS = [auroc, auprc, fpr_at_tpr]


@st.composite
def labelled_scores(draw):
    """Labels of both classes and small integer scores, so that ties are common."""
    y = [0, 1, *draw(st.lists(st.integers(0, 1), max_size=40))]
    score = draw(st.lists(st.integers(-5, 5), min_size=len(y), max_size=len(y)))
    return np.array(y), np.array(score, float)


def pairwise_auroc(y, score):
    difference = score[y == 1][:, None] - score[y == 0][None]
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


def test_hand_computed_case():
    y = [0, 0, 1, 1]
    score = [0.1, 0.4, 0.35, 0.8]
    assert auroc(y, score) == 0.75
    assert auprc(y, score) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert fpr_at_tpr(y, score) == 0.5
    assert fpr_at_tpr(y, score, tpr=0.5) == 0


def test_perfect_and_reversed_ranking():
    y = np.repeat([0, 1], 10)
    assert (auroc(y, y), auprc(y, y), fpr_at_tpr(y, y)) == (1, 1, 0)
    assert (auroc(y, -y), fpr_at_tpr(y, -y)) == (0, 1)


def test_constant_score_gives_chance_level():
    y = [0, 0, 0, 1]
    assert auroc(y, [2, 2, 2, 2]) == 0.5
    assert auprc(y, [2, 2, 2, 2]) == 0.25  # the prevalence
    assert fpr_at_tpr(y, [2, 2, 2, 2]) == 1


def test_gaussian_shift_matches_its_closed_form():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 20_000)
    assert auroc(y, rng.normal(size=40_000) + y) == pytest.approx(
        norm.cdf(1 / np.sqrt(2)), abs=0.01
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_auprc_at_another_prevalence_is_that_of_repeated_normals(times, seed):
    random = np.random.default_rng(seed)
    normal, anomalous = random.integers(0, 9, 12), random.integers(3, 12, 6)
    y, score = np.repeat([0, 1], [12, 6]), np.concatenate([normal, anomalous])
    many = np.concatenate([np.repeat(normal, times), anomalous])
    expected = auprc(np.repeat([0, 1], [12 * times, 6]), many)
    assert auprc(y, score, prevalence=6 / (6 + 12 * times)) == pytest.approx(expected)


def test_auprc_of_a_constant_is_the_prevalence_asked_for():
    assert auprc([0, 0, 0, 1], [1, 1, 1, 1], prevalence=0.1) == pytest.approx(0.1)
    with pytest.raises(InputError, match="prevalence is 1"):
        auprc([0, 1], [0, 1], prevalence=1.0)


@given(labelled_scores())
@settings(max_examples=60, deadline=None)
def test_auroc_is_the_share_of_ordered_pairs(case):
    y, score = case
    assert auroc(y, score) == pytest.approx(pairwise_auroc(y, score))
    assert auroc(y, -score) == pytest.approx(1 - auroc(y, score))


@given(labelled_scores())
@settings(max_examples=30, deadline=None)
def test_increasing_maps_and_order_do_not_matter(case):
    y, score = case
    for metric in METRICS:
        value = metric(y, score)
        assert 0 <= value <= 1
        assert metric(y, np.exp(score) - 3) == value
        assert metric(y[::-1], score[::-1]) == value


def test_interval_holds_the_estimate_and_is_deterministic():
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], [300, 100])
    score = rng.normal(size=400) + y
    for metric in METRICS:
        low, high = bootstrap_interval(metric, y, score, n_resamples=100)
        assert 0 <= low < metric(y, score) < high <= 1
        assert bootstrap_interval(metric, y, score, n_resamples=100) == (low, high)
    low, high = bootstrap_interval(auroc, y, score, n_resamples=100)
    assert bootstrap_interval(auroc, y, score, n_resamples=100, seed=1) != (low, high)
    narrow_low, narrow_high = bootstrap_interval(auroc, y, score, n_resamples=100, level=0.5)
    assert low < narrow_low < narrow_high < high


def test_interval_width_matches_the_hanley_mcneil_error():
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1], 500)
    score = rng.normal(size=1000) + y
    area = auroc(y, score)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = np.sqrt((area * (1 - area) + 499 * (q1 - area**2) + 499 * (q2 - area**2)) / 500**2)
    low, high = bootstrap_interval(auroc, y, score, n_resamples=400)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.2)


def test_interval_keeps_both_classes_when_one_is_rare():
    y = np.r_[np.zeros(50), 1]
    low, high = bootstrap_interval(auroc, y, np.arange(51.0))
    assert (low, high) == pytest.approx((1, 1))


def test_interval_of_20_000_scores_is_quick():
    y = np.repeat([0, 1], 10_000)
    score = np.random.default_rng(0).normal(size=20_000) + y
    started = time.process_time()
    bootstrap_interval(auroc, y, score)
    assert time.process_time() - started < 10  # about 1 s; slack for a busy machine


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("y", "score", "message"),
    [
        ([0, 0], [1, 2], "one class"),
        ([], [], "one class"),
        ([0, 1], [1, np.nan], "score 1 is nan"),
        ([0, 1], [1, np.inf], "finite"),
        ([0, 1], [1, 2, 3], "one label and one score"),
        ([[0, 1]], [[1, 2]], "one label and one score"),
        ([0, 2], [1, 2], "labels must be 0"),
        ([0, 1], ["a", "b"], "not numbers"),
    ],
)
def test_bad_input_is_named(metric, y, score, message):
    with pytest.raises(InputError, match=message):
        metric(y, score)


def test_bad_options_are_named():
    with pytest.raises(InputError, match="tpr is 0"):
        fpr_at_tpr([0, 1], [0, 1], tpr=0)
    with pytest.raises(InputError, match="level is 95"):
        bootstrap_interval(auroc, [0, 1], [0, 1], level=95)
    with pytest.raises(InputError, match="one class"):
        bootstrap_interval(auroc, [0, 0], [0, 1])


def squares():
    """One mask with a region of 4 pixels and one of 16, diagonal neighbours joined."""
    masks = np.zeros((2, 12, 12), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 2, 2] = masks[0, 3, 3] = True
    masks[1, 4:8, 4:8] = True
    return masks


def test_aupro_in_closed_form():
    masks = squares()
    assert aupro(masks, masks.astype(float)) == 1
    assert aupro(masks, np.zeros(masks.shape)) == pytest.approx(0.15)  # the diagonal: limit / 2
    # Only the small region is found, before any normal pixel: half of the overlap, then a straight
    # line to 1 at a false-positive rate of 1.
    found = np.zeros(masks.shape)
    found[0] = masks[0]
    assert aupro(masks, found) == pytest.approx(0.5 + 0.5 * 0.15)
    found[0], found[1] = 0, masks[1]  # the large region counts as much as the small one
    assert aupro(masks, found) == pytest.approx(0.5 + 0.5 * 0.15)
    assert aupro(masks, found, fpr_limit=1.0) == pytest.approx(0.75)


def test_aupro_refuses_what_it_cannot_judge():
    masks = squares()
    with pytest.raises(InputError, match="one mask"):
        aupro(masks, np.zeros((2, 12, 11)))
    for other in (masks.astype(np.uint8), masks * 255, masks.astype(float)):
        with pytest.raises(InputError, match=r"mask 0 is of type .*: give bool"):
            aupro(other, np.zeros(masks.shape))
    with pytest.raises(InputError, match="one class"):
        aupro(np.zeros_like(masks), np.zeros(masks.shape))
    with pytest.raises(InputError, match="fpr_limit is 0"):
        aupro(masks, np.zeros(masks.shape), fpr_limit=0)
