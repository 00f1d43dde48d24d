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
``x.csv``                      table of numbers, comma separated, with or without a header line
``NAME[:SPLIT[:LABELS]]``      a named set, see ``SETS``; the split is ``train`` unless given
array, nested lists, tensor    as ``x.npy``
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
from pathlib import Path
from typing import Any, cast

import numpy as np

from historyad.data import streams
from historyad.data.decoding import decode_image
from historyad.data.images import SUFFIXES, find_images
from historyad.data.in_memory import from_array, is_dataset, open_array, open_dataset
from historyad.data.named_sets import SETS, find_files
from historyad.data.shards import Shards, find_shards
from historyad.data.sources import Folder, Source, alike, gather
from historyad.data.streams import Files, FolderFiles, ImageStream
from historyad.data.tables import Samples, load_csv, load_npy, load_npz
from historyad.errors import InputError


def open_source(
    source: Any,
    *,
    data_root: str | Path | None = None,
    skip_unreadable: bool = False,
    mixed: int | None = None,
    channels: int | None = None,
) -> Source:
    """Open any SOURCE of the table above, whole.

    ``data_root`` is where named sets are looked for first, then the environment variable
    HISTORYAD_DATA and the cache folder; an absent set is downloaded into the first of them. For
    image files and Datasets, ``mixed`` is the side in pixels of the grid on which each image is
    placed, for images that differ in size, and ``channels`` (1 or 3) makes all grey or colour.
    Raises InputError for whatever cannot be used, among it unreadable images in a folder unless
    ``skip_unreadable``.
    """
    if isinstance(source, Source):
        return source
    if _is_named(source):
        return _open_named(source, data_root, skip_unreadable, mixed, channels)
    if isinstance(source, str | Path):
        return _open_path(source, skip_unreadable, mixed, channels)
    if is_dataset(source):
        return open_dataset(source, mixed, channels)
    return open_array(source)


def open_stream(
    source: Any,
    *,
    data_root: str | Path | None = None,
    mixed: int | None = None,
    channels: int | None = None,
) -> Source | Folder:
    """Open any SOURCE for one pass of ``chunks``: a folder as a `Folder`, all else as a `Source`.

    Arguments and errors are those of `open_source`; unreadable images are skipped and recorded.
    """
    if isinstance(source, str | Path) and not _is_named(source):
        path, _, _ = _parse_path(source)
        if path.is_dir() and not _find_shards(source):
            return _folder(path, str(source), mixed, channels)
    return open_source(
        source, data_root=data_root, skip_unreadable=True, mixed=mixed, channels=channels
    )


def _open_path(
    source: str | Path, skip_unreadable: bool, mixed: int | None, channels: int | None
) -> Source:
    description = str(source)
    path, key, labels = _parse_path(source)
    if paths := _find_shards(source):
        shards = Shards(paths, skip_unreadable=skip_unreadable)
        opened = _open_stream(shards, description, skip_unreadable, mixed, channels)
        opened.unreadable[:0] = shards.unreadable
        return opened
    if path.is_dir():
        return _open_folder(_folder(path, description, mixed, channels), skip_unreadable)
    return _open_file(path, key, labels, description, mixed, channels)


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


# --- folders and image files


def _folder(path: Path, description: str, mixed: int | None, channels: int | None) -> Folder:
    paths = find_images(path)
    if not paths:
        raise InputError(
            f"no images in {path}; give a folder that holds some of {' '.join(sorted(SUFFIXES))}"
        )
    return Folder(path, paths, description, mixed, channels)


def _find_shards(source: str | Path) -> list[Path]:
    """Return the shards that ``source`` names; a folder that holds images is that."""
    shards = find_shards(source)
    return [] if shards and Path(source).is_dir() and find_images(Path(source)) else shards


def _open_stream(
    files: Files,
    description: str,
    skip_unreadable: bool,
    mixed: int | None,
    channels: int | None,
) -> Source:
    stream = ImageStream(files, side=mixed, channels=channels, skip_unreadable=skip_unreadable)
    samples = cast(Samples, stream)  # of an array, it has what is used of samples
    return Source("image", samples, stream.names, description, unreadable=stream.unreadable)


def _is_large(folder: Folder) -> bool:
    """Whether the images of a folder, judged by the first that is readable, need a stream."""
    found = next((image for _, image in folder.decoded(look_ahead=1)), None)
    return found is not None and len(folder) * found.nbytes > streams.IN_MEMORY_BYTES


def _open_folder(folder: Folder, skip_unreadable: bool) -> Source:
    if _is_large(folder):
        files = FolderFiles(folder.path, folder.paths)
        return _open_stream(
            files, folder.description, skip_unreadable, folder.mixed, folder.channels
        )
    names, samples = gather(alike(folder.decoded(look_ahead=64)), len(folder))
    unreadable = folder.unreadable
    if unreadable and not (skip_unreadable and names):
        listed = "; ".join(reason for _, reason in unreadable[:5])
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise InputError(
            f"{len(unreadable)} of {len(folder)} images in {folder.path} cannot be read: "
            f"{listed}{more}. Mend or remove them, or leave them out with --skip-unreadable"
        )
    return Source("image", samples, names, folder.description, unreadable=unreadable)


# --- files


def _open_file(
    path: Path,
    key: str,
    labels: str,
    description: str,
    mixed: int | None,
    channels: int | None,
) -> Source:
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(_missing(path, description))
    if suffix in SUFFIXES:
        image = decode_image(path, side=mixed, channels=channels)
        return Source("image", image[None], [path.name], description)
    if suffix == ".npy":
        return from_array(load_npy(path), description)
    if suffix == ".npz":
        samples, its_labels = load_npz(path, key)
        return _select(from_array(samples, description, its_labels), labels)
    if suffix == ".csv":
        return from_array(load_csv(path), description)
    raise InputError(
        f"{path} is of no known type; give a folder, .npy, .npz, .csv or an image "
        f"({' '.join(sorted(SUFFIXES))})"
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
    return Source(
        source.kind,
        source.samples[rows],
        [source.names[i] for i in rows.tolist()],
        source.description,
        source.labels[rows],
        source.unreadable,
        source.imprecise,
    )


# --- named sets


def _open_named(
    description: str,
    data_root: str | Path | None,
    skip_unreadable: bool,
    mixed: int | None,
    channels: int | None,
) -> Source:
    name, _, rest = description.partition(":")
    split, _, labels = rest.partition(":")
    split = split or "train"
    known = sorted({split for layout in SETS[name] for split in layout.files})
    if split not in known:
        raise InputError(f"{name} has no split '{split}'; its splits are {', '.join(known)}")
    layout, paths = find_files(name, split, data_root)
    if layout.read is None:  # the sets of colour photos, in which a few are stored as grey
        folder = _folder(paths[0], description, mixed, channels or 3)
        return _select(_open_folder(folder, skip_unreadable), labels)
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
