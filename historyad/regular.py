"""Files on the disk: read only where they are regular ones, written whole or not at all.

A pipe or a device may have no end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

_MORE = 1 << 20


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, also behind links; OSError for a pipe, a device, a folder."""
    _refuse_others(path.stat().st_mode)  # before it is opened, which may do something to a device
    # Without O_NONBLOCK, a pipe that came since then would wait for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _refuse_others(os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a regular file; OSError when it has more than ``limit`` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        _refuse_large(size, limit)
        content = file.read(size + 1)
        if len(content) > size:  # it has more than it says, or is growing
            content += file.read(_MORE)
            limit = min(limit, size + _MORE)
    _refuse_large(len(content), limit)
    return content


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """Yield a name to write to; what is there afterwards is flushed, and called ``path``.

    A reader, or a crash, finds the old file or the new one, and of two that write the same, the
    last one's. An error leaves nothing, an interruption a file that ends in .tmp.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except Exception:
        with suppress(OSError):
            temporary.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_large(n: int, limit: int) -> None:
    if n > limit:
        raise OSError(errno.EFBIG, f"it has {n:,} bytes, more than the {limit:,} that are read")


def _refuse_others(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file, but a device, a pipe or a socket")
