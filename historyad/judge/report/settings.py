"""The settings of a run, and the command that repeats it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from historyad.config import PRESETS, Config, as_dict, settings
from historyad.model.model import Model

_IN_MEMORY = re.compile(r"array \(.*\) of \w+|\w+ of \d+ samples")  # what `datasets` calls these


def settings_of(model: Model) -> dict[str, Any]:
    """Return the preset that is nearest to the model's settings, what differs, and all of them."""
    preset, changed = nearest_preset(model)
    every = [(name, value, settings()[name].metadata["help"]) for name, value in _values(model)]
    return {"preset": preset, "changed": changed, "all": every}


def nearest_preset(model: Model) -> tuple[str, list[tuple[str, Any, Any]]]:
    """Return the name of a preset and, for each setting that differs, (name, value, preset's)."""
    differences = {}
    for preset, overrides in PRESETS.items():
        plain = {**as_dict(Config()), **overrides}
        differences[preset] = [
            (name, value, plain[name]) for name, value in _values(model) if value != plain[name]
        ]
    nearest = min(differences, key=lambda preset: (len(differences[preset]), preset != "default"))
    return nearest, differences[nearest]


def _values(model: Model) -> list[tuple[str, Any]]:
    """Return the model's settings, (name, value), as they were given."""
    values = as_dict(model.config)
    if values["epoch_images"] == max(model.source.get("n_train", 0), 50_000):
        values["epoch_images"] = 0  # what 0 stands for
    return list(values.items())


def fit_command(model: Model, run: Path) -> str | None:
    """Return a command that fits the like, or None where no SOURCE names the data."""
    preset, changed = nearest_preset(model)
    options = [f"--{name.replace('_', '-')}={value}" for name, value, _ in changed]
    source = str(model.source.get("description", "SOURCE"))
    if _IN_MEMORY.fullmatch(source):
        return None
    return shlex.join(["historyad", "fit", source, "--out", str(run), "--preset", preset, *options])
