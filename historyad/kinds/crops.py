"""Large images that are seen in crops, at several scales, as they are or by local contrast."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.data.images import Pixels, mirrored
from historyad.data.rows import ShuffledSamples
from historyad.errors import InputError
from historyad.kinds.contrast import halved, local_contrast
from historyad.kinds.images import SIDES
from historyad.kinds.kind import Samples, by, read_shape
from historyad.kinds.mapped import MappedKind
from historyad.kinds.pyramid import PyramidOfImages
from historyad.method.batches import Batches
from historyad.method.detector import random_detector
from historyad.method.networks import COARSEST, Critic
from historyad.progress import each
from historyad.randomness import Stream, numpy_generator
from historyad.score.cells import cell_features, in_tiles, normalised
from historyad.score.maps import MapScore
from historyad.score.score import Score

_MOST_SCALES = 4


@dataclass(frozen=True, eq=False)
class Crops(MappedKind):
    """Images of any size that holds a crop of ``side`` pixels at every scale.

    Each of the ``scales`` halves the image; with ``contrast`` "local", crops show local contrast.
    """

    scales: int = 1
    contrast: str = ""

    name: ClassVar[str] = "crops"

    @classmethod
    def choose(cls, shape: tuple[int, ...], config: Config) -> Self:
        """Decide for images of ``shape``; InputError where they are too small."""
        kind = cls(shape, config.patch, config.scales, config.contrast)
        kind.check(shape)
        return kind

    @property
    def smallest_side(self) -> int:
        """Pixels that an image needs, each way, for a crop at the coarsest scale."""
        return self.side << (self.scales - 1)

    @property
    def cell(self) -> int:
        """Side of a cell of the map, in pixels: one place of the networks' coarsest layer."""
        return self.side // COARSEST

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless an image of ``shape`` has the channels, and holds a crop."""
        self.check_channels(shape)
        if min(shape[:2]) < self.smallest_side:
            raise InputError(
                f"the images have {shape[1]} x {shape[0]} pixels, too few for crops of {self.side} "
                f"at {self.scales} scale{'s' * (self.scales != 1)}: give at least "
                f"{self.smallest_side} x {self.smallest_side}, or fit with a smaller patch or "
                "fewer scales"
            )

    def prepare(self, samples: Samples) -> Pixels:
        """Return the images at the finest scale."""
        return self.pyramid(samples)[0]

    def pyramid(self, images: Pixels) -> list[Pixels]:
        """Return what crops are cut from: images (N, H, W, C) at each scale, the finest first."""
        self.check_samples(images)
        levels = [images]
        for _ in range(1, self.scales):
            levels.append(halved(levels[-1]))
        if self.contrast:
            levels = [local_contrast(level, self.side) for level in levels]
        return levels

    def _reader(self, samples: Samples, rows: NDArray[np.intp], config: Config) -> ShuffledSamples:
        """Return what reads crops: as many different ones as are trained on, or have room."""
        seen = (config.n_epochs + config.detector_epochs) * config.epoch_images
        n = min(math.ceil(seen), CONSTANTS.crop_bytes // self.networks(config).empty(1).nbytes)
        crops = cut_crops(self, samples, rows, n, config.seed)
        return CropReader(crops, samples, rows, config.seed)

    def fit_score(
        self, d_tv: Critic, batches: Batches, config: Config, known: Score | None = None
    ) -> Score:
        """Return the maps of D_TV, or those of what its convolutions make of cells."""
        if config.views == "history":
            return MapScore(self, d_tv)
        reader = batches.reader
        assert isinstance(reader, CropReader)
        return MapScore.fit(self, d_tv, reader.images, reader.rows, config.seed)

    @property
    def n_worst(self) -> int:
        """As many cells as make the score."""
        return max(1, CONSTANTS.worst_pixels // self.cell**2)

    @torch.inference_mode()
    def looks(
        self, samples: Samples, rows: NDArray[np.intp], config: Config
    ) -> Iterator[NDArray[np.float32]]:
        """Yield what convolutions of random weights make of the cells of each image.

        That of the cell which is there at a coarser scale stands beside that of the finest.
        """
        critic = random_detector(self.networks(config), config)

        def features(tile: Tensor) -> Tensor:
            return normalised(cell_features(critic, tile, self.cell))[0]

        for row in rows.tolist():
            levels = (level[0] for level in self.pyramid(samples[row][None]))
            cells = [in_tiles(level, self.cell, self.floats, features) for level in levels]
            height, width = cells[0].shape[1:]
            enlarged = [
                found.repeat_interleave(2**n, 1).repeat_interleave(2**n, 2)[:, :height, :width]
                for n, found in enumerate(cells)
            ]
            yield torch.cat(enlarged).flatten(1).T.numpy()

    def build_score(self, d_tv: Critic, sizes: dict[str, int] | None, config: Config) -> Score:
        """Return an unfitted score whose banks have these sizes."""
        return MapScore.build(self, d_tv, sizes)

    def onnx(self, shape: tuple[int, ...]) -> nn.Module:
        """Return the way from images of ``shape`` to what crops are cut from."""
        height, width = shape[:2]
        patch = self.side if self.contrast else None
        return PyramidOfImages(height, width, self.cell, self.scales, patch)

    def describe(self) -> dict[str, Any]:
        """Return shape, kind and how crops are cut."""
        return {
            "input": by(self.input_shape),
            "kind": self.noun,
            "crops": f"{self.side} x {self.side}, scales {self.scales}",
            "contrast": self.contrast or None,
        }

    def to_json(self) -> dict[str, Any]:
        """Return what is to be read by `from_json`."""
        return {
            "input_shape": list(self.input_shape),
            "side": self.side,
            "scales": self.scales,
            "contrast": self.contrast,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Return the kind that a file describes; ValueError when that contradicts itself."""
        side, scales, contrast = (content[key] for key in ("side", "scales", "contrast"))
        if type(side) is not int or side not in SIDES or contrast not in ("", "local"):
            raise ValueError(f"crops of {side!r}, contrast {contrast!r}")
        if type(scales) is not int or not 1 <= scales <= _MOST_SCALES:
            raise ValueError(f"{scales!r} scales")
        kind = cls(read_shape(content, 3), side, scales, contrast)
        if min(kind.input_shape[:2]) < kind.smallest_side:
            raise ValueError(f"crops of {side} of images of {by(kind.input_shape)}")
        return kind


class CropReader(ShuffledSamples):
    """Crops in a shuffled order, and the ``rows`` of images that they were cut from."""

    def __init__(self, crops: Pixels, images: Samples, rows: NDArray[np.intp], seed: int) -> None:
        super().__init__(crops, np.arange(len(crops)), seed)
        self.images = images
        self.rows = rows


def cut_crops(kind: Crops, samples: Samples, rows: NDArray[np.intp], n: int, seed: int) -> Pixels:
    """Return about ``n`` crops of ``rows`` of images, as many of each, uint8 (n, side, side, C).

    Each is at a random place of a random level of its image's pyramid, as likely at the edges as
    elsewhere: there, what is missing is mirrored. Images are looked at one by one.
    """
    n_of_each = math.ceil(n / len(rows))
    shape = (len(rows), n_of_each, kind.side, kind.side, kind.input_shape[2])
    crops = np.empty(shape, np.uint8)
    for found, row in each(zip(crops, rows.tolist(), strict=True), len(rows)):
        levels = kind.pyramid(samples[row][None])
        random = numpy_generator(seed, Stream.CROP, row)
        which = random.integers(len(levels), size=n_of_each).tolist()
        for crop, level, place in zip(found, which, random.random((n_of_each, 2)), strict=True):
            image = levels[level][0]
            y, x = (
                mirrored(int(at * (length + 1)) - kind.side // 2, kind.side, length)
                for at, length in zip(place, image.shape[:2], strict=True)
            )
            crop[:] = image[y[:, None], x]
    return crops.reshape(-1, *shape[2:])
