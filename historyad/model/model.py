"""The fitted model: all that scoring needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.config import Config, as_dict
from historyad.errors import InputError
from historyad.kinds.preprocessing import Preprocessing
from historyad.method.detector import Score
from historyad.method.networks import count_parameters
from historyad.model.files import change_content, read_files, write_files
from historyad.score.calibration import Calibration
from historyad.score.patches import Map, PatchViews, pixel_map

_SMALLEST_EXCESS = 1e-6  # distance of the threshold from what is typical, on that scale


@dataclass(frozen=True)
class Model:
    """A detector with the preprocessing and the calibration that belong to it."""

    detector: Score
    preprocessing: Preprocessing
    calibration: Calibration
    config: Config
    source: dict[str, Any]  # what it was fitted on: description, fingerprint, numbers of samples
    calibration_source: dict[str, Any] | None = None  # likewise; None: held out of ``source``
    feature_names: tuple[str, ...] = ()  # of the columns of vectors, where they have names

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Score samples as a source holds them, uint8 (N, H, W, C) or float32 (N, F): (N,)."""
        return self.detector.anomaly_scores(samples, self.preprocessing)

    def excess(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Put anomaly scores (N,) on a scale without an end: 0 is typical, 1 is the threshold.

        The score of several views nears +1 and hides how far out a sample is; this does not.
        """
        median, threshold = np.median(self.calibration.scores), self.calibration.threshold
        points = self.detector.unbounded(np.array([median, threshold, *scores], np.float64))
        scale = max(points[1] - points[0], _SMALLEST_EXCESS)
        excess: NDArray[np.float64] = (points[2:] - points[0]) / scale
        return excess

    def anomaly_map(self, image: NDArray[np.uint8]) -> Map:
        """Return the anomaly map of an image (H, W, C), float32 (H, W), of a detector of crops.

        0 is typical of normal images, and the mean over the highest 2 % of cells gives the score.
        """
        return pixel_map(
            self._patch_views("use historyad.judge.explain.anomaly_map"), image, self.preprocessing
        )

    @property
    def map_threshold(self) -> float:
        """The mean over the highest 2 % of a map's cells from which its image is anomalous."""
        return self._patch_views("its maps have no threshold").total_at(self.calibration.threshold)

    @property
    def view_names(self) -> tuple[str, ...]:
        """Names of the views that make the score."""
        return self.detector.names

    def view_scores(self, samples: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Return what each view says of each sample, {name: (N,)}: 0 is typical, above 1 is rare.

        Of D_TV alone, the only view is its score.
        """
        return self.scores_and_views(samples)[1]

    def scores_and_views(
        self, samples: NDArray[Any]
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Return `anomaly_score` (N,) and `view_scores` {name: (N,)} at the cost of one."""
        scores, views = self.detector.scores_and_views(samples, self.preprocessing)
        return scores, dict(zip(self.view_names, views, strict=True))

    def describe(self) -> dict[str, Any]:
        """Return what a person may want to know of this model, as JSON can hold it."""
        return {
            "input": " x ".join(map(str, self.preprocessing.input_shape)),
            "kind": self.preprocessing.kind,
            "grid": self.preprocessing.side or None,
            "views": ", ".join(self.view_names),
            "members": len(self.detector.d_tv.members),
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
        content: dict[str, Any] = {
            "members": len(self.detector.d_tv.members),
            "companions": self.detector.companion_sizes,
            "preprocessing": self.preprocessing.to_json(),
            "config": as_dict(self.config),
            "source": self.source,
            "calibration": self._calibration_json(),
        }
        if self.feature_names:
            content["feature_names"] = list(self.feature_names)
        write_files(folder, content, self._tensors())

    def save_calibration(self, folder: Path) -> None:
        """Replace the calibration of this model in ``folder``, and nothing else: one file.

        Errors are those of `load` about that file.
        """
        renewed = {"config": as_dict(self.config), "calibration": self._calibration_json()}
        change_content(folder, renewed)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Model:
        """Read what `save` wrote.

        Raises RunError when a file is missing, altered, damaged or of an unknown version.
        """
        return cls(**read_files(folder, device))

    def _patch_views(self, advice: str) -> PatchViews:
        if not isinstance(self.detector, PatchViews):
            raise InputError(f"this detector sees images whole: {advice}")
        return self.detector

    def _calibration_json(self) -> dict[str, Any]:
        scores = [float(str(score)) for score in self.calibration.scores]  # shortest
        return {"source": self.calibration_source, "scores": scores}

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"detector.{k}": v for k, v in self.detector.state_dict().items()}
        if self.preprocessing.center is not None and self.preprocessing.scale is not None:
            tensors["preprocessing.center"] = torch.from_numpy(self.preprocessing.center)
            tensors["preprocessing.scale"] = torch.from_numpy(self.preprocessing.scale)
        return tensors
