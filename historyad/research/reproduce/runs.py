"""The detectors that figures are made of: each is fitted once, and found again by what it is.

A detector lives in a folder named after a digest of its training samples and settings. Those that
differ in steps 2 and 3 alone (case 1, case 2, no training, fewer snapshots) share one history.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from historyad.config import Config, as_dict, make_config
from historyad.files import load_json, save_json
from historyad.method.history import History
from historyad.model.files import VERSION
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.progress import Listener, watching
from historyad.ranks import choose_device
from historyad.research.reproduce.pooled import PooledHistory
from historyad.research.splits import Split, load_split

Size = Literal["quick", "full"]
Seconds = dict[str, float]

# What either size changes of the preset 'paper'. At full size, only what holds less than a
# thousandth of P_Ghist is left out. At quick size, an epoch is shorter, networks are small, and
# the penalty is not at every step: a small part of the work.
SIZES: dict[Size, dict[str, Any]] = {
    "full": {"mass_tolerance": 1e-3},
    "quick": {
        "width": 16,
        "hidden": 256,
        "latent_dim": 64,
        "epoch_images": 20_000,
        "mass_tolerance": 0.05,
        "penalty_interval": 4,
        "detector_epochs": 1.0,
        "detector_learning_rate": 1e-3,
    },
}
_OURS = {"full": "default", "quick": "quick"}  # presets
# What step 1 does not look at: detectors with one history may differ in it.
_LATER_STEPS = (
    *("wide_share", "wide_latent", "detector_start", "detector_epochs"),
    *("detector_learning_rate", "detector_momentum", "detector_square_momentum"),
    *("bound_weight", "views"),
)


@dataclass(frozen=True, eq=False)
class Recipe:
    """A detector: the split whose training samples it learns from, its settings, its history.

    It sees every ``every``-th recorded snapshot, and also those of histories that were recorded
    from the seeds ``pooled``.
    """

    split: str
    config: Config
    every: int = 1
    pooled: tuple[int, ...] = ()

    def __str__(self) -> str:
        method = "paper" if self.config.views == "history" else "default"
        return f"{method} on {self.split}, seed {self.config.seed}"


def paper(size: Size, split: str, seed: int, **values: Any) -> Recipe:
    """Return the paper's own method, with ``values`` among its settings."""
    return Recipe(split, make_config("paper", seed=seed, **{**SIZES[size], **values}))


def default(size: Size, split: str, seed: int) -> Recipe:
    """Return our default, or at quick size the preset 'quick'."""
    return Recipe(split, make_config(_OURS[size], seed=seed))


class Runs:
    """Detectors in the folder ``path``, fitted when they are asked for first."""

    def __init__(
        self,
        path: Path,
        data_root: Path | None = None,
        *,
        command: str = "",
        on_progress: Listener | None = None,
    ) -> None:
        self.path = path
        self.data_root = data_root
        self.command = command
        self.on_progress = on_progress
        # Few at a time: the splits of figure 7 are copies of most of MNIST.
        self.split: Callable[[str, int], Split] = lru_cache(4)(
            lambda name, seed: load_split(name, seed, data_root)
        )

    def key(self, recipe: Recipe) -> str:
        """Return the name of a detector: a digest of its training samples and of the recipe."""
        train = self.split(recipe.split, recipe.config.seed).train
        what = [train.fingerprint, as_dict(recipe.config), recipe.every, recipe.pooled]
        if recipe.config.views != "history":
            what.append(VERSION)  # what the companions of D_TV are changes from one to the next
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    def model(self, recipe: Recipe) -> Model:
        """Return the detector, which is fitted unless it is there."""
        run = RunDirectory(self.path / self.key(recipe))
        if run.is_finished and self._seconds_file(recipe).exists():
            return Model.load(run.path, choose_device(recipe.config.device))
        history = self.history(recipe) if self._histories(recipe) else None
        clock = _Clock(self._seconds_file(recipe), self._of_histories(recipe))

        def on_progress(record: dict[str, Any]) -> None:
            clock.save()  # so that what an interruption leaves is counted, too
            if self.on_progress is not None:
                self.on_progress(record)

        train = self.split(recipe.split, recipe.config.seed).train
        with watching(on_progress, str(recipe)):
            model = fit_model(train, recipe.config, run, history=history, command=self.command)
        clock.save()
        return model

    def history(self, recipe: Recipe) -> History:
        """Return the history that the detector learns from, which is recorded unless it is there.

        What records it is a detector of its own: the averaged critic, not trained any further.
        """
        histories = []
        for first in first_steps(recipe):
            model = self.model(first)
            # What was left to be chosen by the samples, such as an epoch, was chosen in step 1.
            later = {name: getattr(recipe.config, name) for name in _LATER_STEPS}
            config = replace(model.config, **later)
            path = RunDirectory(self.path / self.key(first)).history
            shape = model.kind.networks(model.config)
            recorded = History(path, config, shape, choose_device(config.device))
            histories.append(recorded.thin(recipe.every))
        return PooledHistory(histories) if recipe.pooled else histories[0]

    def seconds(self, recipe: Recipe) -> Seconds:
        """Return how long the detector took with all its histories, on the wall and of CPU time."""
        found = load_json(self._seconds_file(recipe))
        return {f"fit_{kind}_seconds": value for kind, value in found.items()}

    def fits(self, recipe: Recipe) -> dict[str, Seconds]:
        """Return the seconds that the detector and each of its histories took, by their keys."""
        total, before = load_json(self._seconds_file(recipe)), self._of_histories(recipe)
        own = {self.key(recipe): {kind: total[kind] - before[kind] for kind in total}}
        return own | {
            self.key(h): load_json(self._seconds_file(h)) for h in self._histories(recipe)
        }

    def forget_history(self, recipe: Recipe) -> None:
        """Delete the histories of a detector that stays: they are what needs space."""
        for first in first_steps(recipe):
            shutil.rmtree(self.path / self.key(first), ignore_errors=True)

    def _histories(self, recipe: Recipe) -> list[Recipe]:
        """Return what records its histories; nothing else does where it is a first step itself."""
        is_first_step = self.key(recipe) == self.key(_first_step(recipe))
        return [] if is_first_step else first_steps(recipe)

    def _of_histories(self, recipe: Recipe) -> Seconds:
        """Return how long the histories took that the detector learns from."""
        found = [load_json(self._seconds_file(first)) for first in self._histories(recipe)]
        return {kind: sum(part[kind] for part in found) for kind in ("wall", "cpu")}

    def _seconds_file(self, recipe: Recipe) -> Path:
        return self.path / self.key(recipe) / "seconds.json"


class _Clock:
    """Seconds of a fit in a file: those of all calls that it took, on top of those ``before``."""

    def __init__(self, path: Path, before: Seconds) -> None:
        self._path = path
        self._until_now: Seconds = load_json(path) if path.exists() else before
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def save(self) -> None:
        spent = {
            "wall": time.perf_counter() - self._wall,
            "cpu": time.process_time() - self._cpu,
        }
        save_json(self._path, {kind: self._until_now[kind] + spent[kind] for kind in spent})


def first_steps(recipe: Recipe) -> list[Recipe]:
    """Return the detectors whose histories the detector learns from: those of step 1 alone."""
    seeds = (recipe.config.seed, *recipe.pooled)
    return [_first_step(replace(recipe, config=replace(recipe.config, seed=s))) for s in seeds]


def _first_step(recipe: Recipe) -> Recipe:
    """Return the detector that step 1 leaves behind: eq. 14, as it is."""
    defaults = as_dict(make_config("paper", detector_start="untrained"))
    later = {name: defaults[name] for name in _LATER_STEPS}
    return Recipe(recipe.split, replace(recipe.config, **later))
