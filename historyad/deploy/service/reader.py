"""From the bytes of a request to pixels, by threads and processes of the service."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from historyad.data.decoders import Decoders, DecodersClosedError
from historyad.data.decoding import decode_image, image_shape
from historyad.data.images import Pixels
from historyad.data.plain import is_plain
from historyad.data.sounds import check_rate, heard_rate
from historyad.deploy.service.batcher import QueueFullError
from historyad.deploy.service.bodies import Files
from historyad.deploy.service.lanes import Lane
from historyad.deploy.service.limits import Limits
from historyad.errors import InputError
from historyad.kinds.kind import Kind

_T = TypeVar("_T")

_PORTION = 16  # files decoded by a thread at a time: handing over one costs as much as decoding it


class Reader:
    """Decodes files as a source would hold them, in the shape that the model takes.

    Those that are not plain are decoded in processes that can be ended, and wait for these apart
    from the others: what is made to take long delays only its like. No image has more than
    ``most_pixels``, and all become grey or colour by ``channels``, where these are given, and
    recordings have the ``rate`` of those that the model was fitted on. What
    needs an answer within a time says until when, as time.monotonic() counts.
    """

    def __init__(
        self,
        kind: Kind,
        limits: Limits,
        most_pixels: int | None,
        *,
        channels: int | None = None,
        rate: int | None = None,
    ) -> None:
        self._rate = rate
        self._how: dict[str, Any] = {"side": kind.grid, "channels": channels, "check": kind.check}
        self._cpu_seconds = limits.decode_seconds
        self._max_pixels = min(limits.max_pixels, most_pixels or limits.max_pixels)
        self._plain = Lane(limits.decode_threads, "decoder")
        self._others = Lane(limits.decode_threads, "waiter")
        self._decoders = Decoders(limits.decode_threads)

    @property
    def waited(self) -> float:
        """Seconds that the next in turn has waited to be decoded."""
        return max(self._plain.waited, self._others.waited)

    def close(self) -> None:
        """End the threads and the processes."""
        self._plain.close()
        self._others.close()
        self._decoders.close()

    def run(self, function: Callable[[], _T]) -> Awaitable[_T]:
        """Return what ``function`` returns, called in a thread that decodes."""
        return self._plain.run(function)

    async def decode(self, files: Files, end: float) -> list[Pixels | InputError]:
        """Return the pixels of each file, or the error that says why there are none."""
        return await self._each(files, partial(self._decode, end=end))

    async def count_pixels(self, files: Files, end: float) -> list[int]:
        """Return how many pixels each file has; 0 of what is no image, as decoding will say."""
        return await self._each(files, partial(self._count_pixels, end=end))

    async def _each(self, files: Files, function: Callable[[str, bytes], _T]) -> list[_T]:
        """Return what ``function`` makes of the name and the content of each file.

        Plain ones in portions; each of the others alone, so that it can be left out when nobody
        waits for it any more.
        """

        def of_plain(portion: Files) -> list[_T | None]:
            return [function(*file) if is_plain(file[1]) else None for file in portion]

        portions = [files[i : i + _PORTION] for i in range(0, len(files), _PORTION)]
        jobs = (self._plain.run(partial(of_plain, portion)) for portion in portions)
        found = list(itertools.chain(*await asyncio.gather(*jobs)))
        waiting = (
            self._others.run(partial(function, *file))
            for file, result in zip(files, found, strict=True)
            if result is None
        )
        others = iter(await asyncio.gather(*waiting))
        return [next(others) if result is None else result for result in found]

    def _decode(self, name: str, data: bytes, *, end: float) -> Pixels | InputError:
        try:
            check_rate(heard_rate(data), self._rate, name)
            return decode_image(data, **self._how, **self._bounds(name, end))
        except InputError as error:
            return InputError(str(error))  # without its traceback, which would keep the file
        except DecodersClosedError:
            raise QueueFullError from None

    def _count_pixels(self, name: str, data: bytes, *, end: float) -> int:
        try:
            return math.prod((image_shape(data, **self._bounds(name, end)) or (0,))[:2])
        except DecodersClosedError:
            raise QueueFullError from None

    def _bounds(self, name: str, end: float) -> dict[str, Any]:
        """Return the options of `decode_image` for a file that nobody waits for after ``end``."""
        return {
            "name": name,
            "max_pixels": self._max_pixels,
            "cpu_seconds": self._cpu_seconds,
            "seconds": max(0.0, end - time.monotonic()),
            "decoders": self._decoders,
        }
