"""What each lead brings: the cost of a fit, from its steps, on the way from reference to default.

A fit takes a known number of steps of four kinds, so that its cost follows from the time of each.
What is changed here only to be measured (plain pooling, two forwards, ...) is written here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.measuring import Row, seconds_of
from historyad.config import Config, make_config
from historyad.layers import PooledConv2d
from historyad.method.detector import detector_step
from historyad.method.gan import (
    Gan,
    build_gan,
    critic_step,
    draw_latents,
    generator_step,
    make_adam,
)
from historyad.method.history import recorded_interval
from historyad.method.losses import critic_loss, gradient_penalty
from historyad.method.networks import ImageNetworks, initialise

IMAGES = 51_000  # that MNIST trains on, with 15 % held out


@dataclass(frozen=True)
class Variant:
    """One way to do the same work: hyperparameters, and how the steps are computed."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    folded: bool = True  # convolution and pooling as one strided convolution
    channels_last: bool = True
    fused: bool = True  # Adam in one kernel
    together: bool = True  # one forward of the critic on real and generated images
    bfloat16: bool = False  # in step 3, by autocast
    compiled: bool = False  # step 3


def ladder() -> list[Variant]:
    """Return the variants from the reference recipe to the default, one change at a time."""
    reference: dict[str, Any] = {"preset": "paper", "width": 64, "hidden": 1100}
    plain = Variant(
        "reference", reference, folded=False, channels_last=False, fused=False, together=False
    )
    rungs = [plain]

    def climb(name: str, settings: dict[str, Any] | None = None, **changes: Any) -> None:
        last = rungs[-1]
        rungs.append(
            replace(last, name=name, settings={**last.settings, **(settings or {})}, **changes)
        )

    climb("channels last", channels_last=True)
    climb("pooling folded into the convolution", folded=True)
    climb("fused Adam", fused=True)
    climb("one forward on real and generated", together=True)
    climb("penalty at every 4th step", {"penalty_interval": 4})
    climb("stop at a remaining mass of 0.01", {"mass_tolerance": 1e-2})
    climb("2 epochs of step 3 instead of 5", {"detector_epochs": 2.0})
    sizes = {"width": 24, "hidden": 512, "latent_dim": 64}
    climb("width 24, hidden 512, latent 64 = default", sizes)
    return rungs


def others() -> list[Variant]:
    """Return the default with what was tried on top of it."""
    default = Variant("default", {"preset": "default"})
    return [
        default,
        replace(default, name="batches of 128", settings={"batch_size": 128}),
        replace(default, name="batches of 256", settings={"batch_size": 256}),
        replace(default, name="bfloat16 in step 3", bfloat16=True),
        replace(default, name="step 3 compiled", compiled=True),
    ]


def measure_variants(variants: list[Variant], shape: tuple[int, ...], rounds: int) -> list[Row]:
    """Time the steps of every variant in ``rounds`` turns; return a row for each."""
    built = [_Steps(variant, shape) for variant in variants]
    times: list[list[dict[str, float]]] = [[] for _ in built]
    for _ in range(rounds):
        for steps, found in zip(built, times, strict=True):
            found.append({kind: _median_seconds(step) for kind, step in steps.kinds.items()})
    peak = matrix_peak()
    rows = []
    for steps, found in zip(built, times, strict=True):
        seconds = {kind: statistics.median(t[kind] for t in found) for kind in steps.kinds}
        flops = {kind: count_flops(step) for kind, step in steps.kinds.items()}
        count = steps.counts()
        total = sum(count[kind] * seconds[kind] for kind in count)
        operations = sum(count[kind] * flops[kind] for kind in count)
        rows.append(
            {
                "variant": steps.variant.name,
                "shape": list(shape),
                "threads": torch.get_num_threads(),
                "rounds": rounds,
                "steps": count,
                "step_seconds": seconds,
                "fit_seconds": total,
                "fit_seconds_of_rounds": [
                    sum(count[kind] * t[kind] for kind in count) for t in found
                ],
                "step1_seconds": total - count["detector"] * seconds["detector"],
                "step3_seconds": count["detector"] * seconds["detector"],
                "flops": operations,
                "peak_flops": peak,
                "share_of_peak": operations / total / peak,
            }
        )
    return rows


class _Steps:
    """The steps of a fit, each on its own networks, ready to be called again and again."""

    def __init__(self, variant: Variant, shape: tuple[int, ...]) -> None:
        self.variant = variant
        self.config: Config = make_config(**variant.settings)
        networks = ImageNetworks.of(shape, self.config)
        gan, detector = build_gan(networks, self.config, "cpu"), networks.critic()
        random = torch.Generator().manual_seed(0)
        initialise(detector, random)
        for network in (gan.generator, gan.critic, detector):
            _degrade(network, variant)
        rate = self.config.learning_rate
        if variant.fused:
            betas = self.config.detector_momentum, self.config.detector_square_momentum
            optimizer = make_adam(detector, rate, betas)
        else:
            gan.generator_optimizer = _plain_adam(gan.generator, rate)
            gan.critic_optimizer = _plain_adam(gan.critic, rate)
            optimizer = _plain_adam(detector, rate)
        if variant.compiled:
            detector.compile()
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        real, fake = (
            torch.rand(self.config.batch_size, *shape, generator=random)
            .mul_(2)
            .sub_(1)
            .contiguous(memory_format=layout)
            for _ in range(2)
        )
        step = critic_step if variant.together else _critic_step_apart

        def detect() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=variant.bfloat16):
                return detector_step(detector, optimizer, real, fake, self.config)

        self.kinds: dict[str, Callable[[], object]] = {
            "critic": lambda: step(gan, real, random, self.config, penalised=False),
            "penalised": lambda: step(gan, real, random, self.config, penalised=True),
            "generator": lambda: generator_step(gan, random, self.config),
            "detector": detect,
        }

    def counts(self) -> dict[str, int]:
        """Return how many steps of each kind a fit of ``IMAGES`` images takes."""
        config = Config(**{**vars(self.config), "epoch_images": IMAGES})
        critic = round(recorded_interval(config)[1] * IMAGES / config.batch_size)
        penalised = critic // config.penalty_interval
        return {
            "critic": critic - penalised,
            "penalised": penalised,
            "generator": critic // config.critic_steps,
            "detector": round(config.detector_epochs * IMAGES / config.batch_size),
        }


def count_flops(step: Callable[[], object]) -> int:
    """Return the floating-point operations of convolutions and matrix products in one call."""
    counter = _FlopCounter()  # type: ignore[no-untyped-call]
    with counter:
        step()
    return counter.total


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up torch's own counts; its ready-made counter cannot follow a second derivative."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        self.total += int(count(*args, **(kwargs or {}), out_val=out)) if count else 0
        return out


def matrix_peak(side: int = 2048) -> float:
    """Return the best rate, in operations per second, of a float32 matrix product."""
    a = torch.rand(side, side)
    best = min(seconds_of(lambda: a @ a) for _ in range(7))
    return 2 * side**3 / best


def _degrade(network: nn.Module, variant: Variant) -> None:
    """Undo, in a network, what the variant does without."""
    if not variant.channels_last:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, PooledConv2d) and not variant.folded:
            module.forward = _Plain(module)  # type: ignore[method-assign]


class _Plain:
    """A 3 x 3 convolution, then 2 x 2 average pooling."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self._layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        y = functional.conv2d(x, self._layer.weight, self._layer.bias, padding=1)
        return functional.avg_pool2d(y, 2)


def _plain_adam(network: nn.Module, rate: float) -> Adam:
    return Adam(network.parameters(), lr=rate, betas=(0.5, 0.9), foreach=False)


def _critic_step_apart(
    gan: Gan, real: Tensor, random: torch.Generator, config: Config, *, penalised: bool
) -> Tensor:
    """Take a critic step with one forward for the real and one for the generated images."""
    with torch.no_grad():
        generated = gan.generator(draw_latents(config, random, real.device))
    loss = critic_loss(gan.critic(generated), gan.critic(real))
    distance = -loss.detach()
    if penalised:
        mix = torch.rand(len(real), generator=random)
        penalty = gradient_penalty(gan.critic, real, generated, mix)
        loss = loss + config.gradient_penalty_weight * config.penalty_interval * penalty
    gan.critic_optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    gan.critic_optimizer.step()
    return distance


def _median_seconds(step: Callable[[], object], repeats: int = 3) -> float:
    step()
    return statistics.median(seconds_of(step) for _ in range(repeats))
