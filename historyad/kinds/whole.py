"""Images that are seen whole: each is placed on a square grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.data import streams
from historyad.data.images import Pixels, place_on_grid, reduced_size
from historyad.data.rows import ShuffledSamples
from historyad.errors import InputError
from historyad.kinds.as_one import AsOne
from historyad.kinds.images import SIDES, ImageKind
from historyad.kinds.kind import Excess, Samples, by, read_shape
from historyad.kinds.occlusion import occlusion_map
from historyad.method.networks import Critic
from historyad.progress import share
from historyad.score.companions import Companions, ImageCompanions
from historyad.score.result import Map
from historyad.score.score import Score
from historyad.score.views import features_of

_FULL_FALL = 2.0  # of the excess of an image, at which the hue of a map is full
_PILLOW_UNIT = 2.0**22  # Pillow's resampling weights are integers that add up to this


@dataclass(frozen=True, eq=False)
class Whole(ImageKind, AsOne):
    """Images on a grid of ``side`` pixels.

    ``any_size`` says that images of other sizes than ``input_shape`` are accepted, because the user
    chose the grid.
    """

    any_size: bool = False

    name: ClassVar[str] = "whole"
    companions: ClassVar[type[ImageCompanions]] = ImageCompanions

    @classmethod
    def choose(cls, shape: tuple[int, ...], image_size: int) -> Self:
        """Decide for images of ``shape``; 0 takes the smallest grid that holds them."""
        return cls(shape, image_size or _grid_side(max(shape[:2])), any_size=bool(image_size))

    @property
    def grid(self) -> int | None:
        """The side of the grid, if images may have any size."""
        return self.side if self.any_size else None

    @property
    def shrinks(self) -> bool:
        """Whether images get smaller, so that it pays to keep what `prepare` returns."""
        return max(self.input_shape[:2]) > self.side

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError, naming both shapes, unless an image of ``shape`` can be scored."""
        self.check_channels(shape)
        if not self.any_size and shape != self.input_shape:
            raise InputError(
                f"the input has shape {by(shape)}, the detector was fitted on "
                f"{by(self.input_shape)}: give it the same shape, or fit with --image-size to "
                "accept any size"
            )

    def prepare(self, samples: Samples) -> Pixels:
        """Return images on the grid, uint8 (N, side, side, C)."""
        self.check_samples(samples)
        if samples.shape[1:3] == (self.side, self.side):
            return samples
        return place_on_grid(samples, self.side)

    def _reader(self, samples: Samples, rows: NDArray[np.intp], config: Config) -> ShuffledSamples:
        """Return what reads images; those that shrink are placed on the grid once."""
        kept = len(rows) * self.networks(config).empty(1).nbytes
        if not self.shrinks or kept > streams.IN_MEMORY_BYTES:
            return super()._reader(samples, rows, config)
        parts = [self.prepare(part) for part in streams.in_parts(samples, rows)]
        return ShuffledSamples(np.concatenate(parts), np.arange(len(rows)), config.seed)

    def fit_companions(
        self, d_tv: Critic, normal: Tensor, known: Companions | None = None
    ) -> Companions:
        """Return what compares images with normal ones, in pixels and in the features of D_TV."""
        with share(0.0, 0.2):
            features = features_of(d_tv, normal)
        with share(0.2, 1.0):
            others = known if isinstance(known, ImageCompanions) else None
            return self.companions.fit(normal, features, others)

    def build_companions(self, d_tv: Critic, shape: Any, sizes: dict[str, int]) -> Companions:
        """Return unfitted ones of these sizes."""
        return self.companions.build(d_tv, shape, **sizes)

    def maps(self, score: Score, images: Pixels, excess: Excess) -> list[Map]:
        """Return maps, by occlusion, of what makes each image anomalous, (H, W) each."""

        def excess_of(grids: Pixels) -> NDArray[np.float64]:
            scores = score.of_prepared(grids)
            assert scores is not None
            return excess(scores)

        return [
            occlusion_map(self.prepare(image[None])[0], excess_of, *image.shape[:2])
            for image in images
        ]

    def map_scale(self, score: Score, threshold: float) -> tuple[float, None]:
        """Return twice the distance from typical to anomalous; no fall decides by itself."""
        return _FULL_FALL, None

    def onnx(self, shape: tuple[int, ...]) -> nn.Module:
        """Return `prepare` and `floats` of images of ``shape``, to the last bit."""
        return _Grid(self.side, *shape[:2])

    def describe(self) -> dict[str, Any]:
        """Return shape, kind and grid."""
        return {"input": by(self.input_shape), "kind": self.noun, "grid": self.side}

    def to_json(self) -> dict[str, Any]:
        """Return what is to be read by `from_json`."""
        shape = list(self.input_shape)
        return {"input_shape": shape, "side": self.side, "any_size": self.any_size}

    @classmethod
    def from_json(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Return the kind that a file describes; ValueError when that contradicts itself."""
        side, any_size = content["side"], content["any_size"]
        if side not in SIDES or type(side) is not int or type(any_size) is not bool:
            raise ValueError(f"a grid of side {side!r}, any size {any_size!r}")
        return cls(read_shape(content, 3), side, any_size)


def _grid_side(longest: int) -> int:
    side = CONSTANTS.smallest_grid
    while side < min(longest, CONSTANTS.largest_grid):
        side *= 2
    return side


class _Grid(nn.Module):
    """`place_on_grid` and `image_floats` for images of one size, to the last bit."""

    rows: Tensor
    columns: Tensor

    def __init__(self, side: int, height: int, width: int) -> None:
        super().__init__()
        new_height, new_width = reduced_size(height, width, side)
        self.reduces = (height, width) != (new_height, new_width)
        if self.reduces:
            self.register_buffer("rows", _box_weights(height, new_height))
            self.register_buffer("columns", _box_weights(width, new_width).T.contiguous())
        top, left = (side - new_height) // 2, (side - new_width) // 2
        self.padding = (left, side - new_width - left, top, side - new_height - top)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to float32 (N, C, side, side) in [-1, 1]."""
        x = images.permute(0, 3, 1, 2)
        if self.reduces:  # rows first, rounded to grey values in between, as Pillow does
            x = _to_grey_values(x.double() @ self.columns)
            x = _to_grey_values(self.rows @ x)
        x = x.float()
        if any(self.padding):
            x = functional.pad(x, self.padding, mode="replicate")
        return x / 127.5 - 1


def _box_weights(n: int, m: int) -> Tensor:
    """Return the integer weights (m, n) with which Pillow's box filter reduces n pixels to m."""
    if n == m:
        return torch.eye(n, dtype=torch.float64) * _PILLOW_UNIT
    # In floats, Pillow's answer to the i-th unit image is the i-th column of the weights.
    units = Image.fromarray(np.eye(n, dtype=np.float32))
    weights = np.asarray(units.resize((m, n), Image.Resampling.BOX)).T
    return torch.from_numpy(np.floor(weights.astype(np.float64) * _PILLOW_UNIT + 0.5))


def _to_grey_values(x: Tensor) -> Tensor:
    """Undo the unit of the weights and round; exact, as doubles hold all integers involved."""
    return (x / _PILLOW_UNIT + 0.5).floor().clamp(0, 255)
