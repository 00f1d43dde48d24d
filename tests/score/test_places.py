import math

import pytest
import torch

from historyad.score import places as module
from historyad.score.places import Places


def aligned(n=60, n_places=4, n_values=3, seed=0):
    """Cells whose mean and spread are those of their place."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, n_places, n_values, generator=random)
    return x * torch.arange(1.0, n_places + 1)[:, None] + 10 * torch.arange(n_places)[:, None]


def test_distances_are_those_to_the_gaussian_of_a_place(constants):
    constants(module, place_prior=0.0, place_ridge=0.0)
    x = aligned()
    places = Places.fit(x)
    found = places(x)
    for place in range(4):
        centred = x[:, place] - x[:, place].mean(0)
        covariance = centred.T @ centred / len(x)
        expected = (centred @ torch.linalg.inv(covariance) * centred).sum(1).sqrt()
        torch.testing.assert_close(found[:, place], expected, atol=1e-3, rtol=1e-3)
    # The mean of squared distances to a Gaussian is the number of values.
    assert float(found.square().mean()) == pytest.approx(3, rel=1e-3)


def test_surprise_is_the_negative_log_likelihood_less_a_constant(constants):
    constants(module, place_prior=0.0, place_ridge=0.0)
    x, new = aligned(n=200), aligned(n=50, seed=1)
    one = x.flatten(0, 1)[:, None]
    normal = torch.distributions.MultivariateNormal(
        one[:, 0].mean(0), torch.cov(one[:, 0].T, correction=0)
    )
    expected = -normal.log_prob(new.flatten(0, 1)).mean() - 1.5 * math.log(2 * math.pi)
    as_one = Places.fit(one).surprise(new.flatten(0, 1)[:, None])
    assert as_one == pytest.approx(float(expected), rel=1e-3)
    assert Places.fit(x).surprise(new) < as_one  # as places differ
    shuffled = x.flatten(0, 1)[torch.randperm(800, generator=torch.Generator().manual_seed(0))]
    by_place = Places.fit(shuffled[:80].view(20, 4, 3)).surprise(shuffled[80:].view(180, 4, 3))
    assert by_place > Places.fit(shuffled[:80, None]).surprise(shuffled[80:, None])


def test_of_few_images_a_place_has_the_covariance_of_all():
    x = aligned(n=2)
    found = Places.fit(x)
    assert torch.isfinite(found.factors).all()
    flat = Places.fit(torch.zeros(5, 2, 3))
    assert torch.isfinite(flat(torch.ones(1, 2, 3))).all()
