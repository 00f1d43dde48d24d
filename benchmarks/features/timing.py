"""Time the commands on photos, as a user types them: rows for docs/rows/features.

    python -m benchmarks.features.timing [--rounds 3] [--backbone lite0 wavelets]

Of 300 good screws of 320 x 320 pixels: their fit; of 160 others: `score` with its start, and what
each image takes beside the first. Of larger good photos, tiles laid side by side to 2,000 x 2,000
pixels and seen in tiles: `score` of one with its map, and what each takes beside the first. Every
command is a process of its own, with two threads; memory is the largest that it held.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import Row, keep, parser_for
from benchmarks.pages import ROWS

FITTED, LARGE = 300, 2000
_LARGE_FITTED = 10  # large images that are fitted on


def main() -> None:
    """Measure each backbone so many times."""
    parser = parser_for(__doc__, ROWS / "features" / "timing.jsonl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", nargs="+", default=["lite0", "wavelets"])
    root = os.environ.get("HISTORYAD_DATA", ".")
    parser.add_argument("--data-root", type=Path, default=Path(root))
    arguments = parser.parse_args()
    screws = arguments.data_root / "industrial" / "mvtec_screw"
    tiles = arguments.data_root / "industrial" / "magnetic_tile_full" / "train" / "good"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = sorted((screws / "train" / "good").iterdir())[:FITTED]
        copied(good, folder / "good")
        copied(sorted((screws / "test").rglob("*.png")), folder / "others")
        large_photos(sorted(tiles.iterdir()), folder / "large")
        for turn in range(arguments.rounds):
            for backbone in arguments.backbone:
                keep(
                    arguments.out, {"round": turn, "backbone": backbone, **timed(folder, backbone)}
                )


def timed(folder: Path, backbone: str) -> Row:
    """Return seconds and memory of each command."""
    with tempfile.TemporaryDirectory() as name:
        run, large = Path(name) / "run", Path(name) / "large"
        fit = ran("fit", folder / "good", "--out", run, "--backbone", backbone)
        one = next((folder / "others").iterdir())
        n = len([*(folder / "others").iterdir()])
        first = ran("score", run, one, "--out", Path(name) / "one.csv")
        many = ran("score", run, folder / "others", "--out", Path(name) / "many.csv")
        ran("fit", folder / "large", "--out", large, "--backbone", backbone)
        photos = sorted((folder / "large").iterdir())
        shown, all_shown = (
            ran(
                "score",
                large,
                where,
                "--maps",
                Path(name) / str(n),
                "--out",
                Path(name) / f"{n}.csv",
            )
            for n, where in ((1, photos[0]), (len(photos), folder / "large"))
        )
        return {
            "fit": fit,
            "first": first,
            "many": many,
            "images_a_second": n / many["seconds"],
            "images_a_second_after_first": (n - 1) / (many["seconds"] - first["seconds"]),
            "large": shown,
            "large_after_first": (all_shown["seconds"] - shown["seconds"]) / (len(photos) - 1),
        }


def ran(*command: object) -> Row:
    """Run ``historyad`` with these arguments; return its seconds and its memory."""
    arguments = [sys.executable, "-m", "historyad", *map(str, command)]
    started = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), arguments)
    cpu = used.ru_utime + used.ru_stime
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": cpu,
        "peak_memory_mb": used.ru_maxrss / 1024,
    }


def copied(files: list[Path], folder: Path) -> None:
    """Copy files to a folder, by names of their own."""
    folder.mkdir()
    for number, file in enumerate(files):
        shutil.copy(file, folder / f"{number:03}{file.suffix}")


def large_photos(files: list[Path], folder: Path) -> None:
    """Write photos of tiles side by side, as large as `LARGE`."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(_LARGE_FITTED):
        photo = Image.new("L", (LARGE, LARGE))
        y = 0
        while y < LARGE:
            row = [Image.open(files[i]).convert("L") for i in random.integers(len(files), size=20)]
            x = 0
            for tile in row:
                photo.paste(tile, (x, y))
                x += tile.width
            y += min(tile.height for tile in row)
        photo.save(folder / f"{number:03}.png")


if __name__ == "__main__":
    main()
