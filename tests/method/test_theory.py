import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from historyad.method.theory import minimum_loss, optimal_detector, total_variation

DATA = np.array([0.5, 0.5, 0.0, 0.0])
HISTORY = np.array([0.0, 0.5, 0.25, 0.25])


def loss_at(scores, data, history, bound_weight):
    """Eq. 17: the loss at each point when D takes ``scores`` there."""
    outside = np.clip(np.abs(scores) - 1, 0, None)
    return (data - history) * scores + bound_weight * (data + history) / 2 * outside**2


@st.composite
def probabilities(draw, n=1):
    """``n`` distributions on one discrete space of 2 to 8 points, zeros among them."""
    size = draw(st.integers(2, 8))
    counts = [draw(arrays(int, size, elements=st.integers(0, 9))) for _ in range(n)]
    for count in counts:
        count[draw(st.integers(0, size - 1))] += 1
    return [count / count.sum() for count in counts]


def test_total_variation_by_hand():
    assert total_variation(DATA, HISTORY) == 0.5
    assert total_variation([1, 0], [0, 1]) == 1
    assert total_variation([0.2, 0.8], [0.2, 0.8]) == 0


def test_total_variation_of_shifted_normals_on_a_grid():
    x = np.linspace(-10, 10, 4001)
    shifted = total_variation(norm.pdf(x), norm.pdf(x, loc=1), cell=x[1] - x[0])
    assert shifted == pytest.approx(2 * norm.cdf(0.5) - 1, abs=1e-6)


@given(probabilities(3))
def test_total_variation_is_a_distance_in_0_1(densities):
    p, q, r = densities
    assert 0 <= total_variation(p, q) <= 1 + 1e-12
    assert total_variation(p, q) == total_variation(q, p)
    assert total_variation(p, p) == 0
    assert total_variation(p, r) <= total_variation(p, q) + total_variation(q, r) + 1e-12


@given(probabilities(2))
def test_total_variation_is_the_supremum_over_all_events(densities):
    p, q = densities
    events = (np.arange(2 ** len(p))[:, None] >> np.arange(len(p))) & 1
    assert total_variation(p, q) == pytest.approx(np.abs(events @ (p - q)).max(), abs=1e-12)


def test_optimal_detector_by_hand():
    scores = optimal_detector([0.6, 0.4, 0.0], [0.2, 0.6, 0.2], 10)
    np.testing.assert_allclose(scores, [-1.05, 1.02, 1.1])


def test_optimal_detector_where_only_one_density_is_non_zero():
    np.testing.assert_allclose(optimal_detector(DATA, HISTORY, 10), [-1.1, 0, 1.1, 1.1])


def test_optimal_detector_where_nothing_is_known_is_0():
    np.testing.assert_array_equal(optimal_detector([0, 0.5, 0.5], [0, 0.5, 0.5], 10), 0)


@given(probabilities(2), st.sampled_from([0.5, 1.0, 10.0, 100.0]))
def test_no_value_does_better_than_the_optimal_detector(densities, bound_weight):
    data, history = densities
    best = loss_at(optimal_detector(data, history, bound_weight), data, history, bound_weight)
    scan = np.linspace(-4, 4, 1601)[:, None]  # at bound_weight 0.5 the optimum lies in [-3, 3]
    scanned = loss_at(scan, data, history, bound_weight).min(0)
    assert (best <= scanned + 1e-12).all()
    np.testing.assert_allclose(best, scanned, atol=bound_weight * 0.005**2)


@given(probabilities(2), st.floats(0.1, 1000))
def test_minimum_loss_is_the_loss_of_the_optimal_detector(densities, bound_weight):
    data, history = densities
    losses = loss_at(optimal_detector(data, history, bound_weight), data, history, bound_weight)
    assert minimum_loss(data, history, bound_weight) == pytest.approx(losses.sum(), abs=1e-9)


def test_minimum_loss_by_hand():
    # -2 * 0.5 - (1 / 20) * (0.5 + 0 + 0.25 + 0.25)
    assert minimum_loss(DATA, HISTORY, 10) == pytest.approx(-1.05)


@given(probabilities(2))
def test_infinite_bound_weight_gives_the_total_variation(densities):
    data, history = densities
    assert minimum_loss(data, history, 1e12) == pytest.approx(-2 * total_variation(data, history))
    scores = optimal_detector(data, history, 1e12)
    np.testing.assert_allclose(scores, np.sign(history - data), atol=1e-9)


def test_cell_width_turns_densities_into_probabilities():
    width = 0.25
    for measure in (total_variation, lambda p, q, cell=1.0: minimum_loss(p, q, 10, cell)):
        on_grid = measure(DATA / width, HISTORY / width, cell=width)
        assert on_grid == pytest.approx(measure(DATA, HISTORY))


@pytest.mark.parametrize("bad", [[0.5, 0.5, 0.0], [1.5, -0.5, 0.0, 0.0], [np.nan, 1, 0, 0]])
def test_what_is_no_density_of_that_space_is_refused(bad):
    for measure in (total_variation, lambda p, q: optimal_detector(p, q, 10)):
        with pytest.raises(ValueError, match="densit"):
            measure(DATA, bad)
