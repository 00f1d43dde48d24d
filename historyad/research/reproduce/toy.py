"""Figs. 3 and 4 of the paper: the three steps on numbers drawn from the normal law.

In one dimension P_data is known and P_Ghist can be counted, so that D_TV can be laid over the
detector that eq. 11 promises, and the average of the critics over the critic of average weights.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.config import Config, make_config
from historyad.data.rows import ShuffledSamples
from historyad.files import write_atomic
from historyad.method.batches import Batches
from historyad.method.detector import train_detector
from historyad.method.gan import build_gan, record_history
from historyad.method.history import History, effective_snapshots
from historyad.method.losses import detector_loss, total_variation_estimate
from historyad.method.networks import Critic, Generator, VectorNetworks
from historyad.method.theory import minimum_loss, optimal_detector, total_variation
from historyad.model.phases import IMITATE as _IMITATE
from historyad.model.phases import TELL as _TELL
from historyad.progress import Phases
from historyad.randomness import Stream, numpy_generator
from historyad.research.reproduce.drawing import (
    BLACK,
    BLUE,
    ORANGE,
    VERMILLION,
    draw_figure,
    new_figure,
)
from historyad.research.reproduce.figure import environment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# Of the generator's first outputs, in standard deviations of the data: beside them, and wide.
_OFFSET, _WIDTH = 2.0, 4.0
_CELL = 0.1  # width of a histogram's cell
_EDGES = np.arange(-70, 71) * _CELL
_X = (_EDGES[:-1] + _EDGES[1:]) / 2
_SETTINGS: dict[str, Any] = {
    "hidden": 256,
    "latent_dim": 4,
    "n_epochs": 1.5,
    "epoch_images": 32_000,
    "batch_size": 128,
    "momentum": 0.9,
    "square_momentum": 0.999,
    # A generator faster than the critic that it follows swings through P_data, as in Fig. 3(a).
    "learning_rate": 1e-3,
    "generator_learning_rate": 4e-3,
    "critic_steps": 2,
    # In one dimension a large two-sided penalty is a barrier: a slope of the wrong sign cannot
    # turn, it would have to pass through 0; and P_G then collapses onto the kink of a 'v'.
    "gradient_penalty_weight": 0.3,
    "penalty_interval": 1,
    "skip_epochs": 0.0,
    "decay": 2.0,
    "mass_tolerance": 0.0,
    "wide_share": 0.5,  # experimental case 2: more of the history lies outside the data
    "detector_start": "standardised",
    "detector_learning_rate": 3e-3,
    "detector_momentum": 0.9,
    "detector_square_momentum": 0.9,
}
_SIZES: dict[str, dict[str, Any]] = {
    "full": {"detector_epochs": 16.0},
    "quick": {"detector_epochs": 5.0},
}
_FRESH = 2**40  # position of history samples that step 3 does not come to
_MEASURE = "comparing with closed forms"
_SAMPLES = {"full": 200_000, "quick": 40_000}


@dataclass(frozen=True)
class Toy:
    """What the panels show, on the grid of x (cells,), for snapshots at ``times`` (T,)."""

    times: Array
    weights: Array
    generated: Array  # density of P_G at each time (T, cells)
    data: Array
    history: Array
    scores: Array  # D_TV
    critics: Array  # outputs of the critics (T, cells)
    average_critic: Array  # output of the critic of average weights (eq. 14)

    @property
    def average_output(self) -> Array:
        """Average of the critics' outputs, with the weights of eq. 13."""
        return np.tensordot(self.weights, self.critics, 1)


def reproduce_toy(
    out: Path,
    *,
    seed: int = 0,
    size: Literal["full", "quick"] = "full",
    command: str = "",
    width: float = _WIDTH,
    **settings: Any,
) -> dict[str, Any]:
    """Train on normally distributed numbers; write toy.png, toy.svg and toy.jsonl into ``out``.

    Returns the row of toy.jsonl: closed forms (eqs. 5, 12) beside their estimates (eqs. 7, 10) on
    fresh samples, the mean distance of D_TV to eq. 11 under (P_data + P_Ghist) / 2, the largest
    difference of the two averages of Fig. 4, relative to the first, and how much higher this is at
    either side than on the data. Needs matplotlib.

    ``width`` is the deviation of the generator's first outputs; ``settings`` take the place of the
    toy's own.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    config = make_config(**{**_SETTINGS, **_SIZES[size], **settings}, seed=seed)
    with TemporaryDirectory(prefix="historyad-toy-") as folder:
        history = History(Path(folder), config, VectorNetworks.of((1,), config))
        phases = Phases({_IMITATE: 2.0, _TELL: 1.0, _MEASURE: 1.0})
        detector = _train(history, width, phases)
        phases.begin(_MEASURE)
        toy = _observe(history, detector, _SAMPLES[size])
        estimates = _estimate(history, detector, _SAMPLES[size])
    row = {
        "what": "toy",
        "size": size,
        "seed": seed,
        **estimates,
        **_compare(toy, config.bound_weight),
        "snapshots": len(toy.times),
        "effective_snapshots": effective_snapshots(toy.weights),
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "command": command,
        **environment(),
    }
    draw_figure(partial(_draw, bound_weight=config.bound_weight), toy, out / "toy")
    write_atomic(out / "toy.jsonl", (json.dumps(row, allow_nan=False) + "\n").encode())
    return row


def _train(history: History, width: float, phases: Phases) -> Critic:
    """Run the three steps, from a generator that starts beside the data."""
    config = history.config
    numbers = _draw_data(config, round(2 * config.epoch_images), position=0)
    reader = ShuffledSamples(numbers, np.arange(len(numbers)), config.seed)
    batches = Batches(reader, history.networks, seed=config.seed)
    gan = build_gan(history.networks, config, "cpu")
    _place(gan.generator, config, width)
    phases.begin(_IMITATE)
    record_history(batches, history, gan=gan)
    phases.begin(_TELL)
    return train_detector(batches, history)


@torch.no_grad()
def _place(generator: Generator, config: Config, width: float) -> None:
    """Let the generator make numbers around `_OFFSET`, of a deviation ``width``."""
    last = generator.layers[-1]
    assert isinstance(last, nn.Linear)
    random = numpy_generator(config.seed, Stream.SPLIT, 2)
    latents = random.standard_normal((10_000, config.latent_dim), np.float32)
    last.weight *= width / generator(torch.from_numpy(latents)).std()
    nn.init.constant_(last.bias, _OFFSET)


def _observe(history: History, detector: Critic, n_samples: int) -> Toy:
    """Count the distributions and evaluate the networks on the grid."""
    snapshots = [_only(history, index) for index in range(len(history))]
    return Toy(
        times=history.times,
        weights=history.weights,
        generated=np.array([_density(snapshot.sample(n_samples // 10)) for snapshot in snapshots]),
        data=np.exp(-(_X**2) / 2) / np.sqrt(2 * np.pi),
        history=_density(history.sample(n_samples, position=_FRESH)),
        scores=_output(detector),
        critics=np.array([_output(history.load_critic(i)) for i in range(len(history))]),
        average_critic=_output(history.average_critic()),
    )


@torch.no_grad()
def _estimate(history: History, detector: Critic, n_samples: int) -> dict[str, float]:
    """Return eqs. 7 and 10 of the trained detector, on samples that it has not seen."""
    config = history.config
    real = detector(torch.from_numpy(_draw_data(config, n_samples, position=1)))
    generated = detector(torch.from_numpy(history.sample(n_samples, position=_FRESH + 1)))
    return {
        "total_variation_estimate": float(total_variation_estimate(real, generated)),
        "detector_loss": float(detector_loss(real, generated, config.bound_weight)),
    }


def _compare(toy: Toy, bound_weight: float) -> dict[str, float]:
    """Return the closed forms on the counted densities, and how far the networks are from them."""
    optimal = optimal_detector(toy.data, toy.history, bound_weight)
    both = (toy.data + toy.history) / 2
    return {
        "total_variation": total_variation(toy.data, toy.history, _CELL),
        "minimum_loss": minimum_loss(toy.data, toy.history, bound_weight, _CELL),
        "detector_difference": float((np.abs(toy.scores - optimal) * both).sum() * _CELL),
        "averages_difference": _largest_difference(
            _centred(toy.average_critic, toy), _centred(toy.average_output, toy)
        ),
        **_shape(toy.average_output),
    }


def _shape(average: Array) -> dict[str, float]:
    """Return by how much an average (cells,) is higher at -4 and at +4 than at 0.

    In shares of its range between these. Of a 'v', both are near 1.
    """
    left, middle, right = (float(np.interp(x, _X, average)) for x in (-4.0, 0.0, 4.0))
    within = average[np.abs(_X) <= 4]
    span = float(np.ptp(within)) or 1.0
    return {
        "rises_to_the_left": (left - middle) / span,
        "rises_to_the_right": (right - middle) / span,
    }


def _largest_difference(a: Array, b: Array) -> float:
    """Return the largest difference of ``a`` from ``b``, in the largest value of ``b``."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def _draw_data(config: Config, size: int, position: int) -> NDArray[np.float32]:
    random = numpy_generator(config.seed, Stream.SPLIT, position)
    return random.standard_normal((size, 1), np.float32)


def _only(history: History, index: int) -> History:
    """Return the history that consists of one snapshot: P_Ghist is P_G at that time."""
    only = history.thin(1)
    only.snapshots = [history.snapshots[index]]
    return only


def _density(samples: NDArray[np.float32]) -> Array:
    """Return the density in each cell (cells,); what lies beyond is in the last of them."""
    within = np.clip(samples, _EDGES[0], _EDGES[-1])
    return np.histogram(within, _EDGES)[0] / (len(samples) * _CELL)


@torch.no_grad()
def _output(network: nn.Module) -> Array:
    scores: Tensor = network(torch.from_numpy(_X[:, None].astype(np.float32)))
    return scores.double().numpy()


def _draw(toy: Toy, bound_weight: float) -> Figure:
    """Draw the four panels."""
    figure = new_figure(5.2)
    axes = figure.subplots(2, 2)
    _draw_generated(axes[0, 0], toy)
    _draw_detector(axes[0, 1], toy, bound_weight)
    _draw_critics(axes[1, 0], toy)
    _draw_averages(axes[1, 1], toy)
    for ax in axes.flat:
        ax.set(xlim=(-6.5, 6.5), xlabel="x", xticks=range(-6, 7, 2))
    return figure


def _draw_generated(ax: Axes, toy: Toy) -> None:
    mesh = ax.pcolormesh(
        _X, toy.times, toy.generated, cmap="Blues", vmin=0, vmax=0.6, rasterized=True
    )
    for x in (-1, 1):
        ax.axvline(x, color=BLACK, linestyle="--", linewidth=1)
    ax.set(title="3(a)  Generated distributions (dashed: data ± 1 sd)", ylabel="time t (epochs)")
    assert ax.figure is not None
    ax.figure.colorbar(mesh, ax=ax, label="density of P$_{Gt}$", extend="max")


def _draw_detector(ax: Axes, toy: Toy, bound_weight: float) -> None:
    seen = toy.data + toy.history > 1e-3  # elsewhere eq. 11 divides nothing by nothing
    optimal = np.where(seen, optimal_detector(toy.data, toy.history, bound_weight), np.nan)
    ax.axhline(0, color="0.8", linewidth=0.8)
    ax.fill_between(_X, toy.data, color=BLACK, alpha=0.15, linewidth=0)
    ax.plot(_X, toy.data, color=BLACK, label="P$_{data}$")
    ax.plot(_X, toy.history, color=VERMILLION, label="P$_{Ghist}$")
    ax.plot(_X, optimal, color=BLUE, linestyle="--", label="D* (eq. 11)")
    ax.plot(_X, toy.scores, color=ORANGE, label="D$_{TV}$, trained")
    ax.set(title="3(b)  Critic", ylabel="density, score", ylim=(-1.35, 1.6))
    ax.legend(loc="lower right", handlelength=1.2)


def _draw_critics(ax: Axes, toy: Toy) -> None:
    import matplotlib as mpl

    colors = mpl.colormaps["Blues"](np.linspace(0.35, 1, len(toy.times)))
    for color, critic in zip(colors[::3], toy.critics[::3], strict=True):
        ax.plot(_X, _centred(critic, toy), color=color, linewidth=0.6, alpha=0.7)
    ax.plot(_X, _centred(toy.average_output, toy), color=BLACK, linewidth=2, label="their average")
    ax.plot([], [], color=colors[-1], linewidth=0.6, label="critics D$_t$ (dark: late)")
    ax.set(title="4(a)  Critics through time", ylabel="output − mean on data")
    ax.legend(loc="upper left")


def _draw_averages(ax: Axes, toy: Toy) -> None:
    ax.plot(
        _X, _centred(toy.average_output, toy), color=BLACK, linewidth=2, label="average of outputs"
    )
    ax.plot(
        _X,
        _centred(toy.average_critic, toy),
        color=VERMILLION,
        linestyle="--",
        label="critic of average weights (eq. 14)",
    )
    ax.set(title="4(b)  Start of D$_{TV}$", ylabel="output − mean on data")
    ax.legend(loc="upper left")


def _centred(output: Array, toy: Toy) -> Array:
    """Subtract the mean on data: eq. 2 leaves the critic's constant free."""
    mean = float((output * toy.data).sum() * _CELL)
    return output - mean
