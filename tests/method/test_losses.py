import numpy as np
import pytest
import torch
from torch import nn

from historyad.method.losses import (
    critic_loss,
    detector_loss,
    distance_to_interval,
    generator_loss,
    gradient_penalty,
    total_variation_estimate,
)
from historyad.method.networks import ImageNetworks, initialise
from historyad.method.theory import minimum_loss, optimal_detector, total_variation

REAL = np.array([-3.0, -1.0, -0.5, 0.25])
OTHER = np.array([2.0, 1.0, 0.5, -1.5])


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(array, np.float64)) for array in arrays]


def test_critic_loss_is_minus_the_wasserstein_estimate():
    generated, real = tensors(OTHER, REAL)
    assert critic_loss(generated, real).item() == pytest.approx(REAL.mean() - OTHER.mean())


def test_the_critic_ends_positive_on_generated_and_negative_on_real():
    slope = torch.zeros(1, requires_grad=True)
    real, generated = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])
    critic_loss(slope * generated, slope * real).backward()
    assert slope.grad < 0  # descent makes the slope positive, as eq. 2 has it


def test_generator_loss_lowers_the_critics_output():
    (generated,) = tensors(OTHER)
    assert generator_loss(generated).item() == pytest.approx(OTHER.mean())


def test_distance_to_interval():
    values, expected = tensors([-3, -1, -0.5, 0, 1, 1.25], [2, 0, 0, 0, 0, 0.25])
    torch.testing.assert_close(distance_to_interval(values), expected)


@pytest.mark.parametrize("bound_weight", [0.5, 10.0])
def test_detector_loss_is_eq_10(bound_weight):
    outside = [np.square(np.clip(np.abs(s) - 1, 0, None)).mean() for s in (REAL, OTHER)]
    expected = REAL.mean() - OTHER.mean() + bound_weight * np.mean(outside)
    loss = detector_loss(*tensors(REAL, OTHER), bound_weight)
    assert loss.item() == pytest.approx(expected)


def test_detector_loss_at_the_optimum_is_the_minimum():
    # Samples in exact proportion to the two distributions: 10 of each on four points.
    data, history = np.array([6, 3, 1, 0]), np.array([1, 3, 2, 4])
    scores = optimal_detector(data / 10, history / 10, 10)
    real, generated = tensors(np.repeat(scores, data), np.repeat(scores, history))
    expected = minimum_loss(data / 10, history / 10, 10)
    assert detector_loss(real, generated, 10).item() == pytest.approx(expected)
    expected = total_variation(data / 10, history / 10)
    assert total_variation_estimate(real, generated).item() == pytest.approx(expected)


def test_total_variation_estimate_clips_the_scores():
    real, generated = tensors([-7.0, -7.0], [7.0, 0.5])
    assert total_variation_estimate(real, generated).item() == pytest.approx((0.75 + 1) / 2)


def linear_critic(weights):
    return lambda x: x.flatten(1) @ weights


def test_gradient_penalty_of_a_linear_critic_is_exact():
    weights = torch.full((12,), 0.5)  # |w| = sqrt(3)
    real, generated = torch.randn(2, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    penalty = gradient_penalty(linear_critic(weights), real, generated, torch.rand(5))
    assert penalty.item() == pytest.approx((3**0.5 - 1) ** 2, rel=1e-6)


def test_gradient_penalty_takes_the_norm_of_each_sample():
    real, generated = torch.zeros(2, 1), torch.tensor([[2.0], [6.0]])
    penalty = gradient_penalty(
        lambda x: x.square().sum(1), real, generated, torch.tensor([0.0, 0.5])
    )
    # Places on the segments are 0 and 3, gradients 0 and 6: (0 - 1)^2 and (6 - 1)^2.
    assert penalty.item() == pytest.approx((1 + 25) / 2)


def test_mix_0_is_real_and_1_is_generated():
    places = []

    def critic(x):
        places.append(x.detach().clone())
        return x.sum(1)

    real, generated = torch.zeros(2, 3), torch.ones(2, 3)
    gradient_penalty(critic, real, generated, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(places[0], torch.tensor([[0.0] * 3, [1.0] * 3]))


def test_gradient_penalty_changes_the_critics_gradients():
    random = torch.Generator().manual_seed(0)
    critic = ImageNetworks((1, 8, 8), 4, 8, 2).critic()
    initialise(critic, random)
    real, generated = torch.randn(2, 6, 1, 8, 8, generator=random)
    penalty = gradient_penalty(critic, real, generated, torch.rand(6, generator=random))
    penalty.backward()
    weights = [m.weight for m in critic.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert all(weight.grad.abs().max() > 0 for weight in weights)
