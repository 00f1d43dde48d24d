"""Measure every view of a detector alone, and ways to make one score of them: docs/ablation.md.

    python -m benchmarks.ablation.measure [--split mnist-without-0 ...] [--seeds 0]
        [--preset instant default 'default, standardised start']

It fits the detector of each preset on each split, with all of its views, and appends one row for
each view and each way to --out; what has rows is skipped. At most 2,000 held-out, normal and
anomalous samples each are scored, and for the ways that learn from damage, 200 held-out ones with
each damage of `historyad probe` in two strengths.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ablation.ways import Known, ways
from benchmarks.measuring import Row, command_line, parser_for
from benchmarks.pages import ROWS
from historyad.config import make_config
from historyad.environment import machine, versions
from historyad.files import append_rows, read_rows
from historyad.judge.metrics import auroc
from historyad.kinds.kind import Kind
from historyad.model.files import VERSION
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.model.split import split_rows
from historyad.randomness import Stream, numpy_generator
from historyad.research.splits import Split, load_split
from historyad.score.views import Views

OUT = ROWS / "ablation" / "rows.jsonl"
# Where views and how they count were chosen, here or before, and where not.
CHOSEN_ON = (
    *("mnist-vs-kmnist", *(f"mnist-without-{digit}" for digit in range(5))),
    *("mnist-only-3", *(f"fashion-only-{kind}" for kind in range(5))),
    *("svhn-vs-celeba", "celeba-vs-svhn", "cifar10-vs-svhn"),
)
OTHERS = (
    *(f"mnist-without-{digit}" for digit in range(5, 10)),
    *(f"mnist-only-{digit}" for digit in (0, 5, 7, 8)),
    *(f"fashion-only-{kind}" for kind in range(5, 10)),
    *("svhn-vs-cifar10", "tiny-imagenet-vs-svhn", "magnetic-tile"),
)
# Small digits, fewer than 2,000 of them: whether so few train a network was chosen on these.
FEW = tuple(f"digits:train:!{d}|digits:test:!{d}|digits:test:{d}" for d in range(10))
# Presets, and what is changed in them.
STANDARDISED = "default, standardised start"
PRESETS: dict[str, dict[str, Any]] = {
    "instant": {"views": "companions"},
    "default": {"views": "all"},
    STANDARDISED: {"views": "all", "detector_start": "standardised"},
}
_MOST, _DAMAGED = 2000, 200
_STRENGTHS = (2, 4)  # of eight, a weak and a strong one


def main() -> None:
    """Measure on each split with each seed."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--split", nargs="+", default=[*CHOSEN_ON, *OTHERS, *FEW])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--preset", nargs="+", default=["instant", "default"], choices=[*PRESETS])
    root = os.environ.get("HISTORYAD_DATA", ".")
    parser.add_argument("--data-root", type=Path, default=Path(root))
    arguments = parser.parse_args()
    for preset in arguments.preset:
        for split in arguments.split:
            for seed in arguments.seeds:
                keys = {"split": split, "seed": seed, "preset": preset}
                if not any(keys.items() <= row.items() for row in read_rows(arguments.out)):
                    append_rows(arguments.out, _measured(keys, arguments.data_root))
                    print(split, seed, preset, flush=True)


def _measured(keys: dict[str, Any], root: Path) -> list[Row]:
    """Return a row for each view and for each way to make one score of them."""
    data = load_split(keys["split"], keys["seed"], root)
    # All views, whatever would be kept by what damage tells.
    preset = keys["preset"].split(",")[0]
    config = make_config(preset, seed=keys["seed"], **PRESETS[keys["preset"]])
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        model = fit_model(data.train, config, RunDirectory(Path(folder)))
    facts = {
        **keys,
        "fit_cpu_seconds": time.process_time() - started,
        "versions": versions(),
        "machine": machine(),
        "model_version": VERSION,
        "command": command_line(),
    }
    score = model.score
    assert isinstance(score, Views)
    held_out = _held_out(model, data)
    damaged = _damaged(model.kind, _some(held_out, _DAMAGED), keys["seed"])
    known = Known(score.names, score.rules, *(_views(score, x) for x in (held_out, damaged)))
    normal, anomalous = (
        _views(score, _some(source.samples, _MOST)) for source in (data.normal, data.anomalous)
    )
    y = np.repeat([0, 1], [len(normal), len(anomalous)])
    both = np.concatenate([normal, anomalous])
    alone = {name: both[:, i] for i, name in enumerate(score.names)}
    found = {way: make(both) for way, make in ways(known).items()}
    rows = [
        {**facts, "what": what, "of": of, "auroc": auroc(y, values)}
        for of, some in (("view", alone), ("way", found))
        for what, values in some.items()
    ]
    return rows + [{**facts, **row} for row in _with_history(known)]


def _with_history(known: Known) -> list[Row]:
    """Return how the history goes together with each other view on held-out normal samples."""
    if "history" not in known.names:
        return []
    correlations = np.atleast_2d(np.corrcoef(known.held_out.T))[known.names.index("history")]
    pairs = zip(known.names, correlations, strict=True)
    found = {name: float(value) for name, value in pairs if name != "history"}
    return [{"what": name, "of": "correlation", "value": value} for name, value in found.items()]


def _held_out(model: Model, data: Split) -> NDArray[Any]:
    rows = split_rows(len(data.train), model.config)[1]
    found: NDArray[Any] = data.train.samples[np.sort(_some(rows, _MOST))]
    return found


def _damaged(kind: Kind, samples: NDArray[Any], seed: int) -> NDArray[Any]:
    """Return the samples with each damage in each strength, one after the other."""
    return np.concatenate(
        [
            damage.apply(samples, damage.strengths[i], numpy_generator(seed, Stream.PROBE))
            for damage in kind.damages(samples.shape[1:])
            for i in _STRENGTHS
        ]
    )


def _views(score: Views, samples: NDArray[Any]) -> NDArray[np.float64]:
    """Return the views of samples on the scale of the score, (N, views)."""
    raw = torch.from_numpy(score.raw_of(samples)).T
    found: NDArray[np.float64] = score.scale(raw).T.double().numpy()
    return found


def _some(samples: NDArray[Any], most: int) -> NDArray[Any]:
    """Return at ``most`` so many of the samples (N, ...), evenly spread."""
    rows = np.linspace(0, len(samples) - 1, min(len(samples), most)).astype(int)
    chosen: NDArray[Any] = samples[rows]
    return chosen


if __name__ == "__main__":
    main()
