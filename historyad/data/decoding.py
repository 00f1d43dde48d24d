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
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from historyad.data.decoders import Decoders
from historyad.data.images import Check, Pixels, read_image, unreadable
from historyad.data.plain import MOST_BYTES, is_plain
from historyad.errors import InputError
from historyad.regular import open_regular

# An image of 50 million pixels takes two or three seconds of the processor in any format.
CPU_SECONDS = 20
_SECONDS = 120.0  # in all, where others keep the processor busy
_N_PROCESSES = min(4, os.cpu_count() or 1)
_AHEAD_BYTES = 1 << 28  # of images that are decoded before they are asked for


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


def decode_many(
    paths: Sequence[Path],
    *,
    side: int | None = None,
    channels: int | None = None,
    check: Check | None = None,
    look_ahead: int = 64,
) -> Iterator[Pixels | InputError]:
    """Decode ``paths`` in order, in a few threads, at most ``look_ahead`` ahead of the consumer.

    Yields pixels as `decode_image` does, or the InputError that says why there are none. It looks
    less far ahead where the images are large.
    """

    room = _Room(_AHEAD_BYTES)

    def decode(number: int, path: Path) -> Pixels | InputError:
        room.wait_for(number)
        try:
            image = decode_image(path, side=side, channels=channels, check=check)
        except InputError as error:
            return InputError(str(error))  # without its traceback, which would keep the file
        room.take(image.nbytes)
        return image

    def next_one() -> Pixels | InputError:
        image = pending.popleft().result()
        room.give_back(0 if isinstance(image, InputError) else image.nbytes)
        return image

    pool = ThreadPoolExecutor(_N_PROCESSES, thread_name_prefix="decode")
    pending: deque[Future[Pixels | InputError]] = deque()
    try:
        for number, path in enumerate(paths):
            pending.append(pool.submit(decode, number, path))
            if len(pending) > look_ahead:
                yield next_one()
        while pending:
            yield next_one()
    finally:  # also where the consumer stops early
        room.close()
        pool.shutdown(cancel_futures=True)


class _Room:
    """Room for so many bytes of images that were decoded and not yet asked for.

    The next that will be asked for is always decoded, so that nobody waits for ever.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._next = 0
        self._is_open = True
        self._changed = threading.Condition()

    def wait_for(self, number: int) -> None:
        """Return when there is room for one more, or it is the turn of image ``number``."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._held < self._most or number <= self._next or not self._is_open
            )

    def take(self, n_bytes: int) -> None:
        with self._changed:
            self._held += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Note that an image was taken, and its bytes with it."""
        with self._changed:
            self._held -= n_bytes
            self._next += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_open = False
            self._changed.notify_all()


def _small_content(path: Path, name: str) -> bytes | None:
    """Return the content of a file that may be plain; None where it is too large."""
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES + 1)
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
            _decoders = Decoders(_N_PROCESSES)
            atexit.register(_decoders.close)
        return _decoders


def _forget() -> None:
    """Leave those of the parent to it: two that talk to one process would mix their images."""
    global _decoders, _lock
    _decoders, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
