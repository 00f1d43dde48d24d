"""The fitted model: all that scoring needs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from historyad.config import Config, as_dict
from historyad.constants import CONSTANTS
from historyad.data.columns import align
from historyad.data.digests import are_among
from historyad.data.images import Pixels
from historyad.data.series import in_windows
from historyad.data.sounds import check_rate
from historyad.data.sources import Source
from historyad.kinds.kind import Kind
from historyad.method.networks import count_parameters
from historyad.model.card import as_html, as_markdown, as_text, rows_of
from historyad.model.files import read_model, replace_calibration, write_model
from historyad.score.calibration import Calibration
from historyad.score.result import Map, Scored
from historyad.score.score import Score

_SMALLEST_EXCESS = 1e-6  # distance of the threshold from what is typical, on that scale


@dataclass(frozen=True, repr=False)
class Model:
    """A score, the calibration that turns it into a decision, and where both come from.

    ``source`` says what it was fitted on: description, fingerprint, numbers of samples;
    ``calibration_source`` likewise, or None where the held-out part of ``source`` was used.
    ``feature_names`` are those of the columns of vectors, where they have names, and ``trained_on``
    (M, 16) the digests of the samples that it was trained on.
    """

    score: Score
    calibration: Calibration
    config: Config
    source: dict[str, Any]
    calibration_source: dict[str, Any] | None = None
    feature_names: tuple[str, ...] = ()
    trained_on: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 16), np.uint8))

    def __call__(self, samples: NDArray[Any], *, views: bool = False, maps: bool = False) -> Scored:
        """Score samples as a source holds them, uint8 (N, H, W, C) or float32 (N, F).

        The result has scores, p-values and verdicts, and ``views`` and ``maps`` where asked for.
        Raises InputError for samples that the model does not accept, and for maps of vectors.
        """
        scored = self.score.of(samples, views=views, maps=maps and self.score.makes_maps)
        if maps and scored.maps is None:
            scored = dataclasses.replace(scored, maps=self.maps(samples))
        return self.calibration.decide(scored)

    def __repr__(self) -> str:
        return as_text(rows_of(self.describe()))

    def _repr_html_(self) -> str:
        return as_html(self.describe(), self.calibration)

    def card(self, name: str, probe: dict[str, Any] | None = None) -> str:
        """Return the card of this model, which is called so, as Markdown.

        With what `probe_model` found, if it was asked.
        """
        return as_markdown(self.describe(), self.calibration, name, probe)

    @property
    def kind(self) -> Kind:
        """What was decided about the input."""
        assert isinstance(self.score.kind, Kind)
        return self.score.kind

    @property
    def channels(self) -> int | None:
        """What images are made alike in, as those of the fit were: 1, grey, 3, colour, or not."""
        found = self.source.get("channels")
        return found if found in (1, 3) else None

    @property
    def rate(self) -> int | None:
        """Rate in Hz of the recordings of the fit, as they are heard."""
        found = self.source.get("rate")
        return found if type(found) is int else None

    @property
    def n_folds(self) -> int | None:
        """Of so many folds are the scores that it was calibrated on, of detectors of the others.

        None where they are its own, of a held-out part or of further samples.
        """
        return self.config.folds if self.config.folds > 1 and not self.calibration_source else None

    @property
    def view_names(self) -> tuple[str, ...]:
        """Names of the views that make the score."""
        return self.score.names

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Return the anomaly score of each sample, (N,)."""
        return self.score.of(samples).anomaly_score

    def takes(self, source: Source) -> Source:
        """Return ``source`` as this model takes it: with its columns and, of a series, in windows.

        Raises InputError where that cannot be.
        """
        check_rate(source.rate, self.rate, source.description)
        columns = align(source, self.feature_names, self.kind.levels)
        return in_windows(columns, self.config.window, self.config.stride)

    @property
    def text_columns(self) -> dict[str, tuple[str, ...]]:
        """The columns of texts by name, and what was seen in them."""
        levels = zip(self.feature_names, self.kind.levels, strict=False)
        return {name: texts for name, texts in levels if texts}

    def was_trained_on(self, source: Source) -> NDArray[np.bool_]:
        """Whether each sample of ``source`` is one that the model was trained on, (N,)."""
        return are_among(source.digests, self.trained_on)

    def excess(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Put anomaly scores (N,) on a scale without an end: 0 is typical, 1 is the threshold.

        The score of several views nears +1 and hides how far out a sample is; this does not.
        """
        median, threshold = np.median(self.calibration.scores), self.calibration.threshold
        points = self.score.unbounded(np.array([median, threshold, *scores], np.float64))
        scale = max(points[1] - points[0], _SMALLEST_EXCESS)
        excess: NDArray[np.float64] = (points[2:] - points[0]) / scale
        return excess

    def maps(self, images: Pixels) -> list[Map]:
        """Return a map of what makes each of images (N, H, W, C) anomalous, (H, W) each.

        Of a detector of crops, it is the detector's own, whose worst cells make the score; of one
        that sees images whole, it is by occlusion, in units of `excess`. Raises InputError for a
        detector of vectors.
        """
        return self.kind.maps(self.score, images, self.excess)

    @property
    def map_scale(self) -> tuple[float, float | None]:
        """Value of a map at which a picture shows it in full, and that from which it is anomalous.

        The second is None where a map says what the score responds to, and no cell decides.
        """
        return self.kind.map_scale(self.score, self.calibration.threshold)

    def describe(self) -> dict[str, Any]:
        """Return what a person may want to know of this model, as JSON can hold it."""
        return {
            **self.kind.describe(),
            "texts": {name: ", ".join(texts) for name, texts in self.text_columns.items()},
            "views": ", ".join(self.view_names),
            "parameters": count_parameters(self.score),
            "threshold": self.calibration.threshold,
            "false_positive_rate": self.calibration.false_positive_rate,
            "at_most_with_95_%": round(self.calibration.rate_quantiles([0.95])[0], 4),
            "confidence": self.config.confidence or None,
            "held_out": self.calibration.n_apart,
            "folds": self.n_folds,
            "source": self.source,
            "calibration": self.calibration_source,
            "config": as_dict(self.config),
            "constants": CONSTANTS.to_json(),
        }

    def save(self, folder: Path) -> None:
        """Write both files, the tensors first: a model without its JSON is not a model yet."""
        write_model(folder, **_fields(self))

    def save_calibration(self, folder: Path) -> None:
        """Replace the calibration of this model in ``folder``, with the scale: one file.

        Errors are those of `load` about that file.
        """
        replace_calibration(
            folder, self.score, self.calibration, self.calibration_source, self.config
        )

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Model:
        """Read what `save` wrote.

        Raises RunError when a file is missing, altered, damaged or of an unknown version.
        """
        return cls(**read_model(folder, device))


def _fields(model: Model) -> dict[str, Any]:
    return {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
