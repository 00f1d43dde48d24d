"""Images in files: a folder of them or tar shards, in memory or, where they are many, on the disk.

They are of one size or, if that is wanted, of any.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray

from historyad.data import streams
from historyad.data.any_size import Images, noted, sizes_of
from historyad.data.arrays import Samples
from historyad.data.folders import describe, look_into
from historyad.data.images import SUFFIXES
from historyad.data.in_memory import collect
from historyad.data.sources import Folder, Source, alike, gather
from historyad.data.streams import Files, FolderFiles, ImageStream
from historyad.data.tables import Roles
from historyad.errors import InputError


@dataclass(frozen=True)
class Wanted:
    """What is asked of a source: the options of `open_source`."""

    roles: Roles
    skip_unreadable: bool = False
    mixed: int | None = None
    channels: int | None = None
    any_size: bool = False


def find_folder(path: Path, description: str, mixed: int | None, channels: int | None) -> Folder:
    """Return the images of a folder, none of them read yet; InputError where there are none."""
    found = look_into(path)
    if [name for name, _ in found.closed] == ["."]:
        raise InputError(f"{path}: {found.closed[0][1]}: change who may enter")
    if not found.images:
        others = "; ".join(filter(None, [describe(found.left_out), _listed(found.closed)]))
        raise InputError(
            f"no images in {path}; give a folder that holds some of {' '.join(sorted(SUFFIXES))}"
            + (f". There are: {others}" if others else "")
        )
    return Folder(
        path,
        found.images,
        description,
        mixed,
        channels,
        left_out=found.left_out,
        closed=found.closed,
    )


def open_files(
    files: Files, description: str, wanted: Wanted, sizes: NDArray[Any] | None = None
) -> Source:
    """Return the source of images that stay on the disk; ``sizes``, where they are known."""
    how: dict[str, Any] = {
        "channels": wanted.channels,
        "skip_unreadable": wanted.skip_unreadable,
    }
    stream = (
        Images(files, sizes=sizes, **how)
        if wanted.any_size
        else ImageStream(files, side=wanted.mixed, **how)
    )
    samples = cast(Samples, stream)  # of an array, it has what is used of samples
    return Source("image", samples, stream.names, description, unreadable=stream.unreadable)


def open_folder(folder: Folder, wanted: Wanted) -> Source:
    """Return the source of a folder: in memory, or on the disk where its images are many.

    Raises InputError for what cannot be read in it, unless that is to be skipped.
    """
    if folder.closed and not wanted.skip_unreadable:
        raise InputError(
            f"{folder.path}: {_listed(folder.closed)}. Change who may enter, or leave them out "
            "with --skip-unreadable"
        )
    files = FolderFiles(folder.path, folder.paths)
    sizes = sizes_of(files) if wanted.any_size else None
    n_bytes = (
        _bytes_of_first(folder)
        if sizes is None
        else int(sizes.prod(1).sum()) * (wanted.channels or 3)
    )
    if n_bytes > streams.IN_MEMORY_BYTES:
        opened = open_files(files, folder.description, wanted, sizes)
        opened.unreadable[:0] = folder.closed
        return replace(opened, left_out=folder.left_out)
    return _in_memory(folder, wanted)


def _bytes_of_first(folder: Folder) -> int:
    """Return the bytes of all images of one size, judged by the first that is readable."""
    found = next((image for _, image in folder.decoded(look_ahead=1)), None)
    return 0 if found is None else len(folder) * found.nbytes


def _in_memory(folder: Folder, wanted: Wanted) -> Source:
    decoded = folder.decoded(look_ahead=64)
    names, samples = (
        collect(decoded, skip_unreadable=wanted.skip_unreadable)
        if wanted.any_size
        else gather(alike(decoded), len(folder))
    )
    unreadable = folder.unreadable
    if unreadable and not (wanted.skip_unreadable and names):
        raise InputError(
            f"{len(unreadable)} of {len(folder)} images in {folder.path} cannot be read: "
            f"{_listed(unreadable)}. Mend or remove them, or leave them out with --skip-unreadable"
        )
    return Source(
        "image",
        samples,
        names,
        folder.description,
        unreadable=noted(samples, unreadable),
        left_out=folder.left_out,
    )


def _listed(found: Sequence[tuple[str, str]]) -> str:
    """Return what some (name, reason) say, the first of them."""
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return "; ".join(_with_name(*one) for one in found[:5]) + more


def _with_name(name: str, reason: str) -> str:
    return reason if name in reason else f"{name}: {reason}"
