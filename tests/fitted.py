"""One small detector of each kind of input, with what it was fitted on and what to try it on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny import TINY

from historyad import Model
from historyad.cli import main

SPREADS = np.array([1, 10, 100, 0.1, 1])  # of the columns


@dataclass(frozen=True)
class Fitted:
    """A finished run, never to be changed, and the files beside it.

    ``normal`` and ``anomalous`` samples were not trained on.
    """

    name: str
    folder: Path
    settings: dict[str, object]
    train: np.ndarray
    normal: np.ndarray
    anomalous: np.ndarray

    @property
    def source(self) -> str:
        return self.source_of("train")

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def options(self) -> list[str]:
        return [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]

    @cached_property
    def model(self) -> Model:
        return Model.load(self.run)

    def source_of(self, name: str) -> str:
        """Return where the samples of a part are: an array, or a folder of images."""
        return str(self.folder / (f"{name}.npy" if self.train.ndim == 2 else name))


def fit(name, folder, settings, **samples):
    """Fit as a user does, with the command."""
    for part, values in samples.items():
        if values.ndim == 2:
            np.save(folder / f"{part}.npy", values)
        else:
            save_images(folder / part, values)
    made = Fitted(name, folder, settings, **samples)
    assert main(["fit", made.source, "--out", str(made.run), *made.options]) == 0
    return made


def fit_whole(digits, folder):
    """Digits of 8 x 8 pixels; anomalous are their negatives."""
    samples = {"normal": digits[300:400], "anomalous": 255 - digits[400:450]}
    return fit("whole", folder, TINY, train=digits[:300], **samples)


def fit_crops(folder):
    """Textures of 50 x 40 pixels in crops of 8, at two scales; anomalous ones have a stripe."""
    settings = {**TINY, "epoch_images": 256, "patch": 8, "scales": 2, "seed": 1}
    normal = textures(15, seed=5)
    samples = {"train": textures(110), "normal": normal, "anomalous": striped(normal)[0]}
    return fit("crops", folder, settings, **samples)


def fit_features(folder, backbone):
    """The same textures in the features of a tiny network that sees them in 8 x 8 cells."""
    settings = {**TINY, "epoch_images": 2048, "backbone": str(backbone), "views": "all"}
    normal = textures(15, seed=5)
    samples = {"train": textures(110), "normal": normal, "anomalous": striped(normal)[0]}
    return fit("features", folder, settings, **samples)


def fit_columns(folder):
    """Five independent columns of different spreads; anomalous ones are far outside."""
    rows = np.random.default_rng(0).standard_normal((500, 5)).astype(np.float32)
    rows[450:] *= 10
    table = (rows * SPREADS).astype(np.float32)
    samples = {"train": table[:300], "normal": table[300:450], "anomalous": table[450:]}
    return fit("columns", folder, TINY, **samples)


def save_images(folder, images):
    """Write images as PNG files, 50 to a subfolder; return the folder."""
    for i, image in enumerate(images):
        path = folder / f"{i // 50}" / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(path)
    return folder


def textures(n, height=40, width=50, seed=0):
    noise = np.random.default_rng(seed).normal(size=(n, height, width, 1))
    smooth = gaussian_filter(noise, (0, 1.5, 1.5, 0))
    return np.clip(128 + 200 * smooth, 0, 255).astype(np.uint8)


def striped(images):
    """Return images with stripes in a square of 10 pixels, and where they are."""
    found = images.copy()
    found[:, 12:22, 24:34, 0] = np.where(np.arange(10) // 2 % 2, 255, 0)
    mask = np.zeros(images.shape[1:3], bool)
    mask[12:22, 24:34] = True
    return found, mask
