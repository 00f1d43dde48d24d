"""Step 1: WGAN-GP training that records its history (sections 3.1 and 4.2)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from historyad import distributed
from historyad.batches import Batches
from historyad.config import Config
from historyad.history import History, recorded_interval
from historyad.losses import critic_loss, generator_loss, gradient_penalty
from historyad.networks import Critic, Generator, build_networks
from historyad.randomness import Stream, torch_generator
from historyad.storage import Checkpoint

OnProgress = Callable[[dict[str, Any]], None]

CHECKPOINT_SECONDS = 30.0
SHARED_FOLDER = "the run must be in one folder that every process sees; the same command continues"
_BETAS = (0.5, 0.9)  # Adam's momentum; it makes P_G oscillate around P_data (section 3.2)


@dataclass
class Gan:
    """The two networks of step 1 with their optimisers."""

    generator: Generator
    critic: Critic
    generator_optimizer: Adam
    critic_optimizer: Adam


def train_gan(
    batches: Batches,
    history: History,
    *,
    gan: Gan | None = None,
    checkpoint: Checkpoint | None = None,
    on_progress: OnProgress | None = None,
) -> Gan:
    """Train a WGAN-GP (eq. 2) on ``batches``, recording snapshots into ``history``.

    Progress is counted in images seen by the critic. Training stops when what the history would
    still gain is negligible (`recorded_interval`). With a ``checkpoint``, it continues where it
    was left, and ends in the same bytes. ``on_progress`` gets a record at every save interval.
    ``gan`` is what to start from, when not from `build_gan`. Several processes train together, in
    steps that are those of one: rank 0 writes, and all end with the same networks and history.
    """
    config = history.config
    gan = gan or build_gan(batches.shape, config, batches.device)
    networks = {"generator": gan.generator, "critic": gan.critic}
    optimizers = {"generator_adam": gan.generator_optimizer, "critic_adam": gan.critic_optimizer}
    state = {"images_seen": 0, "steps": 0}
    if checkpoint is not None:
        state = checkpoint.restore(networks, optimizers) or state
    distributed.agree({"state of step 1": distributed.fingerprint(state)}, SHARED_FOLDER)
    distributed.broadcast(networks.values())
    history.rewind(state["images_seen"])

    part = distributed.own_part(config.batch_size)
    start, end = recorded_interval(config)
    save_every = config.epoch_images / config.saves_per_epoch
    last_checkpoint = time.monotonic()
    distances: list[Tensor] = []
    while state["images_seen"] < end * config.epoch_images:
        seen = state["images_seen"]
        left = 1 - seen / (config.n_epochs * config.epoch_images)
        for optimizer in optimizers.values():
            set_learning_rate(optimizer, config.learning_rate * max(0.0, left))

        random = torch_generator(config.seed, Stream.GAN, seen)
        real = batches.at(seen, config.batch_size, part)
        penalised = state["steps"] % config.penalty_interval == 0
        distances.append(critic_step(gan, real, random, config, penalised=penalised))
        state["steps"] += 1
        if state["steps"] % config.critic_steps == 0:
            generator_step(gan, random, config)

        state["images_seen"] = seen + config.batch_size
        if state["images_seen"] // save_every == seen // save_every:
            continue
        epoch = state["images_seen"] / config.epoch_images
        if epoch >= start:
            history.record(state["images_seen"], gan.generator, gan.critic)
        distance = distributed.average(torch.stack(distances).mean(), config.batch_size)
        distances.clear()
        if not distributed.is_main():
            continue
        if on_progress is not None:
            on_progress(
                {
                    "step": "gan",
                    "images_seen": state["images_seen"],
                    "epoch": epoch,
                    "of": end,
                    "wasserstein_distance": float(distance),
                }
            )
        if checkpoint is not None and time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS:
            checkpoint.save(networks, optimizers, state)
            last_checkpoint = time.monotonic()
    if checkpoint is not None and distributed.is_main():
        checkpoint.save(networks, optimizers, state)
    distributed.barrier()
    history.reload()
    return gan


def build_gan(shape: tuple[int, ...], config: Config, device: torch.device | str) -> Gan:
    """Return an untrained GAN for samples of ``shape``, its weights drawn from the seed."""
    random = torch_generator(config.seed, Stream.WEIGHTS)
    generator, critic = build_networks(
        shape, config.width, config.hidden, config.latent_dim, random
    )
    generator, critic = generator.to(device), critic.to(device)
    rate = config.learning_rate
    return Gan(generator, critic, make_adam(generator, rate), make_adam(critic, rate))


def critic_step(
    gan: Gan, real: Tensor, random: torch.Generator, config: Config, *, penalised: bool
) -> Tensor:
    """Take one step of the critic; return its estimate of the Wasserstein distance (eq. 1).

    The penalty may be left out of most steps; where it is in, its weight is multiplied by its
    interval. ``real`` is this rank's part of the batch, and so is what is drawn.
    """
    part = distributed.own_part(config.batch_size)
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
    distributed.backward(loss, gan.critic, config.batch_size)
    gan.critic_optimizer.step()
    return distance


def generator_step(gan: Gan, random: torch.Generator, config: Config) -> None:
    """Take one step of the generator against a critic that stays as it is."""
    device = next(gan.critic.parameters()).device
    latents = draw_latents(config, random, device)
    gan.critic.requires_grad_(False)
    loss = generator_loss(gan.critic(gan.generator(latents)))
    gan.generator_optimizer.zero_grad()
    distributed.backward(loss, gan.generator, config.batch_size)
    gan.generator_optimizer.step()
    gan.critic.requires_grad_(True)


def draw_latents(config: Config, random: torch.Generator, device: torch.device) -> Tensor:
    """Return this rank's part of a batch of latents z of P_Z = N(0, 1), (n, latent_dim).

    All ranks draw the whole batch, so that a latent does not depend on their number.
    """
    latents = torch.randn(config.batch_size, config.latent_dim, generator=random)
    return latents[distributed.own_part(config.batch_size)].to(device)


def make_adam(network: nn.Module, learning_rate: float) -> Adam:
    """Return the paper's optimiser for ``network``; fused, it saves a tenth of a step."""
    return Adam(network.parameters(), lr=learning_rate, betas=_BETAS, fused=True)


def set_learning_rate(optimizer: Adam, learning_rate: float) -> None:
    """Set the learning rate of every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
