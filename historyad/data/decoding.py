"""Image files are decoded within bounds of time and memory, for whoever needs their pixels.

What they become is said in `historyad.data.images`. A plain file (`historyad.data.plain`) is
decoded here, any other in a process that is ended when it takes too long
(`historyad.data.decoders`), which takes a fraction of a millisecond more.
"""

from __future__ import annotations

import atexit
import io
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from historyad.data.ahead import N_THREADS
from historyad.data.decoders import Decoders
from historyad.data.images import Check, Pixels, read_image, unreadable
from historyad.data.plain import MOST_BYTES, is_plain
from historyad.errors import InputError
from historyad.regular import open_regular

# An image of 50 million pixels takes two or three seconds of the processor in any format.
CPU_SECONDS = 20
_SECONDS = 120.0  # in all, where others keep the processor busy


def decode_image(
    data: Path | bytes,
    *,
    name: str | None = None,
    max_pixels: int = 50_000_000,
    side: int | None = None,
    channels: int | None = None,
    check: Check | None = None,
    cpu_seconds: int = CPU_SECONDS,
    seconds: float = _SECONDS,
    decoders: Decoders | None = None,
) -> Pixels:
    """Pixels of one image file: uint8 (H, W, C), C = 1 (grey) or 3 (colour).

    ``data`` is a path or the file's content; ``name`` is what errors call it. It is made to
    `conform` to ``side`` and ``channels``, where these are given. ``check`` raises InputError for a
    shape that is of no use, before anything is decoded. Raises InputError, and nothing else, for
    whatever is not an image of at most ``max_pixels`` pixels that is decoded in ``cpu_seconds`` of
    the processor and within ``seconds`` in all, by ``decoders`` where they are given.
    """
    name = name or (str(data) if isinstance(data, Path) else "image")
    wanted: dict[str, Any] = {"max_pixels": max_pixels, "side": side, "channels": channels}
    content = _small_content(data, name) if isinstance(data, Path) else data
    if content is not None and is_plain(content):
        return read_image(io.BytesIO(content), name, check=check, **wanted)
    wanted |= {"name": name, "has_check": check is not None, "cpu_seconds": cpu_seconds}
    decoders = decoders or _shared()
    pixels = decoders.decode(data, wanted, check, seconds)
    if check is not None:
        check(pixels.shape)  # whatever the process took care of
    return pixels


def image_shape(data: Path | bytes, **options: Any) -> tuple[int, ...] | None:
    """Return the shape (H, W, C) that `decode_image` would give, undecoded; None: no image."""
    found: list[tuple[int, ...]] = []

    def look(shape: tuple[int, ...]) -> None:
        found.append(shape)
        raise InputError("seen")

    with suppress(InputError):
        decode_image(data, check=look, **options)
    return found[0] if found else None


def _small_content(path: Path, name: str) -> bytes | None:
    """Return the content of a file that may be plain; None where it is too large."""
    try:
        with open_regular(path) as file:
            # To reserve the most takes longer than to decode a small image.
            content = file.read(min(os.fstat(file.fileno()).st_size, MOST_BYTES) + 1)
    except OSError as error:
        raise unreadable(name, error) from error
    return content if len(content) <= MOST_BYTES else None


# --- the processes of whoever has none of its own

_lock = threading.Lock()
_decoders: Decoders | None = None


def _shared() -> Decoders:
    global _decoders  # noqa: PLW0603
    with _lock:
        if _decoders is None:
            _decoders = Decoders(N_THREADS)
            atexit.register(_decoders.close)
        return _decoders


def _forget() -> None:
    """Leave those of the parent to it: two that talk to one process would mix their images."""
    global _decoders, _lock
    _decoders, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
