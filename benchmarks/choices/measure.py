"""Measure what the paper leaves open, one choice at a time: rows for docs/rows/choices.

    python -m benchmarks.choices.measure [--seeds 1 2] [--choice NAME ...] [--work FOLDER]

Each choice is changed alone, against the preset `paper` at a size that a processor can afford.
Digits of MNIST are normal; judged are 5,000 of its test images, and as many of KMNIST and
Fashion-MNIST. A row that is there is not measured again, and choices of step 3 share a history.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.choices.inside import (
    BATCH,
    Detector,
    InFull,
    Inside,
    MaxPooled,
    OfTheBatch,
    Unpadded,
    cosine,
    halved,
)
from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from historyad.config import make_config
from historyad.files import read_rows
from historyad.judge.metrics import auprc
from historyad.kinds.damages import add_noise
from historyad.method.history import History
from historyad.randomness import Stream, numpy_generator
from historyad.research.reproduce.fig6 import SIGMAS
from historyad.research.reproduce.runs import Recipe, Runs, first_steps

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
}
SPLITS = {"kmnist": "mnist-vs-kmnist", "fashion": "mnist-vs-fashion"}
MOST_IMAGES, NOISY_IMAGES, HISTORY_IMAGES = 5000, 1000, 4000
Scores = NDArray[np.floating]


_OUR = "(.9, .9)"  # momentum of step 3
_OTHER = {
    "(.5, .9)": momenta(0.5, 0.9, "detector_"),
    "(.9, .999)": momenta(0.9, 0.999, "detector_"),
}


@dataclass(frozen=True)
class Choice:
    """Something that the text leaves open: what it says, what is taken, and what else could be.

    ``others`` are settings, ``every`` alternatives in how many snapshots there are, and ``inside``
    what is no setting.
    """

    text: str
    taken: str
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    every: dict[str, int] = field(default_factory=dict)
    inside: dict[str, Inside] = field(default_factory=dict)


CHOICES = {
    "start of step 3": Choice(
        "4.4: the average of the critics, eq. 14",
        "the average, standardised; (.9, .9)",
        {
            "the average, as it is": {"detector_start": "average"},
            **{
                f"the average, as it is; {name}": {"detector_start": "average", **values}
                for name, values in _OTHER.items()
            },
            "random weights": {"detector_start": "random"},
            "no training": {"detector_start": "untrained"},
        },
    ),
    "momentum of step 3": Choice("4.4: Adam, no more", _OUR, _OTHER),
    "length of step 3": Choice(
        "not said",
        "2 epochs",
        {
            "half an epoch": {"detector_epochs": 0.5},
            "1 epoch": {"detector_epochs": 1.0},
            "5 epochs": {"detector_epochs": 5.0},
        },
    ),
    "rate of step 3": Choice(
        "not said; of step 1, 4.2: it begins with 5e-4",
        "5e-4",
        {"2e-4": {"detector_learning_rate": 2e-4}, "2e-3": {"detector_learning_rate": 2e-3}},
    ),
    "momentum of step 1": Choice(
        'section 3.2: "momentum based optimizers, so that P_G oscillates around P_data"; 4.2: Adam',
        "(.9, .999), Adam's own",
        {"(.5, .9)": momenta(0.5, 0.9), "(.9, .9)": momenta(0.9, 0.9)},
    ),
    "kind of pooling": Choice(
        '4.1: "a classic Convolutional Neural Network for classification, that uses pooling '
        'downscaling"',
        "the mean of 2 x 2",
        inside={"the largest of 2 x 2": Inside(networks=MaxPooled.like)},
    ),
    "fall of the learning rate": Choice(
        '4.2: "decreasing learning rate"',
        "linear, to 0",
        inside={
            "none": Inside(fall=lambda left: 1.0),
            "halved after each epoch": Inside(fall=halved),
            "half a cosine, to 0": Inside(fall=cosine),
        },
    ),
    "batch-norm statistics of a snapshot": Choice(
        "not said",
        "those of training, kept with it",
        inside={f"those of {BATCH:,} samples that it makes": Inside(history=OfTheBatch)},
    ),
    "precision of a snapshot": Choice(
        "not said", "half, 16 bits", inside={"32 bits": Inside(history=InFull)}
    ),
    "side of the images": Choice(
        "not said",
        "28 pixels, padded to 32; convolutions down to 4 x 4",
        inside={"28 pixels, down to 7 x 7": Inside(networks=Unpadded.like)},
    ),
    "where the parameters sit": Choice(
        "4.1: about 5 M in each network",
        "16 channels first, 256 hidden units",
        {
            "more in convolutions: 24, 64": {"width": 24, "hidden": 64},
            "more in layers: 8, 512": {"width": 8, "hidden": 512},
        },
    ),
    "latent dimensions": Choice(
        "not said", "64", {"16": {"latent_dim": 16}, "256": {"latent_dim": 256}}
    ),
    "batch size": Choice("not said", "64", {"32": {"batch_size": 32}, "128": {"batch_size": 128}}),
    "critic steps": Choice(
        "not said; 5 in reference [16]", "5", {"2": {"critic_steps": 2}, "1": {"critic_steps": 1}}
    ),
    "weight of the penalty": Choice(
        "not said; 10 in reference [16]", "10", {"1": {"gradient_penalty_weight": 1.0}}
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
    "snapshots of an epoch": Choice("4.2: 50", "50", every={"1": 50, "2": 25}),
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
        base = _recipe({}, seed)
        for name, value, recipe, way in _asked(arguments.choice, seed):
            if (name, value, seed) not in there:
                found = _measured(runs, recipe, way)
                keep(arguments.out, {"choice": name, "value": value, "seed": seed, **found})
                if runs.key(first_steps(recipe)[0]) != runs.key(first_steps(base)[0]):
                    runs.forget_history(recipe)  # no other row has it


def _asked(choices: list[str], seed: int) -> Iterator[tuple[str, str, Recipe, Inside | None]]:
    """Yield names of a choice and of its value, and what is fitted how; the base first."""
    base = _recipe({}, seed)
    yield TAKEN, TAKEN, base, None
    for name in choices:
        choice = CHOICES[name]
        for value, settings in choice.others.items():
            yield name, value, _recipe(settings, seed), None
        for value, every in choice.every.items():
            yield name, value, replace(base, every=every), None
        for value, way in choice.inside.items():
            yield name, value, base, way


def _recipe(values: dict[str, Any], seed: int) -> Recipe:
    return Recipe(SPLITS["kmnist"], make_config("paper", seed=seed, **{**BASE, **values}))


class Judged(Protocol):
    """D_TV with its history."""

    history: History

    def anomaly_score(self, images: NDArray[np.uint8]) -> Scores:
        """Return what D_TV says of images as they come, (N,)."""

    def of_prepared(self, images: NDArray[np.uint8]) -> Scores:
        """Return what D_TV says of images as they are at rest, (N,)."""


class _OfRuns:
    """A detector that is a model, kept in a folder."""

    def __init__(self, runs: Runs, recipe: Recipe) -> None:
        self.model, self.history = runs.model(recipe), runs.history(recipe)
        self.anomaly_score = self.model.anomaly_score

    def of_prepared(self, images: NDArray[np.uint8]) -> Scores:
        """Return what D_TV says of images as they are at rest, (N,)."""
        scores = self.model.score.of_prepared(images)
        assert scores is not None
        return scores


def _measured(runs: Runs, recipe: Recipe, way: Inside | None) -> Row:
    """Fit a detector and judge it."""
    if way is None:
        detector = _OfRuns(runs, recipe)
        return {**judge(detector, runs, recipe), **runs.seconds(recipe)}
    train = runs.split(recipe.split, recipe.config.seed).train
    wall, cpu = time.perf_counter(), time.process_time()
    own = Detector(way, train, recipe.config)
    seconds = {
        "fit_wall_seconds": time.perf_counter() - wall,
        "fit_cpu_seconds": time.process_time() - cpu,
    }
    return {**judge(own, runs, recipe), **seconds}


def judge(detector: Judged, runs: Runs, recipe: Recipe) -> Row:
    """Return what a detector makes of digits, of what is none, of noise, and of its history.

    The total variation is the estimate of eq. 7, on test images and on samples of the history.
    """
    seed = recipe.config.seed
    digits = runs.split(recipe.split, seed).normal.samples[:MOST_IMAGES]
    normal = detector.anomaly_score(digits)
    # Samples that step 3 has not seen.
    made = detector.of_prepared(detector.history.sample(HISTORY_IMAGES, 2**40))
    row: Row = {
        "total_variation": float(np.clip(made, -1, 1).mean() - np.clip(normal, -1, 1).mean()) / 2,
        "mean_of_digits": float(normal.mean()),
        "mean_of_history": float(made.mean()),
    }
    for name, split in SPLITS.items():
        others = detector.anomaly_score(runs.split(split, seed).anomalous.samples[:MOST_IMAGES])
        y = np.repeat([0, 1], [len(normal), len(others)])
        scores = np.concatenate([normal, others])
        row[name], row[f"{name}_normal_positive"] = auprc(y, scores), auprc(1 - y, -scores)
    noise = [_mean_score(detector, digits[:NOISY_IMAGES], sigma, seed) for sigma in SIGMAS]
    row["noise_spearman"] = float(spearmanr(SIGMAS, noise).statistic)
    row["strongest_noise"] = noise[-1]
    return row


def _mean_score(detector: Judged, images: NDArray[np.uint8], sigma: float, seed: int) -> float:
    noisy = add_noise(images, 255 * sigma, numpy_generator(seed, Stream.PROBE))
    return float(detector.anomaly_score(noisy).mean())


if __name__ == "__main__":
    main()
