"""Whether the gaps between normal images may be those in the features of random weights."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measuring import Row
from historyad.config import make_config
from historyad.constants import CONSTANTS
from historyad.data.arrays import Samples
from historyad.judge.metrics import auroc
from historyad.model.fit import fit_model
from historyad.model.plan import plan_fit
from historyad.model.run import RunDirectory
from historyad.research.splits import load_split
from historyad.score.blocks import Blocks
from historyad.score.companions import ImageCompanions
from historyad.score.views import Views, normal_samples

SPLITS = (
    *("mnist-without-4", "mnist-without-9", "mnist-only-8", "fashion-only-2", "fashion-only-6"),
    *("svhn-vs-cifar10", "cifar10-vs-svhn"),
)
_MOST = 2000


def measure_gaps(split: str, threads: int) -> Row:
    """Return the AUROC of a default detector, and with gaps in the features of its own D_TV."""
    torch.set_num_threads(threads)
    data = load_split(split, 0, None)
    config = make_config(views="all")
    with tempfile.TemporaryDirectory() as folder:
        model = fit_model(data.train, config, RunDirectory(Path(folder)))
    plan = plan_fit(data.train, model.config)
    fitted, held_out = plan.batches(torch.device("cpu")), plan.split.held_out[: 2 * _MOST]
    own = copy.deepcopy(cast(Views, model.score))
    companions = cast(ImageCompanions, own.companions)
    near = companions.near
    others = near.others(near.candidates_of_bank(), CONSTANTS.block_candidates)[1]
    companions.blocks = Blocks.fit(normal_samples(fitted, len(others)), others)
    normal, anomalous = (_some(source.samples) for source in (data.normal, data.anomalous))
    y = np.repeat([0, 1], [len(normal), len(anomalous)])
    found = {}
    for name, score in (("auroc", model.score), ("auroc_own", own)):
        score.fit_scale(data.train.samples, held_out)
        scores = [score.of(samples).anomaly_score for samples in (normal, anomalous)]
        found[name] = auroc(y, np.concatenate(scores))
    return found


def _some(samples: Samples) -> NDArray[Any]:
    rows = np.random.default_rng(0).permutation(len(samples))[:_MOST]
    found: NDArray[Any] = samples[np.sort(rows)]
    return found
