import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from historyad.data import images
from historyad.data.decoding import decode_image
from historyad.data.images import (
    as_uint8,
    conform,
    place_on_grid,
    with_channels,
)
from historyad.errors import InputError

ORIENTATION = 0x0112


def encoded(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- decode_image: one test per row of the module's table


def test_grey_and_colour_as_stored(tmp_path):
    grey, colour = random_pixels(5, 7), random_pixels(5, 7, 3)
    for file_format in ("PNG", "BMP", "PPM", "TIFF"):
        assert (decode_image(encoded(Image.fromarray(grey), file_format))[..., 0] == grey).all()
        assert (decode_image(encoded(Image.fromarray(colour), file_format)) == colour).all()
    path = tmp_path / "part.png"
    Image.fromarray(colour).save(path)
    pixels = decode_image(path)
    assert (pixels == colour).all()
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_uses_the_full_range(file_format):
    values = np.array([[0, 128, 129, 1000], [32768, 65406, 65407, 65535]], np.uint16)
    pixels = decode_image(encoded(Image.fromarray(values), file_format))
    assert (pixels[..., 0] == np.rint(values / 257)).all()
    assert pixels.shape == (2, 4, 1)


def test_32_bit_grey_only_in_the_16_bit_range():
    values = np.array([[0, 1000, 65535]], np.int32)
    pixels = decode_image(encoded(Image.fromarray(values), "TIFF"))
    assert pixels.ravel().tolist() == [0, 4, 255]
    for wild in (70_000, -1):
        data = encoded(Image.fromarray(np.array([[0, wild]], np.int32)), "TIFF")
        with pytest.raises(InputError, match=f"scan.tif has grey values.*{wild}.*16-bit"):
            decode_image(data, name="scan.tif")


def test_16_bit_colour_is_the_high_byte():
    row = b"\0" + struct.pack(">3H", 0x12FF, 0x8000, 0xFFFF)
    pixels = decode_image(hand_made_png(1, 1, bit_depth=16, colour_type=2, rows=row))
    assert pixels.ravel().tolist() == [0x12, 0x80, 0xFF]


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


def test_1_bit():
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    assert decode_image(encoded(image)).tolist() == [[[255], [0]]]


def test_palette_becomes_rgb_even_when_grey():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 40, 40])
    image.putpixel((1, 0), 1)
    assert decode_image(encoded(image)).tolist() == [[[10, 20, 30], [40, 40, 40]]]


def test_opaque_alpha_is_dropped_exactly():
    colour = random_pixels(4, 4, 3)
    rgba = np.dstack([colour, np.full((4, 4), 255, np.uint8)])
    assert (decode_image(encoded(Image.fromarray(rgba))) == colour).all()
    assert (decode_image(encoded(Image.fromarray(rgba), "TIFF")) == colour).all()


def test_hidden_colours_never_show():
    rgba = random_pixels(8, 8, 4)
    rgba[:4, :, 3] = 0
    pixels = decode_image(encoded(Image.fromarray(rgba)))
    assert not pixels[:4].any()
    expected = np.rint(rgba[..., :3] * (rgba[..., 3:] / 255.0))
    assert (pixels == expected).all()


def test_grey_with_alpha_stays_grey():
    image = Image.fromarray(np.array([[[200, 255], [200, 0], [200, 128]]], np.uint8), "LA")
    assert decode_image(encoded(image)).ravel().tolist() == [200, 0, 100]


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_colour_key_transparency_is_black(mode):
    image = Image.new(mode, (2, 1), 0 if mode != "RGB" else (9, 9, 9))
    if mode == "P":
        image.putpalette([9, 9, 9, 50, 60, 70])
    if mode == "L":
        image.putpixel((0, 0), 9)
    image.putpixel((1, 0), (50, 60, 70) if mode == "RGB" else 1)
    key = {"L": 9, "RGB": (9, 9, 9), "P": 0}[mode]
    pixels = decode_image(encoded(image, transparency=key))
    assert not pixels[0, 0].any()
    assert pixels[0, 1].tolist() == ([1] if mode == "L" else [50, 60, 70])


def test_colour_key_in_16_bit_grey_is_black():
    row = b"\0" + struct.pack(">2H", 40_000, 20_000)
    key = png_chunk(b"tRNS", struct.pack(">H", 40_000))
    png = hand_made_png(2, 1, bit_depth=16, colour_type=0, rows=row, extra=key)
    assert decode_image(png).ravel().tolist() == [0, 78]


def test_cmyk_and_ycbcr_become_rgb():
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert decode_image(encoded(cmyk, "TIFF"))[0, 0].tolist() == [255, 0, 0]
    assert abs(decode_image(encoded(cmyk, "JPEG"))[0, 0].astype(int) - [255, 0, 0]).max() < 5
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("YCbCr")
    assert abs(decode_image(encoded(red, "JPEG"))[8, 8].astype(int) - [255, 0, 0]).max() < 5


def test_float_tiff_lies_in_0_to_1():
    image = Image.fromarray(np.array([[0, 0.25, 1]], np.float32))
    assert decode_image(encoded(image, "TIFF")).ravel().tolist() == [0, 64, 255]


@pytest.mark.parametrize("value", [1.01, -0.01, np.nan, np.inf, -np.inf])
def test_float_tiff_outside_is_refused(value):
    data = encoded(Image.fromarray(np.array([[0.5, value]], np.float32)), "TIFF")
    with pytest.raises(InputError, match=r"depth.tif has float32 values.*0\.\.1"):
        decode_image(data, name="depth.tif")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_orientation_is_applied_once(file_format):
    image = Image.new("L", (16, 8))
    image.paste(255, (0, 0, 8, 8))  # left half white
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # shown after a quarter turn clockwise
    pixels = decode_image(encoded(image, file_format, exif=exif))
    assert pixels.shape == (16, 8, 1)
    assert pixels[:7].min() > 240
    assert pixels[9:].max() < 15


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_several_frames_are_refused(file_format):
    frames = [Image.fromarray(random_pixels(8, 8, 3, seed=s)) for s in range(3)]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="clip has more than one frame; save each frame"):
        decode_image(data, name="clip")


def test_main_picture_of_a_camera_file():
    main, preview = (Image.new("RGB", (16, 16), colour) for colour in ("white", "black"))
    data = encoded(main, "MPO", save_all=True, append_images=[preview])
    assert decode_image(data).min() > 250


def test_size_is_checked_before_decoding(monkeypatch):
    data = encoded(Image.new("1", (300, 200)))
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"huge.png has 300 x 200 pixels, more than 50,000"):
        decode_image(data, name="huge.png", max_pixels=50_000)


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("side", [10_000, 14_000])  # Pillow warns at 89 MP and raises at 179 MP
def test_decompression_bomb(side, action):
    data = hand_made_png(side, side, bit_depth=1, colour_type=0, rows=b"")
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(InputError, match=r"bomb.png has .*reduce it"):
            decode_image(data, name="bomb.png")


# --- decode_image: damaged and foreign files


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone.png cannot be read as an image"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(InputError, match="cannot be read as an image"):
        decode_image(tmp_path)


def test_message_gives_name_reason_and_remedy():
    with pytest.raises(InputError) as caught:
        decode_image(b"not an image", name="notes.png")
    message = str(caught.value)
    assert message.startswith("notes.png cannot be read as an image (cannot identify image file)")
    assert "save it again as one of" in message
    assert "0x" not in message


def test_formats_outside_the_list_are_refused():
    with pytest.raises(InputError, match="cannot be read"):
        decode_image(encoded(Image.new("RGB", (8, 8)), "EPS"))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_truncated_file_is_refused(file_format):
    data = encoded(Image.fromarray(random_pixels(40, 40, 3)), file_format)
    with pytest.raises(InputError):
        decode_image(data[: len(data) // 2])


@given(st.binary(max_size=200))
@settings(max_examples=80, deadline=None)
def test_random_bytes_raise_nothing_but_input_error(data):
    with pytest.raises(InputError):
        decode_image(data)


SEEDS = [
    encoded(Image.fromarray(random_pixels(9, 11, 3)), file_format)
    for file_format in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM")
] + [
    encoded(Image.fromarray(random_pixels(9, 11).astype(np.uint16) * 200), "PNG"),
    encoded(Image.fromarray(random_pixels(9, 11, 4)), "PNG"),
    encoded(Image.new("L", (8, 8)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3"),
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 4000),
)
@settings(max_examples=150, deadline=None)
def test_mutated_files_give_pixels_or_input_error(data, changes, keep):
    mutated = bytearray(data)
    for position, value in changes:
        mutated[position % len(mutated)] = value
    mutated = bytes(mutated[: max(keep, 20)])
    try:
        pixels = decode_image(mutated, max_pixels=100_000)
    except InputError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[-1] in (1, 3)


# --- as_uint8


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 5, 6), (2, 5, 6, 1)),
        ((2, 5, 6, 3), (2, 5, 6, 3)),
        ((2, 5, 6, 7), (2, 5, 6, 7)),
        ((2, 3, 5, 6), (2, 5, 6, 3)),
        ((2, 1, 5, 6), (2, 5, 6, 1)),
        ((2, 3, 3, 3), (2, 3, 3, 3)),  # ambiguous: taken as it stands
        ((2, 1, 6, 3), (2, 1, 6, 3)),
    ],
)
def test_layouts(shape, expected):
    assert as_uint8(np.zeros(shape, np.uint8), "x").shape == expected


def test_channels_first_moves_the_right_axis():
    pixels = random_pixels(2, 3, 5, 6)
    assert (as_uint8(pixels, "x")[:, 1, 2] == pixels[:, :, 1, 2]).all()


def test_uint8_is_not_copied_and_a_memmap_stays_one(tmp_path):
    pixels = random_pixels(2, 5, 6)
    assert np.shares_memory(as_uint8(pixels, "x"), pixels)
    np.save(tmp_path / "x.npy", pixels)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(as_uint8(mapped, "x"), np.memmap)


def test_every_uint16_value_is_rounded():
    values = np.arange(65536, dtype=np.uint16).reshape(4, 128, 128)
    expected = np.rint(values / 257)[..., None]
    assert (as_uint8(values, "x") == expected).all()
    assert (as_uint8(values.astype(">u2"), "x") == expected).all()


def test_conversion_in_chunks_gives_the_same(monkeypatch):
    values = np.random.default_rng(0).random((7, 5, 6)).astype(np.float32)
    whole = as_uint8(values, "x")
    monkeypatch.setattr(images, "CHUNK_VALUES", 60)
    assert (as_uint8(values, "x") == whole).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_8_bit_level_survives_the_way_through_float(dtype):
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert (as_uint8((pixels / 255).astype(dtype), "x") == pixels).all()


def test_bool_and_small_integers():
    assert as_uint8(np.array([[[True, False]]]), "x").ravel().tolist() == [255, 0]
    assert as_uint8(np.array([[[0, 255]]]), "x").ravel().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((1, 2, 2), 1.5), r"x has float64 values from 1.5 to 1.5.*0\.\.1: scale"),
        (np.full((1, 2, 2), np.nan), "finite"),
        (np.full((1, 2, 2), -np.inf), "finite"),
        (np.full((1, 2, 2), 256), r"int64 values.*0\.\.255"),
        (np.full((1, 2, 2), 1j), "type complex128"),
        (np.full((1, 2, 2), "a"), "type <U1"),
        (np.full((1, 2, 2), None), "type object"),
        (np.zeros((2, 2)), r"shape \(2, 2\)"),
        (np.zeros((0, 2, 2)), r"at least one"),
        (np.zeros((1, 1, 2, 2, 2)), "shape"),
    ],
)
def test_other_arrays_are_refused(array, message):
    with pytest.raises(InputError, match=message):
        as_uint8(array, "x")


# --- place_on_grid, with_channels


def test_small_images_are_centred_and_their_edges_repeated():
    image = np.array([[1, 2], [3, 4]], np.uint8)[None, ..., None]
    expected = [[1, 1, 2, 2, 2], [1, 1, 2, 2, 2], [3, 3, 4, 4, 4], [3, 3, 4, 4, 4], [3, 3, 4, 4, 4]]
    assert place_on_grid(image, 5)[0, ..., 0].tolist() == expected


def test_fitting_images_are_returned_as_they_are():
    batch = random_pixels(3, 8, 8, 1)
    assert place_on_grid(batch, 8) is batch


def test_large_images_are_averaged_over_areas():
    image = np.kron(np.array([[10, 20], [30, 40]], np.uint8), np.ones((4, 4), np.uint8))
    assert place_on_grid(image[None, ..., None], 2)[0, ..., 0].tolist() == [[10, 20], [30, 40]]
    checkerboard = np.indices((8, 8)).sum(0) % 2 * 255
    reduced = place_on_grid(checkerboard.astype(np.uint8)[None, ..., None], 4)
    assert set(reduced.ravel()) == {128}  # antialiased: no pixel was picked


def test_aspect_ratio_is_kept():
    image = np.zeros((1, 40, 80, 1), np.uint8)
    image[:, :, 40:] = 200
    placed = place_on_grid(image, 8)[0, ..., 0]
    assert (placed[:, :4] == 0).all()
    assert (placed[:, 4:] == 200).all()


@given(
    arrays(
        np.uint8,
        st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(1, 4)),
    ),
    st.integers(1, 16),
)
@settings(max_examples=80, deadline=None)
def test_every_image_is_placed_alone_and_in_its_own_range(batch, side):
    placed = place_on_grid(batch, side)
    assert placed.shape == (len(batch), side, side, batch.shape[-1])
    assert placed.dtype == np.uint8
    assert (place_on_grid(batch[-1:], side)[0] == placed[-1]).all()
    assert placed.min() >= batch.min()
    assert placed.max() <= batch.max()


def test_grid_without_pixels_is_refused():
    with pytest.raises(InputError, match="side 0"):
        place_on_grid(random_pixels(1, 2, 2, 1), 0)


def test_with_channels():
    grey, colour = random_pixels(4, 4, 1), random_pixels(4, 4, 3)
    assert with_channels(grey, 1) is grey
    assert (with_channels(grey, 3) == grey).all()
    assert with_channels(colour, 1).shape == (4, 4, 1)
    assert (with_channels(with_channels(grey, 3), 1) == grey).all()
    with pytest.raises(InputError, match="3 channels cannot become one of 2"):
        with_channels(colour, 2)


def test_an_image_is_made_to_conform_in_what_is_asked_for_alone():
    grey, colour = random_pixels(4, 6, 1), random_pixels(4, 6, 3)
    assert conform(colour, None, None) is colour
    assert (conform(grey, None, 3) == with_channels(grey, 3)).all()
    assert (conform(colour, 8, None) == place_on_grid(colour[None], 8)[0]).all()
    assert (conform(colour, 8, 1) == place_on_grid(with_channels(colour, 1)[None], 8)[0]).all()
