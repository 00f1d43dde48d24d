"""Where samples come from: every SOURCE that a command or ``fit`` accepts becomes a `Source`.

=============================  ==================================================================
SOURCE                         meaning
=============================  ==================================================================
``photos/``                    folder of images, recursive, in the order of the relative paths
``shards/``, ``x.tar``         images in tar shards, streamed: a folder of them, one, or a pattern,
                               ``x-{000..099}.tar`` or ``x-*.tar``
``part.png``                   one image
``x.npy``                      array: (N, F) vectors; (N, H, W), (N, H, W, C) or (N, C, H, W) images
``x.npz``, ``x.npz:KEY``       the same, by name where the file holds several arrays
``x.npz:KEY:LABELS``           the rows whose entry in the file's ``y`` or ``labels`` is selected
``x.csv``, ``.tsv``, ``.txt``  table, also ``.gz``; see `historyad.data.delimited`
``x.parquet``, ``.feather``    table; needs pyarrow
``NAME[:SPLIT[:LABELS]]``      a named set, see ``SETS``; the split is ``train`` unless given
array, nested lists, tensor    as ``x.npy``
generator, iterator            what it gives, one sample at a time, all held in memory
data frame                     of pandas, polars or pyarrow: a table; see `historyad.data.frames`
torch ``Dataset``              anything with ``len`` and ``[i]`` giving an image or (image, label)
`Source`                       itself
=============================  ==================================================================

LABELS is ``0,1,2`` (these) or ``!3`` (all but these). A known NAME wins over a folder of the same
name: write ``./mnist`` for the folder. The pixel conventions are those of `historyad.data.images`.

What is in tar shards is decoded when it is asked for, and so is a folder whose decoded images are
more than ``IN_MEMORY_BYTES`` (2 GiB); other folders are held in memory. A ``.npy`` is
memory-mapped. `historyad.data.streams` has the details.
"""

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from historyad.data.any_size import noted
from historyad.data.arrays import load_npy, load_npz
from historyad.data.decoding import decode_image
from historyad.data.delimited import read_delimited
from historyad.data.delimited import read_parts as read_delimited_parts
from historyad.data.folders import find_images
from historyad.data.frames import is_frame, read_arrow_file, read_arrow_parts, read_frame
from historyad.data.image_sources import Wanted, find_folder, open_files, open_folder
from historyad.data.images import SUFFIXES, refuse_irregular
from historyad.data.in_memory import (
    collect,
    from_array,
    from_table,
    gathered,
    is_dataset,
    is_iterator,
    open_array,
    open_dataset,
)
from historyad.data.named_sets import SETS, find_files
from historyad.data.series import check_times
from historyad.data.shards import Shards, find_shards
from historyad.data.sounds import rate_of_all
from historyad.data.sources import Source
from historyad.data.streams import Names
from historyad.data.tables import Roles
from historyad.errors import InputError

_TEXTS, _ARROW = (".csv", ".tsv", ".txt"), (".parquet", ".feather")


def open_source(
    source: Any,
    *,
    data_root: str | Path | None = None,
    skip_unreadable: bool = False,
    mixed: int | None = None,
    channels: int | None = None,
    any_size: bool = False,
    id_column: str | None = None,
    time_column: str | None = None,
    group_column: str | None = None,
    texts: Collection[str] = (),
) -> Source:
    """Open any SOURCE of the table above, whole.

    ``data_root`` is where named sets are looked for first, then the environment variable
    HISTORYAD_DATA and the cache folder; an absent set is downloaded into the first of them. For
    image files and Datasets, ``mixed`` is the side in pixels of the grid on which each image is
    placed, for images that differ in size, and ``channels`` (1 or 3) makes all grey or colour. With
    ``any_size``, and no ``mixed``, images that come one by one are `Images`, of as many sizes as
    there are. Of tables, ``id_column`` says what the rows are called, and ``group_column`` which of
    them belong together; neither is among the values then. ``time_column`` is such an id, too, of
    which it is made sure that it rises without a gap. ``texts`` are columns whose values are texts,
    whatever they look like. Raises InputError for whatever cannot be
    used, among it unreadable images in a folder unless ``skip_unreadable``.
    """
    roles = Roles(_id_of(id_column, time_column), group_column, texts)
    wanted = Wanted(roles, skip_unreadable, mixed, channels, any_size and mixed is None)
    return _in_time(_open(source, data_root, wanted), time_column)


def open_stream(
    source: Any,
    *,
    data_root: str | Path | None = None,
    mixed: int | None = None,
    channels: int | None = None,
    id_column: str | None = None,
    time_column: str | None = None,
    texts: Collection[str] = (),
) -> Source:
    """Open any SOURCE for one pass of ``chunks``: no folder of images is held in memory.

    Arguments and errors are those of `open_source`; unreadable images are skipped and recorded.
    """
    roles = Roles(_id_of(id_column, time_column), texts=texts)
    wanted = Wanted(roles, True, mixed, channels, in_one_pass=True)
    return _in_time(_open(source, data_root, wanted), time_column)


def is_table_file(source: str) -> bool:
    """Whether a SOURCE is a file that holds a table."""
    return _is_table(source) and Path(source).is_file()


def open_table_parts(path: str, roles: Roles) -> Iterator[tuple[Source, float]]:
    """Yield the rows of a table in a file, some at a time, and the share of it read by then.

    Few are held at a time. Errors are those of `open_source`, as soon as their rows are read.
    """
    file, number = _parse_path(path)[0], 0
    read = read_delimited_parts if _kind_of(file) in _TEXTS else read_arrow_parts
    for table, done in read(file, roles):
        if not len(table.values) and number:
            continue
        source = from_table(table, path)
        if not table.names:
            names = Names(len(source), partial(_numbered, number))
            source = replace(source, names=names)
        number += len(source)
        yield source, done


def _numbered(start: int, row: int) -> str:
    return str(start + row)


def _id_of(id_column: str | None, time_column: str | None) -> str | None:
    """Return the column that says what the rows are called; InputError where two are to."""
    if id_column is not None and time_column is not None:
        raise InputError(
            "the rows of a series are called by their time: give --id or --time-column"
        )
    return id_column or time_column


def _in_time(source: Source, time_column: str | None) -> Source:
    if time_column is not None:
        check_times(source.names, source.description)
    return source


def _open(source: Any, data_root: str | Path | None, wanted: Wanted) -> Source:
    if wanted.roles and not _is_table(source):
        raise InputError(
            f"{_describe(source)} has no columns with names, of which one could name its rows: "
            "leave out --id, or give a table such as .csv"
        )
    if isinstance(source, Source):
        return source
    if isinstance(source, str | Path):
        named = _is_named(source)
        opened = (
            _open_named(str(source), data_root, wanted) if named else _open_path(source, wanted)
        )
        return replace(opened, channels=wanted.channels) if opened.kind == "image" else opened
    one_by_one = wanted.any_size or is_iterator(source)
    source = gathered(source) if is_iterator(source) else source
    if is_frame(source):
        return from_table(read_frame(source, wanted.roles), _describe(source))
    if is_dataset(source) or (one_by_one and isinstance(source, list | tuple)):
        return open_dataset(
            source,
            wanted.mixed,
            wanted.channels,
            any_size=wanted.any_size,
            skip_unreadable=wanted.skip_unreadable,
        )
    return open_array(source)


def _describe(source: Any) -> str:
    if isinstance(source, Source):
        return source.description
    if isinstance(source, str | Path):
        return str(source)
    shape = getattr(source, "shape", "")
    return f"{type(source).__name__} {shape}".strip()


def _is_table(source: Any) -> bool:
    """Whether a source has columns with names, of which one can name its rows."""
    if not isinstance(source, str | Path):
        return is_frame(source)
    return not _is_named(source) and _kind_of(_parse_path(source)[0]) in (*_TEXTS, *_ARROW)


def _kind_of(path: Path) -> str:
    """Return the suffix that says what a file holds: .csv of x.csv.gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = suffixes[1:] == [".gz"] and suffixes[0] in _TEXTS
    return suffixes[0] if packed else path.suffix.lower()


def _open_path(source: str | Path, wanted: Wanted) -> Source:
    description = str(source)
    path, key, labels = _parse_path(source)
    if paths := _find_shards(source):
        shards = Shards(paths, skip_unreadable=wanted.skip_unreadable)
        return open_files(shards, description, wanted)
    if path.is_dir():
        if wanted.in_one_pass:
            return open_files(find_folder(path), description, wanted)
        return open_folder(path, description, wanted)
    return _open_file(path, key, labels, description, wanted)


def _is_named(source: Any) -> bool:
    return isinstance(source, str) and source.partition(":")[0] in SETS


def _parse_path(source: str | Path) -> tuple[Path, str, str]:
    """Split ``file.npz:key:labels``; a colon elsewhere belongs to the path, as in ``C:``."""
    path = Path(source).expanduser()
    try:
        exists = path.exists()
    except OSError as error:  # a name too long for a path, a folder we may not enter
        raise InputError(f"{path}: {error.strerror}; check the path") from error
    head, found, tail = str(path).rpartition(".npz:")
    if exists or not found:
        return path, "", ""
    key, _, labels = tail.partition(":")
    return Path(head + ".npz"), key, labels


def _find_shards(source: str | Path) -> list[Path]:
    """Return the shards that ``source`` names; a folder that holds images is that."""
    shards = find_shards(source)
    return [] if shards and Path(source).is_dir() and find_images(Path(source)) else shards


# --- files


def _open_file(path: Path, key: str, labels: str, description: str, wanted: Wanted) -> Source:
    kind = _kind_of(path)
    if not path.exists():
        raise InputError(_missing(path, description))
    refuse_irregular(path)
    if kind in SUFFIXES:
        image = decode_image(path, side=wanted.mixed, channels=wanted.channels)
        if not wanted.any_size:
            rate = rate_of_all([path])
            return Source("image", image[None], [path.name], description, rate=rate)
        names, samples = collect([(path.name, image)], skip_unreadable=wanted.skip_unreadable)
        return Source("image", samples, names, description, unreadable=noted(samples, []))
    if kind == ".npy":
        return from_array(load_npy(path), description)
    if kind == ".npz":
        samples, its_labels = load_npz(path, key)
        return _select(from_array(samples, description, its_labels), labels)
    if kind in _TEXTS:
        return from_table(read_delimited(path, wanted.roles), description)
    if kind in _ARROW:
        return from_table(read_arrow_file(path, wanted.roles), description)
    raise InputError(
        f"{path} is of no known type; give a folder, .npy, .npz, a table ({' '.join(_TEXTS)}, also "
        f".gz, {' '.join(_ARROW)}) or an image ({' '.join(sorted(SUFFIXES))})"
    )


def _missing(path: Path, description: str) -> str:
    close = difflib.get_close_matches(description.partition(":")[0].lower(), SETS, n=1)
    hint = f"did you mean the set '{close[0]}'" if close else "is the path right"
    return f"{path} does not exist; {hint}? Named sets are {', '.join(SETS)}"


# --- labels


def _select(source: Source, labels: str) -> Source:
    """Keep the samples whose label is selected by ``0,1,2`` or ``!3``; all for an empty string."""
    if not labels:
        return source
    if source.labels is None:
        raise InputError(f"{source.description}: this source has no labels to select by")
    try:
        wanted = [int(label) for label in labels.removeprefix("!").split(",")]
    except ValueError:
        raise InputError(
            f"{source.description}: '{labels}' selects no labels; write 0,1,2 or !3"
        ) from None
    keep = np.isin(source.labels, wanted, invert=labels.startswith("!"))
    unknown = sorted(set(wanted) - set(source.labels.tolist()))
    if unknown or not keep.any():
        present = ", ".join(map(str, np.unique(source.labels)[:20]))
        raise InputError(
            f"{source.description}: '{labels}' leaves nothing or names an absent label; "
            f"the labels are {present}"
        )
    rows = np.flatnonzero(keep)
    return _take(source, rows.tolist())


def _take(source: Source, rows: Sequence[int]) -> Source:
    """Return some samples of a source that has labels."""
    assert source.labels is not None
    return replace(
        source,
        samples=source.samples[rows],
        names=[source.names[row] for row in rows],
        labels=source.labels[rows],
    )


# --- named sets


def shadowed(source: str) -> str:
    """Return a note where a named set is taken, and a file of that name is there; "" elsewhere."""
    name = source.partition(":")[0]
    if not (_is_named(source) and Path(name).exists()):
        return ""
    return f"'{name}' is the named set; for what is called so here, write ./{name}"


def _open_named(description: str, data_root: str | Path | None, wanted: Wanted) -> Source:
    name, _, rest = description.partition(":")
    split, _, labels = rest.partition(":")
    split = split or "train"
    known = sorted({split for layout in SETS[name] for split in layout.files})
    if split not in known:
        raise InputError(f"{name} has no split '{split}'; its splits are {', '.join(known)}")
    layout, paths = find_files(name, split, data_root)
    if layout.read is None:  # the sets of colour photos, in which a few are stored as grey
        wanted = replace(wanted, channels=wanted.channels or 3)
        return _select(open_folder(paths[0], description, wanted), labels)
    try:
        samples, its_labels = layout.read(split, paths)
    except InputError:
        raise
    except Exception as error:  # gzip, zip, numpy and scipy each have several for a damaged file
        raise InputError(
            f"{description}: {', '.join(map(str, paths))} cannot be read "
            f"({error or type(error).__name__}); remove it and fetch it again"
        ) from error
    return _select(from_array(samples, description, its_labels), labels)
