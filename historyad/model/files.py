"""The two files of a model, which can be copied anywhere, and how they are read without trust.

``detector.safetensors`` holds the weights and the scaling of vectors; ``detector.json`` what they
mean, the held-out scores, and the checksum of both. A new calibration replaces the JSON alone, so
that a reader finds the old decision or the new one.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from historyad.config import Config, validate
from historyad.errors import RunError
from historyad.files import load_json, load_tensors, save_json, save_tensors
from historyad.kinds.preprocessing import Preprocessing
from historyad.method.detector import Detector, Score
from historyad.method.networks import Critic, Shape
from historyad.score.calibration import Calibration, samples_needed
from historyad.score.companions import ImageCompanions, VectorCompanions
from historyad.score.patches import build_patch_views
from historyad.score.views import Views

_FORMAT, VERSION = "historyad-detector", 10
_EARLIER = (7, 8, 9)  # still read, but for whole images, whose score had other views
_MOST_MEMBERS = 64
_MOST_SAMPLES = 2**20  # that companions may hold
_MOST_VALUES_OF_A_SAMPLE = 2**24
_JSON, _TENSORS = "detector.json", "detector.safetensors"


def write_files(folder: Path, content: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write ``tensors``, then what ``content`` says of them: without it there is no model yet."""
    sha256 = save_tensors(folder / _TENSORS, tensors)
    content = {"format": _FORMAT, "version": VERSION, "tensors_sha256": sha256, **content}
    _save_content(folder / _JSON, content)


def change_content(folder: Path, changed: dict[str, Any]) -> None:
    """Replace parts of the JSON by those ``changed``; errors are those of `read_files` about it."""
    path = folder / _JSON
    content = load_json(path)
    _check_content(path, content)
    _save_content(path, {**content, **changed})


def read_files(folder: Path, device: torch.device | str) -> dict[str, Any]:
    """Return the fields of the model in ``folder``, its weights on ``device``.

    Raises RunError when a file is missing, altered, damaged or of an unknown version.
    """
    path = Path(folder) / _JSON
    content = load_json(path)
    _check_content(path, content)
    tensors, _ = load_tensors(path.with_name(_TENSORS), content["tensors_sha256"])
    try:
        _check_tensors(tensors)
        config = Config(**content["config"])
        validate(config)
        preprocessing = _preprocessing(content["preprocessing"], tensors)
        detector = _detector(content, preprocessing, config, tensors)
        fields = {
            "preprocessing": preprocessing,
            "calibration": _calibration(content["calibration"]["scores"], config),
            "config": config,
            "source": content["source"],
            "calibration_source": _calibration_source(content["calibration"]["source"]),
            "feature_names": _feature_names(content.get("feature_names", []), preprocessing),
        }
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise RunError(f"{path} is damaged ({error}): restore it or fit again") from error
    return {"detector": detector.to(device).eval(), **fields}


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _save_content(path: Path, content: dict[str, Any]) -> None:
    save_json(path, {**content, "sha256": _checksum(content)})


def _check_content(path: Path, content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise RunError(f"{path} is not the description of a detector: give the folder of a run")
    if not _is_known(content.get("version"), content.get("companions")):
        raise RunError(
            f"{path} has version {content.get('version')!r}, this program reads {VERSION}: "
            "use the program that wrote it, or fit again"
        )
    checksum = content.pop("sha256", None)
    if checksum != _checksum(content):
        raise RunError(f"{path} was altered (its checksum differs): restore it or fit again")
    for name in ("tensors_sha256", "config", "preprocessing", "source", "calibration"):
        if not isinstance(content.get(name), str if name == "tensors_sha256" else dict):
            raise RunError(f"{path} is damaged (its {name} is missing): restore it or fit again")


def _is_known(version: Any, companions: Any) -> bool:
    """Whether this program reads models of this version, with companions of these sizes."""
    if version in _EARLIER:
        return not isinstance(companions, dict) or "feature_components" not in companions
    return bool(version == VERSION)


def _check_tensors(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.uint8) or not tensor.isfinite().all():
            raise ValueError(f"{name} is made neither of finite float32 numbers nor of bytes")


def _preprocessing(content: dict[str, Any], tensors: dict[str, Tensor]) -> Preprocessing:
    arrays = {
        name: tensors[f"preprocessing.{name}"].numpy()
        for name in ("center", "scale")
        if f"preprocessing.{name}" in tensors
    }
    shape = tuple(content["input_shape"])
    if not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"samples of shape {shape}")
    if math.prod(shape) > _MOST_VALUES_OF_A_SAMPLE:
        raise ValueError(f"samples of shape {shape}")
    preprocessing = Preprocessing(**{**content, "input_shape": shape, **arrays})
    preprocessing.validate()
    return preprocessing


def _detector(
    content: dict[str, Any],
    preprocessing: Preprocessing,
    config: Config,
    tensors: dict[str, Tensor],
) -> Score:
    members, companions = content["members"], content["companions"]
    if companions is not None and not isinstance(companions, dict):
        raise TypeError(f"companions {companions!r}")
    sizes = [members] if companions is None else [members, *companions.values()]
    if (
        not all(type(n) is int and 1 <= n <= _MOST_SAMPLES for n in sizes)
        or members > _MOST_MEMBERS
    ):
        raise ValueError(f"{members} members and companions {companions}")
    if preprocessing.scales and len(sizes) not in (1, 1 + preprocessing.scales):
        raise ValueError(f"{preprocessing.scales} scales and companions {companions}")
    shape: Shape = preprocessing.network_shape
    prefix = "detector."
    weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    def build() -> Score:
        critics = [Critic(shape, config.width, config.hidden) for _ in range(members)]
        detector = Detector(critics)
        if preprocessing.scales:
            return build_patch_views(detector, sizes[1:], preprocessing.scales)
        if companions is None:
            return detector
        if len(shape) == 1:
            return Views(detector, VectorCompanions.build(shape[0], **companions))
        return Views(detector, ImageCompanions.build(critics[0], shape, **companions))

    # Networks without memory come first: one of absurd size is refused before it costs any.
    with torch.device("meta"):
        build().load_state_dict(weights, assign=True)
    detector = build()
    detector.load_state_dict(weights)
    return detector


def _calibration(values: Any, config: Config) -> Calibration:
    wide = np.array(values, np.float64)
    if wide.ndim != 1 or len(wide) < samples_needed(config.false_positive_rate):
        raise ValueError("too few held-out scores")
    if not (np.abs(wide) <= np.finfo(np.float32).max).all():
        raise ValueError("held-out scores that are not finite float32 numbers")
    scores = wide.astype(np.float32)
    if (np.diff(scores) < 0).any():
        raise ValueError("held-out scores that are not sorted")
    return Calibration(scores, config.false_positive_rate)


def _calibration_source(value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"a calibration on {value!r}")
    return value


def _feature_names(value: Any, preprocessing: Preprocessing) -> tuple[str, ...]:
    names = tuple(value)
    if names and (preprocessing.kind, (len(names),)) != ("vector", preprocessing.input_shape):
        raise ValueError(f"{len(names)} feature names")
    if not all(isinstance(name, str) for name in names):
        raise TypeError("feature names that are no text")
    return names
