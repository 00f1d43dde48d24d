"""Measure the speed of everything that takes time: the rows behind docs/performance.md.

    python -m benchmarks.performance.measure [--part fits|steps|growth|scoring ...]
        [--seeds 1 2 3] [--threads 2]

`fits` trains the reference recipe and the default whole, in pairs, with their quality; `steps`
times what each lead brings; `growth` fits 10,000 to 240,000 images; `scoring` scores from memory,
beside onnxruntime, and from files. Each row is appended to --out and printed; rows of `fits` and
`growth` that are there already are not measured again. Each fit has a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from benchmarks.measuring import Row, in_own_process, keep, parser_for
from benchmarks.pages import ROWS
from benchmarks.performance.fits import fit_whole
from benchmarks.performance.growth import fit_many, write_images
from benchmarks.performance.scoring import measure_folder, measure_scoring, measure_start
from benchmarks.performance.steps import Variant, ladder, measure_variants, others
from historyad.files import read_rows

SIZES = (10_000, 60_000, 240_000)
SHAPES = ((1, 32, 32), (3, 32, 32), (1, 64, 64), (3, 64, 64))


def main() -> None:
    """Measure the parts that are asked for."""
    parser = parser_for(__doc__, ROWS / "speed" / "rows.jsonl")
    parser.add_argument("--part", action="append", choices=PARTS, help="all when none is named")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipes", nargs="+", default=["reference", "default", "quick"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for part in arguments.part or PARTS:
        for measured in PARTS[part](arguments):
            keep(arguments.out, {"part": part, **measured})


def _fits(arguments: argparse.Namespace) -> Iterator[Row]:
    for seed, recipe in product(arguments.seeds, arguments.recipes):
        keys = {"recipe": recipe, "seed": seed, "threads": arguments.threads}
        if not _is_there(arguments, "fits", keys):
            yield in_own_process(fit_whole, recipe, seed, arguments.threads)


def _growth(arguments: argparse.Namespace) -> Iterator[Row]:
    keys = ("n_images", "saves_per_epoch", "threads")
    for n_images, saves in [*((size, 50) for size in SIZES), (SIZES[0], 200)]:
        values = (n_images, saves, arguments.threads)
        if _is_there(arguments, "growth", dict(zip(keys, values, strict=True))):
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "images.npy"
            in_own_process(write_images, file, n_images)
            yield in_own_process(fit_many, file, saves, arguments.threads)


def _is_there(arguments: argparse.Namespace, part: str, keys: Row) -> bool:
    wanted = {"part": part, **keys}
    return any(wanted.items() <= row.items() for row in read_rows(arguments.out))


def _steps(arguments: argparse.Namespace) -> Iterator[Row]:
    for group, variants in (("ladder", ladder()), ("others", others())):
        for row in _in_a_process(variants, SHAPES[0], arguments):
            yield {"group": group, **row}
    for shape in SHAPES:
        for row in _in_a_process(ladder()[-1:], shape, arguments):
            yield {"group": "shapes", **row}


def _in_a_process(
    variants: list[Variant], shape: tuple[int, ...], arguments: argparse.Namespace
) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, initializer=_set_threads, initargs=(arguments.threads,)) as pool:
        return pool.apply(measure_variants, (variants, shape, arguments.rounds))


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _scoring(arguments: argparse.Namespace) -> Iterator[Row]:
    for threads in sorted({1, arguments.threads}):
        yield {"what": "memory", **measure_scoring(threads, arguments.rounds)}
    yield {"what": "folder", **measure_folder(arguments.threads, arguments.rounds)}
    yield {"what": "start", **measure_start(arguments.rounds)}


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "fits": _fits,
    "steps": _steps,
    "growth": _growth,
    "scoring": _scoring,
}


if __name__ == "__main__":
    main()
