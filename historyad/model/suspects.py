"""Samples that look wrong among those that are said to be normal, judged before any training.

Each is judged by the others: how far it is from its nearest ones outside of its own small group. A
few wrong samples of one kind are each other's neighbours, which hides them from distances to
whatever is nearest; so samples are first put into groups, by complete linkage, that are as large as
the wrong ones of one kind may be, and nobody in a group counts for it. A group has one verdict, for
there is one reason: the mean logarithm of the distances of its members. An image that is seen in
crops is compared cell by cell, its strangest cells count, and in place of groups as many of the
nearest images are skipped.

Those that look worst, twice as many as may be wrong, are judged again by the companions of some
detectors that are fitted on others, which tell them apart better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from historyad.config import Config, as_dict
from historyad.constants import CONSTANTS
from historyad.data.sources import Source
from historyad.kinds.kind import Kind
from historyad.model.untrained import untrained_score
from historyad.randomness import Stream, numpy_generator

_FEWEST = 3  # samples, of which one can be the odd one out
_FEWEST_TO_FIT = 20  # samples, on which suspects are judged again
_PRODUCTS = 1 << 24  # distances that are held at a time

Looks = NDArray[np.float32]  # of one sample, (P, values)
Rows = NDArray[np.intp]


class Suspect(NamedTuple):
    """A sample that may be wrong, by its row, and how `suspicion` judges it."""

    row: int
    name: str
    suspicion: float


def find_suspects(kind: Kind, source: Source, config: Config) -> list[Suspect]:
    """Return the samples to set aside, ``config.contamination`` of all, the worst first."""
    found = suspicion(kind, source.samples, config, config.contamination)
    rows = most_suspicious(found, config.contamination).tolist()
    return [Suspect(row, source.names[row], float(found[row])) for row in rows]


def suspicion(
    kind: Kind, samples: NDArray[Any], config: Config, share: float = 0.0
) -> NDArray[np.float64]:
    """Return how suspicious each sample is, (N,): 1 is typical, 2 is twice as far from the others.

    ``share`` of the samples may be wrong, 1 % at least. Of many samples, some thousands at a time
    are compared with each other, drawn at random.
    """
    if len(samples) < _FEWEST:
        return np.ones(len(samples))
    share = max(share, CONSTANTS.suspects_share)
    random = numpy_generator(config.seed, Stream.SUSPECT)
    order = random.permutation(len(samples))
    n_parts = math.ceil(len(samples) / CONSTANTS.suspects_compared)
    distances, group = np.empty(len(samples)), np.empty(len(samples), np.intp)
    for rows in map(np.sort, np.array_split(order, n_parts)):
        looks = partial(kind.looks, samples, rows, config)
        distances[rows], own = _judge(looks, len(rows), share, random, kind.n_worst)
        group[rows] = rows[own]
    found = _as_multiples(distances, group)
    top = most_suspicious(found, CONSTANTS.suspects_again * share)
    top = np.flatnonzero(np.isin(group, group[top]))  # whole groups
    if len(top) > 1 and len(samples) - len(top) >= _FEWEST_TO_FIT:
        fits = range(CONSTANTS.suspects_fits)
        again = np.mean([_judge_again(kind, samples, top, config, one) for one in fits], axis=0)
        order = np.argsort(-_of_groups(found[top] * again, group[top]), kind="stable")
        found[top[order]] = np.sort(found[top])[::-1]
    return found


def most_suspicious(found: NDArray[np.float64], share: float) -> Rows:
    """Return the rows of a ``share`` of the samples, the most suspicious ones first."""
    return np.argsort(-found, kind="stable")[: round(share * len(found))]


def _judge(
    looks: Callable[[], Iterator[Looks]],
    n: int,
    share: float,
    random: np.random.Generator,
    n_worst: int,
) -> tuple[NDArray[np.float64], Rows]:
    """Return how far ``n`` samples are from the others, and the first of each one's group.

    Of a sample with several ``looks``, so many of the strangest count.
    """
    n_of_each = math.ceil(CONSTANTS.suspects_bank / n)
    some = [_drawn(found, n_of_each, random) for found in looks()]
    owners = np.repeat(np.arange(n), [len(found) for found in some])
    normal = np.concatenate(some)
    pca = _components(normal)
    bank = pca.transform(normal).astype(np.float32)
    most = math.ceil(CONSTANTS.suspects_group * share * n)
    if len(bank) == n:  # each sample is one look
        group = _groups(bank, most)
        return _to_other_groups(bank, group), group
    distances = np.empty(n)
    for row, found in enumerate(looks()):
        places = pca.transform(found).astype(np.float32)
        others = owners != row
        far = _distances(places, bank[others], owners[others], most - 1)
        distances[row] = np.sort(far)[-n_worst:].mean()
    return distances, np.arange(n)


def _judge_again(
    kind: Kind, samples: NDArray[Any], top: Rows, config: Config, number: int
) -> NDArray[np.float64]:
    """Return how far the ``top`` suspects are out, (top,), to a detector of the other samples.

    It is one of companions alone, with random weights for D_TV; all are above 0. The ``number``
    decides on the weights, and on the samples.
    """
    rest = np.setdiff1d(np.arange(len(samples)), top)
    random = numpy_generator(config.seed, Stream.SUSPECT, number + 1)
    rest = random.permutation(rest)[: CONSTANTS.suspects_compared]
    n_held_out = math.ceil(len(rest) * CONSTANTS.suspects_held_out)
    held_out, rows = np.sort(rest[:n_held_out]), np.sort(rest[n_held_out:])
    # No training: an epoch of one image, for which there is but one crop of each.
    changed = {"views": "companions", "epoch_images": 1, "seed": config.seed + number}
    config = Config(**{**as_dict(config), **changed})
    score = untrained_score(kind, samples, rows, config)
    score.fit_scale(samples, held_out)
    totals = score.unbounded(score.of_rows(samples, top).astype(np.float64))
    lowest = float(totals.min())
    return np.asarray(totals - lowest + 1)


def _drawn(looks: Looks, n: int, random: np.random.Generator) -> Looks:
    """Return ``n`` looks of a sample, or all where they are fewer."""
    return looks if len(looks) <= n else looks[random.permutation(len(looks))[:n]]


def _components(looks: Looks) -> Any:
    """Return the principal components on which looks are compared."""
    from sklearn.decomposition import PCA  # slow to import

    with np.errstate(invalid="ignore"):  # shares of a variance that may be 0
        return PCA(min(CONSTANTS.bank_components, *looks.shape), random_state=0).fit(looks)


def _groups(places: Looks, most: int) -> Rows:
    """Return the first of the group of each of places (N, values), (N,), of at ``most`` so many."""
    from scipy.cluster.hierarchy import linkage

    n = len(places)
    root = np.arange(2 * n - 1)
    for node, (a, b, _, size) in enumerate(linkage(places, "complete"), n):
        if size <= most:
            root[[int(a), int(b)]] = node
    for node in reversed(range(2 * n - 1)):
        root[node] = root[root[node]]
    _, first, group = np.unique(root[:n], return_index=True, return_inverse=True)
    return first[group]


def _to_other_groups(places: Looks, group: Rows) -> NDArray[np.float64]:
    """Return the mean distance of each of places (N, values) to the nearest in other groups."""
    norms = np.square(places).sum(1)
    k = min(CONSTANTS.neighbours, len(places) - int(np.bincount(group).max()))
    found = []
    for rows in _in_parts(np.arange(len(places)), max(1, _PRODUCTS // len(places))):
        squares = norms[rows, None] + norms - 2 * places[rows] @ places.T
        squares[group[rows, None] == group] = np.inf
        nearest = np.partition(squares, k - 1, axis=1)[:, :k]
        found.append(np.sqrt(nearest.clip(min=0)).mean(1))
    return np.concatenate(found).astype(np.float64)


def _distances(places: Looks, others: Looks, owners: Rows, skipped: int) -> NDArray[np.float64]:
    """Return the mean distance of each place (P, values) to the nearest other samples, (P,).

    ``others`` (Q, values) are looks of them, in the order of their ``owners`` (Q,). Of a sample the
    nearest look counts, and so many of the nearest samples are ``skipped``.
    """
    norms = np.square(others).sum(1)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    skipped = min(skipped, len(starts) - 1)
    k = min(skipped + CONSTANTS.neighbours, len(starts))
    found = []
    for part in _in_parts(places, max(1, _PRODUCTS // len(others))):
        squares = np.square(part).sum(1)[:, None] + norms - 2 * part @ others.T
        of_samples = np.minimum.reduceat(squares, starts, axis=1)
        nearest = np.sort(np.partition(of_samples, k - 1, axis=1)[:, :k], axis=1)
        found.append(np.sqrt(nearest[:, skipped:].clip(min=0)).mean(1))
    return np.concatenate(found).astype(np.float64)


def _in_parts(places: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _of_groups(again: NDArray[np.float64], group: Rows) -> NDArray[np.float64]:
    """Return how bad the group of each suspect is, (N,), and within it the order of ``again``.

    What nearly all of it exceeds counts, for odd samples that are right have more typical ones in
    their groups; and some that are alike do more harm than one alone.
    """
    _, group, sizes = np.unique(group, return_inverse=True, return_counts=True)
    low = [np.quantile(again[group == one], CONSTANTS.suspects_low) for one in range(len(sizes))]
    found: NDArray[np.float64] = (low * sizes**CONSTANTS.suspects_size)[group]
    found *= 1 + CONSTANTS.suspects_tie * again / again.max()
    return found


def _as_multiples(distances: NDArray[np.float64], group: Rows) -> NDArray[np.float64]:
    """Return distances (N,), each the mean of its group's logarithms, as multiples of the median.

    Within a group the order is that of the distances.
    """
    _, group = np.unique(group, return_inverse=True)
    smallest = max(1e-12, CONSTANTS.smallest_gap * float(np.median(distances)))
    logarithms = np.log(distances.clip(min=smallest))
    means = (np.bincount(group, logarithms) / np.bincount(group))[group]
    found: NDArray[np.float64] = np.exp(means - np.median(means))
    found *= 1 + CONSTANTS.suspects_tie * (logarithms - means)
    return found
