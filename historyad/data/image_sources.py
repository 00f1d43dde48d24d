"""Images in files: a folder of them or tar shards, in memory or, where they are many, on the disk.

They are of one size or, if that is wanted, of any.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from historyad.data import streams
from historyad.data.any_size import Images, noted, sizes_of
from historyad.data.arrays import Samples
from historyad.data.folders import describe, look_into
from historyad.data.images import SUFFIXES
from historyad.data.in_memory import collect
from historyad.data.sounds import rate_of_all
from historyad.data.sources import Source, alike, gather
from historyad.data.streams import Files, FolderFiles, ImageStream
from historyad.data.tables import Roles
from historyad.errors import InputError
from historyad.progress import each


@dataclass(frozen=True)
class Wanted:
    """What is asked of a source: the options of `open_source` and `open_stream`."""

    roles: Roles
    skip_unreadable: bool = False
    mixed: int | None = None
    channels: int | None = None
    any_size: bool = False
    in_one_pass: bool = False  # so that nothing is worth being held


def find_folder(path: Path) -> FolderFiles:
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
    return FolderFiles(path, found)


def open_files(
    files: Files, description: str, wanted: Wanted, sizes: NDArray[Any] | None = None
) -> Source:
    """Return the source of images that stay on the disk; ``sizes``, where they are known."""
    how: dict[str, Any] = {"channels": wanted.channels, "skip_unreadable": wanted.skip_unreadable}
    stream = (
        Images(files, sizes=sizes, **how)
        if wanted.any_size
        else ImageStream(files, side=wanted.mixed, **how)
    )
    stream.unreadable += files.closed
    samples = cast(Samples, stream)  # of an array, it has what is used of samples
    return Source(
        "image",
        samples,
        stream.names,
        description,
        unreadable=stream.unreadable,
        left_out=files.left_out,
        rate=rate_of_all(files.paths) if isinstance(files, FolderFiles) else None,
    )


def open_folder(path: Path, description: str, wanted: Wanted) -> Source:
    """Return the source of a folder: in memory, or on the disk where its images are many.

    Raises InputError for what cannot be read in it, unless that is to be skipped.
    """
    files = find_folder(path)
    if files.closed and not wanted.skip_unreadable:
        raise InputError(
            f"{path}: {_listed(files.closed)}. Change who may enter, or leave them out "
            "with --skip-unreadable"
        )
    sizes = sizes_of(files) if wanted.any_size else None
    # All that is unreadable is set aside first, to be named together.
    tolerant = open_files(files, description, replace(wanted, skip_unreadable=True), sizes)
    if _bytes_of(tolerant, sizes) > streams.IN_MEMORY_BYTES:
        return open_files(files, description, wanted, sizes)
    return _in_memory(tolerant, path, wanted)


def _bytes_of(source: Source, sizes: NDArray[np.intp] | None) -> int:
    """Return the bytes of all images, judged by ``sizes`` or by the first that is readable."""
    _, first = next(stream_of(source).decoded(1), ("", np.empty(0, np.uint8)))
    if sizes is None:
        return int(len(source) * first.nbytes)
    return int(sizes.prod(1).sum() * first.shape[-1])


def _in_memory(source: Source, path: Path, wanted: Wanted) -> Source:
    decoded = each(stream_of(source).decoded(64), len(source))
    names, samples = (
        collect(decoded, skip_unreadable=wanted.skip_unreadable)
        if wanted.any_size
        else gather(alike(decoded), len(source))
    )
    unreadable = source.unreadable
    if unreadable and not (wanted.skip_unreadable and names):
        raise InputError(
            f"{len(unreadable)} of {len(source)} images in {path} cannot be read: "
            f"{_listed(unreadable)}. Mend or remove them, or leave them out with --skip-unreadable"
        )
    return replace(source, samples=samples, names=names, unreadable=noted(samples, unreadable))


def stream_of(source: Source) -> ImageStream:
    """Return the samples of images that stay on the disk."""
    assert isinstance(source.samples, ImageStream)
    return source.samples


def _listed(found: Sequence[tuple[str, str]]) -> str:
    """Return what some (name, reason) say, the first of them."""
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return "; ".join(_with_name(*one) for one in found[:5]) + more


def _with_name(name: str, reason: str) -> str:
    return reason if name in reason else f"{name}: {reason}"
