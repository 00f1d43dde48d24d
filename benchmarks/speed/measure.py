"""Measure all that takes time, side by side: the rows behind docs/performance.md.

    python -m benchmarks.speed.measure [--part fits|scoring|service|processes|ray|growth|steps ...]
        [--minutes 20] [--rounds 3] [--threads 2]

`fits` fits whole detectors, phase by phase, and PyOD's VAE, neighbours and PCA beside them;
`scoring` scores from memory, beside onnxruntime on the same graph, and from files, beside decoding
alone; `service` asks a service for twice what can be scored; `processes` times training steps of
one process and of two; `ray` scores with Ray beside one process; `growth` fits 10,000 to 1,000,000
images; `steps` times the steps of the reference recipe and of the default. What is compared is
measured in turns, in one run. Three parts are not among those that are measured when none is named:
`gaps`, what it costs in quality to find the gaps between images once, and two that take hours,
`ladder`, what each lead brings, and `reference`, whole fits of that recipe.

Each row is printed and kept as it comes. Rows that are there are not measured again, so that the
same command continues; after --minutes nothing more is begun. Delete rows to measure them anew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.distributed.measure import measure_processes
from benchmarks.measuring import Row, in_own_process, keep, parser_for
from benchmarks.pages import ROWS
from benchmarks.scaling.measure import measure_constants, measure_ray
from benchmarks.speed import scoring
from benchmarks.speed.fits import PEERS, fit_peer, fit_whole
from benchmarks.speed.gaps import SPLITS, measure_gaps
from benchmarks.speed.growth import fit_many, write_images
from benchmarks.speed.service import measure_service
from benchmarks.speed.steps import Variant, ladder, measure_variants, others
from historyad.files import read_rows

ALL, FEW = 60_000, 10_000  # images of MNIST; few enough for peers
SIZES = (10_000, 60_000, 1_000_000)
SHAPES = ((1, 32, 32), (3, 32, 32), (1, 64, 64), (3, 64, 64))
RAY_IMAGES = 50_000


@dataclass(frozen=True)
class Job:
    """What gives one row, or some that differ in no key: nothing to do where they are there."""

    keys: Row
    measure: Callable[[], Row | list[Row]]
    file: str = "speed"


def main() -> None:
    """Measure the parts that are asked for."""
    parser = parser_for(__doc__, ROWS)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=[*PARTS][:-3])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=20.0)
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.part:
            for job in PARTS[part](arguments, Path(folder)):
                file = arguments.out / job.file / "rows.jsonl"
                keys = {"part": part, **job.keys}
                if any(keys.items() <= row.items() for row in read_rows(file)):
                    continue
                if time.monotonic() > end:
                    return
                load = {"load": os.getloadavg()[0], "cores": os.cpu_count()}
                found = job.measure()
                for row in found if isinstance(found, list) else [found]:
                    keep(file, {**keys, **row, **load})


def _fits(arguments: argparse.Namespace, _: Path) -> Iterator[Job]:
    threads = arguments.threads
    for seed in range(1, arguments.rounds + 1):
        for n, recipes in ((ALL, ("default", "quick", "instant")), (FEW, ("quick", *PEERS))):
            for recipe in recipes:
                keys = {"recipe": recipe, "images": n, "seed": seed, "threads": threads}
                fit = fit_peer if recipe in PEERS else fit_whole
                yield Job(keys, partial(in_own_process, fit, recipe, seed, threads, n))


def _reference(arguments: argparse.Namespace, _: Path) -> Iterator[Job]:
    for seed in range(1, arguments.rounds + 1):
        keys = {"recipe": "reference", "images": ALL, "seed": seed, "threads": arguments.threads}
        yield Job(keys, partial(in_own_process, fit_whole, "reference", seed, keys["threads"], ALL))


def _scoring(arguments: argparse.Namespace, folder: Path) -> Iterator[Job]:
    threads, rounds = arguments.threads, arguments.rounds
    for n in sorted({1, threads}, reverse=True):
        keys = {"what": "memory", "threads": n}
        yield Job(keys, _of_model(scoring.measure_scoring, folder, n, rounds))
    yield Job({"what": "folder"}, _of_model(scoring.measure_folder, folder, threads, rounds))
    yield Job({"what": "start"}, _of_model(scoring.measure_start, folder, rounds))


def _service(arguments: argparse.Namespace, folder: Path) -> Iterator[Job]:
    for size in (32, 1):
        measure = _of_model(measure_service, folder, size, arguments.rounds)
        yield Job({"images in a request": size}, measure)


def _processes(arguments: argparse.Namespace, _: Path) -> Iterator[Job]:
    for size in (64, 512):
        yield Job({"batch_size": size}, partial(measure_processes, size, arguments.rounds))


def _ray(arguments: argparse.Namespace, folder: Path) -> Iterator[Job]:
    keys = {"n_images": RAY_IMAGES, "rounds": arguments.rounds}
    yield Job(keys, _of_model(measure_ray, folder, *keys.values()), "scaling")


def _constants(arguments: argparse.Namespace, folder: Path) -> Iterator[Job]:
    measure = _of_model(measure_constants, folder, arguments.rounds)
    yield Job({"rounds": arguments.rounds}, measure, "scaling")


def _growth(arguments: argparse.Namespace, folder: Path) -> Iterator[Job]:
    def fit(n_images: int) -> Row:
        file = folder / "images.npy"
        in_own_process(write_images, file, n_images)
        row = in_own_process(fit_many, file, arguments.threads)
        file.unlink()
        return dict(row)

    for n_images in SIZES:
        keys = {"n_images": n_images, "threads": arguments.threads}
        yield Job(keys, partial(fit, n_images))


def _steps(arguments: argparse.Namespace, _: Path) -> Iterator[Job]:
    ends = [ladder()[0], Variant("default", {"preset": "default"})]
    yield Job({"group": "ends"}, partial(_in_a_process, ends, SHAPES[0], arguments))


def _ladder(arguments: argparse.Namespace, _: Path) -> Iterator[Job]:
    for group, variants in (("ladder", ladder()), ("others", others())):
        yield Job({"group": group}, partial(_in_a_process, variants, SHAPES[0], arguments))
    for shape in SHAPES:
        keys = {"group": "shapes", "shape": list(shape)}
        yield Job(keys, partial(_in_a_process, ladder()[-1:], shape, arguments))


def _gaps(arguments: argparse.Namespace, _: Path) -> Iterator[Job]:
    for split in SPLITS:
        measure = partial(in_own_process, measure_gaps, split, arguments.threads)
        yield Job({"split": split}, measure)


def _in_a_process(
    variants: list[Variant], shape: tuple[int, ...], arguments: argparse.Namespace
) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, initializer=_set_threads, initargs=(arguments.threads,)) as pool:
        return pool.apply(measure_variants, (variants, shape, arguments.rounds))


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _of_model(function: Callable[..., Row], folder: Path, *values: int) -> Callable[[], Row]:
    """Return what measures, in a process of its own, a detector that is in ``folder``, or will."""

    def measure() -> Row:
        run = folder / "run"
        if not run.exists():
            in_own_process(scoring.make_model, run)
        return dict(in_own_process(function, run, *values))

    return measure


PARTS: dict[str, Callable[[argparse.Namespace, Path], Iterator[Job]]] = {
    "scoring": _scoring,
    "fits": _fits,
    "service": _service,
    "ray": _ray,
    "processes": _processes,
    "growth": _growth,
    "steps": _steps,
    "constants": _constants,
    "gaps": _gaps,
    "reference": _reference,
    "ladder": _ladder,
}


if __name__ == "__main__":
    main()
