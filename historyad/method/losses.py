"""The paper's objectives as pure functions: a loss returns a tensor and does nothing else.

D is any callable that maps a batch (B, ...) to scores (B,). As in eq. 2, and unlike most public
WGAN code, the critic is positive on generated samples and negative on real ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def critic_loss(generated_scores: Tensor, real_scores: Tensor) -> Tensor:
    """Eq. 2, inner problem, as a minimisation: E_data[D] - E_G[D].

    Its negative is the critic's estimate of the Wasserstein-1 distance (eq. 1).
    """
    return real_scores.mean() - generated_scores.mean()


def generator_loss(generated_scores: Tensor) -> Tensor:
    """Eq. 2, outer problem: E_G[D], which the generator minimises."""
    return generated_scores.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, generated: Tensor, mix: Tensor
) -> Tensor:
    """Two-sided penalty of Gulrajani et al. (reference [16]): E[(|grad_x D(x)| - 1)^2].

    x lies on the segment between a real and a generated sample. ``mix`` (B,) in [0, 1] is the
    place of each sample on its segment; the norm runs over all dimensions of one sample.
    """
    mix = mix.view(-1, *[1] * (real.dim() - 1))
    x = torch.lerp(real, generated, mix).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm: Tensor = gradient.flatten(1).norm(dim=1)
    return (norm - 1).square().mean()


def distance_to_interval(values: Tensor) -> Tensor:
    """Distance of each value to [-1, 1] (eq. 9)."""
    return (values.abs() - 1).clamp(min=0)


def detector_loss(real_scores: Tensor, history_scores: Tensor, bound_weight: float) -> Tensor:
    """Eq. 10: E_data[D] - E_Ghist[D] + lambda E_(data + Ghist)/2[d(D, [-1, 1])^2]."""
    separation = real_scores.mean() - history_scores.mean()
    real_bound = distance_to_interval(real_scores).square().mean()
    history_bound = distance_to_interval(history_scores).square().mean()
    return separation + bound_weight * (real_bound + history_bound) / 2


def total_variation_estimate(real_scores: Tensor, history_scores: Tensor) -> Tensor:
    """Eq. 7 at D clipped to [-1, 1], halved (eq. 6): a lower bound of the distance, in [-1, 1]."""
    return (history_scores.clamp(-1, 1).mean() - real_scores.clamp(-1, 1).mean()) / 2
