"""Which image files are plain: they cost what their size says, as their first bytes prove.

To decode any other may take any time and memory: a progressive JPEG passes over all pixels once for
each of its scans, a TIFF may refer a thousand times to the same megabytes, a PNG may be made of a
million empty chunks. Most files are plain, and cheaper to decode here than to hand to a process
that can be ended. Whatever is not understood is not plain.
"""

from __future__ import annotations

import re
import struct

MOST_BYTES = 1 << 22
_MOST_PIXELS = 1 << 22  # decoded in a tenth of a second
_MOST_CHUNKS = 1024
_MOST_EXTRA = 1 << 12  # bytes of text and EXIF in a PNG: entries of EXIF may share their bytes
_MOST_JPEG_HEADER = 1 << 14

_PNG_EXTRA = (b"tEXt", b"eXIf")
_PNG_SMALL = (*(b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT"), b"bKGD", b"pHYs", b"tIME")
_MOST_SMALL = 1 << 10
_BMP_HEADERS, _BMP_BITS, _BMP_UNPACKED = (40, 108, 124), (1, 4, 8, 16, 24, 32), (0, 3)
# Without comments; of more than 8 bits, only those of grey are decoded fast.
_PPM = re.compile(rb"P(?:4\s(\d{1,6})\s(\d{1,6})|[56]\s(\d{1,6})\s(\d{1,6})\s255)\s")


def is_plain(data: bytes) -> bool:
    """Whether a file is decoded in a time that its bytes and pixels bound, and these are few."""
    if len(data) > MOST_BYTES:
        return False
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"):
            return _is_plain_png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _is_plain_jpeg(data[:_MOST_JPEG_HEADER])
        if data.startswith(b"BM"):
            return _is_plain_bmp(data)
        return _is_plain_ppm(data)
    except (struct.error, IndexError):  # it ends within its header
        return False


def _is_few(width: int, height: int) -> bool:
    return 0 < width * height <= _MOST_PIXELS


def _is_plain_png(data: bytes) -> bool:
    """Whether there are few chunks up to the end, all of kinds that are not unpacked but IDAT."""
    if not _is_few(*struct.unpack_from(">II", data, 16)):
        return False
    place, extra = 33, 0
    for _ in range(_MOST_CHUNKS):
        size, kind = struct.unpack_from(">I4s", data, place)
        place += 12 + size
        if place > len(data):
            return False
        if kind == b"IEND":
            return True
        if kind in _PNG_EXTRA:
            extra += size
        elif kind != b"IDAT" and not (kind in _PNG_SMALL and size <= _MOST_SMALL):
            return False
        if extra > _MOST_EXTRA:
            return False
    return False


def _is_plain_jpeg(header: bytes) -> bool:
    """Whether all components come in one sequential scan, and little comes before it."""
    place, components = 2, 0
    while True:
        fill, marker, size = struct.unpack_from(">BBH", header, place)
        if fill != 0xFF or size < 2:
            return False
        if marker == 0xDA:  # the scan
            return 0 < components == header[place + 4]
        if marker in (0xC0, 0xC1):  # baseline, or sequential of more tables
            height, width, n = struct.unpack_from(">HHB", header, place + 5)
            if components or not _is_few(width, height):
                return False
            components = n
        elif not _is_plain_segment(marker, header[place + 4 : place + 8]):
            return False
        place += 2 + size


def _is_plain_segment(marker: int, start: bytes) -> bool:
    """Whether it is a table, a comment, or a note of a program that names no further pictures."""
    is_note = 0xE0 <= marker <= 0xEF and not (marker == 0xE2 and start.startswith(b"MPF"))
    return marker in (0xC4, 0xDB, 0xDD, 0xFE) or is_note


def _is_plain_bmp(data: bytes) -> bool:
    size, width, height, _, bits, packing = struct.unpack_from("<IiiHHI", data, 14)
    known = size in _BMP_HEADERS and bits in _BMP_BITS and packing in _BMP_UNPACKED
    return known and _is_few(width, abs(height))


def _is_plain_ppm(data: bytes) -> bool:
    found = _PPM.match(data[:32])
    return found is not None and _is_few(*(int(n) for n in found.groups() if n is not None))
