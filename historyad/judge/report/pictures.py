"""Images as the page holds them: small, as colours a browser knows, within the file."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

_THUMBNAIL = 160  # pixels
_EXACT = 64  # up to this side, without loss


def as_picture(images: Array) -> Array:
    """Return images (..., C) as ones that can be shown, (..., 3); others than colour as grey."""
    if images.shape[-1] != 3:
        images = images.mean(-1, keepdims=True).round().astype(np.uint8)
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def thumbnail(image: Array) -> str:
    """Return an image (H, W, C), reduced to what the page shows, as a data URI."""
    picture = Image.fromarray(np.ascontiguousarray(as_picture(image)))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return data_uri(picture)


def data_uri(picture: Image.Image) -> str:
    """Return a picture as a file that stands in the page itself.

    A small one, or one with transparent parts, is kept as it is.
    """
    data, exact = io.BytesIO(), max(picture.size) <= _EXACT or picture.mode != "RGB"
    picture.save(data, "PNG" if exact else "JPEG", optimize=True, quality=90)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
