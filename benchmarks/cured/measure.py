"""Measure what once went wrong without a word: rows for docs/rows/cured.

    python -m benchmarks.cured.measure copies grown own suspects scratches memory

``copies``     false alarms where every sample is given twice
``grown``      false alarms after calibrating on the training samples and ten more
``own``        how many of 200 images that a detector sees whole look anomalous to it
``suspects``   where seven zeros among 693 other digits stand among the suspects
``scratches``  AUROC of thin scratches on images of 700 x 900, by a detector of crops
``memory``     peak memory of a fit on 60 colour photos of 1500 x 2000

Data are made up, or the digits that come with scikit-learn.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from benchmarks.measuring import keep, parser_for, peak_memory_mb
from benchmarks.pages import ROWS
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.judge.metrics import auroc
from historyad.kinds.choose import choose_kind
from historyad.kinds.damages import scratch
from historyad.model.fit import calibrate_model, fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.model.suspects import suspicion

SEED = 1
OUT = ROWS / "cured" / "rows.jsonl"


def fit(samples: NDArray[Any], **settings: Any) -> Model:
    """Fit the preset quick, for a short time."""
    config = make_config("quick", seed=SEED, **settings)
    with tempfile.TemporaryDirectory() as folder:
        return fit_model(open_source(samples), config, RunDirectory(folder))


def brushed(seed: int, n: int, height: int, width: int, channels: int = 1) -> NDArray[np.uint8]:
    """Return images of brushed metal under uneven light, uint8 (n, height, width, channels)."""
    images = np.empty((n, height, width, channels), np.uint8)
    for number, image in enumerate(images):
        random = np.random.default_rng((seed, number))
        noise = random.standard_normal((height, width), np.float32)
        grain = gaussian_filter(noise, (0.7, 12)) * 90
        lights = random.standard_normal((6, 6), np.float32)
        light = zoom(lights, (height / 6, width / 6), order=1, grid_mode=True, mode="nearest")
        image[:] = np.clip(128 + grain + 15 * light, 0, 255)[..., None]
    return images


def scratches() -> dict[str, float]:
    """Return how well faint scratches are told from none, on large images."""
    images = brushed(SEED, 90, 700, 900)
    model = fit(
        images[:60],
        patch=32,
        scales=2,
        contrast="local",
        epoch_images=5_000,
        calibration_share=0.35,
        false_positive_rate=0.05,
    )
    good, other = images[60:75], images[75:].astype(np.float32)
    lines = scratch(images[75:], 80.0, np.random.default_rng(SEED)).astype(np.float32)
    scratched = np.rint(other + 0.3 * (lines - other)).astype(np.uint8)
    scores = [model.anomaly_score(part) for part in (good, scratched)]
    found = model.calibration.is_anomalous(scores[1]).mean()
    return {"auroc": auroc(np.repeat([0, 1], 15), np.concatenate(scores)), "found": float(found)}


def memory() -> dict[str, float]:
    """Return the peak memory of a fit, and the size of its pixels, in MB."""
    images = brushed(SEED, 60, 1500, 2000, channels=3)
    before = peak_memory_mb()
    fit(
        images,
        patch=32,
        scales=2,
        epoch_images=5_000,
        calibration_share=0.35,
        false_positive_rate=0.05,
    )
    return {"pixels_mb": images.nbytes / 1e6, "before_mb": before, "peak_mb": peak_memory_mb()}


def copies() -> dict[str, float]:
    """Return the false alarms on fresh digits where each training digit is given twice."""
    digits = open_source("digits:train:!0").samples[:700]
    model = fit(np.concatenate([digits, digits]), epoch_images=10_000)
    return {"asked": 0.01, "false_alarms": _false_alarms(model)}


def grown() -> dict[str, float]:
    """Return the false alarms after calibrating on what was trained on, and ten digits more."""
    digits = open_source("digits:train:!0").samples
    model = fit(digits[:900], epoch_images=10_000)
    before = _false_alarms(model)
    renewed = calibrate_model(model, open_source(digits))
    return {"before": before, "after": _false_alarms(renewed)}


def _false_alarms(model: Model) -> float:
    fresh = open_source("digits:test:!0").samples
    return float(model.calibration.is_anomalous(model.anomaly_score(fresh)).mean())


def own() -> dict[str, float]:
    """Return how many images call a detector anomalous that was fitted on them, and fresh ones."""
    images = brushed(SEED, 400, 112, 112)
    model = fit(images[:200], epoch_images=2_000, calibration_share=0.5)
    trained = model.was_trained_on(open_source(images[:200]))
    anomalous = model.calibration.is_anomalous(model.anomaly_score(images))
    return {"own": float(anomalous[:200][trained].mean()), "fresh": float(anomalous[200:].mean())}


def suspects() -> dict[str, float]:
    """Return the worst place of seven zeros in the list of suspects, from 1 on."""
    others, zeros = (open_source(f"digits:train:{which}").samples for which in ("!0", "0"))
    samples = np.concatenate([others[:693], zeros[:7]])
    config = make_config("quick", seed=SEED)
    found = suspicion(choose_kind(samples, config), samples, config)
    places = np.flatnonzero(np.isin(np.argsort(-found), np.arange(693, 700)))
    return {"first": float(places.min() + 1), "last": float(places.max() + 1)}


WHAT = {one.__name__: one for one in (copies, grown, own, suspects, scratches, memory)}


def main() -> None:
    """Measure what is asked for."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("what", nargs="+", choices=WHAT)
    arguments = parser.parse_args()
    for name in arguments.what:
        keep(arguments.out, {"what": name, "seed": SEED, **WHAT[name]()})


if __name__ == "__main__":
    main()
