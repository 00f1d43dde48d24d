"""The method behind scikit-learn's contract."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from historyad.config import (
    PRESETS,
    Config,
    as_dict,
    describe_settings,
    given,
    make_config,
    overrides,
    sees_any_size,
)
from historyad.data.datasets import open_source
from historyad.data.frames import is_frame
from historyad.data.in_memory import plain_array
from historyad.data.series import check_times
from historyad.data.sources import Source
from historyad.errors import InputError
from historyad.extras import require
from historyad.kinds.choose import settle
from historyad.model.fit import calibrate_model, fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.model.steps import Interval, find_intervals, score_source
from historyad.progress import Listener, opening, show_progress, watching
from historyad.ranks import choose_device
from historyad.score.result import Scored

_PRESETS = f"Settings to start from: {', '.join(PRESETS)}. A setting that is None is the preset's."

if TYPE_CHECKING:
    from pandas import DataFrame

    _Parameters = Any
else:
    # scikit-learn's estimators bring their own repr and equality.
    _Parameters = make_dataclass(
        "_Parameters", [("preset", str, "default"), *overrides()], repr=False, eq=False
    )


class HistoryAD(OutlierMixin, _Parameters, BaseEstimator):  # type: ignore[misc]
    """Anomaly detector that learns from normal samples alone.

    ``HistoryAD(preset="quick", seed=1)`` takes the settings of a preset, and those that are given
    in place of them. Every method takes a *source*: an array of images
    (N, H, W) or (N, H, W, C) or of vectors (N, F), a folder, a file, the name of a data set, or
    whatever else `open_source` accepts. With
    ``window``, vectors are the steps of a series (steps, channels), and each step has a score.

    Attributes:
        model_ (Model): what was fitted: score and calibration.
        threshold_ (float): anomaly score above which an input is called anomalous.
        offset_ (float): ``-threshold_``, scikit-learn's name and sign.
        suspects_ (list): samples that were set aside with ``contamination``, the most suspicious
            first: (row, name, suspicion).
        n_features_in_ (int): features of a vector, or rows of an image.
        feature_names_in_ (array): names of the columns, where ``X`` was a table that has some.

    Examples:
        >>> import numpy as np
        >>> from historyad import HistoryAD
        >>> normal = np.random.default_rng(0).normal(size=(500, 2))
        >>> detector = HistoryAD(epoch_images=2000, calibration_share=0.3).fit(normal)
        >>> scores = detector.anomaly_score([[0.0, 0.0], [9.0, 9.0]])
        >>> bool(scores[0] < scores[1])
        True
    """

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        run: str | os.PathLike[str] | None = None,
        seconds: float = math.inf,
        on_progress: Listener | None = None,
        verbose: bool = False,
    ) -> Self:
        """Fit on a source ``X`` of normal samples; ``y`` is ignored.

        With a directory ``run``, the history and the log are kept there, and the same call
        continues a fit that was interrupted. After ``seconds``, training is stopped, and the
        detector that trains no network is kept. ``verbose`` shows one bar for all of it, in
        a notebook or on a terminal, and a few lines in a log; ``on_progress``, in its place, is
        called with what it would show: a dictionary of ``phase``, ``done`` (a share of the whole),
        ``seconds``, ``left`` and, at each save interval of a training, what goes to the log.
        Errors are those of `fit_model`.
        """
        with show_progress() if verbose and on_progress is None else watching(on_progress):
            return self._fit(X, run, seconds)

    def _fit(self, X: Any, run: str | os.PathLike[str] | None, seconds: float) -> Self:
        opening()
        source = self._open(X, reset=True)
        config = self._config()
        if config.backbone == "auto":
            backbone, _ = settle(source.samples)
            config = make_config(self.preset, **{**given(self), "backbone": backbone})
            if backbone == "none" and None in source.samples.shape:
                raise InputError(
                    "the images have several sizes, and no backbone suits them: set image_size "
                    "or patch"
                )
        with tempfile.TemporaryDirectory(prefix="historyad-") as temporary:
            directory = RunDirectory(temporary if run is None else run)
            self.model_ = fit_model(source, config, directory, seconds=seconds)
            self.suspects_ = directory.read_suspects()
        return self

    def anomaly_score(self, X: Any) -> NDArray[np.float64]:
        """Return the anomaly score of each sample, (N,): about -0.8 normal, +1 anomalous."""
        check_is_fitted(self)
        return self._scored(X).anomaly_score.astype(np.float64)

    def view_scores(self, X: Any) -> dict[str, NDArray[np.float64]]:
        """Return what each view says of each sample, {name: (N,)}: 0 is typical, above 1 is rare.

        It says why a sample is anomalous; `historyad.score.views` says what each view is. With
        ``views="history"`` there is that one alone, and its value is the score.
        """
        check_is_fitted(self)
        found = self._scored(X, views=True).views or {}
        return {name: values.astype(np.float64) for name, values in found.items()}

    def score_frame(self, X: Any) -> DataFrame:
        """Return a pandas data frame with a row for each sample, (N, 3 + views).

        Its columns are ``anomaly_score``, ``p_value`` and ``is_anomalous``, the verdict, and then
        what each view says, as `view_scores`. Its index is that of a data frame ``X``, the paths of
        images, or numbers. Raises InputError where pandas is not installed.
        """
        check_is_fitted(self)
        pandas = require("pandas", "score_frame", "tables")
        source = self._open(X, reset=False)
        found = score_source(self.model_, source, views=True)
        frame: DataFrame = pandas.DataFrame(found.columns(), index=_index_of(X, source))
        return frame

    def explain(self, X: Any) -> NDArray[np.float64]:
        """Return what each column adds to how anomalous each row is, (N, F).

        That is how much less far out a row would be if the column alone had the value that is usual
        beside the others; 1 is as far as from what is typical to the threshold. InputError where
        samples are no rows of a table.
        """
        check_is_fitted(self)
        model = self.model_
        rows = self._open(X, reset=False).samples
        found = [model.kind.contributions(model.score, row, model.excess) for row in rows]
        return np.stack(found).astype(np.float64)

    def intervals(self, X: Any) -> list[Interval]:
        """Return the anomalous intervals of a series (steps, channels), the worst first.

        InputError where the detector was fitted without ``window``.
        """
        check_is_fitted(self)
        source = self._open(X, reset=False)
        if source.series is None:
            raise InputError("there are intervals of a series: fit with window, perhaps 'auto'")
        return find_intervals(score_source(self.model_, source), source.series)

    def p_value(self, X: Any) -> NDArray[np.float64]:
        """Return the conformal p-value of each sample, (N,) in (0, 1].

        It estimates the share of normal samples that look at least as anomalous.
        """
        scores = self.anomaly_score(X)  # first, since it checks that there is a model
        return self.model_.calibration.p_value(scores)

    def calibrate(self, X: Any) -> Self:
        """Set threshold and p-values anew from normal samples ``X``, without training.

        They hold for ``false_positive_rate`` and ``confidence`` as they are now; where one is None,
        as it was. Errors are those of `calibrate_model`.
        """
        check_is_fitted(self)
        source = self._open(X, reset=False)
        self.model_ = calibrate_model(
            self.model_, source, self.false_positive_rate, self.confidence
        )
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return ``-anomaly_score(X)``: in scikit-learn, higher is more normal."""
        return -self.anomaly_score(X)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return ``score_samples(X) - offset_``: negative where `predict` says -1."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return +1 for samples taken for normal and -1 for anomalous ones, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    @property
    def threshold_(self) -> float:
        """The anomaly score above which a sample is called anomalous."""
        return self.model_.calibration.threshold

    @property
    def offset_(self) -> float:
        """scikit-learn's name for ``-threshold_``."""
        return -self.threshold_

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``detector.safetensors`` and ``detector.json`` into the folder ``path``."""
        check_is_fitted(self)
        self.model_.save(Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> Self:
        """Read what `save` wrote; RunError when it is missing, altered or of another version."""
        model = Model.load(Path(path), choose_device(device))
        estimator = cls(**as_dict(model.config))
        estimator.model_ = model
        estimator.n_features_in_ = model.kind.n_features_in
        if model.feature_names:
            estimator.feature_names_in_ = np.array(model.feature_names, object)
        return estimator

    def _scored(self, X: Any, *, views: bool = False) -> Scored:
        return score_source(self.model_, self._open(X, reset=False), views=views)

    def _config(self) -> Config:
        return make_config(self.preset, **given(self))

    def _open(self, X: Any, *, reset: bool) -> Source:
        """Return ``X`` as a source; arrays go through scikit-learn's own checks."""
        X = plain_array(X)
        is_array = _is_array(X)
        if is_array:
            array = check_array(
                X, allow_nd=True, ensure_all_finite=False, dtype="numeric", estimator=self
            )
            # Of images, whose "features" are rows, some detectors take any size.
            if reset or array.ndim == 2:
                validate_data(self, X, reset=reset, skip_check_array=True)
            X = array
        config = self._config()
        source = open_source(
            X,
            mixed=config.image_size or None,
            any_size=sees_any_size(config),
            channels=None if reset else self.model_.channels,
            texts=() if reset else self.model_.text_columns,
        )
        if config.window and _has_times(X):
            check_times(source.names, source.description)
        if source.columns == tuple(map(str, range(len(source.columns)))):  # as pandas counts them
            source = dataclasses.replace(source, columns=())
        if not reset:
            return self.model_.takes(source)
        if is_array:
            return source
        self.n_features_in_ = source.samples.shape[1]
        if hasattr(self, "feature_names_in_"):  # of an earlier fit
            del self.feature_names_in_
        if source.columns:
            self.feature_names_in_: NDArray[Any] = np.array(source.columns, object)
        return source


# `help(HistoryAD)` explains every setting.
_PARAGRAPHS = f"    Parameters:\n        preset: {_PRESETS}\n{describe_settings(' ' * 8)}\n\n"
_HEAD, _ATTRIBUTES, _REST = (HistoryAD.__doc__ or "").partition("    Attributes:")
HistoryAD.__doc__ = _HEAD + _PARAGRAPHS + _ATTRIBUTES + _REST


def _has_times(X: Any) -> bool:
    """Whether the index of a data frame says when its rows were measured."""
    return getattr(getattr(getattr(X, "index", None), "dtype", None), "kind", None) in ("M",)


def _index_of(X: Any, source: Source) -> Any:
    """Return what the rows of ``X`` are called; None, which is numbers, for those of an array."""
    if hasattr(X, "index") and hasattr(X, "columns"):
        return X.index
    if _is_array(X):
        return None
    return list(source.names if source.series is None else source.series.names)


def _is_array(X: Any) -> bool:
    """Whether ``X`` is for scikit-learn to check; a list of Pillow images is not."""
    if isinstance(X, list):
        return not (X and isinstance(X[0], Image.Image))
    return (not is_frame(X) and hasattr(X, "__array__")) or hasattr(X, "toarray")
