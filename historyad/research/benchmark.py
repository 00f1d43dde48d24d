"""Methods side by side on the same splits: one row of JSON for each (split, method, seed).

No label is used in fitting or in choosing; every method gets the same training samples. A row
that is there already is not computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn

from historyad.config import PRESETS, make_config
from historyad.data.sources import Source
from historyad.deploy.ray_cluster import cluster
from historyad.environment import machine, versions
from historyad.errors import HistoryADError, RunError
from historyad.files import append_rows, read_rows
from historyad.judge.evaluation import judge
from historyad.method.networks import count_parameters
from historyad.model.files import VERSION
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory
from historyad.research.peers import PEERS
from historyad.research.splits import (
    Split,
    find_splits,
    load_split,
    on_some,
    select,
    training_set,
)

Row = dict[str, Any]
Key = tuple[str, str, int, int | None]  # of a row: split, method, seed, most
ScoreOf = Callable[[NDArray[Any]], NDArray[np.floating]]

OURS = {"historyad": "default"} | {f"historyad-{p}": p for p in PRESETS if p != "default"}


@dataclass(frozen=True)
class Fit:
    """A method to fit once, with a seed, for splits that train on the same samples.

    It scores at ``most`` so many of the normal test samples, and of the anomalous ones.
    """

    method: str
    splits: tuple[str, ...]
    seed: int
    most: int | None = None

    def __str__(self) -> str:
        return f"{self.method} on {', '.join(self.splits)}, seed {self.seed}"


def run_benchmark(
    splits: Iterable[str],
    methods: Iterable[str],
    seeds: Iterable[int],
    out: Path,
    *,
    most: int | None = None,
    jobs: int = 1,
    engine: Literal["ray"] | None = None,
    address: str | None = None,
    data_root: Path | None = None,
    command: str = "",
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Measure every method on every split for every seed, appending rows to ``out/rows.jsonl``.

    Splits and methods are names or wildcards. Splits with the same training samples share a fit.
    With ``most``, for methods that take seconds for one image, a part of the test samples that the
    seed draws is scored: at most so many normal and so many anomalous ones. Their rows say so.
    Each fit has a process of its own, so that its peak memory is its own, ``jobs`` of them at a
    time, which share this process' number of threads. On the engine ``ray`` each fit is a task of
    the cluster at ``address``, or of one on this machine, with as many threads; its machines find
    the data, and best ``out``, under the same paths. Return all rows asked for, those of earlier
    calls included. Raises InputError for an unknown name, and RunError, once everything else is
    measured, when fits failed; called again, only what is missing is measured.
    """
    splits = find_splits(splits, data_root)
    methods = select(methods, [*OURS, *PEERS], "method")
    seeds = list(seeds)
    out.mkdir(parents=True, exist_ok=True)
    table = out / "rows.jsonl"
    rows = {_key(row): row for row in read_rows(table)}
    failures = []
    fits = _missing_fits(splits, methods, seeds, most, set(rows))
    runs = (out / "runs").resolve()
    measured = (
        _measure_all(fits, jobs, runs, data_root)
        if engine is None
        else _measure_on_ray(fits, jobs, runs, data_root, address)
    )
    with contextlib.closing(measured) as results:
        for fit, result in results:
            if isinstance(result, str):
                failures.append(f"{fit}: {result}")
                continue
            row = {**result, "command": command}
            append_rows(table, [row])
            rows[_key(row)] = row
            if on_row is not None:
                on_row(row)
    if failures:
        listed = "\n  ".join(failures)
        raise RunError(f"{len(failures)} of {len(fits)} fits failed; rows are kept\n  {listed}")
    with contextlib.suppress(OSError):  # not there, or another command's fits are
        runs.rmdir()
    return [rows[*key, most] for key in product(splits, methods, seeds)]


def measure(fit: Fit, runs: Path, data_root: Path | None) -> Iterator[Row]:
    """Fit the method once, in a folder of ``runs``, and yield a row for each split."""
    train = load_split(fit.splits[0], fit.seed, data_root).train
    # Named after the samples, so that an interrupted fit is found and continued.
    digest = hashlib.sha256(training_set(fit.splits[0]).encode()).hexdigest()[:16]
    run = runs / f"{fit.method}-{digest}-{fit.seed}"
    started = time.perf_counter()
    if fit.method in OURS:
        score, facts = _fit_ours(fit, train, run)
    else:
        score, facts = _fit_peer(fit, train)
    facts["fit_seconds"] = time.perf_counter() - started
    facts["n_train"] = len(train)
    facts["threads"] = torch.get_num_threads()
    facts["versions"] = versions()
    facts["machine"] = machine()
    for name in fit.splits:
        split = load_split(name, fit.seed, data_root)
        row = {"split": name, "method": fit.method, "seed": fit.seed}
        if fit.most is not None:
            split = on_some(split, fit.most, fit.seed)
            row["most"] = fit.most
        yield {**row, **_score(score, split, facts)}
    shutil.rmtree(run, ignore_errors=True)


def _key(row: Row) -> Key:
    return row["split"], row["method"], row["seed"], row.get("most")


def _missing_fits(
    splits: list[str], methods: list[str], seeds: list[int], most: int | None, there: set[Key]
) -> list[Fit]:
    """Return what is to be fitted for the rows that are not there, one seed after the other."""
    together: dict[str, list[str]] = {}
    for split in splits:
        together.setdefault(training_set(split), []).append(split)
    fits = []
    for seed, method, group in product(seeds, methods, together.values()):
        missing = tuple(split for split in group if (split, method, seed, most) not in there)
        if missing:
            fits.append(Fit(method, missing, seed, most))
    return fits


def _measure_all(
    fits: list[Fit], jobs: int, runs: Path, data_root: Path | None
) -> Generator[tuple[Fit, Row | str]]:
    """Yield rows as they come, and what went wrong as text, from ``jobs`` processes at a time."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = deque(fits)
    running: dict[Connection, tuple[Fit, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                fit = waiting.popleft()
                results, sender = context.Pipe(duplex=False)
                arguments = (sender, fit, runs, data_root, threads)
                process = context.Process(target=_measure_in_child, args=arguments, daemon=True)
                process.start()
                sender.close()  # the child's end: once that is closed too, nothing more will come
                running[results] = (fit, process)
            ready = wait([*running])
            for results in [results for results in running if results in ready]:
                fit, process = running[results]
                try:
                    result = results.recv()
                except EOFError:
                    process.join()
                    del running[results]
                    if process.exitcode == 0:
                        continue
                    result = f"its process ended with status {process.exitcode}"
                yield fit, result
    finally:
        for _, process in running.values():
            process.terminate()


def _measure_in_child(
    results: Connection, fit: Fit, runs: Path, data_root: Path | None, threads: int
) -> None:
    """Send the rows of a fit, and at the end the message of an exception if there was one."""
    # Ctrl-C is for the parent, which ends its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    for result in _rows_or_failure(fit, runs, data_root, threads):
        results.send(result)


def _rows_or_failure(
    fit: Fit, runs: Path, data_root: Path | None, threads: int
) -> Iterator[Row | str]:
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        try:
            yield from measure(fit, runs, data_root)
        except HistoryADError as error:
            yield str(error)
        except Exception as error:
            traceback.print_exc()
            yield f"{type(error).__name__}: {error}"


def _measure_on_ray(
    fits: list[Fit], jobs: int, runs: Path, data_root: Path | None, address: str | None
) -> Generator[tuple[Fit, Row | str]]:
    """Yield what `_measure_all` does, from one Ray task for each fit."""
    if not fits:
        return
    with cluster(address):
        import ray

        cores = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes())  # type: ignore[no-untyped-call]
        threads = max(1, min(cores, torch.get_num_threads() // jobs))
        # A process for each task, as without Ray, so that its peak memory is its own.
        task = ray.remote(num_cpus=threads, max_calls=1, max_retries=1)(_measure_in_task)
        running = {task.remote(fit, runs, data_root, threads): fit for fit in fits}
        while running:
            (finished,), _ = ray.wait([*running])
            fit = running.pop(finished)
            try:
                results = ray.get(finished)
            except ray.exceptions.RayError as error:
                results = [f"its process ended ({type(error).__name__})"]
            for result in results:
                yield fit, result


def _measure_in_task(fit: Fit, runs: Path, data_root: Path | None, threads: int) -> list[Row | str]:
    return list(_rows_or_failure(fit, runs, data_root, threads))


def _end_with_parent() -> None:
    """End this process when its parent is gone, however suddenly: nobody would keep its rows."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _score(score: ScoreOf, split: Split, facts: Row) -> Row:
    started = time.perf_counter()
    normal, anomalous = score(split.normal.samples), score(split.anomalous.samples)
    seconds = time.perf_counter() - started
    row = {**judge(normal, anomalous), **facts, "score_seconds": seconds}
    row["images_per_second"] = (len(normal) + len(anomalous)) / seconds
    row["peak_memory_mb"] = _peak_memory_mb()
    if "threshold" in facts:
        row["false_positive_rate"] = float((normal > facts["threshold"]).mean())
        row["detection_rate"] = float((anomalous > facts["threshold"]).mean())
    return row


def _peak_memory_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _fit_ours(fit: Fit, train: Source, run: Path) -> tuple[ScoreOf, Row]:
    config = make_config(OURS[fit.method], seed=fit.seed)
    model = fit_model(train, config, RunDirectory(run))
    facts = {
        "threshold": model.calibration.threshold,
        "held_out": len(model.calibration.scores),
        "requested_rate": model.calibration.false_positive_rate,
        "parameters": count_parameters(model.score),
        "model_version": VERSION,
        "run_mb": sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) / 1e6,
    }
    return model.anomaly_score, facts


def _fit_peer(fit: Fit, train: Source) -> tuple[ScoreOf, Row]:
    peer = PEERS[fit.method](fit.seed).fit(train.samples)
    networks = [kept for kept in vars(peer).values() if isinstance(kept, nn.Module)]
    facts = {"parameters": sum(map(count_parameters, networks))} if networks else {}
    return peer.anomaly_score, facts
