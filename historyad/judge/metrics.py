"""Judge anomaly scores against labels.

Everywhere ``y`` is 1 for anomalous (the positive class) and 0 for normal, and a higher score
means more anomalous. An AUPRC says nothing without the prevalence ``mean(y)`` beside it: that is
its value for a score that knows nothing.

scikit-learn is imported inside the functions: it would otherwise dominate the start of a command
that measures nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from historyad.errors import InputError

Metric = Callable[[NDArray[np.int8], NDArray[np.float64]], float]
Masks = Sequence[NDArray[np.bool_]] | NDArray[np.bool_]
Maps = Sequence[NDArray[np.floating]] | NDArray[np.floating]


def auroc(y: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: P(anomalous scores above normal), ties counting one half.

    ``y`` and ``score`` are (N,). Raises InputError for one class only, NaN or unequal lengths.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_check(y, score)))


def auprc(y: ArrayLike, score: ArrayLike, *, prevalence: float | None = None) -> float:
    """Area under the precision-recall curve, as average precision (no interpolation).

    ``y`` and ``score`` are (N,). With a ``prevalence`` in (0, 1), samples are weighted such that
    anomalies have this share: the same error rates where anomalies are rarer or more frequent.
    Raises InputError for one class only, NaN, unequal lengths or a prevalence out of range.
    """
    from sklearn.metrics import average_precision_score

    labels, scores = _check(y, score)
    if prevalence is None:
        return float(average_precision_score(labels, scores))
    if not 0 < prevalence < 1:
        raise InputError(f"prevalence is {prevalence}; give a share above 0 and below 1")
    share = labels.mean()
    weights = np.where(labels == 1, prevalence / share, (1 - prevalence) / (1 - share))
    return float(average_precision_score(labels, scores, sample_weight=weights))


def fpr_at_tpr(y: ArrayLike, score: ArrayLike, tpr: float = 0.95) -> float:
    """Smallest fraction of normals flagged by a threshold that catches ``tpr`` of the anomalies.

    ``y`` and ``score`` are (N,), ``tpr`` lies in (0, 1]. Raises InputError as `auroc` does.
    """
    from sklearn.metrics import roc_curve

    if not 0 < tpr <= 1:
        raise InputError(f"tpr is {tpr}; give a true positive rate above 0 and at most 1")
    false_positive_rate, true_positive_rate, _ = roc_curve(
        *_check(y, score), drop_intermediate=False
    )
    # Both rates only grow as the threshold falls: the first to reach tpr is the cheapest.
    return float(false_positive_rate[np.searchsorted(true_positive_rate, tpr)])


def aupro(masks: Masks, maps: Maps, *, fpr_limit: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to ``fpr_limit``, divided by it: 0 to 1.

    ``masks`` and ``maps`` are N images (H, W), of one size or of several. A region is a connected
    set of anomalous pixels, corners included; the overlap is the mean over regions of the share
    that a threshold catches, whatever their size, and the false-positive rate is over all normal
    pixels (Bergmann et al., 2020, "Uninformed Students"). A map that knows nothing has
    fpr_limit / 2. Raises InputError unless there are normal and anomalous pixels and the maps are
    finite.
    """
    from scipy.ndimage import label
    from sklearn.metrics import roc_curve

    if not 0 < fpr_limit <= 1:
        raise InputError(f"fpr_limit is {fpr_limit}: give a rate above 0 and at most 1")
    y, score = check_pixels(masks, maps)
    weights = [np.ones(mask.shape) for mask in masks]
    for mask, weight in zip(masks, weights, strict=True):
        regions, _ = label(mask, structure=np.ones((3, 3)))
        weight[mask] = 1 / np.bincount(regions.ravel())[regions[mask]]
    # With a weight of 1 for each region, the true-positive rate is the mean overlap.
    fpr, overlap, _ = roc_curve(y, score, sample_weight=_flat(weights), drop_intermediate=False)
    inside = fpr < fpr_limit
    x = np.append(fpr[inside], fpr_limit)
    area = np.trapezoid(np.append(overlap[inside], np.interp(fpr_limit, fpr, overlap)), x)
    return float(area / fpr_limit)


def check_pixels(masks: Masks, maps: Maps) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return the labels and scores of all pixels of ``masks`` and ``maps``, (H, W) each, flat.

    Raises InputError unless their shapes agree, masks are bool and both classes have pixels.
    """
    if len(masks) != len(maps):
        raise InputError(f"{len(masks)} masks and {len(maps)} maps: give one mask for each map")
    for i, (mask, found) in enumerate(zip(masks, maps, strict=True)):
        if mask.dtype != np.bool_:
            raise InputError(
                f"mask {i} is of type {mask.dtype}: give bool, True where a pixel is anomalous, "
                "such as masks > 0"
            )
        if mask.shape != found.shape or mask.ndim != 2:
            raise InputError(
                f"mask {i} is of shape {mask.shape} and its map of shape {found.shape}: give one "
                "mask (H, W) for each map"
            )
    return _check(_flat(masks), _flat(maps))


def _flat(images: Masks | Maps) -> NDArray[Any]:
    return np.concatenate([image.ravel() for image in images])


def bootstrap_interval(
    metric: Metric,
    y: ArrayLike,
    score: ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of ``metric(y, score)`` at ``level``.

    Normals and anomalies are resampled separately, so that every resample keeps the prevalence.
    It covers the choice of test samples only, not that of the training set or its seed. The 200
    resamples of the default take about a second for 20,000 scores. Deterministic in ``seed``.
    Raises InputError as `auroc` does.
    """
    if not 0 < level < 1 or n_resamples < 1:
        raise InputError(
            f"level is {level} and n_resamples {n_resamples}; give a level between 0 and 1 "
            "and at least one resample"
        )
    y, score = _check(y, score)
    order = np.argsort(score, kind="stable")
    y, score = y[order], score[order]
    classes = [np.flatnonzero(y == label) for label in (0, 1)]
    rng = np.random.default_rng(seed)

    def resampled_value() -> float:
        drawn = np.concatenate([rng.choice(members, len(members)) for members in classes])
        drawn.sort()  # scores stay sorted, which spares the metric most of its own sorting
        return metric(y[drawn], score[drawn])

    values = [resampled_value() for _ in range(n_resamples)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check(y: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Labels and scores as two (N,) arrays, or InputError."""
    try:
        labels = np.asarray(y)
        scores = np.asarray(score, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"labels or scores are not numbers: {error}") from error
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise InputError(
            f"labels of shape {labels.shape} and scores of shape {scores.shape}; "
            "give one label and one score per sample"
        )
    if not np.isin(labels, (0, 1)).all():
        raise InputError("labels must be 0 (normal) or 1 (anomalous)")
    if not np.isfinite(scores).all():
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(f"score {first} is {scores[first]}; every score must be finite")
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"all {len(labels)} labels are of one class; give both normal (0) and "
            "anomalous (1) samples"
        )
    return labels.astype(np.int8), scores
