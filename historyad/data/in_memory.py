"""Samples that are in memory: arrays, tensors, and data sets that are asked item by item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from PIL import Image

from historyad.data.any_size import Images, noted
from historyad.data.arrays import Labels, Samples, whole_numbers
from historyad.data.images import as_uint8, conform, image_pixels
from historyad.data.sources import CHUNK_BYTES, Source, SourceKind, alike, gather
from historyad.data.streams import Names
from historyad.data.tables import Table
from historyad.errors import InputError

# A column needs a range of so many rounding errors of float32, and more than float64's own noise.
_FEWEST_LEVELS, _FLOAT64_NOISE = 256, 2.0**-40


def open_array(source: Any) -> Source:
    """Return the source of an array, nested lists or a tensor; InputError when it is none."""
    try:
        values = np.asanyarray(plain_array(source))
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"a {type(source).__name__} cannot be used as an array of samples ({error}); give "
            "samples of one shape"
        ) from error
    if values.ndim == 0 and values.dtype == object:  # such as a torch DataLoader
        raise InputError(
            f"a {type(source).__name__} is no array of samples: give an array, or what gives one "
            "sample at a time, such as a list, a data set or a generator"
        )
    return from_array(values, f"array {values.shape} of {values.dtype}")


def plain_array(values: Any) -> Any:
    """Return a tensor, or the tensors of a list, as arrays of numpy; all else as it is.

    Gradients are left behind, and bfloat16, which numpy has not, becomes float32. Raises InputError
    for a tensor that no array holds, and for values that are masked, which are not known.
    """
    if isinstance(values, list | tuple) and values and _is_special(values[0]):
        return [plain_array(value) for value in values]
    if isinstance(values, np.ma.MaskedArray):
        if n := int(np.ma.getmaskarray(values).sum()):
            raise InputError(f"{n:,} values are masked: fill them, or leave out their samples")
        return values.data
    return _without_torch(values) if _is_tensor(values) else values


def _is_tensor(values: Any) -> bool:
    return hasattr(values, "detach") and hasattr(values, "numpy")


def _is_special(values: Any) -> bool:
    return _is_tensor(values) or isinstance(values, np.ma.MaskedArray)


def _without_torch(tensor: Any) -> Samples:
    try:
        found = tensor.detach().cpu()
        try:
            array: Samples = found.numpy()
        except TypeError:  # of a type that numpy has not
            array = found.float().numpy()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise InputError(
            f"a tensor of {tensor.dtype} cannot become an array ({error}): give a dense one of "
            "plain numbers, such as tensor.to_dense().float()"
        ) from error
    return array


def is_iterator(source: Any) -> bool:
    """Whether ``source`` gives its samples once, one after the other, as a generator does."""
    return isinstance(source, Iterator)


def gathered(source: Iterator[Any]) -> Any:
    """Return what an iterator gives: a list of its items, or an array where they are numbers.

    InputError where it gives nothing, as one that was used up before.
    """
    items = list(source)
    if not items:
        raise InputError(
            f"the {type(source).__name__} gives no samples: perhaps it was used up; make it anew, "
            "or give a list"
        )
    first = items[0]
    is_row = isinstance(first, list | tuple) and all(isinstance(v, int | float) for v in first)
    return np.array(items) if is_row else items


def from_array(values: Samples, description: str, labels: Labels | None = None) -> Source:
    """Return the source of an array of images, (N, H, W) or with channels, or vectors (N, F).

    Raises InputError for another shape or type, and for what float32 cannot hold.
    """
    imprecise = ""
    if values.ndim in (3, 4):
        kind: SourceKind = "image"
        samples: Samples = as_uint8(values, description)
    elif values.ndim == 2 and 0 not in values.shape:
        kind, samples = "vector", _as_vectors(values, description)
        imprecise = _lost_of(values, samples, description)
    else:
        raise InputError(
            f"{description} has shape {values.shape}; give (N, F) vectors or (N, H, W), "
            "(N, H, W, C) or (N, C, H, W) images, at least one"
        )
    names = Names(len(samples), str)
    return Source(kind, samples, names, description, labels, imprecise=imprecise)


def from_table(table: Table, description: str) -> Source:
    """Return the source of a table; InputError for what float32 cannot hold."""
    if not len(table.values):
        raise InputError(f"{description} holds no rows; give at least one")
    samples = _as_vectors(table.values, description, table.columns, with_holes=True)
    return Source(
        "vector",
        samples,
        table.names or Names(len(samples), str),
        description,
        imprecise=_lost_of(table.values, samples, description, table.columns),
        columns=table.columns,
        groups=table.groups,
        levels=table.levels,
    )


def _called(column: int, columns: Sequence[str]) -> str:
    return f"column '{columns[column]}'" if columns else f"column {column} (from 0)"


def _as_vectors(
    values: Samples, name: str, columns: Sequence[str] = (), *, with_holes: bool = False
) -> Samples:
    """Float32 (N, F), not copied where it already is; every value finite, or InputError.

    A table may have holes, NaN, where a value is missing.
    """
    if values.dtype.kind not in "buif":
        raise InputError(f"{name} has values of type {values.dtype}; give numbers")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, found below
        vectors = np.asanyarray(values, dtype=np.float32)
    step = max(1, CHUNK_BYTES // vectors[0].nbytes)
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step]
        bad = np.argwhere(np.isinf(part) if with_holes else ~np.isfinite(part))
        if len(bad):
            row, column = bad[0] + (start, 0)
            raise InputError(
                f"{name}: row {row}, {_called(column, columns)} is {values[row, column]}; NaN, "
                "infinity and what float32 cannot hold must be filled or removed; values that are "
                "missing may be so in a data frame or a file such as .csv"
            )
    return vectors


def _lost_of(values: Samples, vectors: Samples, name: str, columns: Sequence[str] = ()) -> str:
    """Say which column of ``values`` (N, F) is hardly left in the float32 ``vectors``, if any is.

    Unix times of one hour, for one: at 1.7e9, float32 tells only every 128th second apart. A column
    that varies by no more than its own float64 is rounded by is taken for constant.
    """
    if np.can_cast(values.dtype, np.float32):
        return ""
    low, high, error = (np.full(values.shape[1], start) for start in (np.inf, -np.inf, 0.0))
    step = max(1, CHUNK_BYTES // vectors[0].nbytes)
    for start in range(0, len(vectors), step):
        part = np.asarray(values[start : start + step], np.float64)
        lost = np.abs(part - vectors[start : start + step])
        # All that pass over what is missing.
        low, high = (f(edge, f.reduce(part)) for f, edge in ((np.fmin, low), (np.fmax, high)))
        error = np.fmax(error, np.fmax.reduce(lost))
    range_, size = high - low, np.maximum(np.abs(low), np.abs(high))
    blurred = np.flatnonzero((error > range_ / _FEWEST_LEVELS) & (range_ > _FLOAT64_NOISE * size))
    if not len(blurred):
        return ""
    column = int(blurred[0])
    return (
        f"{name}: {_called(column, columns)} ranges from {low[column]:.12g} to "
        f"{high[column]:.12g}, of which float32, in which samples are held, keeps too little: "
        "subtract its mean first, and the same number from what will be scored"
    )


def is_dataset(source: Any) -> bool:
    """Whether ``source`` is to be asked item by item, as against converted as an array."""
    if isinstance(source, list | tuple) and source and isinstance(source[0], Image.Image):
        return True  # numpy would take a palette's indices for grey values
    array_like = isinstance(source, list | tuple | dict | bytes) or hasattr(source, "__array__")
    return not array_like and hasattr(source, "__len__") and hasattr(source, "__getitem__")


def collect(
    items: Iterable[tuple[str, Samples]], *, skip_unreadable: bool = False
) -> tuple[list[str], Samples]:
    """Return the names, and the images as `Images`, or vectors as an array; none for no item."""
    named = list(items)
    names, samples = [name for name, _ in named], [sample for _, sample in named]
    if any(sample.ndim == 1 for sample in samples):
        return gather(alike(named), len(named))
    if not samples:
        return [], np.empty((0,), np.uint8)
    images = Images.in_memory(names, samples, skip_unreadable=skip_unreadable)
    return names, cast(Samples, images)  # of an array, they have what is used of samples


def open_dataset(
    dataset: Any,
    mixed: int | None,
    channels: int | None,
    *,
    any_size: bool = False,
    skip_unreadable: bool = False,
) -> Source:
    """Return the source of a torch Dataset, or of a list of pictures, asked item by item.

    Images of several sizes are brought to ``mixed``, and to ``channels``, where these are given, or
    are `Images` with ``any_size``, of which those that a reader refuses may be skipped.
    """
    name = f"{type(dataset).__name__} of {len(dataset)} samples"
    if not len(dataset):
        raise InputError(f"{name} is empty; give at least one sample")
    labels: list[Any] = []

    def items() -> Iterator[tuple[str, Samples]]:
        for i in range(len(dataset)):
            item, label = _split_item(dataset[i])
            labels.append(label)
            yield str(i), _item_array(item, f"{name}, item {i}", mixed, channels)

    if any_size:
        names, samples = collect(items(), skip_unreadable=skip_unreadable)
    else:
        names, samples = gather(alike(items()), len(dataset))
    kind: SourceKind = "vector" if samples.ndim == 2 else "image"
    known = whole_numbers(np.array(labels)) if None not in labels else None
    return Source(kind, samples, names, name, known, noted(samples, []))


def _split_item(item: Any) -> tuple[Any, int | None]:
    """Split (sample, label, ...); a label that is no whole number is none."""
    if not isinstance(item, tuple | list):
        return item, None
    try:
        return item[0], int(item[1])
    except (IndexError, TypeError, ValueError, RuntimeError):
        return item[0], None


def _item_array(item: Any, name: str, mixed: int | None, channels: int | None) -> Samples:
    """One sample as uint8 (H, W, C) or float32 (F,)."""
    if isinstance(item, Image.Image):
        image = image_pixels(item, name)
    else:
        values = np.asarray(plain_array(item))
        if values.ndim == 1:
            vector: Samples = _as_vectors(values[None], name)[0]
            return vector
        if values.ndim not in (2, 3):
            raise InputError(f"{name} has shape {values.shape}; give an image or a vector")
        image = as_uint8(values[None], name)[0]
    return conform(image, mixed, channels)
