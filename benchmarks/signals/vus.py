"""VUS-PR: how well scores of steps find intervals, whose ends are known roughly.

Volume under the surface of precision over recall (Paparrizos et al., VLDB 2022): a step beside an
anomalous interval counts in part, less the further away it is, up to half a buffer; recall counts
also how many of the intervals are found at all; and the area is averaged over buffers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BUFFERS = 11  # from none to the longest


def vus_pr(y: Array, scores: Array, longest: int) -> float:
    """Return the mean of `range_auc_pr` over buffers of 0 to ``longest`` steps.

    ``y`` (steps,) is 1 for anomalous steps and 0 for others, of which there are both.
    """
    buffers = np.unique(np.linspace(0, longest, _BUFFERS).round().astype(int))
    return float(np.mean([range_auc_pr(y, scores, buffer) for buffer in buffers.tolist()]))


def range_auc_pr(y: Array, scores: Array, buffer: int) -> float:
    """Return the area under precision over recall, of labels that fade over half a ``buffer``."""
    labels = faded(y, buffer)
    order = np.argsort(-scores, kind="stable")
    true = np.cumsum(labels[order])
    rank = np.empty(len(y), int)
    rank[order] = np.arange(len(y))
    first = np.sort([rank[start:end].min() for start, end in intervals_of(labels)])
    found = np.searchsorted(first, np.arange(len(y)), side="right") / len(first)
    recall = np.minimum(true / ((y.sum() + labels.sum()) / 2), 1) * found
    precision = true / np.arange(1, len(y) + 1)
    # Steps of one score are found together.
    last = np.append(np.diff(scores[order]) != 0, True)
    return float((np.diff(recall[last], prepend=0) * precision[last]).sum())


def faded(y: Array, buffer: int) -> Array:
    """Return labels (steps,) that fall from 1 beside each interval, by a root, and then end."""
    labels = y.astype(np.float64)
    for start, end in intervals_of(y):
        after = np.arange(end, min(end - 1 + buffer // 2, len(y)))
        before = np.arange(max(start - buffer // 2, 0), start)
        labels[after] += np.sqrt(1 - (after - end + 1) / max(buffer, 1))
        labels[before] += np.sqrt(1 - (start - before) / max(buffer, 1))
    return np.minimum(labels, 1)


def intervals_of(labels: Array) -> Array:
    """Return first step, and first step after it, of each interval where labels are not 0."""
    changes = np.diff(np.concatenate([[0], labels > 0, [0]]).astype(int))
    return np.flatnonzero(changes).reshape(-1, 2)
