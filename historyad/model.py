"""The fitted model: all that scoring needs, in two files that can be copied anywhere.

``detector.safetensors`` holds the weights and the scaling of vectors; ``detector.json`` what they
mean, the held-out scores, and the checksum of both. A new calibration replaces the JSON alone, so
that a reader finds the old decision or the new one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.calibration import Calibration, samples_needed
from historyad.companions import ImageCompanions, VectorCompanions
from historyad.config import Config, as_dict, validate
from historyad.detector import Detector, anomaly_scores
from historyad.errors import InputError, RunError
from historyad.networks import Critic, Shape, count_parameters
from historyad.patches import (
    PATCH_VIEWS,
    Bank,
    Map,
    PatchViews,
    build_patch_views,
    patch_scores,
    patch_totals,
    pixel_map,
)
from historyad.preprocessing import Preprocessing
from historyad.storage import load_json, load_tensors, save_json, save_tensors
from historyad.views import Views, raw_views, total_of

_FORMAT, VERSION = "historyad-detector", 10
_EARLIER = (7, 8, 9)  # still read, but for whole images, whose score had other views
_MOST_MEMBERS = 64
_MOST_SAMPLES = 2**20  # that companions may hold
_MOST_VALUES_OF_A_SAMPLE = 2**24
_SMALLEST_EXCESS = 1e-6  # distance of the threshold from what is typical, on that scale


@dataclass(frozen=True)
class Model:
    """A detector with the preprocessing and the calibration that belong to it."""

    detector: Detector | Views | PatchViews
    preprocessing: Preprocessing
    calibration: Calibration
    config: Config
    source: dict[str, Any]  # what it was fitted on: description, fingerprint, numbers of samples
    calibration_source: dict[str, Any] | None = None  # likewise; None: held out of ``source``
    feature_names: tuple[str, ...] = ()  # of the columns of vectors, where they have names

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Score samples as a source holds them, uint8 (N, H, W, C) or float32 (N, F): (N,)."""
        if isinstance(self.detector, PatchViews):
            return patch_scores(self.detector, samples, self.preprocessing)
        return anomaly_scores(self.detector, samples, self.preprocessing)

    def excess(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Put anomaly scores (N,) on a scale without an end: 0 is typical, 1 is the threshold.

        The score of several views nears +1 and hides how far out a sample is; this does not.
        """
        held_out = np.median(self.calibration.scores)
        points = np.array([held_out, self.calibration.threshold, *scores], np.float64)
        if not isinstance(self.detector, Detector):
            points = total_of(points)
        typical, threshold = points[:2]
        excess: NDArray[np.float64] = (points[2:] - typical) / max(
            threshold - typical, _SMALLEST_EXCESS
        )
        return excess

    def anomaly_map(self, image: NDArray[np.uint8]) -> Map:
        """Return the anomaly map of an image (H, W, C), float32 (H, W), of a detector of crops.

        0 is typical of normal images, and the mean over the highest 2 % of cells gives the score.
        """
        if not isinstance(self.detector, PatchViews):
            raise InputError("this detector sees images whole: use historyad.explain.anomaly_map")
        return pixel_map(self.detector, image, self.preprocessing)

    @property
    def map_threshold(self) -> float:
        """The mean over the highest 2 % of a map's cells from which its image is anomalous."""
        if not isinstance(self.detector, PatchViews):
            raise InputError("this detector sees images whole: its maps have no threshold")
        return self.detector.total_at(self.calibration.threshold)

    @property
    def view_names(self) -> tuple[str, ...]:
        """Names of the views that make the score."""
        if isinstance(self.detector, PatchViews):
            return PATCH_VIEWS
        return self.detector.names if isinstance(self.detector, Views) else ("history",)

    def view_scores(self, samples: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Return what each view says of each sample, {name: (N,)}: 0 is typical, above 1 is rare.

        Of D_TV alone, the only view is its score.
        """
        return self.scores_and_views(samples)[1]

    def scores_and_views(
        self, samples: NDArray[Any]
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Return `anomaly_score` (N,) and `view_scores` {name: (N,)} at the cost of one."""
        if isinstance(self.detector, Detector):
            scores = self.anomaly_score(samples)
            return scores, {"history": scores}
        if isinstance(self.detector, PatchViews):
            raw = patch_totals(self.detector, samples, self.preprocessing)
            views = self.detector.standardised(raw)[None]
        else:
            found = raw_views(self.detector, samples, self.preprocessing).T
            raw = torch.from_numpy(found).to(self.detector.center.device)
            views = self.detector.standardised(raw)
        scores = self.detector.score(raw).cpu().numpy()
        return scores, dict(zip(self.view_names, views.cpu().numpy(), strict=True))

    def describe(self) -> dict[str, Any]:
        """Return what a person may want to know of this model, as JSON can hold it."""
        return {
            "input": " x ".join(map(str, self.preprocessing.input_shape)),
            "kind": self.preprocessing.kind,
            "grid": self.preprocessing.side or None,
            "views": ", ".join(self.view_names),
            "members": len(_history_view(self.detector).members),
            "parameters": count_parameters(self.detector),
            "threshold": self.calibration.threshold,
            "false_positive_rate": self.calibration.false_positive_rate,
            "held_out": len(self.calibration.scores),
            "source": self.source,
            "calibration": self.calibration_source,
            "config": as_dict(self.config),
        }

    def save(self, folder: Path) -> None:
        """Write both files, the tensors first: a model without its JSON is not a model yet."""
        tensors = self._tensors()
        content = {
            "format": _FORMAT,
            "version": VERSION,
            "tensors_sha256": save_tensors(folder / "detector.safetensors", tensors),
            "members": len(_history_view(self.detector).members),
            "companions": _companions(self.detector),
            "preprocessing": self.preprocessing.to_json(),
            "config": as_dict(self.config),
            "source": self.source,
            "calibration": self._calibration_json(),
        }
        if self.feature_names:
            content["feature_names"] = list(self.feature_names)
        _save_content(folder / "detector.json", content)

    def save_calibration(self, folder: Path) -> None:
        """Replace the calibration of this model in ``folder``, and nothing else: one file.

        Errors are those of `load` about that file.
        """
        path = folder / "detector.json"
        content = load_json(path)
        _check_content(path, content)
        renewed = {"config": as_dict(self.config), "calibration": self._calibration_json()}
        _save_content(path, {**content, **renewed})

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Model:
        """Read what `save` wrote.

        Raises RunError when a file is missing, altered, damaged or of an unknown version.
        """
        folder = Path(folder)
        path = folder / "detector.json"
        content = load_json(path)
        _check_content(path, content)
        tensors, _ = load_tensors(folder / "detector.safetensors", content["tensors_sha256"])
        try:
            _check_tensors(tensors)
            config = Config(**content["config"])
            validate(config)
            preprocessing = _preprocessing(content["preprocessing"], tensors)
            detector = _detector(content, preprocessing, config, tensors)
            calibration = _calibration(content["calibration"]["scores"], config)
            calibrated_on = _calibration_source(content["calibration"]["source"])
            names = _feature_names(content.get("feature_names", []), preprocessing)
        except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            raise RunError(f"{path} is damaged ({error}): restore it or fit again") from error
        detector = detector.to(device).eval()
        source = content["source"]
        return cls(detector, preprocessing, calibration, config, source, calibrated_on, names)

    def _calibration_json(self) -> dict[str, Any]:
        scores = [float(str(score)) for score in self.calibration.scores]  # shortest
        return {"source": self.calibration_source, "scores": scores}

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"detector.{k}": v for k, v in self.detector.state_dict().items()}
        if self.preprocessing.center is not None and self.preprocessing.scale is not None:
            tensors["preprocessing.center"] = torch.from_numpy(self.preprocessing.center)
            tensors["preprocessing.scale"] = torch.from_numpy(self.preprocessing.scale)
        return tensors


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


def _history_view(detector: Detector | Views | PatchViews) -> Detector:
    return detector if isinstance(detector, Detector) else detector.detector


def _companions(detector: Detector | Views | PatchViews) -> dict[str, int] | None:
    """Return the sizes by which the companions are built anew; None where there are none."""
    if isinstance(detector, Detector):
        return None
    if isinstance(detector, PatchViews):
        if detector.gaussian is None:
            return None
        banks = cast(Sequence[Bank], detector.banks)
        return {f"bank {scale}": len(bank.cells) for scale, bank in enumerate(banks)}
    return detector.companions.sizes


def _detector(
    content: dict[str, Any],
    preprocessing: Preprocessing,
    config: Config,
    tensors: dict[str, Tensor],
) -> Detector | Views | PatchViews:
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

    def build() -> Detector | Views | PatchViews:
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
