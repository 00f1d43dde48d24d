"""Image files that are small and cost much to decode, for the tests of who decodes them."""

import io
import struct
import zlib

from PIL import Image


def many_scans(side=2000, n=20_000):
    """Return a progressive JPEG whose last scan comes ``n`` times: hours for a megabyte."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * n + data[-2:]


def many_pages(n=100_000):
    """Return a TIFF of ``n`` pages of one pixel each, all of which share that pixel."""
    tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (279, 1))
    entries = struct.pack("<H", len(tags)) + b"".join(_tag(*tag) for tag in tags)
    step = len(entries) + 4
    pages = (entries + struct.pack("<I", 12 + i * step if i < n else 0) for i in range(1, n + 1))
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + b"".join(pages)


def huge_tile(side=46_000):
    """Return a TIFF of one pixel in a tile of ``side`` x ``side``: gigabytes for 200 bytes."""
    tile = zlib.compress(bytes(100))
    size = (322, side), (323, side), (324, 8), (325, len(tile))
    tags = ((256, 1), (257, 1), (258, 8), (259, 8), (262, 1), (277, 1), *size)
    start = 8 + len(tile)
    entries = struct.pack("<H", len(tags)) + b"".join(_tag(*tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", start) + tile + entries + bytes(4)


def png(width, height, *more):
    """Return a grey PNG of zeros in a few bytes, with ``more`` chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compressobj()
    packed = b"".join(rows.compress(bytes(width + 1)) for _ in range(height)) + rows.flush()
    chunks = (b"IHDR", header), *more, (b"IDAT", packed), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


def chunk(kind, data):
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tag(number, value):
    return struct.pack("<HHII", number, 4, 1, value)
