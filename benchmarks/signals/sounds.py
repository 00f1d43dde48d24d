"""Measure detectors of recordings: rows for docs/rows/signals/sounds.jsonl.

    python -m benchmarks.signals.sounds [--set 'digit *' ...] [--method NAME ...] [--seeds 0]

Spoken digits (3,000 recordings of six speakers): one digit, or one speaker, is left out. The others
are learnt from, but for the takes 0 to 4 of each speaker and digit, which are scored with all that
was left out. A row that is there is not measured again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import soundfile
from sklearn.neighbors import NearestNeighbors

from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS
from benchmarks.signals.data import Array
from historyad import Source, fit_model, open_source
from historyad.config import make_config
from historyad.files import read_rows
from historyad.model.run import RunDirectory
from historyad.research.peers import PEERS
from historyad.research.reproduce.figure import separation

OUT = ROWS / "signals" / "sounds.jsonl"
OURS = "historyad, instant"
SPECTRA = ("5 neighbours, mean spectra", "5 neighbours, mean and deviation of spectra")
OTHERS = {
    "5 neighbours, spectrograms": "neighbours",
    "PCA": "pca-residual",
    "isolation forest": "isolation-forest",
    "mean gradient": "mean-gradient",
}
ONE_NUMBER = ("loudness", "spectral centroid", "length")  # of each recording
BEFORE = "historyad, instant, without its view of the spectrum"  # of an earlier version
METHODS = (OURS, *SPECTRA, *OTHERS, *ONE_NUMBER)
_TAKES = 5  # of each speaker and digit, scored
_GREY, _DECIBELS = 255.0, 100.0  # white, and what is between it and black


def main() -> None:
    """Measure whatever is not there yet."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--set", nargs="+", default=["*"])
    parser.add_argument("--method", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("HISTORYAD_DATA"))
    options = parser.parse_args()
    known = read_rows(options.out) if options.out.exists() else []
    done = {(row["set"], row["method"], row["seed"]) for row in known}
    source = open_source(options.data_root / "audio" / "spoken_digits")
    numbers = numbers_of(source, options.data_root / "audio" / "spoken_digits")
    parts = np.array([Path(name).stem.split("_") for name in source.names])
    sets = [(f"digit {digit}", parts[:, 0] == digit) for digit in np.unique(parts[:, 0])]
    sets += [(f"speaker {name}", parts[:, 1] == name) for name in np.unique(parts[:, 1])]
    for name, is_left_out in sets:
        if not any(fnmatchcase(name, wanted) for wanted in options.set):
            continue
        for method in options.method:
            for seed in options.seeds:
                if (name, method, seed) not in done:
                    takes = parts[:, 2].astype(int)
                    row = measure(source, numbers, is_left_out, takes, method, seed)
                    keep(options.out, {"set": name, "method": method, "seed": seed, **row})


def measure(
    source: Source,
    numbers: dict[str, Array],
    is_left_out: Array,
    takes: Array,
    method: str,
    seed: int,
) -> Row:
    """Return how well ``method`` tells what was left out from other recordings."""
    is_train = ~is_left_out & (takes >= _TAKES)
    started = time.perf_counter()
    if method in numbers:
        scores = np.abs(numbers[method] - np.median(numbers[method][is_train]))
        seconds = 0.0
    else:
        scores_of = scorer(method, some_of(source, is_train), seed)
        seconds = time.perf_counter() - started
        scores = np.full(len(source), np.nan)
        scores[~is_train] = scores_of(source.samples[~is_train])
    return {
        "n_train": int(is_train.sum()),
        **separation(scores[~is_left_out & (takes < _TAKES)], scores[is_left_out]),
        "seconds": seconds,
    }


def some_of(source: Source, chosen: Array) -> Source:
    """Return some of the recordings."""
    names = [source.names[row] for row in np.flatnonzero(chosen).tolist()]
    return replace(source, samples=source.samples[chosen], names=names)


def numbers_of(source: Source, folder: Path) -> dict[str, Array]:
    """Return one number of each recording, (N,): how loud, how high, and how long it is."""
    grey = source.samples[..., 0] / _GREY
    power = 10 ** ((grey[:, ::-1] - 1) * _DECIBELS / 10)  # low bands first
    bands = power.mean(2)
    lengths = [soundfile.info(folder / name).duration for name in source.names]
    found = (grey.mean((1, 2)), bands @ np.arange(bands.shape[1]) / bands.sum(1), np.array(lengths))
    return dict(zip(ONE_NUMBER, found, strict=True))


def scorer(method: str, train: Source, seed: int) -> Callable[[Array], Array]:
    """Return what scores spectrograms (N, 64, 64, 1), fitted on those of ``train``."""
    if method == OURS:
        with tempfile.TemporaryDirectory() as folder:
            config = make_config("instant", seed=seed)
            return fit_model(train, config, RunDirectory(folder)).anomaly_score
    if method in OTHERS:
        return PEERS[OTHERS[method]](seed).fit(train.samples).anomaly_score
    with_deviation = method == SPECTRA[1]
    nearest = NearestNeighbors(n_neighbors=5).fit(
        spectra_of(train.samples, with_deviation=with_deviation)
    )

    def scores_of(pictures: Array) -> Array:
        spectra = spectra_of(pictures, with_deviation=with_deviation)
        return np.asarray(nearest.kneighbors(spectra)[0].mean(1))

    return scores_of


def spectra_of(pictures: Array, *, with_deviation: bool) -> Array:
    """Return the mean over the time, and perhaps the deviation, of each band, (N, bands)."""
    values = pictures[..., 0] / _GREY
    parts = [values.mean(2), values.std(2)] if with_deviation else [values.mean(2)]
    return np.concatenate(parts, axis=1)


if __name__ == "__main__":
    main()
