"""What differs between kinds of input: one object, chosen once and saved with the model.

=========  =======================================================================================
kind       samples, and how they are seen
=========  =======================================================================================
`whole`    images (N, H, W, C), each placed on a square grid
`crops`    images (N, H, W, C) of any size, seen in crops at several scales
`features` images (N, H, W, C) of any size, seen in the cells of a frozen network's maps
`sounds`   pictures of recordings, as `whole`, with a view of their spectrum
`columns`  vectors (N, F), each column centred and scaled robustly
`windows`  windows of a series (N, steps, channels), each channel centred and scaled robustly
=========  =======================================================================================

Each sample is treated alone, so that its score does not depend on others.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.config import Config
from historyad.data.any_size import parts_of
from historyad.data.images import Pixels
from historyad.data.rows import ShuffledSamples
from historyad.data.tables import Levels
from historyad.errors import InputError
from historyad.kinds.augment import parse_augmentations
from historyad.kinds.damages import Damage
from historyad.method.batches import Batches
from historyad.method.networks import Critic, Networks
from historyad.score.result import Map
from historyad.score.score import Score

Samples = NDArray[Any]
Excess = Callable[[NDArray[np.float32]], NDArray[np.float64]]  # of scores: 1 is the threshold
Random = np.random.Generator

_MOST_VALUES = 2**27  # of a sample
_MOST_CHANNELS = 1024  # of an image: each has a Gaussian of its own


@dataclass(frozen=True, eq=False)
class Foreign:
    """An ONNX ``graph`` that maps what ``before`` makes of samples to what ``after`` takes.

    ``outputs`` are those of its outputs that are taken, of which there are ``examples``. Of each
    sample it sees ``n_seen``.
    """

    before: nn.Module
    graph: bytes
    outputs: tuple[str, ...]
    after: nn.Module
    examples: tuple[Tensor, ...]
    n_seen: int = 1


@dataclass(frozen=True, eq=False)
class Kind(ABC):
    """What was decided about the input when a detector was fitted.

    ``input_shape`` is that of one sample, (H, W, C), (F,) or (steps, channels).
    """

    input_shape: tuple[int, ...]

    name: ClassVar[str]
    noun: ClassVar[str]  # what a sample is called
    is_picture: ClassVar[bool]  # whether a sample can be shown as one
    networks_see_pictures: ClassVar[bool]  # whether what networks see of one can be, too

    @property
    def grid(self) -> int | None:
        """Side in pixels to which a source brings images of several sizes; None: as they are."""
        return None

    @property
    def takes_any_size(self) -> bool:
        """Whether images of several sizes are scored as they are."""
        return False

    @property
    def work_pixels(self) -> int | None:
        """Pixels of a usual image, where work grows with the size of an image, else None."""
        return None

    @property
    def n_features_in(self) -> int:
        """What scikit-learn calls so: values of a vector, channels, or rows of an image."""
        return self.input_shape[0]

    # --- samples

    @property
    def levels(self) -> Levels:
        """The texts that the values of each column of vectors number; mostly none."""
        return ()

    @property
    def may_miss(self) -> bool:
        """Whether a value of a vector may be missing or a text, as some were in the fit."""
        return False

    def numbered(self, row: list[Any]) -> list[Any]:
        """Return the values of a row with the numbers of its texts, and NaN for None."""
        return row

    def from_rows(self, rows: Samples) -> Samples:
        """Return the samples whose values are ``rows`` (N, values), as a service gets them."""
        return rows

    @abstractmethod
    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError, naming both shapes, unless one sample of ``shape`` can be scored."""

    @abstractmethod
    def check_samples(self, samples: Samples) -> None:
        """Raise InputError unless ``samples`` are what a source holds, and can be scored."""

    @abstractmethod
    def prepare(self, samples: Samples) -> Samples:
        """Return samples at rest as networks are made for them; InputError as `check_samples`."""

    @abstractmethod
    def floats(self, prepared: Samples, device: torch.device | str = "cpu") -> Tensor:
        """Return what was prepared as networks see it, float32 (N, ...)."""

    # --- training and scoring

    @classmethod
    def trains(cls, config: Config) -> bool:
        """Whether D_TV is trained: where it is asked for or, by default, networks see pictures."""
        asked = ("all", "history", "auto") if cls.networks_see_pictures else ("all", "history")
        return config.views in asked

    def learnt_from(self, samples: Samples, rows: NDArray[np.intp] | None = None) -> Self:
        """Return this kind with what it learns of ``rows`` of normal samples; mostly nothing."""
        return self

    def like(self, score: Score) -> Self:
        """Return this kind with what samples decided about the views of ``score``; mostly none."""
        return self

    def remembering(self) -> AbstractContextManager[None]:
        """Keep what takes long to make of samples, while they are looked at several times."""
        return nullcontext()

    @abstractmethod
    def networks(self, config: Config) -> Networks:
        """Return generator and critic for these samples."""

    def batches(
        self,
        samples: Samples,
        config: Config,
        *,
        rows: NDArray[np.intp] | None = None,
        groups: NDArray[np.intp] | None = None,
        device: torch.device | str = "cpu",
    ) -> Batches:
        """Return shuffled batches of ``rows`` of samples to train on.

        ``groups`` (n_rows,) number what each row belongs to, for kinds that part the rows.
        """
        rows = np.arange(len(samples)) if rows is None else rows
        reader, networks = self._reader(samples, rows, config), self.networks(config)
        augmentations = parse_augmentations(config.augment)
        return Batches(
            reader, networks, seed=config.seed, augmentations=augmentations, device=device
        )

    def _reader(self, samples: Samples, rows: NDArray[np.intp], config: Config) -> ShuffledSamples:
        """Return what reads ``rows`` of samples, prepared, in a shuffled order."""
        return ShuffledSamples(samples, rows, config.seed, self.prepare)

    @abstractmethod
    def fit_score(
        self, d_tv: Critic, batches: Batches, config: Config, known: Score | None = None
    ) -> Score:
        """Return the score that D_TV and its companions make, its scale still unset.

        They are fitted on the normal samples of ``batches``. Where a score of another D_TV is
        ``known`` that was fitted on the same, what does not depend on D_TV is taken from it.
        """

    @abstractmethod
    def build_score(self, d_tv: Critic, sizes: dict[str, int] | None, config: Config) -> Score:
        """Return an unfitted score whose companions have these sizes, to be loaded into."""

    @property
    def n_worst(self) -> int:
        """Of so many of its `looks`, the strangest, a sample is judged before any training."""
        return 1

    def looks(
        self, samples: Samples, rows: NDArray[np.intp], config: Config
    ) -> Iterator[NDArray[np.float32]]:
        """Yield what of each of ``rows`` is compared with others before any training.

        One look of all values, (1, values), or one of each part of a sample, (parts, values).
        """
        for part in parts_of(samples, rows):
            yield from self.floats(self.prepare(part)).flatten(1).numpy()[:, None]

    # --- what is asked of a fitted detector

    @abstractmethod
    def damages(self, shape: tuple[int, ...]) -> list[Damage]:
        """Return what to do to samples of ``shape`` to learn what a detector can see."""

    @abstractmethod
    def damage(self, damage: Damage, samples: Samples, strength: float, random: Random) -> Samples:
        """Return damaged copies of samples."""

    @abstractmethod
    def example(self, n: int, random: Random, shape: tuple[int, ...] | None = None) -> Samples:
        """Return ``n`` made-up samples of any content, (n, *shape)."""

    def maps(self, score: Score, images: Pixels, excess: Excess) -> list[Map]:
        """Return a map of each image; InputError where a sample is no image.

        ``excess`` maps scores (N,) to how far out they are.
        """
        raise InputError(_no_maps(self.noun))

    def map_scale(self, score: Score, threshold: float) -> tuple[float, float | None]:
        """Return the value at which a map is shown in full, and that from which it is anomalous."""
        raise InputError(_no_maps(self.noun))

    def contributions(self, score: Score, vector: Samples, excess: Excess) -> NDArray[np.float32]:
        """Return what each value of a vector (F,) adds to how anomalous it is; else InputError."""
        raise InputError(f"this detector scores {self.noun}s: use anomaly_map")

    def usual(self, score: Score, vector: Samples) -> Samples:
        """Return what is usual in place of each value of a vector (F,); else InputError."""
        raise InputError(f"this detector scores {self.noun}s: use anomaly_map")

    def called(self, column: int, value: float) -> float | str:
        """Return what a person calls a value of a column of vectors."""
        return value

    # --- elsewhere

    @abstractmethod
    def onnx(self, shape: tuple[int, ...]) -> nn.Module:
        """Return the way from samples of ``shape`` to what a score has of them, to be exported.

        InputError where there is none.
        """

    def within(self, shape: tuple[int, ...]) -> Foreign | None:
        """Return a graph of the user's that has a part in it, in place of `onnx`; mostly none."""
        return None

    def unusual(self, shape: tuple[int, ...]) -> list[Samples]:
        """Return batches of samples of the right type and shape that cannot be judged."""
        return []

    @property
    @abstractmethod
    def rest_dtype(self) -> torch.dtype:
        """Type of the values of samples as a source holds them."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what a person may want to know of the input."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return what is not an array, to be read by `from_json`."""

    def tensors(self) -> dict[str, Tensor]:
        """Return what is an array."""
        return {}

    @classmethod
    @abstractmethod
    def from_json(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Kind:
        """Return the kind that a file describes; ValueError when that contradicts itself."""


def _no_maps(noun: str) -> str:
    return f"there are maps of images, and this detector scores {noun}s: use feature_contributions"


def read_shape(content: dict[str, Any], n_axes: int) -> tuple[int, ...]:
    """Return the shape of a sample as a file gives it; ValueError for an absurd one."""
    shape = tuple(content["input_shape"])
    if len(shape) != n_axes or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"samples of shape {shape}")
    if is_absurd(shape):
        raise ValueError(f"samples of shape {shape}")
    return shape


def is_absurd(shape: tuple[int, ...]) -> bool:
    """Whether samples of ``shape`` have too many values, or images too many channels."""
    too_many_channels = len(shape) > 1 and shape[-1] > _MOST_CHANNELS
    return too_many_channels or math.prod(shape) > _MOST_VALUES


def by(shape: Sequence[int]) -> str:
    """Return a shape as a person writes it."""
    return " x ".join(map(str, shape))
