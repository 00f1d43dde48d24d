"""Measure every view of a fitted detector alone, and sums of views, for docs/ablation.md.

    python -m benchmarks.ablation.measure [--split mnist-without-0 ...] [--seeds 0]
        [--preset default] [--train N]

It fits the detector of ``preset`` on each split, puts companions on every layer of D_TV and of the
averaged critic (eq. 14), and appends one row for each view and each sum to --out; splits that have
rows are skipped, and with --runs, so are fits that are there. With --train, the first N training
samples are all there are. Only splits and seeds on which settings are chosen belong here.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation.sums import sums_of
from benchmarks.ablation.views import views_of
from benchmarks.measuring import command_line, parser_for
from benchmarks.pages import ROWS
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.environment import versions
from historyad.files import append_rows, read_rows
from historyad.judge.metrics import auprc, auroc
from historyad.model.files import VERSION
from historyad.research.splits import load_split

OUT = ROWS / "ablation" / "rows.jsonl"
SPLITS = (
    "mnist-vs-kmnist",
    *(f"mnist-without-{digit}" for digit in range(5)),
    *("fashion-only-0", "fashion-only-1", "mnist-only-3", "svhn-vs-celeba"),
    *("celeba-vs-svhn", "cifar10-vs-svhn"),
)


def main() -> None:
    """Measure on each split with each seed."""
    parser = parser_for(__doc__, OUT)
    parser.add_argument("--split", nargs="+", default=SPLITS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--train", type=int, default=0, help="learn from so many samples only")
    parser.add_argument("--runs", type=Path, help="folder in which fits are kept")
    arguments = parser.parse_args()
    for split in arguments.split:
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as temporary:
                runs = arguments.runs or Path(temporary)
                keys = {"split": split, "seed": seed, "preset": arguments.preset}
                _measure({**keys, "n_train": arguments.train}, runs, arguments.out)


def _measure(keys: dict[str, Any], runs: Path, out: Path) -> None:
    split, seed, n_train = keys["split"], keys["seed"], keys["n_train"]  # 0: all of them
    if any(keys.items() <= {"n_train": 0, **row}.items() for row in read_rows(out)):
        return
    started = time.process_time()
    config = make_config(keys["preset"], seed=seed)
    data = load_split(split, seed, None)
    if n_train:
        data = dataclasses.replace(data, train=open_source(data.train.samples[:n_train]))
    folder = runs / "-".join([split, str(seed), *([str(n_train)] if n_train else [])])
    views, rules, prevalence = views_of(data, config, folder)
    facts = {"prevalence": prevalence, "versions": versions(), "model_version": VERSION}
    facts["command"] = command_line()
    rows = []
    for name, scores in [*views.items(), *sums_of(views, rules)]:
        y = np.repeat([0, 1], [len(scores["normal"]), len(scores["anomalous"])])
        score = np.concatenate([scores["normal"], scores["anomalous"]])
        figures = {"auroc": auroc(y, score), "auprc": auprc(y, score)}
        rows.append({**keys, "what": name, **figures, **facts})
    append_rows(out, rows)
    print(
        f"{split} seed {seed}: {time.process_time() - started:.0f} s of processor time", flush=True
    )


if __name__ == "__main__":
    main()
