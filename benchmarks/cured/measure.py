"""What once went wrong without a word, measured: ``python benchmarks/cured/measure.py WHAT``.

``scratches``  AUROC of thin scratches on images of 700 x 900, by a detector of crops
``memory``     peak memory of a fit on 60 colour photos of 1500 x 2000
``copies``     false alarms where every sample is given twice
``grown``      false alarms after calibrating on the training samples and ten more

Data are made up, or the digits that come with scikit-learn; one seed, printed beside the figure.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.judge.metrics import auroc
from historyad.kinds.damages import scratch
from historyad.model.fit import calibrate_model, fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory

SEED = 1


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
    before = _peak_mb()
    fit(
        images,
        patch=32,
        scales=2,
        epoch_images=5_000,
        calibration_share=0.35,
        false_positive_rate=0.05,
    )
    return {"pixels_mb": images.nbytes / 1e6, "before_mb": before, "peak_mb": _peak_mb()}


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


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    for name in sys.argv[1:]:
        figures = ", ".join(f"{key} {value:.4g}" for key, value in globals()[name]().items())
        print(f"{name}, seed {SEED}: {figures}", flush=True)
