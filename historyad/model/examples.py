"""Normal samples that a run keeps, so that an anomalous one can be shown beside the nearest.

``examples.safetensors`` is a file of its own: a model does without, and who copies the two files of
a model copies no sample. What is kept is bounded; of more samples, some from all over.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from historyad.data.any_size import parts_of
from historyad.data.images import Pixels
from historyad.data.sources import Source
from historyad.errors import RunError
from historyad.files import load_tensors, save_tensors
from historyad.kinds.kind import Kind
from historyad.score.score import Score

FILE = "examples.safetensors"
NEAREST = 3

_MOST_BYTES = 2**22  # of rows or windows
_MOST_PICTURES, _MOST_PIXELS = 400, 2**26  # images, and pixels of them to look at again
_SIDE = 128  # of a picture, in pixels
_EXACT = 64  # up to this side, without loss


@dataclass(frozen=True, eq=False)
class Examples:
    """Normal samples: ``names``, where they lie, ``places`` (N, d), and what is shown of them.

    That is a file of a picture each, or the ``values`` (N, ...) of vectors and windows.
    """

    names: tuple[str, ...]
    places: NDArray[np.float32]
    pictures: tuple[bytes, ...] = ()
    values: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, score: Score, source: Source, rows: NDArray[np.intp]) -> Self | None:
        """Keep some of ``rows`` of normal samples; None where ``score`` compares with none."""
        kind, samples = score.kind, source.samples
        assert isinstance(kind, Kind)
        some = rows[np.linspace(0, len(rows) - 1, number_of(kind, len(rows))).astype(np.intp)]
        places = [score.place(part) for part in parts_of(samples, some)]
        found = [place for place in places if place is not None]
        if not found:
            return None
        names = tuple(source.names[row] for row in some.tolist())
        where = np.concatenate(found)
        if kind.is_picture:
            images = (image for part in parts_of(samples, some) for image in part)
            return cls(names, where, tuple(map(_picture, images)))
        return cls(names, where, values=np.asarray(samples[some], np.float32))

    def nearest(self, place: NDArray[np.float32], *, but: str | None = None) -> list[int]:
        """Return which are nearest to a place (d,), the nearest first; not the one called ``but``.

        None is further than the nearest few, `NEAREST`.
        """
        distances = np.square(self.places - place).sum(1)
        order = np.argsort(distances, kind="stable").tolist()
        return [one for one in order if self.names[one] != but][:NEAREST]

    def save(self, folder: Path) -> None:
        """Write the file."""
        tensors = {"places": torch.from_numpy(self.places)}
        if self.values is None:
            joined = np.frombuffer(b"".join(self.pictures), np.uint8)
            tensors["pictures"] = torch.from_numpy(joined.copy())
            ends = np.cumsum([len(one) for one in self.pictures], dtype=np.int64)
            tensors["ends"] = torch.from_numpy(ends)
        else:
            tensors["values"] = torch.from_numpy(self.values)
        save_tensors(folder / FILE, tensors, json.dumps(self.names))

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read the file, if it is there; RunError where it is damaged."""
        path = folder / FILE
        if not path.exists():
            return None
        tensors, note = load_tensors(path)
        try:
            return cls._read(tensors, json.loads(note))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged ({error}): delete it, or fit again") from error

    @classmethod
    def _read(cls, tensors: dict[str, torch.Tensor], names: Any) -> Self:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        places = arrays["places"]
        if places.ndim != 2 or places.dtype != np.float32 or not np.isfinite(places).all():
            raise ValueError("places that are not finite numbers")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("names that are no text")
        pictures: tuple[bytes, ...] = ()
        if "values" not in arrays:
            data, ends = arrays["pictures"].tobytes(), [0, *arrays["ends"].tolist()]
            pictures = tuple(data[start:end] for start, end in pairwise(ends))
        n_shown = len(arrays.get("values", pictures))
        if not len(names) == len(places) == n_shown:
            raise ValueError("not as many names as samples")
        return cls(tuple(names), places, pictures, arrays.get("values"))


def number_of(kind: Kind, n: int) -> int:
    """Return how many of ``n`` samples are kept."""
    if not kind.is_picture:
        return max(1, min(n, _MOST_BYTES // (4 * int(np.prod(kind.input_shape)))))
    most = _MOST_PICTURES
    if kind.work_pixels is not None:
        most = min(most, max(NEAREST, _MOST_PIXELS // kind.work_pixels))
    return min(n, most)


def url_of(picture: bytes) -> str:
    """Return a picture as a data URI."""
    import base64

    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()


def _picture(image: Pixels) -> bytes:
    """Return an image (H, W, C), reduced, as a file; other channels than colour as grey."""
    grey = image if image.shape[2] == 3 else image.mean(-1).round().astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(grey))
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    if max(picture.size) <= _EXACT:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "JPEG", quality=85)
    return file.getvalue()
