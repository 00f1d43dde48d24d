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
from scipy.ndimage import gaussian_filter

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


def brushed(random: np.random.Generator, n: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return images of brushed metal under uneven light, uint8 (n, height, width, 1)."""
    noise = random.normal(size=(n, height, width)).astype(np.float32)
    grain = gaussian_filter(noise, (0, 0.7, 12)) * 90
    light = gaussian_filter(random.normal(size=(n, height, width)), (0, 150, 150)) * 4000
    return np.clip(128 + grain + light, 0, 255).astype(np.uint8)[..., None]


def scratches() -> dict[str, float]:
    """Return how well scratches are told from none, on large images."""
    random = np.random.default_rng(SEED)
    images = brushed(random, 130, 700, 900)
    model = fit(
        images[:90], patch=32, scales=2, contrast="local", epoch_images=10_000,
        calibration_share=0.3, false_positive_rate=0.05,
    )  # fmt: skip
    good, other = images[90:110], images[110:]
    scratched = np.where(
        np.abs(scratch(other, 80.0, random).astype(int) - other) > 0,
        np.clip(
            other.astype(int) + 0.25 * (scratch(other, 80.0, random).astype(int) - other), 0, 255
        ),
        other,
    ).astype(np.uint8)
    scores = [model.anomaly_score(part) for part in (good, scratched)]
    found = model.calibration.is_anomalous(scores[1]).mean()
    return {"auroc": auroc(np.repeat([0, 1], 20), np.concatenate(scores)), "found": float(found)}


def memory() -> dict[str, float]:
    """Return the peak memory of a fit, and the size of its pixels, in MB."""
    random = np.random.default_rng(SEED)
    images = np.repeat(brushed(random, 60, 1500, 2000), 3, axis=-1)
    before = _peak_mb()
    fit(
        images, patch=32, scales=2, contrast="local", epoch_images=5_000,
        calibration_share=0.35, false_positive_rate=0.05,
    )  # fmt: skip
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
        figures = globals()[name]()
        print(
            f"{name}, seed {SEED}:",
            ", ".join(f"{k} {v:.4g}" for k, v in figures.items()),
            flush=True,
        )
