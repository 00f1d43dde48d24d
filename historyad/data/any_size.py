"""Images of any size: what no array holds is one image, or a list of some, that is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from historyad.data import streams
from historyad.data.decoding import image_shape
from historyad.data.images import Pixels
from historyad.data.streams import Files, ImageStream
from historyad.errors import InputError
from historyad.progress import each


class Images(ImageStream):
    """Images of any size and one number of channels, uint8 (H, W, C) each.

    They are on the disk, and decoded when they are asked for, or `in_memory`. Of an array they have
    ``len``, ``dtype``, ``ndim`` (4) and ``shape``: (N, None, None, C), for every image has a height
    and a width of its own, which `sizes` knows before it is decoded. ``images[3]`` is one image and
    ``images[rows]``, of a slice, of numbers or of a mask, a list of them; `in_parts` yields lists
    that are small in memory. What is said of an unreadable image of an `ImageStream` holds here,
    too. The next that can be read, which stands in its place, may have another size: what is cut
    from an image is cut by the shape of what was returned.
    """

    def __init__(
        self,
        files: Files,
        *,
        channels: int | None = None,
        skip_unreadable: bool = False,
        sizes: NDArray[np.intp] | None = None,
    ) -> None:
        super().__init__(files, channels=channels, skip_unreadable=skip_unreadable)
        if sizes is not None:
            self.sizes = sizes

    @property
    def shape(self) -> tuple[Any, ...]:
        """(N, None, None, C), of which C is that of the first image that can be read."""
        return (len(self.files), None, None, self._first_shape[-1])

    @classmethod
    def in_memory(
        cls, names: Sequence[str], images: Sequence[Pixels], *, skip_unreadable: bool = False
    ) -> Images:
        """Return images that are there already; InputError where not all are grey, or coloured."""
        held = cls(_Held(names, images), skip_unreadable=skip_unreadable)
        for name, image in zip(names, images, strict=True):
            held._check(name, image.shape)
        return held

    def __getitem__(self, index: Any) -> Any:
        rows = self._rows[index]
        if rows.ndim == 0:
            return self._readable(int(rows))
        return list(self._threads.map(self._readable, rows.tolist()))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise TypeError("images of several sizes are no array: take one, or a list of some rows")

    def in_parts(self, rows: NDArray[np.intp]) -> Iterator[list[Pixels]]:
        """Yield ``rows``, in order, as lists of few bytes: of one image at least."""
        n_bytes = self.sizes[rows].prod(1) * self.shape[-1]
        part = np.cumsum(n_bytes) // streams.PART_BYTES
        for number in each(np.unique(part)):
            yield self[rows[part == number]]

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """Height and width of each image, (N, 2), by its header; (0, 0) where that is damaged."""
        return sizes_of(self.files)

    @cached_property
    def fingerprint(self) -> str:
        """As that of an `ImageStream`; of what is in memory, SHA-256 over all of it."""
        return self.files.fingerprint if isinstance(self.files, _Held) else super().fingerprint

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        if shape[-1] != self.shape[-1]:
            raise InputError(
                f"{name} has {shape[-1]} channels, the first image {self.shape[-1]}: make all grey "
                "or colour with --channels 1 or 3"
            )


def parts_of(samples: Any, rows: NDArray[np.intp]) -> Iterator[Any]:
    """Yield ``rows`` of samples, of one size or several, of which few are held at a time."""
    return (
        samples.in_parts(rows) if isinstance(samples, Images) else streams.in_parts(samples, rows)
    )


class _Held:
    """Images that are in memory, as files are on the disk."""

    def __init__(self, names: Sequence[str], images: Sequence[Pixels]) -> None:
        self.images = images
        self.left_out: dict[str, int] = {}
        self.closed: list[tuple[str, str]] = []
        self._names = names

    def __len__(self) -> int:
        return len(self.images)

    def name(self, number: int) -> str:
        return self._names[number]

    def read(self, number: int) -> Pixels:
        return self.images[number]

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(str(image.shape).encode())
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


def noted(samples: Any, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return where a source notes what cannot be read of ``samples``, of which some was found."""
    if not isinstance(samples, Images):
        return found
    samples.unreadable[:0] = found
    return samples.unreadable


def sizes_of(files: Files) -> NDArray[np.intp]:
    """Return what `Images.sizes` are."""
    with ThreadPoolExecutor(thread_name_prefix="look") as pool:
        shapes = list(pool.map(partial(_shape, files), range(len(files))))
    return np.array([shape[:2] for shape in shapes], np.intp)


def _shape(files: Files, number: int) -> tuple[int, ...]:
    try:
        content = files.read(number)
    except InputError:  # whoever decodes it says why
        return (0, 0, 0)
    if isinstance(content, np.ndarray):
        return content.shape
    return image_shape(content) or (0, 0, 0)
