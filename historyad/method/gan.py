"""Step 1: WGAN-GP training that records its history (sections 3.1 and 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam

from historyad import ranks
from historyad.config import Config
from historyad.method.batches import Batches
from historyad.method.history import History, recorded_interval
from historyad.method.loop import Loop, Session
from historyad.method.losses import critic_loss, generator_loss, gradient_penalty
from historyad.method.networks import Critic, Generator, Networks, initialise
from historyad.randomness import Stream, torch_generator

_ALONE = Session()

Fall = Callable[[float], float]  # of a rate: the share that is left, by that of the training


def linear(left: float) -> float:
    """The paper's "decreasing learning rate" (section 4.2) as we take it: linear, to 0."""
    return left


@dataclass
class Gan:
    """The two networks of step 1 with their optimisers."""

    generator: Generator
    critic: Critic
    generator_optimizer: Adam
    critic_optimizer: Adam

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, as a checkpoint names them."""
        return {"generator": self.generator, "critic": self.critic}

    @property
    def optimizers(self) -> dict[str, Adam]:
        """The optimisers, as a checkpoint names them."""
        return {"generator_adam": self.generator_optimizer, "critic_adam": self.critic_optimizer}


def record_history(
    batches: Batches,
    history: History,
    session: Session = _ALONE,
    *,
    gan: Gan | None = None,
    fall: Fall = linear,
) -> Gan:
    """Step 1: train a WGAN-GP (eq. 2) on ``batches``, recording snapshots into ``history``.

    Progress is counted in images seen by the critic. Training stops when what the history would
    still gain is negligible (`recorded_interval`). Where the ``session`` keeps checkpoints, it
    continues where it was left, and ends in the same bytes. ``gan`` is what to start from, when not
    from `build_gan`, and ``fall`` how the learning rate falls. Several processes train together, in
    steps that are those of one: rank 0 writes, and all end with the same networks and history.
    """
    config = history.config
    gan = gan or build_gan(history.networks, config, batches.device)
    loop = Loop(1, config, session, gan.networks, gan.optimizers)
    history.rewind(loop.images_seen)

    start, end = recorded_interval(config)
    for seen in loop.until(end * config.epoch_images):
        distance = loop.count(gan_step(gan, batches, seen, config, fall))
        if distance is not None:  # a save interval has ended
            if loop.epoch >= start:
                history.record(loop.images_seen, gan.generator, gan.critic)
            loop.report(of=end, wasserstein_distance=distance)
    ranks.barrier()
    history.reload()
    return gan


def build_gan(networks: Networks, config: Config, device: torch.device | str) -> Gan:
    """Return an untrained GAN, its weights drawn from the seed."""
    random = torch_generator(config.seed, Stream.WEIGHTS)
    generator, critic = networks.generator(), networks.critic()
    initialise(generator, random)
    initialise(critic, random)
    generator, critic = generator.to(device), critic.to(device)
    # Momentum makes P_G oscillate around P_data (section 3.2).
    betas = config.momentum, config.square_momentum
    return Gan(
        generator,
        critic,
        make_adam(generator, _generator_rate(config), betas),
        make_adam(critic, config.learning_rate, betas),
    )


def _generator_rate(config: Config) -> float:
    return config.generator_learning_rate or config.learning_rate


def gan_step(gan: Gan, batches: Batches, seen: int, config: Config, fall: Fall = linear) -> Tensor:
    """Take the step that follows ``seen`` images; return the critic's estimate of the distance.

    The generator follows at every ``critic_steps``-th step.
    """
    left = fall(max(0.0, 1 - seen / (config.n_epochs * config.epoch_images)))
    set_learning_rate(gan.critic_optimizer, config.learning_rate * left)
    set_learning_rate(gan.generator_optimizer, _generator_rate(config) * left)
    step = seen // config.batch_size
    random = torch_generator(config.seed, Stream.GAN, seen)
    real = batches.at(seen, config.batch_size, ranks.own_part(config.batch_size))
    penalised = step % config.penalty_interval == 0
    distance = critic_step(gan, real, random, config, penalised=penalised)
    if (step + 1) % config.critic_steps == 0:
        generator_step(gan, random, config)
    return distance


def critic_step(
    gan: Gan, real: Tensor, random: torch.Generator, config: Config, *, penalised: bool
) -> Tensor:
    """Take one step of the critic; return its estimate of the Wasserstein distance (eq. 1).

    The penalty may be left out of most steps; where it is in, its weight is multiplied by its
    interval. ``real`` is this rank's part of the batch, and so is what is drawn.
    """
    part = ranks.own_part(config.batch_size)
    with torch.no_grad():
        generated = gan.generator(draw_latents(config, random, real.device))
    real_scores, generated_scores = gan.critic(torch.cat([real, generated])).chunk(2)
    loss = critic_loss(generated_scores, real_scores)
    distance = -loss.detach()
    if penalised and config.gradient_penalty_weight > 0:
        mix = torch.rand(config.batch_size, generator=random)[part].to(real.device)
        penalty = gradient_penalty(gan.critic, real, generated, mix)
        loss = loss + config.gradient_penalty_weight * config.penalty_interval * penalty
    gan.critic_optimizer.zero_grad()
    ranks.backward(loss, gan.critic, config.batch_size)
    gan.critic_optimizer.step()
    return distance


def generator_step(gan: Gan, random: torch.Generator, config: Config) -> None:
    """Take one step of the generator against a critic that stays as it is."""
    latents = draw_latents(config, random, gan.critic.device)
    gan.critic.requires_grad_(False)
    loss = generator_loss(gan.critic(gan.generator(latents)))
    gan.generator_optimizer.zero_grad()
    ranks.backward(loss, gan.generator, config.batch_size)
    gan.generator_optimizer.step()
    gan.critic.requires_grad_(True)


def draw_latents(config: Config, random: torch.Generator, device: torch.device) -> Tensor:
    """Return this rank's part of a batch of latents z of P_Z = N(0, 1), (n, latent_dim).

    All ranks draw the whole batch, so that a latent does not depend on their number.
    """
    latents = torch.randn(config.batch_size, config.latent_dim, generator=random)
    return latents[ranks.own_part(config.batch_size)].to(device)


def make_adam(network: nn.Module, learning_rate: float, betas: tuple[float, float]) -> Adam:
    """Return the paper's optimiser for ``network``; fused, it saves a tenth of a step."""
    return Adam(network.parameters(), lr=learning_rate, betas=betas, fused=True)


def set_learning_rate(optimizer: Adam, learning_rate: float) -> None:
    """Set the learning rate of every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
