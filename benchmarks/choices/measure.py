"""Measure what the paper leaves open, one choice at a time: rows for docs/rows/choices.

    python -m benchmarks.choices.measure [--seeds 1 2] [--choice NAME ...] [--work FOLDER]

Each choice is changed alone, against `BASE`: the method with the settings that the preset `paper`
had before step 3 was chosen anew, at a size that a processor can afford. Digits of MNIST are
normal; judged are 5,000 of its test images, and as many of KMNIST and Fashion-MNIST. A row that is
there is not measured again, and choices of step 3 share a history.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from historyad.config import make_config
from historyad.files import read_rows
from historyad.judge.metrics import auprc
from historyad.kinds.damages import add_noise
from historyad.method.history import History
from historyad.model.model import Model
from historyad.randomness import Stream, numpy_generator
from historyad.research.reproduce.fig6 import SIGMAS
from historyad.research.reproduce.runs import Recipe, Runs

OUT = ROWS / "choices" / "rows.jsonl"


def momenta(first: float, second: float, step: str = "") -> dict[str, float]:
    """Return the settings of Adam's two betas."""
    return {f"{step}momentum": first, f"{step}square_momentum": second}


BASE: dict[str, Any] = {
    "width": 16,
    "hidden": 256,
    "latent_dim": 64,
    "epoch_images": 20_000,
    "mass_tolerance": 1e-2,
    "penalty_interval": 4,
    "detector_start": "average",
    "detector_epochs": 3.0,
    **momenta(0.5, 0.9),
    **momenta(0.5, 0.9, "detector_"),
}
SPLITS = {"kmnist": "mnist-vs-kmnist", "fashion": "mnist-vs-fashion"}
MOST_IMAGES, NOISY_IMAGES, HISTORY_IMAGES = 5000, 1000, 4000
Scores = NDArray[np.floating]


@dataclass(frozen=True)
class Choice:
    """Something that the text leaves open: what it says, what is taken, and what else could be.

    ``every`` are alternatives in how many snapshots there are; ``others`` are settings.
    """

    text: str
    taken: str
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    every: dict[str, int] = field(default_factory=dict)


CHOICES = {
    "momentum of step 1": Choice(
        'section 3.2: "momentum based optimizers, so that P_G oscillates around P_data"; 4.2: Adam',
        "(.5, .9)",
        {"(.9, .999), Adam's own": momenta(0.9, 0.999), "(.9, .9)": momenta(0.9, 0.9)},
    ),
    "momentum of step 3": Choice(
        "4.4: Adam, no more",
        "(.5, .9)",
        {
            "(.9, .999), Adam's own": momenta(0.9, 0.999, "detector_"),
            "(.5, .999)": momenta(0.5, 0.999, "detector_"),
            "(.9, .9)": momenta(0.9, 0.9, "detector_"),
        },
    ),
    "momentum of both": Choice(
        "as above",
        "(.5, .9)",
        {"(.9, .999)": momenta(0.9, 0.999) | momenta(0.9, 0.999, "detector_")},
    ),
    "latent dimensions": Choice(
        "not said", "64", {"16": {"latent_dim": 16}, "256": {"latent_dim": 256}}
    ),
    "where the parameters sit": Choice(
        "4.1: about 5 M in each network",
        "16 channels first, 256 hidden units",
        {
            "more in convolutions: 24, 64": {"width": 24, "hidden": 64},
            "more in layers: 8, 512": {"width": 8, "hidden": 512},
        },
    ),
    "batch size": Choice("not said", "64", {"32": {"batch_size": 32}, "128": {"batch_size": 128}}),
    "critic steps": Choice("not said", "5", {"2": {"critic_steps": 2}}),
    "weight of the penalty": Choice("not said", "10", {"1": {"gradient_penalty_weight": 1.0}}),
    "length of step 3": Choice(
        "not said",
        "3 epochs",
        {"1 epoch": {"detector_epochs": 1.0}, "9 epochs": {"detector_epochs": 9.0}},
    ),
    "rate of step 3": Choice(
        "not said; of step 1, 4.2: it begins with 5e-4",
        "5e-4",
        {"2e-4": {"detector_learning_rate": 2e-4}, "2e-3": {"detector_learning_rate": 2e-3}},
    ),
    "start of step 3": Choice(
        "4.4: the average of the critics, eq. 14",
        "the average",
        {
            "the average, standardised": {"detector_start": "standardised"},
            "standardised, (.9, .9)": {
                "detector_start": "standardised",
                **momenta(0.9, 0.9, "detector_"),
            },
            "standardised, (.9, .999)": {
                "detector_start": "standardised",
                **momenta(0.9, 0.999, "detector_"),
            },
            "random weights": {"detector_start": "random"},
            "random weights, (.9, .999)": {
                "detector_start": "random",
                **momenta(0.9, 0.999, "detector_"),
            },
            "no training": {"detector_start": "untrained"},
        },
    ),
    "width of P_Z' in case 2": Choice(
        '"a wider distribution"',
        "case 1",
        {
            "half with deviation 1.5": {"wide_share": 0.5, "wide_latent": 1.5},
            "half with deviation 2": {"wide_share": 0.5, "wide_latent": 2.0},
            "half with deviation 4": {"wide_share": 0.5, "wide_latent": 4.0},
        },
    ),
    "snapshots of an epoch": Choice("4.3: 50", "50", every={"1": 50, "2": 25}),
}
TAKEN = "as taken"


def main() -> None:
    """Measure the base, and each choice that was asked for."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--choice", nargs="+", default=list(CHOICES), choices=list(CHOICES))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "choices")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("HISTORYAD_DATA", "."))
    arguments = parser.parse_args()
    runs = Runs(arguments.work, Path(arguments.data_root))
    there = {(row["choice"], row["value"], row["seed"]) for row in read_rows(arguments.out)}
    for seed in arguments.seeds:
        for choice, value, recipe in recipes(arguments.choice, seed):
            if (choice, value, seed) not in there:
                found = judge(runs, recipe)
                keep(arguments.out, {"choice": choice, "value": value, "seed": seed, **found})


def recipes(choices: list[str], seed: int) -> list[tuple[str, str, Recipe]]:
    """Return what is fitted, with the name of the choice and of its value; the base first."""
    found = [(TAKEN, TAKEN, _recipe({}, seed))]
    for name in choices:
        choice = CHOICES[name]
        found += [(name, value, _recipe(values, seed)) for value, values in choice.others.items()]
        found += [(name, value, _recipe({}, seed, every)) for value, every in choice.every.items()]
    return found


def _recipe(values: dict[str, Any], seed: int, every: int = 1) -> Recipe:
    return Recipe(SPLITS["kmnist"], make_config("paper", seed=seed, **{**BASE, **values}), every)


def judge(runs: Runs, recipe: Recipe) -> Row:
    """Return what a detector makes of digits, of what is none, of noise, and of its history.

    The total variation is the estimate of eq. 7, on test images and on samples of the history.
    """
    model, seed = runs.model(recipe), recipe.config.seed
    digits = runs.split(recipe.split, seed).normal.samples[:MOST_IMAGES]
    normal = model.anomaly_score(digits)
    made = _told_of_history(model, runs.history(recipe))
    row: Row = {
        "total_variation": float(np.clip(made, -1, 1).mean() - np.clip(normal, -1, 1).mean()) / 2,
        "mean_of_digits": float(normal.mean()),
        "mean_of_history": float(made.mean()),
    }
    for name, split in SPLITS.items():
        others = model.anomaly_score(runs.split(split, seed).anomalous.samples[:MOST_IMAGES])
        y = np.repeat([0, 1], [len(normal), len(others)])
        scores = np.concatenate([normal, others])
        row[name], row[f"{name}_normal_positive"] = auprc(y, scores), auprc(1 - y, -scores)
    noise = [_mean_score(model, digits[:NOISY_IMAGES], sigma, seed) for sigma in SIGMAS]
    row["noise_spearman"] = float(spearmanr(SIGMAS, noise).statistic)
    row["strongest_noise"] = noise[-1]
    return {**row, **runs.seconds(recipe)}


def _mean_score(model: Model, images: NDArray[np.uint8], sigma: float, seed: int) -> float:
    noisy = add_noise(images, 255 * sigma, numpy_generator(seed, Stream.PROBE))
    return float(model.anomaly_score(noisy).mean())


def _told_of_history(model: Model, history: History) -> Scores:
    """Return what D_TV says of samples of the history."""
    made = history.sample(HISTORY_IMAGES, 2**40)  # none that step 3 has seen
    return np.concatenate([_output(model, part) for part in np.split(made, 8)])


@torch.inference_mode()
def _output(model: Model, images: NDArray[np.uint8]) -> Scores:
    """Return what D_TV says of images of its own size."""
    found: Scores = model.score.d_tv(model.kind.floats(images, model.score.device)).numpy()
    return found


if __name__ == "__main__":
    main()
