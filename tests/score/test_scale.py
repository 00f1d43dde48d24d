import pytest
import torch

from historyad.constants import CONSTANTS
from historyad.score.scale import Scale, quantile


def rows(*more):
    """Return rows of 0 to 100: 95 % are at most 95."""
    return torch.stack([torch.arange(101.0).roll(7), *more])


def test_typical_is_0_and_the_end_of_the_range_1():
    scale = Scale(2)
    values = rows(10 * torch.arange(101.0) - 3)
    scale.fit(values)
    assert scale.center.tolist() == [50, 497]
    assert scale.spread.tolist() == [45, 450]
    assert scale(torch.tensor([[50.0, 95], [497, 947]])).tolist() == [[0, 1], [0, 1]]


def test_what_counts_by_its_square_is_2_at_the_far_end_where_that_is_wider():
    tail = torch.arange(101.0)
    tail[99:] = 1000
    scale = Scale(3)
    scale.fit(rows(tail, tail), squared=[True, False, True])
    assert scale.spread.tolist() == [45, 45, 475]  # of (99 - 50) / 2 and 45 the wider


def test_no_spread_is_smaller_than_its_bound():
    scale = Scale(3)
    same, least = torch.ones(101), CONSTANTS.smallest_spread
    scale.fit(rows(same, same), smallest={0: 0.05, 2: 0.05})
    assert scale.spread.tolist() == pytest.approx([45, least, 0.05])
    scale.fit_tail(rows(same, same))
    assert scale.spread.tolist() == pytest.approx([49, least, least])
    assert scale.center.tolist() == [50, 1, 1]


@pytest.mark.parametrize("q", [0.0, 0.3, 0.95, 0.999, 1.0])
def test_quantiles_are_those_of_torch(q):
    values = torch.randn(3, 57, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quantile(values, q), values.quantile(q, dim=1))
