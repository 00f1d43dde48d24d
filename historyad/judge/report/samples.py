"""Samples that the page shows: the ones that look odd, and where, and those on which it errs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from historyad.data.sources import Source
from historyad.judge.explain import map_over
from historyad.judge.objections import nearest_pictures
from historyad.judge.report.beside import against
from historyad.judge.report.pictures import thumbnail
from historyad.model.examples import Examples
from historyad.model.model import Model
from historyad.model.suspects import suspicion

Array = NDArray[Any]
Entry = tuple[float, str, Array]  # score, name and sample

_HIGHEST = 24  # samples of the fit shown
_EACH = 6  # of the samples with labels, from either end


@dataclass
class Seen:
    """The scores of a source, (N,), and its samples at both ends of them, the outermost first."""

    scores: Array = field(default_factory=lambda: np.empty(0, np.float32))
    highest: Sequence[Entry] = ()
    lowest: Sequence[Entry] = ()


def look_through(model: Model, source: Source, n: int = _EACH) -> Seen:
    """Score a source, of which only ``n`` samples from either end are kept."""
    seen = Seen()
    for names, samples in source.chunks(check=model.kind.check):
        scores = model.anomaly_score(samples)
        order = np.argsort(-scores, kind="stable").tolist()
        high, low = (
            [(float(scores[row]), names[row], samples[row].copy()) for row in rows]
            for rows in (order[:n], order[::-1][:n])
        )
        seen.scores = np.concatenate([seen.scores, scores])
        seen.highest = sorted([*seen.highest, *high], key=_score, reverse=True)[:n]
        seen.lowest = sorted([*seen.lowest, *low], key=_score)[:n]
    return seen


def oddest(model: Model, train: Source, examples: Examples | None = None) -> list[dict[str, Any]]:
    """Return the samples of a fit that look most suspicious, each judged by the others alone."""
    config = model.config
    found = suspicion(model.kind, train.samples, config, config.contamination)
    unreadable = getattr(train.samples, "unreadable_rows", {})  # others stand in their place
    order = np.argsort(-found, kind="stable").tolist()
    rows = [row for row in order if row not in unreadable][:_HIGHEST]
    samples = [train.samples[row] for row in rows]
    scores = [float(model.anomaly_score(sample[None])[0]) for sample in samples]
    entries = list(zip(scores, (train.names[row] for row in rows), samples, strict=True))
    labels = [None if train.labels is None else train.labels[row] for row in rows]
    return [
        {**sample, "suspicion": float(found[row]), "label": label}
        for sample, row, label in zip(show(model, entries, examples), rows, labels, strict=True)
    ]


def show(
    model: Model, entries: Sequence[Entry], examples: Examples | None = None
) -> list[dict[str, Any]]:
    """Return what the page says of samples, with a picture and a map of those that are images.

    And with the normal ones that they are nearest to.
    """
    scores, names, samples = zip(*entries, strict=True)
    is_picture = model.kind.is_picture
    return [
        {
            "name": name,
            "score": score,
            "p_value": float(p_value),
            "suspicion": None,
            "label": None,
            "against": against(model, sample),
            "near": nearest_pictures(model, examples, sample, name) if is_picture else [],
            "picture": thumbnail(sample) if is_picture else None,
            "map": thumbnail(map_over(model, sample)) if is_picture else None,
        }
        for score, name, sample, p_value in zip(
            scores, names, samples, model.calibration.p_value(np.array(scores)), strict=True
        )
    ]


def _score(entry: Entry) -> float:
    return entry[0]
