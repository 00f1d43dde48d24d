"""Image files and arrays of any sort become uint8 pixels, in one documented way.

====================================  ============================================================
file or array                         pixels
====================================  ============================================================
8-bit grey, RGB                       as stored
16-bit grey (``I;16``, ``I``)         full range: 0..65535 -> 0..255, rounded; other values refused
16-bit RGB (PNG)                      the high byte of each value (Pillow decodes no more)
1-bit                                 0 and 255, one channel
palette                               RGB, also where every entry of the palette is grey
transparency (alpha, colour key)      composited over black: a hidden colour never shows, and a
                                      fully opaque alpha changes nothing; then dropped
CMYK, YCbCr, HSV                      RGB
float (TIFF ``F``)                    0..1 -> 0..255, rounded; NaN, infinity or outside: refused
EXIF orientation                      applied: pixels as a viewer shows them
sound (WAV)                           its spectrogram, see `historyad.data.sounds`
several frames or pages               refused (of a camera's MPO, the main picture)
more pixels than ``max_pixels``       refused before anything is decoded
uint8 array                           as it is, without a copy
uint16 array                          full range, as 16-bit grey
bool array                            0 and 255
float array                           as float TIFF
other integer array                   values must lie in 0..255
====================================  ============================================================

Files have one channel (grey) or three (colour); arrays may have any number.
"""

import contextlib
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from historyad.data.sounds import HEAD, SOUNDS, is_sound, read_sound
from historyad.errors import InputError

Pixels = NDArray[np.uint8]
Check = Callable[[tuple[int, ...]], None]  # InputError for samples of a shape that is of no use

# Formats that are widely used for pictures and decoded by well-tested code; Pillow knows
# many more, some of which start other programs (EPS) or have no length checks.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
SUFFIXES |= {".pbm", ".pgm", ".pnm", ".ppm", *SOUNDS}
_TURNED = (5, 6, 7, 8)  # orientations of EXIF in which width and height change places
STRIP_PIXELS = 1 << 20  # of a file, converted at a time
CHUNK_VALUES = 1 << 24  # values converted at a time: bounds the temporaries to about 128 MB


def read_image(
    stream: BinaryIO,
    name: str,
    *,
    max_pixels: int,
    side: int | None = None,
    channels: int | None = None,
    check: Check | None = None,
    before_decoding: Callable[[int], None] | None = None,
) -> Pixels:
    """Pixels of an image file, uint8 (H, W, C), made to `conform` to ``side`` and ``channels``.

    ``name`` is what errors call it. ``check`` raises InputError for a shape that is of no use, and
    is asked before anything is decoded; ``before_decoding`` is told the number of pixels. Raises
    InputError, and nothing else, for whatever is not an image of at most ``max_pixels`` pixels that
    the table above accepts. Nothing bounds its time: that is `historyad.data.decoding`'s.
    """
    try:
        head = stream.read(HEAD)
        stream.seek(0)
        if is_sound(head):
            pixels = read_sound(stream, name, max_samples=max_pixels)
        else:
            with Image.open(stream, formats=FORMATS) as image:
                _check_before_decoding(image, name, max_pixels)
                if check is not None:
                    _check_shape(image, side, channels, check)
                if before_decoding is not None:
                    before_decoding(image.width * image.height)
                pixels = image_pixels(image, name)
        pixels = conform(pixels, side, channels)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} has far too many pixels ({error}); reduce it") from error
    # Pillow's decoders answer a damaged file with OSError, SyntaxError, ValueError, KeyError,
    # struct.error, MemoryError, ...: the list is open, and to the user it is one thing.
    except Exception as error:
        raise unreadable(name, error) from error
    if check is not None:
        check(pixels.shape)
    return pixels


def unreadable(name: str, error: Exception) -> InputError:
    """Return the error for a file that is no image, and say why."""
    return InputError(
        f"{name} cannot be read as an image ({_reason(error)}); "
        f"save it again as one of {', '.join(FORMATS)}, or take it out"
    )


def refuse_irregular(path: Path) -> None:
    """Raise InputError for a pipe, a device or a socket, which may give data for ever, or none.

    Raises OSError where there is nothing.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is a pipe, a device or a socket: give a file")


def image_pixels(image: Image.Image, name: str) -> Pixels:
    """Pixels of an opened Pillow image, uint8 (H, W, C), by the rules of the table above."""
    image.load()
    # A PNG of which nothing is said lies as it is; to have Pillow look takes as long as to decode.
    says_nothing = image.format == "PNG" and not image.info
    # Pillow copies an image even where there is nothing to turn or to convert.
    if not says_nothing and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.width * image.height <= STRIP_PIXELS:
        return _converted(image, name)
    # In strips, since some conversions take thirty bytes for each pixel meanwhile.
    pixels = np.empty((image.height, image.width, _channels_of(image.mode)), np.uint8)
    step = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        strip = image.crop((0, top, image.width, min(top + step, image.height)))
        pixels[top : top + step] = _converted(strip, name)
    return pixels


def _converted(image: Image.Image, name: str) -> Pixels:
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep_grey(image, name)
    if image.has_transparency_data:
        return _over_black(image)
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return _with_channel_axis(np.array(image if image.mode == mode else image.convert(mode)))


def _channels_of(mode: str) -> int:
    """Return whether pixels of an image of a mode of Pillow's are grey (1) or coloured (3)."""
    return 1 if mode in ("1", "L", "LA", "La", "F") or mode.startswith("I") else 3


def as_uint8(array: np.ndarray[Any, Any], name: str) -> Pixels:
    """An array of images as uint8 (N, H, W, C); see the table above for the values.

    Accepts (N, H, W), (N, H, W, C), and (N, C, H, W), which is assumed where the second axis has
    at most 4 entries and the last one more. A uint8 array or memmap is not copied. Other types
    are converted a few images at a time. Raises InputError for another shape, type or range.
    """
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(
            f"{name} has shape {array.shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W) "
            "and there must be at least one"
        )
    array = _channels_last(array)
    if array.dtype == np.uint8:
        return array
    pixels = np.empty(array.shape, np.uint8)
    step = max(1, CHUNK_VALUES // pixels[0].size)
    for start in range(0, len(array), step):
        pixels[start : start + step] = _to_uint8(array[start : start + step], name)
    return pixels


def place_on_grid(images: Pixels, side: int) -> Pixels:
    """Each image alone in the middle of a ``side`` x ``side`` grid, uint8 (N, side, side, C).

    ``images`` is uint8 (N, H, W, C). Larger images are first reduced by area averaging, keeping
    their aspect ratio, until the longer side fits. The rest of the grid repeats the edge pixels.
    """
    if side < 1:
        raise InputError(f"a grid of side {side} holds no image; give a side of at least 1 pixel")
    if images.shape[1:3] == (side, side):
        return images
    if max(images.shape[1:3]) > side:
        images = _reduce(images, side)
    n, height, width, channels = images.shape
    top, left = (side - height) // 2, (side - width) // 2
    rows, columns = slice(top, top + height), slice(left, left + width)
    grid = np.empty((n, side, side, channels), np.uint8)
    grid[:, rows, columns] = images
    grid[:, rows, :left] = images[:, :, :1]
    grid[:, rows, left + width :] = images[:, :, -1:]
    grid[:, :top] = grid[:, top : top + 1]
    grid[:, top + height :] = grid[:, top + height - 1 : top + height]
    return grid


def reduced_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of the image that `place_on_grid` places: at most ``side`` pixels each."""
    longer = max(height, width)
    if longer <= side:
        return height, width
    return max(1, round(height * side / longer)), max(1, round(width * side / longer))


def with_channels(image: Pixels, channels: int) -> Pixels:
    """``image`` (H, W, 1 or 3) with 1 or 3 ``channels``: grey repeated, or the luma of colour."""
    if image.shape[-1] == channels:
        return image
    if image.shape[-1] == 1 and channels == 3:
        return np.repeat(image, 3, axis=-1)
    if image.shape[-1] == 3 and channels == 1:
        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    raise InputError(
        f"an image of {image.shape[-1]} channels cannot become one of {channels}; "
        "channels converts between 1 (grey) and 3 (colour)"
    )


def conform(image: Pixels, side: int | None, channels: int | None) -> Pixels:
    """``image`` (H, W, C) with ``channels`` and on a grid of ``side`` pixels, each where given."""
    image = image if channels is None else with_channels(image, channels)
    return image if side is None else place_on_grid(image[None], side)[0]


def mirrored(start: int, size: int, length: int) -> NDArray[np.intp]:
    """Return ``size`` places from ``start`` on, those outside [0, length) mirrored at its ends."""
    places = np.abs(np.arange(start, start + size))
    inside: NDArray[np.intp] = length - 1 - np.abs(length - 1 - places)
    return inside


def _check_before_decoding(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise InputError(
            f"{name} has {image.width} x {image.height} pixels, more than {max_pixels:,}; reduce it"
        )
    # To count them would take time for each, of which there may be a hundred thousand. The second
    # frame of an MPO, which phones and cameras write, is a preview or a depth map.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise InputError(f"{name} has more than one frame; save each frame as a file of its own")


def _check_shape(image: Image.Image, side: int | None, channels: int | None, check: Check) -> None:
    """Raise what ``check`` says of the shape that the pixels will have, as far as is known."""
    n = channels or _channels_of(image.mode)
    height, width = image.size if _is_turned(image) else image.size[::-1]
    upright = (side or height, side or width, n)
    try:
        check(upright)
    except InputError:
        turned = (upright[1], upright[0], n)
        if turned == upright:
            raise
        # Some formats say only behind the pixels that they are to be turned.
        with contextlib.suppress(InputError):
            check(turned)
            return
        raise


def _is_turned(image: Image.Image) -> bool:
    """Whether width and height change places, as far as is known before anything is decoded."""
    # Of a TIFF, Pillow says the size as it is shown.
    if image.format == "TIFF" or "exif" not in image.info:
        return False
    exif = Image.Exif()  # not the image's own, which would look no further behind the pixels
    with contextlib.suppress(Exception):  # as many as for damaged pixels
        exif.load(image.info["exif"])
    return exif.get(ExifTags.Base.Orientation) in _TURNED


def _deep_grey(image: Image.Image, name: str) -> Pixels:
    """Grey of more than 8 bits (modes I, I;16 and F) as uint8 (H, W, 1)."""
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    if image.mode != "F":
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"{name} has grey values from {values.min()} to {values.max()}; "
                "scale them to 0..65535 and save as 16-bit"
            )
        values = values.astype(np.uint16)
    if isinstance(transparent, int):
        values = np.where(values == transparent, values.dtype.type(0), values)
    return _with_channel_axis(_to_uint8(values, name))


def _over_black(image: Image.Image) -> Pixels:
    """A transparent image over black, rounded; grey stays grey."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("La", "RGBa"):  # premultiplied; Pillow converts these to one mode only
        image = image.convert(image.mode.upper())
    layers = np.asarray(image.convert("LA" if grey else "RGBA"), dtype=np.uint16)
    colour, alpha = layers[..., :-1], layers[..., -1:]
    return ((colour * alpha + 127) // 255).astype(np.uint8)  # 255 is odd: exact, no ties


def _with_channel_axis(grey_or_colour: np.ndarray[Any, Any]) -> Pixels:
    pixels: Pixels = grey_or_colour if grey_or_colour.ndim == 3 else grey_or_colour[..., None]
    return pixels


def _channels_last(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.ndim == 3:
        return array[..., None]
    if array.shape[1] <= 4 < array.shape[-1]:
        return np.moveaxis(array, 1, -1)
    return array


def _to_uint8(values: np.ndarray[Any, Any], name: str) -> Pixels:
    """Convert by the type of ``values``, of any shape, or raise InputError."""
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "u" and values.dtype.itemsize == 2:
        # round(v / 257), as 65535 = 255 * 257: exact in integers, and 257 is odd, so no ties.
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind not in "uif":
        raise InputError(f"{name} has values of type {values.dtype}; give numbers, best uint8")
    low, high = values.min(), values.max()
    top = 1 if kind == "f" else 255
    if not (low >= 0 and high <= top):  # written so that NaN fails
        raise InputError(
            f"{name} has {values.dtype} values from {low} to {high}; such values must be finite "
            f"and lie in 0..{top}: scale them, or give uint8 (0..255) or uint16 (0..65535)"
        )
    return np.rint(values * np.float32(255)).astype(np.uint8) if top == 1 else values.astype("u1")


def _reduce(images: Pixels, side: int) -> Pixels:
    """Shrink (N, H, W, C) so that the longer side equals ``side``, by area averaging."""
    n, height, width, channels = images.shape
    new_height, new_width = reduced_size(height, width, side)
    reduced = np.empty((n, new_height, new_width, channels), np.uint8)
    for i, c in np.ndindex(n, channels):
        plane = Image.fromarray(np.ascontiguousarray(images[i, :, :, c]))
        reduced[i, :, :, c] = np.asarray(
            plane.resize((new_width, new_height), Image.Resampling.BOX)
        )
    return reduced


def _reason(error: Exception) -> str:
    """Pillow's message without the memory address it prints for a stream."""
    if isinstance(error, MemoryError) or str(error).endswith("error -9"):  # of a decoder in C
        return "it takes more memory than its size explains"
    text = re.sub(r"\s*<_io\.[^>]*>", "", str(error)).strip()
    return text or type(error).__name__
