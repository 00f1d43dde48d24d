"""Which values of hyperparameters are allowed, one by one and together."""

from __future__ import annotations

import math
import numbers
from dataclasses import Field
from typing import Any

from historyad.errors import ConfigError
from historyad.hyperparameters import Config, settings

SMALLEST_RATE = 1e-5  # of false positives that can be asked for
_SMALLEST_SHARE = 0.01  # of the samples that can be held out
_BACKBONES = ("none", "auto", "lite0", "wavelets")
_SMALLEST_SIDE = 32


def validate(config: Config) -> None:
    """Raise ConfigError, naming the setting and its range, unless every value is allowed."""
    for name, setting in settings().items():
        _validate_one(name, getattr(config, name), setting)
    if config.image_size not in (0, 8, 16, 32, 64, 128):
        raise ConfigError(f"image_size is {config.image_size}: take 0, 8, 16, 32, 64 or 128")
    _validate_crops(config)
    _validate_window(config)
    for name, smallest in (
        ("false_positive_rate", SMALLEST_RATE),
        ("calibration_share", _SMALLEST_SHARE),
    ):
        if 0 < getattr(config, name) < smallest:
            raise ConfigError(
                f"{name} is {getattr(config, name):g}: take 0, or at least {smallest:g}"
            )
    _validate_backbone(config)
    if config.folds > 1 and config.calibration_share:
        raise ConfigError(
            f"folds is {config.folds} and calibration_share {config.calibration_share:g}: take "
            "folds, or hold a share out"
        )
    if config.skip_epochs >= config.n_epochs:
        raise ConfigError(
            f"skip_epochs ({config.skip_epochs:g}) leaves nothing of a history that ends at "
            f"{config.n_epochs:g}: lower skip_epochs or raise n_epochs"
        )


def _validate_crops(config: Config) -> None:
    if config.patch not in (0, 8, 16, 32, 64):
        raise ConfigError(f"patch is {config.patch}: take 0, 8, 16, 32 or 64")
    if config.patch and config.image_size:
        raise ConfigError(
            f"image_size is {config.image_size} and patch {config.patch}: take image_size for "
            "whole images, or patch for crops of them"
        )
    if not config.patch and (config.contrast or config.scales > 1):
        raise ConfigError("contrast and scales are for crops: set patch, best to 32")


def _validate_window(config: Config) -> None:
    if config.window == 1:
        raise ConfigError("window is 1: take 0 for rows that stand alone, or 2 steps and more")
    if config.stride and not config.window:
        raise ConfigError("stride is that of the windows of a series: set window, too")
    if not isinstance(config.window, str) and config.stride > config.window:
        raise ConfigError(
            f"stride is {config.stride} and window {config.window}, so that steps between windows "
            "would not be seen: lower stride"
        )


def _validate_backbone(config: Config) -> None:
    name = config.backbone
    if not (name in _BACKBONES or name.endswith((".onnx", ".pt2"))):
        raise ConfigError(
            f"backbone is '{name}': take {', '.join(_BACKBONES)}, or a file NAME.onnx or NAME.pt2 "
            "with its NAME.json"
        )
    if name == "none":
        for other, default in (("backbone_side", 0), ("resize", -1)):
            if getattr(config, other) != default:
                raise ConfigError(f"{other} is for a backbone: set backbone, perhaps to lite0")
        return
    for other in ("backbone_side", "resize"):
        if 0 < getattr(config, other) < _SMALLEST_SIDE:
            raise ConfigError(
                f"{other} is {getattr(config, other)}: take {_SMALLEST_SIDE} to 1024, or 0"
            )
    if config.resize > 0 and config.backbone_side not in (0, config.resize):
        raise ConfigError(
            f"resize is {config.resize} and backbone_side {config.backbone_side}: an image that is "
            "resized is seen whole, so leave out backbone_side"
        )
    for other in ("image_size", "patch", "augment"):
        if value := getattr(config, other):
            raise ConfigError(
                f"backbone is '{name}' and {other} {value}: leave out {other}, which is for "
                "networks that see pixels, or take backbone none"
            )


def _validate_one(name: str, value: Any, setting: Field[Any]) -> None:
    default: Any = setting.default
    wanted = type(default)
    word = setting.metadata["word"]
    if word and value == word:
        return
    kinds: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real}  # numpy's are such, too
    if isinstance(value, bool) or not isinstance(value, kinds.get(wanted, wanted)):
        or_word = f" or '{word}'" if word else ""
        raise ConfigError(f"{name} is {value!r}: it must be of type {wanted.__name__}{or_word}")
    low, high, choices = (setting.metadata[key] for key in ("low", "high", "choices"))
    if choices and value not in choices:
        listed = ", ".join(choice or "''" for choice in choices)
        raise ConfigError(f"{name} is '{value}': choose one of {listed}")
    if wanted is str:
        return
    below = low is not None and value < low
    above = high is not None and value > high
    if below or above or not math.isfinite(value):
        bounds = [f"at least {low:g}" if low is not None else ""]
        bounds += [f"at most {high:g}" if high is not None else ""]
        raise ConfigError(f"{name} is {value}: it must be {' and '.join(filter(None, bounds))}")
