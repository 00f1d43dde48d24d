"""From the bytes of a request to a verdict on each sample, as ``historyad score`` gives it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image

from historyad.data.decoding import decode_image
from historyad.data.images import FORMATS, Pixels, conform
from historyad.deploy.service.batcher import Batcher, QueueFullError
from historyad.deploy.service.bodies import Files
from historyad.deploy.service.settings import Settings
from historyad.errors import InputError
from historyad.model.model import Model
from historyad.score.calibration import Calibration

Result = dict[str, Any]

_PORTION = 16  # files decoded by a thread at a time: handing over one costs as much as decoding it


class Scorer:
    """Decodes in a few threads, scores in one; `close` ends them when all work is done."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self._settings = settings
        self.max_work_pixels: int | None = None  # at any size, an image takes the same work
        if model.preprocessing.scales:
            normal = math.prod(model.preprocessing.input_shape[:2])
            self.max_work_pixels = max(settings.max_work_pixels, normal)
        self._in_work = 0  # samples, counted in the event loop alone, and pixels likewise
        self._pixels_in_work = 0
        self._decoders = ThreadPoolExecutor(settings.decode_threads, "decoder")
        self.batcher = Batcher(
            model.anomaly_score,
            batch_size=settings.batch_size,
            queue_size=settings.max_samples,
        )

    async def warm_up(self) -> None:
        """Score a sample of zeros, since the first call of a network is slower than the others."""
        shape = (1, *self.model.preprocessing.input_shape)
        kind = np.uint8 if self.model.preprocessing.kind == "image" else np.float32
        await asyncio.wrap_future(self.batcher.submit(np.zeros(shape, kind)))

    def close(self) -> None:
        """Finish what was accepted and end the threads."""
        self.batcher.close()
        self._decoders.shutdown()

    def calibration(self, false_positive_rate: float | None) -> Calibration:
        """Return the model's calibration, or one at another rate; InputError when it is too low."""
        calibration = self.model.calibration
        if false_positive_rate is None:
            return calibration
        return Calibration.fit(calibration.scores, false_positive_rate)

    def check_room(self, n: int = 1, pixels: int = 0) -> None:
        """Raise QueueFullError unless ``n`` more samples, of ``pixels``, can be taken on now."""
        most = self.max_work_pixels or math.inf
        if self._in_work + n > self._settings.max_samples or self._pixels_in_work + pixels > most:
            raise QueueFullError

    async def score_files(
        self, files: Files, calibration: Calibration, with_maps: bool = False
    ) -> list[Result]:
        """Return, for each file, its verdict or the error that its content gave.

        Raises InputError for a model of vectors, QueueFullError while there is no room, and
        HTTPException 413 for images that there will never be room for.
        """
        if self.model.preprocessing.kind != "image":
            raise InputError('this model scores vectors: send {"vectors": [[...], ...]} as JSON')
        pixels = await self._pixels_to_work_on(files)
        if pixels > (most := self.max_work_pixels or math.inf):
            reason = f"the images have {pixels:,} pixels together, more than {most:,}"
            raise HTTPException(413, f"{reason}: send fewer at a time")
        with self._taken_on(len(files), pixels):
            decoded = await self._decode(files)
            images = [image for image in decoded if not isinstance(image, InputError)]
            verdicts = await self._score_images(images, calibration)
            if with_maps:
                maps = await asyncio.gather(*map(self._map, images))
                verdicts = [{**v, "map": m} for v, m in zip(verdicts, maps, strict=True)]
        rest = iter(verdicts)
        return [
            {"name": name, **({"error": str(i)} if isinstance(i, InputError) else next(rest))}
            for (name, _), i in zip(files, decoded, strict=True)
        ]

    async def score_vectors(
        self, vectors: NDArray[np.float32], calibration: Calibration
    ) -> list[Result]:
        """Return a verdict for each vector (N, F), named by its number."""
        if self.model.preprocessing.kind != "vector":
            raise InputError("this model scores images: send an image, or several as a form")
        self.model.preprocessing.check(vectors.shape[1:])
        with self._taken_on(len(vectors)):
            verdicts = await self._score(vectors, calibration)
        return [{"name": str(i), **verdict} for i, verdict in enumerate(verdicts)]

    @contextlib.contextmanager
    def _taken_on(self, n: int, pixels: int = 0) -> Iterator[None]:
        """Hold room for ``n`` samples from before they are decoded until they are scored.

        So none waits for more than ``max_samples`` others, whatever part of the way is slow, nor
        for more than ``max_work_pixels``.
        """
        self.check_room(n, pixels)
        self._in_work += n
        self._pixels_in_work += pixels
        try:
            yield
        finally:
            self._in_work -= n
            self._pixels_in_work -= pixels

    async def _pixels_to_work_on(self, files: Files) -> int:
        """Return how many pixels of files will be worked on, by their headers; 0: no matter."""
        most = self.max_work_pixels
        if most is None:
            return 0
        sizes = await self._in_pool(lambda: [_pixels_of(data) for _, data in files])
        return sum(n for n in sizes if n <= most)  # what is larger will be refused undecoded

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
        columns = (scores, calibration.p_value(scores), scores > calibration.threshold)
        names = ("anomaly_score", "p_value", "is_anomalous")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

    async def _map(self, image: Pixels) -> str:
        """Return the anomaly map over the image as the URL of a PNG."""
        from historyad.judge.explain import anomaly_map, full_hue, overlay

        job = self.batcher.submit(image[None], lambda images: anomaly_map(self.model, images[0]))
        values = await asyncio.wrap_future(job)
        full = full_hue(self.model)
        return str(await self._in_pool(lambda: _png_url(overlay(image, values, full=full))))

    async def _decode(self, files: Files) -> list[Pixels | InputError]:
        portions = [files[i : i + _PORTION] for i in range(0, len(files), _PORTION)]
        jobs = (self._in_pool(self._decode_portion, portion) for portion in portions)
        return list(itertools.chain(*await asyncio.gather(*jobs)))

    def _decode_portion(self, files: Files) -> list[Pixels | InputError]:
        return [self._decode_one(name, data) for name, data in files]

    def _decode_one(self, name: str, data: bytes) -> Pixels | InputError:
        """Return the pixels as a source would hold them, all of the shape that the model takes."""
        prepare = self.model.preprocessing
        most = min(self._settings.max_pixels, self.max_work_pixels or math.inf)
        try:
            image = decode_image(data, name=name, max_pixels=int(most))
            image = conform(image, prepare.side if prepare.any_size else None, None)
            prepare.check(image.shape)
        except InputError as error:
            return error
        return image

    async def _in_pool(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._decoders, function, *arguments
        )


def _pixels_of(data: bytes) -> int:
    """Return how many pixels an image says that it has; 0 of what is none, as decoding will say."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # Pillow's decoders raise whatever comes
        return 0


def _png_url(image: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
