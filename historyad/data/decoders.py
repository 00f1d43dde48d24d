"""Processes that decode images and can be ended: what a file costs shows only when it is read.

Each has a limit on the memory and on the processor's time that an image may take, which it sets
itself and the system enforces, and who waits for it has another on the time that passes. It is
told in JSON what is wanted of which file, one at a time, and given the content of what has no path;
it answers in JSON and pixels. Its side is `historyad.data.decoder_process`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import historyad
from historyad.data.decoder_process import MOST_ANSWER, packed
from historyad.data.images import Check, Pixels
from historyad.errors import InputError

_START_SECONDS = 60.0
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Memory is kept for the next image: to get it anew takes longer than to decode a small one.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 26),
}

# Neither the environment nor the folder in which a command runs decide what is imported.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from historyad.data.decoder_process import main; main()"
)


class DecodersClosedError(Exception):
    """The decoders were closed while an image was decoded."""


class Decoders:
    """At most ``most`` processes, started when they are needed and kept for the next image."""

    def __init__(self, most: int) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._is_open = True

    def decode(
        self, content: bytes | Path, wanted: dict[str, Any], check: Check | None, seconds: float
    ) -> Pixels:
        """Return the pixels of an image, as `read_image` does with the arguments ``wanted``.

        ``seconds`` may pass in all; wanted["cpu_seconds"] is what it may compute. Raises InputError
        for what is no image or takes more than it may, and DecodersClosedError.
        """
        with self._room, self._process() as process:
            return process.decode(content, wanted, check, time.monotonic() + seconds)

    def close(self) -> None:
        """End all processes, also those that are at work."""
        with self._lock:
            self._is_open = False
            for process in self._busy:
                process.kill()
            while self._idle:
                self._idle.pop().close()

    @contextlib.contextmanager
    def _process(self) -> Iterator[_Process]:
        """Yield a process that nobody else uses; one that did not finish is ended."""
        process = self._take()
        try:
            yield process
        finally:
            with self._lock:
                self._busy.discard(process)
                if self._is_open and process.is_idle:
                    self._idle.append(process)
                else:
                    process.close()

    def _take(self) -> _Process:
        with self._lock:
            if not self._is_open:
                raise DecodersClosedError
            process = self._idle.pop() if self._idle else _Process()
            self._busy.add(process)
            return process


class _Process:
    """One process, and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        path = [entry for entry in sys.path if entry]
        path.append(str(Path(historyad.__file__).parents[1]))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, json.dumps(path)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # where libraries complain of a file as they like
                env={**os.environ, **_ENVIRONMENT},
                process_group=0,  # Ctrl-C is for us: what we accepted is still decoded
            )
        self._is_started = False
        self._is_killed = False
        self.is_idle = True

    def kill(self) -> None:
        """End it, whatever it does; who waits for it gets an error."""
        self._is_killed = True
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, once nobody waits for it."""
        self.kill()
        self._socket.close()

    def decode(
        self, content: bytes | Path, wanted: dict[str, Any], check: Check | None, end: float
    ) -> Pixels:
        """Return the pixels, or raise InputError; `is_idle` says whether it can be asked again."""
        self.is_idle = False
        if not self._is_started:  # which does not count as time of the image
            started = time.monotonic()
            self._start()
            end += time.monotonic() - started
        try:
            self._ask(content, wanted, end)
            found = self._answer(max(wanted["max_pixels"], (wanted["side"] or 0) ** 2), check, end)
        except TimeoutError:
            raise InputError(
                f"{wanted['name']} was not decoded in the time for it: {_REMEDY}"
            ) from None
        except OSError:  # it has ended, or was
            raise self._why_ended(wanted) from None
        self.is_idle = True
        if isinstance(found, InputError):
            raise found
        return found

    def _start(self) -> None:
        try:
            self._receive_json(time.monotonic() + _START_SECONDS)
        except OSError as error:
            if self._is_killed:
                raise DecodersClosedError from None
            raise RuntimeError(f"no process to decode images started ({error})") from error
        self._is_started = True

    def _ask(self, content: bytes | Path, wanted: dict[str, Any], end: float) -> None:
        if isinstance(content, Path):
            self._send(packed({**wanted, "path": str(content.absolute())}), end)
        else:
            self._send(packed({**wanted, "bytes": len(content)}), end)
            self._send(content, end)

    def _answer(self, max_pixels: int, check: Check | None, end: float) -> Pixels | InputError:
        refusal: InputError | None = None
        while True:
            answer = self._receive_json(end)
            if "error" in answer:
                return refusal or InputError(str(answer["error"]))
            shape = _shape_of(answer["shape"], max_pixels)
            if answer["is_ready"]:
                pixels = np.empty(shape, np.uint8)
                self._receive_into(pixels.data.cast("B"), end)
                return pixels
            refusal = _objection(check, shape)
            self._send(b"\0" if refusal else b"\1", end)

    def _why_ended(self, wanted: dict[str, Any]) -> Exception:
        if self._is_killed:
            return DecodersClosedError()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        if self._process.returncode == -signal.SIGXCPU:
            reason = f"takes more than {wanted['cpu_seconds']} s of the processor to decode"
        else:
            reason = f"cannot be decoded (it ended the decoder, {self._process.returncode})"
        return InputError(f"{wanted['name']} {reason}: {_REMEDY}")

    def _send(self, data: bytes, end: float) -> None:
        self._socket.settimeout(_until(end))
        self._socket.sendall(data)

    def _receive_json(self, end: float) -> dict[str, Any]:
        size = struct.unpack("<I", self._receive(4, end))[0]
        if size > MOST_ANSWER:
            raise ConnectionError("an answer that is too long")
        content: dict[str, Any] = json.loads(self._receive(size, end))
        return content

    def _receive(self, n: int, end: float) -> bytes:
        data = bytearray(n)
        self._receive_into(memoryview(data), end)
        return bytes(data)

    def _receive_into(self, rest: memoryview, end: float) -> None:
        while rest:
            self._socket.settimeout(_until(end))
            n = self._socket.recv_into(rest)
            if n == 0:
                raise ConnectionError("it has ended")
            rest = rest[n:]


_REMEDY = "save it again as a plain PNG or JPEG, or take it out"


def _until(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shape_of(value: Any, most: int) -> tuple[int, int, int]:
    """Return a shape that memory may be reserved for: a hostile file may have taken over."""
    height, width, channels = map(int, value)
    if min(height, width) < 1 or height * width > most or channels not in (1, 3):
        raise ConnectionError(f"an image of shape {value}")
    return height, width, channels


def _objection(check: Check | None, shape: tuple[int, ...]) -> InputError | None:
    try:
        if check is not None:
            check(shape)
    except InputError as error:
        return error
    return None
