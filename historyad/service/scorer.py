"""From the bytes of a request to a verdict on each sample, as ``historyad score`` gives it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from historyad.calibration import Calibration
from historyad.errors import InputError
from historyad.images import Pixels, conform, decode_image
from historyad.model import Model
from historyad.service.batcher import Batcher, QueueFullError
from historyad.service.bodies import Files
from historyad.service.settings import Settings

Result = dict[str, Any]

_PORTION = 16  # files decoded by a thread at a time: handing over one costs as much as decoding it


class Scorer:
    """Decodes in a few threads, scores in one; `close` ends them when all work is done."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self._settings = settings
        self._in_work = 0  # samples, counted in the event loop alone
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

    def check_room(self, n: int = 1) -> None:
        """Raise QueueFullError unless ``n`` more samples can be taken on now."""
        if self._in_work + n > self._settings.max_samples:
            raise QueueFullError

    async def score_files(
        self, files: Files, calibration: Calibration, with_maps: bool = False
    ) -> list[Result]:
        """Return, for each file, its verdict or the error that its content gave."""
        if self.model.preprocessing.kind != "image":
            raise InputError('this model scores vectors: send {"vectors": [[...], ...]} as JSON')
        with self._taken_on(len(files)):
            decoded = await self._decode(files)
            images = [image for image in decoded if not isinstance(image, InputError)]
            verdicts = await self._score(np.stack(images), calibration) if images else []
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
    def _taken_on(self, n: int) -> Iterator[None]:
        """Hold room for ``n`` samples from before they are decoded until they are scored.

        So none waits for more than ``max_samples`` others, whatever part of the way is slow.
        """
        self.check_room(n)
        self._in_work += n
        try:
            yield
        finally:
            self._in_work -= n

    async def _score(self, samples: NDArray[Any], calibration: Calibration) -> list[Result]:
        scores = await asyncio.wrap_future(self.batcher.submit(samples))
        columns = (scores, calibration.p_value(scores), scores > calibration.threshold)
        names = ("anomaly_score", "p_value", "is_anomalous")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

    async def _map(self, image: Pixels) -> str:
        """Return the anomaly map over the image as the URL of a PNG."""
        from historyad.explain import anomaly_map, full_hue, overlay

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
        try:
            image = decode_image(data, name=name, max_pixels=self._settings.max_pixels)
            image = conform(image, prepare.side if prepare.any_size else None, None)
            prepare.check(image.shape)
        except InputError as error:
            return error
        return image

    async def _in_pool(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._decoders, function, *arguments
        )


def _png_url(image: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
