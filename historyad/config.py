"""The settings of a fit: made of a preset and values on top, checked, shown, and written.

They are declared in `historyad.hyperparameters`.
"""

from __future__ import annotations

import difflib
import numbers
import textwrap
from collections.abc import Callable
from typing import Any, get_type_hints

from historyad.errors import ConfigError
from historyad.hyperparameters import OF_CELLS, PRESETS, Config, settings
from historyad.validation import SMALLEST_RATE, validate

__all__ = [
    "OF_CELLS",
    "PRESETS",
    "SMALLEST_RATE",
    "Config",
    "as_dict",
    "describe_settings",
    "given",
    "make_config",
    "overrides",
    "sees_any_size",
    "settings",
    "validate",
]


def overrides(annotate: Callable[[str, Any], Any] | None = None) -> list[tuple[str, Any, None]]:
    """Return a field for each hyperparameter, (name, type or None, None), for `make_dataclass`.

    None stands for the value of a preset. ``annotate`` may add to the type of a name.
    """
    types = get_type_hints(Config)
    return [
        (name, annotate(name, types[name] | None) if annotate else types[name] | None, None)
        for name in settings()
    ]


def given(values: Any) -> dict[str, Any]:
    """Return the hyperparameters among the attributes of ``values`` that are not None."""
    return {name: v for name in settings() if (v := getattr(values, name, None)) is not None}


def describe_settings(indent: str = "") -> str:
    """Return a paragraph for each hyperparameter, as docstrings have them."""
    lines = []
    for name, setting in settings().items():
        default = f"Default of the preset 'default': {setting.default!r}."
        text = f"{name}: {setting.metadata['help']} {default}"
        lines += textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent=indent + "    ")
    return "\n".join(lines)


def as_dict(config: Config) -> dict[str, Any]:
    """Return the hyperparameters of ``config`` as JSON can hold them."""
    return {name: _plain(getattr(config, name)) for name in settings()}


def _plain(value: Any) -> Any:
    """Return a number as Python's own, as against numpy's."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def make_config(preset: str = "default", **values: Any) -> Config:
    """Return the config of ``preset`` with ``values`` on top, validated.

    With a backbone, the presets default and quick have other values for the history of its cells.

    Raises ConfigError for an unknown preset or name (naming the nearest) or a value out of range.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset '{preset}'{_nearest(preset, PRESETS)}")
    for name in values:
        if name not in settings():
            raise ConfigError(f"unknown setting '{name}'{_nearest(name, settings())}")
    start = PRESETS[preset]
    if values.get("backbone", "none") != "none":
        start = OF_CELLS.get(preset, start)
    config = Config(**{**start, **values})
    validate(config)
    return config


def sees_any_size(config: Config) -> bool:
    """Whether images of several sizes can be fitted on as they are."""
    return bool(config.patch) or config.backbone != "none"


def _nearest(name: str, known: Any) -> str:
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f": did you mean '{match[0]}'?" if match else f": known are {', '.join(known)}"
