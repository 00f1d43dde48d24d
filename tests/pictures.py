"""Image files of every kind, some of which Pillow cannot write itself."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def encoded(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png_chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def hand_made_png(width, height, *, bit_depth, colour_type, rows, extra=b""):
    """A PNG that Pillow cannot write itself."""
    header = struct.pack(">2I5B", width, height, bit_depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def turned(orientation):
    """Return what a camera notes when it was held so."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def deep_png(colour_type, *values, extra=b""):
    """A PNG of 16 bits and one row."""
    n_pixels = len(values) // (3 if colour_type == 2 else 1)
    row = b"\0" + struct.pack(f">{len(values)}H", *values)
    return hand_made_png(n_pixels, 1, bit_depth=16, colour_type=colour_type, rows=row, extra=extra)


def every_kind():
    """Return the content of a file of each kind that is told apart, by its name."""
    grey, colour = Image.fromarray(random_pixels(5, 7)), Image.fromarray(random_pixels(5, 7, 3))
    palette = colour.quantize(8)
    key = png_chunk(b"tRNS", struct.pack(">H", 40_000))
    frames = [Image.fromarray(random_pixels(5, 7, seed=seed)) for seed in range(3)]
    photo = Image.fromarray(random_pixels(16, 16, 3))
    deep = np.array([[0, 128, 129, 1000], [32768, 65406, 65407, 65535]], np.int32)
    kinds = {
        "grey, as JPEG": encoded(grey, "JPEG"),
        "colour, as JPEG": encoded(colour, "JPEG"),
        "CMYK, as JPEG": encoded(colour.convert("CMYK"), "JPEG"),
        "YCbCr": encoded(photo.convert("YCbCr"), "JPEG"),
        "CMYK": encoded(colour.convert("CMYK"), "TIFF"),
        "1 bit": encoded(grey.convert("1")),
        "palette": encoded(palette),
        "palette, with transparent colours": encoded(palette, transparency=3),
        "palette, as GIF": encoded(palette, "GIF"),
        "grey with a transparent value": encoded(grey, transparency=int(grey.getpixel((2, 2)))),
        "colour with a transparent one": encoded(colour, transparency=colour.getpixel((2, 2))),
        "grey with alpha": encoded(Image.fromarray(random_pixels(5, 7, 2), "LA")),
        "colour with alpha": encoded(Image.fromarray(random_pixels(5, 7, 4))),
        "colour with alpha, as TIFF": encoded(Image.fromarray(random_pixels(5, 7, 4)), "TIFF"),
        "16 bits": deep_png(0, *deep.ravel().tolist()),
        "16 bits, as TIFF": encoded(Image.fromarray(deep.astype(np.uint16)), "TIFF"),
        "16 bits, as PGM": encoded(Image.fromarray(deep.astype(np.uint16)), "PPM"),
        "16 bits with a transparent value": deep_png(0, 40_000, 20_000, extra=key),
        "16 bits of colour": deep_png(2, 0x12FF, 0x8000, 0xFFFF),
        "32 bits": encoded(Image.fromarray(deep), "TIFF"),
        "32 bits, too large": encoded(Image.fromarray(deep * 2), "TIFF"),
        "32 bits, negative": encoded(Image.fromarray(deep - 1), "TIFF"),
        "float": encoded(Image.fromarray(np.float32([[0, 0.25, 1, 0.7]])), "TIFF"),
        "float outside": encoded(Image.fromarray(np.float32([[0, 1.01]])), "TIFF"),
        "float, negative": encoded(Image.fromarray(np.float32([[0.5, -0.01]])), "TIFF"),
        "float, NaN": encoded(Image.fromarray(np.float32([[0.5, np.nan]])), "TIFF"),
        "a camera's MPO": encoded(photo, "MPO", save_all=True, append_images=[photo.rotate(90)]),
        "a format of no pictures": encoded(photo, "EPS"),
    }
    for form in ("PNG", "BMP", "PPM", "TIFF"):
        kinds[f"grey, as {form}"] = encoded(grey, form)
        kinds[f"colour, as {form}"] = encoded(colour, form)
    for form in ("GIF", "TIFF", "PNG", "WEBP"):
        options = {"save_all": True, "append_images": frames[1:]}
        kinds[f"several frames, as {form}"] = encoded(frames[0], form, **options)
    for form in ("JPEG", "PNG", "TIFF", "WEBP"):
        for orientation in range(1, 9):
            name = f"orientation {orientation}, as {form}"
            kinds[name] = encoded(colour, form, exif=turned(orientation))
    kinds["16 bits, turned"] = encoded(
        Image.fromarray(deep.astype(np.uint16)), "TIFF", exif=turned(6)
    )
    return kinds
