"""The detectors of figures as tasks of a Ray cluster: all are there before the first is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from historyad.deploy.ray_cluster import cluster
from historyad.errors import RunError
from historyad.research.reproduce.figure import Figure
from historyad.research.reproduce.runs import Recipe, Runs, Size, first_steps


def fit_on_ray(
    figures: Iterable[Figure],
    runs: Runs,
    *,
    seeds: list[int],
    size: Size,
    address: str | None = None,
) -> None:
    """Fit what ``figures`` need: the histories, and then the detectors that share them.

    Each is a task on one core of the cluster at ``address``, or of one on this machine; the
    cluster's machines find the data and ``runs`` under the same paths. What is there is not fitted
    again. Raises RunError, once the others are done, when a fit failed.
    """
    recipes = [
        recipe
        for figure in figures
        for unit in figure.units(seeds)
        for recipe in figure.recipes(size, unit).values()
    ]
    histories = [first for recipe in recipes for first in first_steps(recipe)]
    with cluster(address):
        for wave in (histories, recipes):
            _fit_all({runs.key(recipe): recipe for recipe in wave}, runs)


def _fit_all(recipes: dict[str, Recipe], runs: Runs) -> None:
    import ray

    task = ray.remote(num_cpus=1, max_calls=1)(_fit)
    tasks = {
        key: task.remote(recipe, runs.path.resolve(), runs.data_root, runs.command)
        for key, recipe in recipes.items()
    }
    failures = []
    for key, running in tasks.items():
        try:
            ray.get(running)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            failures.append(f"{recipes[key].split} seed {recipes[key].config.seed}: {reason}")
    if failures:
        listed = "\n  ".join(failures)
        raise RunError(
            f"{len(failures)} of {len(tasks)} fits failed; the others are kept\n  {listed}"
        )


def _fit(recipe: Recipe, path: Path, data_root: Path | None, command: str) -> None:
    torch.set_num_threads(1)
    with threadpool_limits(1):
        Runs(path, data_root, command=command).model(recipe)
