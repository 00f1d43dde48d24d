"""What to train on and what to tell apart: the splits on which methods are compared.

============================  ==================================================================
name                          normal, against anomalous
============================  ==================================================================
``mnist-vs-kmnist``           one set, against another; so are ``mnist-vs-fashion``,
                              ``svhn-vs-cifar10``, ``svhn-vs-celeba``, ``svhn-vs-tiny-imagenet``
``cifar10-vs-svhn``           photos, of whose set three quarters train and a quarter tests, against
                              house numbers; so are ``celeba-vs-svhn``, ``tiny-imagenet-vs-svhn``
``mnist-only-3``              one class, against all others; so is ``fashion-only-3``
``mnist-without-3``           all digits but one, against all images of that one; so is, small and
                              always at hand, ``digits-without-0``
``mnist-80-20-without-3``     all 70,000 digits: 80 % of the others train, 20 % of them and all
                              images of the one test (figure 7 of the paper)
``magnetic-tile``             good tiles, against all that have a defect
``magnetic-tile-crack``       or a defect of one kind: blowhole, break, crack, fray, uneven
``vectors-cardio``            a table NAME.npz in a folder of ``vectors`` under the data root
``TRAIN|NORMAL|ANOMALOUS``    any three SOURCEs of `historyad.data.datasets`
============================  ==================================================================

What trains and what tests was decided by the sets' authors, but for photos, whose test images are
cut in their order; for tables, which are halved; and for the split of 80 to 20. In the last two,
the seed decides.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from historyad.data.datasets import open_source
from historyad.data.sources import Source
from historyad.errors import InputError
from historyad.randomness import Stream, numpy_generator

_SEPARATOR = "|"  # part of no set's name, no list of labels and hardly any path
_EIGHTY_TWENTY = "mnist-80-20-without-"

_OF_PHOTOS = {f"{s}-vs-svhn": f"{s}:test" for s in ("cifar10", "celeba", "tiny-imagenet")}
_PHOTOS_THAT_TRAIN = 0.75

# Some masks of `uneven` are empty, of defects that were lost when the masks were reduced; that
# matters where pixels are scored. Here an image is, and it shows the defect.
_DEFECTS = ("blowhole", "break", "crack", "fray", "uneven")
_TILES = "industrial/magnetic_tile"
# Of 112 pixels: our networks would see them at this side anyway, the others can afford it.
_TILE_SIDE = 64


def _named_splits() -> dict[str, tuple[str, ...]]:
    """Return the sources of each split: training, normal and anomalous; the last may be several."""
    splits: dict[str, tuple[str, ...]] = {
        "mnist-vs-kmnist": ("mnist:train", "mnist:test", "kmnist:test"),
        "mnist-vs-fashion": ("mnist:train", "mnist:test", "fashion-mnist:test"),
        "svhn-vs-cifar10": ("svhn:train", "svhn:test", "cifar10:test"),
        "svhn-vs-celeba": ("svhn:train", "svhn:test", "celeba:test"),
        "svhn-vs-tiny-imagenet": ("svhn:train", "svhn:test", "tiny-imagenet:test"),
        "digits-without-0": ("digits:train:!0", "digits:test:!0", "digits:test:0"),
    }
    splits |= {name: (photos, "svhn:test") for name, photos in _OF_PHOTOS.items()}
    for name, source in (("mnist", "mnist"), ("fashion", "fashion-mnist")):
        for d in range(10):
            only = (f"{source}:train:{d}", f"{source}:test:{d}", f"{source}:test:!{d}")
            splits[f"{name}-only-{d}"] = only
    for d in range(10):
        others = (f"mnist:train:!{d}", f"mnist:test:!{d}")
        splits[f"mnist-without-{d}"] = (*others, f"mnist:train:{d}", f"mnist:test:{d}")
        splits[f"{_EIGHTY_TWENTY}{d}"] = ("mnist:train", "mnist:test")
    good = (f"{_TILES}/train/good", f"{_TILES}/test/good")
    defects = {kind: f"{_TILES}/test/{kind}" for kind in _DEFECTS}
    splits["magnetic-tile"] = (*good, *defects.values())
    return splits | {f"magnetic-tile-{kind}": (*good, path) for kind, path in defects.items()}


NAMED_SPLITS = _named_splits()


@dataclass(frozen=True)
class Split:
    """Normal samples to train on, and normal and anomalous ones to test on."""

    train: Source
    normal: Source
    anomalous: Source


def find_splits(patterns: Iterable[str], data_root: Path | None) -> list[str]:
    """Return the splits meant by names, wildcards (``mnist-without-*``) and source triples.

    Raises InputError for what means none.
    """
    patterns = list(patterns)
    triples = [pattern for pattern in patterns if _is_triple(pattern)]
    return select(patterns, [*NAMED_SPLITS, *tables_in(data_root), *triples], "split")


def tables_in(data_root: Path | None) -> list[str]:
    """Return the splits of the tables that are under a data root."""
    return [f"vectors-{table.stem}" for table in sorted(_root(data_root).glob("vectors/*/*.npz"))]


def select(patterns: Iterable[str], known: list[str], what: str) -> list[str]:
    """Return the ``known`` names that each pattern is or matches, in order and once each.

    Raises InputError, calling the names ``what``, for a pattern that matches none.
    """
    chosen: list[str] = []
    for pattern in patterns:
        found = [pattern] if pattern in known else fnmatch.filter(known, pattern)
        if not found:
            raise InputError(f"unknown {what} '{pattern}': choose one of {', '.join(known)}")
        chosen += found
    return list(dict.fromkeys(chosen))


def training_set(name: str) -> str:
    """Return what the splits that train on the same samples have in common."""
    if _is_table(name) or _is_named(name, _EIGHTY_TWENTY) or name in _OF_PHOTOS:
        return name  # a part of what its sources hold
    # Tiles are reduced, other than those of the same folder in a triple.
    return "magnetic-tile" if _is_named(name, "magnetic-tile") else _sources_of(name)[0]


def load_split(name: str, seed: int, data_root: Path | None) -> Split:
    """Open a split by name; only that of a table and that of 80 to 20 depend on ``seed``.

    Raises InputError for an unknown name, absent data, or samples that differ in shape.
    """
    if _is_table(name):
        return _halve(_open_table(name.removeprefix("vectors-"), data_root), seed)
    if _is_named(name, "magnetic-tile"):
        paths = [_root(data_root) / source for source in _sources_of(name)]
        sources = [open_source(path, mixed=_TILE_SIDE) for path in paths]
    else:
        sources = [open_source(source, data_root=data_root) for source in _sources_of(name)]
    if _is_named(name, _EIGHTY_TWENTY):
        return _leave_out(_join(sources), int(name.removeprefix(_EIGHTY_TWENTY)), seed)
    shapes = {source.samples.shape[1:] for source in sources}
    if len(shapes) > 1:
        raise InputError(f"{name}: samples have the shapes {shapes}; give some of one shape")
    if name in _OF_PHOTOS:
        sources = [*_cut(sources[0]), *sources[1:]]
    train, normal, *anomalous = sources
    anomalies = _join(anomalous)
    if name in _OF_PHOTOS or _is_named(name, "svhn-vs-"):  # as many as there are normal ones
        anomalies = _take(anomalies, np.arange(min(len(normal), len(anomalies))))
    return Split(train, normal, anomalies)


def on_some(split: Split, most: int, seed: int) -> Split:
    """Return the split with at ``most`` so many test samples of either kind, drawn by the seed."""
    random = numpy_generator(seed, Stream.PART)

    def some(source: Source) -> Source:
        n = min(most, len(source))
        return _take(source, np.sort(random.permutation(len(source))[:n]))

    return replace(split, normal=some(split.normal), anomalous=some(split.anomalous))


def _sources_of(name: str) -> tuple[str, ...]:
    if name not in NAMED_SPLITS and not _is_triple(name):
        raise InputError(f"unknown split '{name}': give a name or TRAIN|NORMAL|ANOMALOUS")
    return NAMED_SPLITS.get(name) or tuple(name.split(_SEPARATOR))


def _is_named(name: str, prefix: str) -> bool:
    """Whether it is one of ours: a path in a triple may begin like any of them."""
    return name in NAMED_SPLITS and name.startswith(prefix)


def _is_table(name: str) -> bool:
    return name.startswith("vectors-") and not _is_triple(name)


def _is_triple(name: str) -> bool:
    parts = name.split(_SEPARATOR)
    return len(parts) == 3 and all(parts)


def _open_table(name: str, data_root: Path | None) -> Source:
    folder = _root(data_root) / "vectors"
    found = sorted(folder.glob(f"*/{name}.npz"))
    if not found:
        raise InputError(f"no table {name}.npz in a folder of {folder}: check --data-root")
    return open_source(found[0])


def _root(data_root: Path | None) -> Path:
    return Path(data_root or os.environ.get("HISTORYAD_DATA", "."))


def _cut(photos: Source) -> list[Source]:
    """Return the first photos, to train on, and the last, to test on."""
    n_train = round(_PHOTOS_THAT_TRAIN * len(photos))
    rows = np.arange(len(photos))
    return [_take(photos, rows[:n_train]), _take(photos, rows[n_train:])]


def _halve(table: Source, seed: int) -> Split:
    """Train on a seeded half of a table's normal rows, test on the other half and all anomalies."""
    if table.labels is None:
        raise InputError(f"{table.description} has no labels: give it an array y, 1 = anomalous")
    normal = numpy_generator(seed, Stream.SPLIT).permutation(np.flatnonzero(table.labels == 0))
    half = len(normal) // 2
    parts = (normal[:half], normal[half:], np.flatnonzero(table.labels == 1))
    return Split(*(_take(table, np.sort(rows)) for rows in parts))


def _leave_out(digits: Source, anomaly: int, seed: int) -> Split:
    """Train on a seeded 80 % of the other digits, test on the rest and all of ``anomaly``."""
    assert digits.labels is not None
    random = numpy_generator(seed, Stream.SPLIT)
    normal = random.permutation(np.flatnonzero(digits.labels != anomaly))
    n_train = round(0.8 * len(normal))
    parts = (normal[:n_train], normal[n_train:], np.flatnonzero(digits.labels == anomaly))
    digits = replace(digits, description=f"mnist without {anomaly}, 80 to 20")
    return Split(*(_take(digits, np.sort(rows)) for rows in parts))


def _take(source: Source, rows: NDArray[np.intp]) -> Source:
    names = [source.names[row] for row in rows.tolist()]
    return replace(source, samples=source.samples[rows], names=names, labels=None)


def _join(sources: list[Source]) -> Source:
    if len(sources) == 1:
        return sources[0]
    samples = np.concatenate([source.samples for source in sources])
    names = [name for source in sources for name in source.names]
    known = [source.labels for source in sources if source.labels is not None]
    labels = np.concatenate(known) if len(known) == len(sources) else None
    return replace(sources[0], samples=samples, names=names, labels=labels)
