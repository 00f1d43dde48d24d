"""Settings and shortcuts that several tests share: everything runs, in a second or two."""

import gzip

import numpy as np
import torch
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from torch import nn

from historyad.config import make_config
from historyad.judge.metrics import auroc
from historyad.kinds.choose import choose_kind
from historyad.method.history import History
from historyad.method.networks import ImageNetworks, VectorNetworks, initialise

# 2 epochs of 8 steps of 64 images; snapshots at every step from epoch 1 on.
TINY = {
    "width": 4,
    "hidden": 16,
    "latent_dim": 8,
    "epoch_images": 512,
    "saves_per_epoch": 8,
    "n_epochs": 2.0,
    "skip_epochs": 1.0,
    "detector_epochs": 1.0,
    "mass_tolerance": 0.0,
    "views": "all",
    "calibration_share": 0.2,
    "false_positive_rate": 0.05,
}
# Two seconds of training, after which a detector of digits does what detectors do.
TRAINED = {
    **TINY,
    "width": 8,
    "hidden": 64,
    "epoch_images": 8000,
    "learning_rate": 2e-3,
    "detector_learning_rate": 2e-3,
}
TINY_OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]

# For examples that write files: their time is the disk's, and they may overwrite each other's.
on_disk = hypothesis_settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class TinyBackbone(nn.Module):
    """Two maps of an image: 8 channels at stride 4, 12 at stride 8; weights are random."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 5, stride=4, padding=1)
        self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        initialise(self, torch.Generator().manual_seed(0))

    def forward(self, x):
        fine = self.first(x).relu()
        return fine, self.second(fine).relu()


def normal_samples(n=400, n_values=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, n_values, generator=random) * torch.linspace(0.5, 2, n_values) + 1


def tiny_config(**values):
    return make_config(**{**TINY, **values})


def batches_of(samples, config, rows=None):
    """Return the batches that `fit_model` makes of samples, or of some rows of them."""
    return choose_kind(samples, config, rows).batches(samples, config, rows=rows)


def networks_for(shape, config):
    """Return the networks for samples that they see as (C, H, W) or (F,)."""
    return (ImageNetworks if len(shape) == 3 else VectorNetworks).of(shape, config)


def history_for(batches, config, path):
    return History(path, config, batches.networks)


def save_table(root):
    """Write a table under a data root: 60 normal rows and 10 anomalous ones, far away."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(size=(60, 3)), random.normal(9, 1, size=(10, 3))])
    folder = root / "vectors" / "made"
    folder.mkdir(parents=True)
    np.savez(folder / "blob.npz", X=x.astype(np.float32), y=np.repeat([0, 1], [60, 10]))
    return root


def write_idx(path, values):
    """Write a uint8 array in the format of MNIST, compressed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    data = header + values.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def auroc_of(detector, normal, anomalous):
    """Return how well a detector or peer tells samples apart."""
    scores = [detector.anomaly_score(samples) for samples in (normal, anomalous)]
    y = np.repeat([0, 1], [len(normal), len(anomalous)])
    return auroc(y, np.concatenate(scores))


def missed_by(detector, split):
    """Return the share of pairs, of a normal and an anomalous sample, in the wrong order."""
    _, normal, anomalous = split
    return 1 - auroc_of(detector, normal, anomalous)


def row_of(method, split, auroc, seed=1, **more):
    """Return a row as a benchmark writes it."""
    facts = {"auprc": auroc / 2, "prevalence": 0.5, "n_train": 9, "n_normal": 5, "n_anomalous": 5}
    facts |= {"fit_seconds": 1.0, "score_seconds": 2.0, "images_per_second": 5000.0, "threads": 1}
    facts |= {"peak_memory_mb": 300.0, "command": "historyad benchmark --out docs/rows/comparison"}
    return {"method": method, "split": split, "seed": seed, "auroc": auroc, **facts, **more}
