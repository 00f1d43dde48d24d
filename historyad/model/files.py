"""The two files of a model, which can be copied anywhere, and how they are read without trust.

``detector.safetensors`` holds the weights and the scaling of columns; ``detector.json`` what they
mean, the held-out scores, and the checksum of both. A new calibration replaces the JSON alone, with
the scale of the views that it brings, so that a reader finds the old decision or the new one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.config import Config, as_dict, validate
from historyad.constants import CONSTANTS
from historyad.errors import RunError
from historyad.files import load_json, load_tensors, save_json, save_tensors
from historyad.kinds.choose import read_kind, write_kind
from historyad.kinds.kind import Kind
from historyad.score.calibration import Calibration, samples_needed
from historyad.score.scale import scales_of
from historyad.score.score import Score

_FORMAT, VERSION = "historyad-detector", 15
_MOST_SAMPLES = 2**20  # that companions may hold
_JSON, _TENSORS = "detector.json", "detector.safetensors"


def write_model(
    folder: Path,
    *,
    score: Score,
    calibration: Calibration,
    config: Config,
    source: dict[str, Any],
    calibration_source: dict[str, Any] | None,
    feature_names: tuple[str, ...],
    trained_on: NDArray[np.uint8],
) -> None:
    """Write the tensors, then what they mean: without the JSON there is no model yet."""
    kind = score.kind
    assert isinstance(kind, Kind)
    tensors = {f"score.{name}": value for name, value in score.state_dict().items()}
    tensors |= {f"kind.{name}": value for name, value in kind.tensors().items()}
    tensors["trained_on"] = torch.from_numpy(np.array(trained_on))
    content = {
        "format": _FORMAT,
        "version": VERSION,
        "tensors_sha256": save_tensors(folder / _TENSORS, tensors),
        "kind": write_kind(kind),
        "companions": score.sizes,
        "config": as_dict(config),
        "constants": CONSTANTS.to_json(),
        "source": source,
        "calibration": _calibration_json(calibration, calibration_source),
        "scale": {},  # that of the tensors
        "feature_names": list(feature_names),
    }
    _save_content(folder / _JSON, content)


def replace_calibration(
    folder: Path,
    score: Score,
    calibration: Calibration,
    source: dict[str, Any] | None,
    config: Config,
) -> None:
    """Replace the calibration, and the scale of ``score``, in the JSON alone.

    Errors are those of `read_model` about it.
    """
    path = folder / _JSON
    content = load_json(path)
    _check_content(path, content)
    renewed = {
        "config": as_dict(config),
        "calibration": _calibration_json(calibration, source),
        "scale": {name: _shortest(values) for name, values in scales_of(score).items()},
    }
    _save_content(path, {**content, **renewed})


def read_model(folder: Path, device: torch.device | str) -> dict[str, Any]:
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
        kind = read_kind(content["kind"], _under("kind.", tensors))
        _check_names(tensors, kind)
        score = _score(kind, content["companions"], config, _under("score.", tensors))
        _set_scales(score, content["scale"])
        return {
            "score": score.to(device).eval(),
            "calibration": _calibration(content["calibration"], config),
            "config": config,
            "source": content["source"],
            "calibration_source": _calibration_source(content["calibration"]["source"]),
            "feature_names": _feature_names(content["feature_names"], kind),
            "trained_on": _digests(tensors["trained_on"]),
        }
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise RunError(f"{path} is damaged ({error}): restore it or fit again") from error


def _calibration_json(calibration: Calibration, source: dict[str, Any] | None) -> dict[str, Any]:
    scores = _shortest(calibration.scores)
    return {"source": source, "scores": scores, "reach": calibration.reach}


def _shortest(values: Any) -> list[float]:
    """Return float32 values as JSON writes them shortest and exactly."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _save_content(path: Path, content: dict[str, Any]) -> None:
    save_json(path, {**content, "sha256": _checksum(content)})


def _check_content(path: Path, content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise RunError(f"{path} is not the description of a detector: give the folder of a run")
    version = content.get("version")
    if version != VERSION:
        raise RunError(
            f"{path} has version {version!r}, this program reads {VERSION}: fit again, in a new "
            "--out"
        )
    if content.get("constants") != CONSTANTS.to_json():
        raise RunError(
            f"{path} was fitted with other constants than this program has: use the program that "
            "wrote it, or fit again, in a new --out"
        )
    checksum = content.pop("sha256", None)
    if checksum != _checksum(content):
        raise RunError(f"{path} was altered (its checksum differs): restore it or fit again")
    for name in ("tensors_sha256", "config", "kind", "source", "calibration", "scale"):
        if not isinstance(content.get(name), str if name == "tensors_sha256" else dict):
            raise RunError(f"{path} is damaged (its {name} is missing): restore it or fit again")


def _check_tensors(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.uint8) or not tensor.isfinite().all():
            raise ValueError(f"{name} is made neither of finite float32 numbers nor of bytes")


def _check_names(tensors: dict[str, Tensor], kind: Kind) -> None:
    others = {"trained_on", *(f"kind.{name}" for name in kind.tensors())}
    for name in tensors:
        if not name.startswith("score.") and name not in others:
            raise ValueError(f"{name} belongs to nothing")


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _score(kind: Kind, sizes: Any, config: Config, weights: dict[str, Tensor]) -> Score:
    if sizes is not None and not isinstance(sizes, dict):
        raise TypeError(f"companions {sizes!r}")
    if not all(type(n) is int and 1 <= n <= _MOST_SAMPLES for n in (sizes or {}).values()):
        raise ValueError(f"companions {sizes}")

    def build() -> Score:
        return kind.build_score(kind.networks(config).critic(), sizes, config)

    # Networks without memory come first: one of absurd size is refused before it costs any.
    with torch.device("meta"):
        build().load_state_dict(weights, assign=True)
    score = build()
    score.load_state_dict(weights)
    return score


def _set_scales(score: Score, scales: dict[str, Any]) -> None:
    """Put the views on the scale of a later calibration, if there was one."""
    known = scales_of(score)
    for name, values in scales.items():
        found = torch.tensor(values, dtype=torch.float32)
        if name not in known or found.shape != known[name].shape or not found.isfinite().all():
            raise ValueError(f"a scale {name}")
        if name.endswith("spread") and not (found > 0).all():
            raise ValueError(f"a scale {name} that is not positive")
        known[name].copy_(found)


def _calibration(content: dict[str, Any], config: Config) -> Calibration:
    wide, reach = np.array(content["scores"], np.float64), content["reach"]
    if type(reach) is not int or reach < 1:
        raise ValueError(f"a reach of {reach!r}")
    needed = reach * samples_needed(config.false_positive_rate, config.confidence)
    if wide.ndim != 1 or len(wide) < needed:
        raise ValueError("too few held-out scores")
    if not (np.abs(wide) <= np.finfo(np.float32).max).all():
        raise ValueError("held-out scores that are not finite float32 numbers")
    scores = wide.astype(np.float32)
    if (np.diff(scores) < 0).any():
        raise ValueError("held-out scores that are not sorted")
    return Calibration(scores, config.false_positive_rate, config.confidence, reach)


def _calibration_source(value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"a calibration on {value!r}")
    return value


def _feature_names(value: Any, kind: Kind) -> tuple[str, ...]:
    names = tuple(value)
    if names and len(names) != kind.input_shape[-1]:
        raise ValueError(f"{len(names)} feature names")
    if not all(isinstance(name, str) for name in names):
        raise TypeError("feature names that are no text")
    return names


def _digests(tensor: Tensor) -> NDArray[np.uint8]:
    if tensor.dtype != torch.uint8 or tensor.dim() != 2 or tensor.shape[1] != 16:
        raise ValueError(f"digests of samples of shape {tuple(tensor.shape)}")
    return tensor.numpy()
