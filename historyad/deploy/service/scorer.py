"""From the bytes of a request to a verdict on each sample, as ``historyad score`` gives it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import math
import time
from collections import defaultdict
from typing import Any

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image

from historyad.data.images import Pixels
from historyad.deploy.service.batcher import Batcher
from historyad.deploy.service.bodies import Files
from historyad.deploy.service.budget import Budget
from historyad.deploy.service.limits import Limits
from historyad.deploy.service.reader import Reader
from historyad.errors import InputError
from historyad.model.examples import Examples
from historyad.model.model import Model
from historyad.score.calibration import Calibration
from historyad.score.result import Scored, rows_of

Result = dict[str, Any]

_COPIES = 2  # of decoded images: alone, and with those of their shape
_MAP_BYTES = 4  # that a pixel of a map takes in the answer, at most
_SECONDS_TO_CLOSE = 0.5


class Scorer:
    """Decodes images with a `Reader` and scores in one thread; `close` ends both."""

    def __init__(self, model: Model, limits: Limits, examples: Examples | None = None) -> None:
        self.model = model
        self._examples = examples
        self._limits = limits
        self.max_work_pixels: int | None = None  # at any size, an image takes the same work
        if model.kind.work_pixels is not None:
            self.max_work_pixels = max(limits.max_work_pixels, model.kind.work_pixels)
        # Held from before samples are decoded until they are scored, so that none waits for more
        # than so many others, whatever part of the way is slow.
        self._samples = Budget(limits.max_samples)
        self._pixels = Budget(self.max_work_pixels or math.inf)
        self._reader = Reader(
            model.kind, limits, self.max_work_pixels, channels=model.channels, rate=model.rate
        )
        self._decoded = Budget(limits.max_decoded_bytes)
        self._maps = Budget(limits.max_decoded_bytes)
        self.batcher = Batcher(
            model.anomaly_score,
            batch_size=limits.batch_size,
            queue_size=limits.max_samples,
            taken_on=lambda: self._samples.held,
        )

    async def warm_up(self) -> None:
        """Score a made-up sample, since the first call of a network is slower than the others."""
        sample = self.model.kind.example(1, np.random.default_rng(0))
        await asyncio.wrap_future(self.batcher.submit(sample))

    def close(self) -> None:
        """End the threads and the processes: nobody waits for an answer any more."""
        self._reader.close()
        self.batcher.close(_SECONDS_TO_CLOSE)

    @property
    def is_ready(self) -> bool:
        """Whether what is sent now will be scored within the deadline, by all that is known."""
        most = self._limits.deadline
        # What waits to be decoded is given up at its deadline, and so never has waited for longer.
        in_time = self.batcher.busy_for <= most and self._reader.waited <= most / 2
        return self.batcher.is_running and in_time

    def calibration(self, false_positive_rate: float | None) -> Calibration:
        """Return the model's calibration, or one at another rate; InputError when it is too low."""
        calibration = self.model.calibration
        if false_positive_rate is None:
            return calibration
        found = calibration.confidence, calibration.reach
        return Calibration.fit(calibration.scores, false_positive_rate, *found)

    def check_room(self) -> None:
        """Raise QueueFullError unless one more sample can be taken on now."""
        self._samples.check(1)

    async def score_files(
        self,
        files: Files,
        calibration: Calibration,
        held: contextlib.ExitStack | None = None,
    ) -> list[Result]:
        """Return, for each file, its verdict or the error that its content gave.

        With ``held`` also its map; who closes it gives back the room for these. Raises InputError
        for a model of vectors, QueueFullError while there is no room, and HTTPException 413 for
        images that there will never be room for.
        """
        if not self.model.kind.is_picture:
            raise InputError('this model scores vectors: send {"vectors": [[...], ...]} as JSON')
        end = time.monotonic() + self._limits.deadline
        pixels = await self._pixels_to_work_on(files, end)
        if pixels > self._pixels.most:
            reason = f"the images have {pixels:,} pixels together, more than {self._pixels.most:,}"
            raise HTTPException(413, f"{reason}: send fewer at a time")
        shown = self._bytes_of(pixels, len(files))
        size = max(1, len(files) * self._limits.portion_bytes // max(1, shown))
        with self._samples.taking(len(files)), self._pixels.taking(pixels):
            if held is not None:
                await self._hold_maps(shown, len(files), held)
            portions = [files[i : i + size] for i in range(0, len(files), size)]
            parts = [
                await self._score_portion(
                    portion, calibration, end, pixels, with_maps=held is not None
                )
                for portion in portions
            ]
        return list(itertools.chain(*parts))

    async def _score_portion(
        self, files: Files, calibration: Calibration, end: float, pixels: int, *, with_maps: bool
    ) -> list[Result]:
        """Return the results of some files, of which the images are held until it is done."""
        async with self._decoded.holding(_COPIES * self._bytes_of(pixels, len(files))):
            decoded = await self._reader.decode(files, end)
            images = [image for image in decoded if not isinstance(image, InputError)]
            verdicts = await self._score_images(images, calibration)
            if with_maps:
                shown = await asyncio.gather(*map(self._shown, images))
                verdicts = [{**v, **more} for v, more in zip(verdicts, shown, strict=True)]
        rest = iter(verdicts)
        return [
            {"name": name, **({"error": str(i)} if isinstance(i, InputError) else next(rest))}
            for (name, _), i in zip(files, decoded, strict=True)
        ]

    def _bytes_of(self, pixels: int, n_files: int) -> int:
        """Return what images take when decoded: of crops by their pixels, else by the model."""
        height, width, channels = self.model.kind.input_shape
        if self.max_work_pixels is not None:
            return pixels * channels
        if self.model.kind.grid is not None:
            height = width = self.model.kind.grid
        return n_files * height * width * channels

    async def _hold_maps(self, n_bytes: int, n_files: int, held: contextlib.ExitStack) -> None:
        """Take room for the maps of images that are ``n_bytes`` large, until ``held`` closes."""
        channels = self.model.kind.input_shape[2]
        n_bytes = n_bytes // channels * _MAP_BYTES
        if n_bytes > self._maps.most and n_files > 1:
            raise HTTPException(413, "the maps are too large together: send fewer images at a time")
        held.callback(self._maps.give_back, await self._maps.take_in_turn(n_bytes))

    async def score_vectors(
        self, vectors: NDArray[np.float32], calibration: Calibration
    ) -> list[Result]:
        """Return a verdict for each vector (N, F), named by its number."""
        if self.model.kind.is_picture:
            raise InputError("this model scores images: send an image, or several as a form")
        vectors = self.model.kind.from_rows(vectors)
        self.model.kind.check(vectors.shape[1:])
        with self._samples.taking(len(vectors)):
            verdicts = await self._score(vectors, calibration)
        return [{"name": str(i), **verdict} for i, verdict in enumerate(verdicts)]

    async def _pixels_to_work_on(self, files: Files, end: float) -> int:
        """Return how many pixels of files will be worked on, by their headers; 0: no matter."""
        if self.max_work_pixels is None:
            return 0
        return sum(await self._reader.count_pixels(files, end))

    async def _score_images(self, images: list[Pixels], calibration: Calibration) -> list[Result]:
        """Return a verdict for each image; those of one size are scored together."""
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, image in enumerate(images):
            alike[image.shape].append(i)
        groups = (np.stack([images[i] for i in places]) for places in alike.values())
        verdicts = await asyncio.gather(*(self._score(group, calibration) for group in groups))
        found = dict(zip(itertools.chain(*alike.values()), itertools.chain(*verdicts), strict=True))
        return [found[i] for i in range(len(images))]

    async def _score(self, samples: NDArray[Any], calibration: Calibration) -> list[Result]:
        scores = await asyncio.wrap_future(self.batcher.submit(samples))
        return list(rows_of(calibration.decide(Scored(scores)).columns()))

    async def _shown(self, image: Pixels) -> Result:
        """Return the anomaly map over the image as the URL of a PNG, and what it stands beside."""
        from historyad.judge.explain import overlay
        from historyad.judge.objections import nearest_pictures, objections

        def look(images: Pixels) -> tuple[Any, list[tuple[str, float]], list[dict[str, str]]]:
            near = nearest_pictures(self.model, self._examples, images[0])
            return self.model.maps(images)[0], objections(self.model, images[0]), near

        values, against, near = await asyncio.wrap_future(self.batcher.submit(image[None], look))
        full, _ = self.model.map_scale
        url = await self._reader.run(lambda: _png_url(overlay(image, values, full=full)))
        return {"map": url, "against": [{"view": v, "value": x} for v, x in against], "near": near}


def _png_url(image: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
