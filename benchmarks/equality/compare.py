"""Whether two checkouts give the same scores: small fits of every kind, compared to the bit.

``python -m benchmarks.equality.compare OLD NEW WORK`` runs the command line of both checkouts on
made-up data, from the same seeds, and prints one line for each case. Scores and views are compared
as text that holds every digit, maps as pixels. Exit status 1 says that some differ. What is in the
folder WORK already is not run again: delete WORK/new after a change.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TINY = (
    "--width 4 --hidden 16 --latent-dim 8 --epoch-images 512 --saves-per-epoch 8 --n-epochs 2 "
    "--detector-epochs 1 --mass-tolerance 0 --false-positive-rate 0.05"
)
# Name of the case: source to fit on, source to score, settings, whether maps are drawn.
CASES = {
    "whole, grey": ("digits:train", "digits:test", "", False),
    "whole, grey, D_TV alone": ("digits:train", "digits:test", "--views history", False),
    "whole, grey, random start": ("digits:train", "digits:test", "--detector-start random", False),
    "whole, colour, reduced": ("colour.npy", "colour_new.npy", "--image-size 16", True),
    "whole, folder, flipped": ("folder", "folder", "--image-size 16 --augment flip", False),
    "crops": ("colour.npy", "colour_new.npy", "--patch 16", True),
    "crops, scales, contrast": (
        "grey.npy",
        "grey_new.npy",
        "--patch 16 --scales 2 --contrast local",
        True,
    ),
    "crops, D_TV alone": ("grey.npy", "grey_new.npy", "--patch 16 --views history", False),
    "columns": ("table.csv", "table_new.csv", "", False),
    "columns, D_TV alone": ("table.csv", "table_new.csv", "--views history", False),
    "columns, D_TV too": ("table.csv", "table_new.csv", "--views all", False),
    "columns, suspects": ("table.csv", "table_new.csv", "--contamination 0.05", False),
    "whole, suspects": ("folder", "folder", "--contamination 0.05 --views companions", False),
    "windows": ("series.npy", "series_new.npy", "--window 8", False),
    "windows, D_TV too": ("series.npy", "series_new.npy", "--window 8 --views all", False),
    "features": ("colour.npy", "colour_new.npy", "--backbone lite0", True),
    "features, D_TV too": ("colour.npy", "colour_new.npy", "--backbone lite0 --views all", True),
    "features, in folds": (
        "folder",
        "folder",
        "--backbone lite0 --folds 4",
        False,
    ),
}


def make_data(folder: Path) -> None:
    """Write smooth images in grey and colour, a folder of them, a table, and a series."""
    random = np.random.default_rng(0)
    for name, n in (("", 120), ("_new", 20)):
        np.save(folder / f"colour{name}.npy", smooth(random, n, 40, 36, 3))
        np.save(folder / f"grey{name}.npy", smooth(random, n, 48, 40, 1))
        table = random.normal(size=(400 if not name else 60, 6)) * [1, 2, 5, 0.1, 1, 30] + 1
        np.savetxt(folder / f"table{name}.csv", table, delimiter=",", header="a,b,c,d,e,f")
        steps = np.arange(40 * n)[:, None] / [6.0, 9.0] + random.normal(size=(40 * n, 2)) / 5
        np.save(folder / f"series{name}.npy", np.sin(steps).astype(np.float32))
    (folder / "folder").mkdir()
    for i, image in enumerate(smooth(random, 100, 24, 20, 3)):
        Image.fromarray(image).save(folder / "folder" / f"{i:03d}.png")


def smooth(
    random: np.random.Generator, n: int, height: int, width: int, channels: int
) -> NDArray[np.uint8]:
    """Return sums of a few waves, uint8 (n, height, width, channels)."""
    y, x = np.arange(height)[:, None, None] / height, np.arange(width)[:, None] / width
    waves = np.zeros((n, height, width, channels))
    for _ in range(3):
        fy, fx, phase = random.uniform(-4, 4, (3, n, 1, 1, channels))
        waves += np.sin(2 * np.pi * (fy * y + fx * x + phase))
    images: NDArray[np.uint8] = np.rint((waves / 3 + 1) * 127.5).astype(np.uint8)
    return images


def run_cases(checkout: Path, data: Path, out: Path) -> None:
    """Fit and score every case with the code of ``checkout``."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    for name, (train, test, settings, with_maps) in CASES.items():
        folder = out / folder_of(name)
        if (folder / "scores.jsonl").exists():
            continue
        share = "" if "--folds" in settings else "--calibration-share 0.2"
        source, new = (part if ":" in part else str(data / part) for part in (train, test))
        for command in (
            f"fit {source} --out {folder / 'run'} {TINY} {share} {settings}",
            f"score {folder / 'run'} {new} --view-scores --out {folder / 'scores.jsonl'}"
            + (f" --maps {folder / 'maps'}" if with_maps else ""),
        ):
            arguments = [sys.executable, "-m", "historyad", *shlex.split(command)]
            subprocess.run(arguments, check=True, env=environment, capture_output=True, cwd=data)


def folder_of(name: str) -> str:
    """Return the name of the folder of a case."""
    return name.replace(", ", "-").replace(" ", "_")


def differences(old: Path, new: Path) -> list[str]:
    """Return what differs between the results of one case."""
    found = []
    if (old / "scores.jsonl").read_text() != (new / "scores.jsonl").read_text():
        found.append("scores")
    for path in sorted((old / "maps").rglob("*.png")):
        other = new / path.relative_to(old)
        if not np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(other))):
            found.append(path.name)
    return found


def main(old: str, new: str, work: str) -> int:
    """Compare two checkouts in the folder ``work``; return the exit status."""
    data, results = Path(work) / "data", [Path(work) / name for name in ("old", "new")]
    if not data.exists():
        data.mkdir(parents=True)
        make_data(data)
    for checkout, out in zip((old, new), results, strict=True):
        run_cases(Path(checkout).resolve(), data.resolve(), out.resolve())
    status = 0
    for name in CASES:
        found = differences(*(result / folder_of(name) for result in results))
        print(f"{name:<28} {'differs: ' + ', '.join(found[:3]) if found else 'equal'}")
        status |= bool(found)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
