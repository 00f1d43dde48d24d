"""Judge a fitted model on labelled sources. Labels are used here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.data.any_size import parts_of
from historyad.data.decoding import decode_image
from historyad.data.sources import Source
from historyad.errors import InputError
from historyad.judge.explain import anomaly_map
from historyad.judge.metrics import (
    Maps,
    auprc,
    aupro,
    auroc,
    bootstrap_interval,
    check_pixels,
    fpr_at_tpr,
)
from historyad.model.model import Model

Mask = NDArray[np.bool_]

_ON = 128  # value of a pixel of a mask, from which it is meant
AUPRO_LIMIT = 0.3  # false-positive rate up to which region overlap is averaged


def judge(normal: NDArray[np.floating], anomalous: NDArray[np.floating]) -> dict[str, Any]:
    """Return what the scores of normal (n,) and anomalous (m,) samples are worth.

    AUROC and AUPRC come with their 95 % bootstrap intervals; the anomalous class is the positive
    one, and its share, the prevalence, stands beside them.
    """
    y = np.repeat([0, 1], [len(normal), len(anomalous)])
    score = np.concatenate([normal, anomalous])
    auroc_low, auroc_high = bootstrap_interval(auroc, y, score)
    auprc_low, auprc_high = bootstrap_interval(auprc, y, score)
    return {
        "auroc": auroc(y, score),
        "auroc_low": auroc_low,
        "auroc_high": auroc_high,
        "auprc": auprc(y, score),
        "auprc_low": auprc_low,
        "auprc_high": auprc_high,
        "prevalence": float(y.mean()),
        "fpr_at_95_tpr": fpr_at_tpr(y, score),
        "n_normal": len(normal),
        "n_anomalous": len(anomalous),
    }


def evaluate_model(model: Model, normal: Source, anomalous: Source) -> dict[str, Any]:
    """Return the figures of `judge`, the error rates at the model's own threshold, and the speed.

    The threshold was set without seeing either source.
    """
    started = time.perf_counter()
    scores = [_scores(model, source) for source in (normal, anomalous)]
    seconds = time.perf_counter() - started
    threshold = model.calibration.threshold
    return {
        **judge(*scores),
        "threshold": threshold,
        "false_positive_rate": float((scores[0] > threshold).mean()),
        "requested_false_positive_rate": model.calibration.false_positive_rate,
        "detection_rate": float((scores[1] > threshold).mean()),
        "seconds": seconds,
        "images_per_second": sum(map(len, scores)) / seconds,
    }


def _scores(model: Model, source: Source) -> NDArray[np.float32]:
    """Score each sample once; in an array, another would stand in for an unreadable image."""
    chunks = source.chunks(check=model.kind.check)
    scores = [model.anomaly_score(chunk) for _, chunk in chunks]
    if not scores:
        raise InputError(f"no image of {source.description} can be scored: give some that can")
    return np.concatenate(scores)


def read_masks(folder: Path, source: Source) -> list[Mask]:
    """Return the mask of each image of a folder, bool (H, W): True where a pixel is anomalous.

    That is from 128 on: masks with soft edges, or saved as JPEG, hold faint values around what they
    show. Where nothing in a mask is as bright, as in one of zeros and ones, all that is not 0. The
    mask of ``a/b.jpg`` is ``a/b.jpg``, ``a/b.png`` or ``a/b_mask.png`` in ``folder``. Raises
    InputError for one that is missing or of another size.
    """
    return [_read_mask(folder, name, shape) for name, shape in _named(source)]


def read_some_masks(folder: Path, source: Source) -> dict[int, Mask]:
    """Return the masks that there are, by row; errors are those of `read_masks` about these."""
    return {
        row: _read_mask(folder, name, shape)
        for row, (name, shape) in enumerate(_named(source))
        if _mask_file(folder, name)
    }


def _named(source: Source) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name of each image, and its height and width."""
    samples = source.samples
    # Images of one size have that of all; of several, each its own.
    sizes = getattr(samples, "sizes", None)
    shapes = [samples.shape[1:3]] * len(source) if sizes is None else map(tuple, sizes.tolist())
    yield from zip(source.names, shapes, strict=True)


def _mask_files(folder: Path, name: str) -> list[Path]:
    path = folder / name
    return [path, path.with_suffix(".png"), path.with_name(f"{path.stem}_mask.png")]


def _mask_file(folder: Path, name: str) -> Path | None:
    return next((file for file in _mask_files(folder, name) if file.is_file()), None)


def _read_mask(folder: Path, name: str, shape: tuple[int, ...]) -> Mask:
    found = _mask_file(folder, name)
    if found is None:
        missing = " or ".join(map(str, dict.fromkeys(_mask_files(folder, name))))
        raise InputError(f"{name} has no mask: {missing} is missing")
    pixels = decode_image(found)
    if pixels.shape[:2] != shape:
        raise InputError(
            f"{found} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its image "
            f"{shape[1]} x {shape[0]}: give a mask of the image's size"
        )
    brightest = pixels.max(axis=-1)
    mask: Mask = brightest >= (_ON if brightest.max() >= _ON else 1)
    return mask


def judge_pixels(
    model: Model, normal: Source, anomalous: Source, masks: Sequence[Mask]
) -> dict[str, Any]:
    """Return what the maps of a model are worth, against the ``masks`` (H, W) of anomalies.

    All pixels of normal images count as normal. Anomalous images whose mask is empty are left out.
    """
    marked = np.array([mask.any() for mask in masks])
    rows = _readable(anomalous)
    rows = rows[marked[rows]]
    good, bad = _maps(model, normal, _readable(normal)), _maps(model, anomalous, rows)
    return {
        **judge_maps(good, bad, [masks[row] for row in rows]),
        "n_empty_masks": int((~marked).sum()),
    }


def _maps(model: Model, source: Source, rows: NDArray[np.intp]) -> Maps:
    parts = parts_of(source.samples, rows)
    return [anomaly_map(model, image) for part in parts for image in part]


def _readable(source: Source) -> NDArray[np.intp]:
    """Return the rows that hold what their names say, as is known once all have been scored."""
    return np.setdiff1d(np.arange(len(source)), [*getattr(source.samples, "unreadable_rows", ())])


def judge_maps(normal: Maps, anomalous: Maps, masks: Sequence[Mask]) -> dict[str, Any]:
    """Return pixel AUROC, AUPRC and AUPRO of maps (H, W), with the ``masks`` of the anomalous ones.

    No mask may be empty. Raises InputError where there are none, or their shape is another.
    """
    truth = [*(np.zeros(found.shape, bool) for found in normal), *masks]
    found = [*normal, *anomalous]
    y, score = check_pixels(truth, found)
    return {
        "pixel_auroc": auroc(y, score),
        "pixel_auprc": auprc(y, score),
        "pixel_prevalence": float(y.mean()),
        "aupro": aupro(truth, found, fpr_limit=AUPRO_LIMIT),
        "aupro_fpr_limit": AUPRO_LIMIT,
        "n_masks": len(masks),
    }


def table_of(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures of `evaluate_model` as the rows that a person reads."""
    f = figures
    return [
        ("AUROC", f"{f['auroc']:.4f}  ({f['auroc_low']:.4f} to {f['auroc_high']:.4f})"),
        (
            "AUPRC",
            f"{f['auprc']:.4f}  ({f['auprc_low']:.4f} to {f['auprc_high']:.4f}), "
            f"prevalence {f['prevalence']:.3f}",
        ),
        ("FPR at 95 % TPR", f"{f['fpr_at_95_tpr']:.4f}"),
        (
            "false positives",
            f"{f['false_positive_rate']:.4f} at the threshold {f['threshold']:+.3f}, "
            f"{f['requested_false_positive_rate']:g} was asked for",
        ),
        ("anomalies found", f"{f['detection_rate']:.4f} at that threshold"),
        ("samples", f"{f['n_normal']:,} normal, {f['n_anomalous']:,} anomalous"),
        ("speed", f"{f['images_per_second']:,.0f} per second"),
    ]


def pixel_table_of(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures of `judge_pixels` as the rows that a person reads."""
    f = figures
    empty = f", {f['n_empty_masks']} empty left out" if f["n_empty_masks"] else ""
    return [
        ("pixel AUROC", f"{f['pixel_auroc']:.4f}"),
        ("pixel AUPRC", f"{f['pixel_auprc']:.4f}, prevalence {f['pixel_prevalence']:.3f}"),
        ("AUPRO", f"{f['aupro']:.4f} up to a false-positive rate of {f['aupro_fpr_limit']:g}"),
        ("masks", f"{f['n_masks']:,}{empty}"),
    ]
