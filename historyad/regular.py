"""Files that are read only where they are regular ones: a pipe or a device may have no end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


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
        # One byte more than it says that it has, or as many as are allowed: it may be growing.
        content = file.read(min(max(size, 0), limit) + 1)
        if len(content) == size + 1 <= limit:
            content += file.read(limit + 1 - len(content))
    if max(size, len(content)) > limit:
        raise OSError(errno.EFBIG, f"it has {max(size, len(content)):,} bytes, more than {limit:,}")
    return content


def _refuse_others(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file, but a device, a pipe or a socket")
