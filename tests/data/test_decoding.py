import io
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import hostile
import numpy as np
import pytest
from PIL import Image

import historyad
from historyad.data.decoders import Decoders, DecodersClosedError
from historyad.data.decoding import decode_image, image_shape
from historyad.data.images import FORMATS, STRIP_PIXELS, image_pixels, read_image
from historyad.data.plain import MOST_BYTES, is_plain
from historyad.errors import InputError
from historyad.kinds.whole import Whole

ORIENTATION = 0x0112


def encoded(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def direct(data, **options):
    return read_image(io.BytesIO(data), "image", max_pixels=10**6, **options)


COLOUR = Image.fromarray(random_pixels(30, 40, 3))
TURNED = Image.Exif()
TURNED[ORIENTATION] = 6
FILES = {
    **{name: encoded(COLOUR, name) for name in FORMATS},
    "progressive": encoded(COLOUR, "JPEG", progressive=True),
    "LZW": encoded(COLOUR, "TIFF", compression="tiff_lzw"),
    "turned PNG": encoded(COLOUR, exif=TURNED),
    "turned JPEG": encoded(COLOUR, "JPEG", exif=TURNED),
    "alpha": encoded(Image.fromarray(random_pixels(30, 40, 4)), "TIFF"),
    "deep": encoded(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)), "TIFF"),
    "no image": b"no image",
    "cut": encoded(COLOUR, "TIFF")[:-99],
    "frames": encoded(COLOUR, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
}


@pytest.fixture(scope="module")
def decoders():
    with closing(Decoders(1)) as decoders:
        yield decoders


def in_process(decoders, data, check=None, seconds=60.0, **options):
    wanted = {"name": "image", "max_pixels": 10**6, "side": None, "channels": None}
    wanted |= {"cpu_seconds": 20, "has_check": check is not None, **options}
    return decoders.decode(data, wanted, check, seconds)


def outcome(decode, *arguments, **options):
    """Return the pixels, or what the error says."""
    try:
        return decode(*arguments, **options)
    except InputError as error:
        return str(error)


# --- processes


def test_a_process_gives_the_same_pixels_and_errors(decoders, tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
        for content in (data, tmp_path / name):
            for options in ({}, {"side": 16, "channels": 1}):
                expected = outcome(direct, data, **options)
                found = outcome(in_process, decoders, content, **options)
                assert type(found) is type(expected), name
                assert np.array_equal(found, expected), name


def test_a_file_that_computes_too_long_is_given_up(decoders):
    bad = hostile.many_scans()
    with pytest.raises(InputError, match="image takes more than 1 s of the processor to decode"):
        in_process(decoders, bad, max_pixels=10**7, cpu_seconds=1)
    started = time.monotonic()
    with pytest.raises(InputError, match="image was not decoded in the time for it"):
        in_process(decoders, bad, max_pixels=10**7, seconds=0.2)
    assert time.monotonic() - started < 5
    assert (in_process(decoders, FILES["LZW"]) == direct(FILES["LZW"])).all()


def test_a_file_that_takes_too_much_memory_is_given_up(decoders):
    with pytest.raises(InputError, match="more memory than its size explains"):
        in_process(decoders, hostile.huge_tile())
    assert (in_process(decoders, FILES["LZW"]) == direct(FILES["LZW"])).all()


def test_pages_are_not_counted(decoders):
    started = time.monotonic()
    with pytest.raises(InputError, match="image has more than one frame"):
        decode_image(hostile.many_pages(), decoders=decoders, cpu_seconds=2)
    assert time.monotonic() - started < 5


def test_images_of_the_largest_size_have_the_memory_they_need(decoders):
    image = Image.fromarray(np.kron(random_pixels(50, 50, 4), np.ones((60, 60, 1), np.uint8)))
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    for name, mode in [("TIFF", "RGBA"), ("JPEG", "RGB")]:
        options = {"progressive": True, "subsampling": 0} if name == "JPEG" else {}
        data = encoded(image.convert(mode), name, exif=exif, **options)
        pixels = in_process(decoders, data, max_pixels=9_000_000)
        assert pixels.shape == (3000, 3000, 3)


def test_a_process_that_dies_is_replaced(decoders):
    in_process(decoders, FILES["LZW"])
    (process,) = decoders._idle
    process._process.send_signal(signal.SIGSEGV)
    process._process.wait()
    with pytest.raises(InputError, match=r"cannot be decoded \(it ended the decoder, -11\)"):
        in_process(decoders, FILES["LZW"])
    assert (in_process(decoders, FILES["LZW"]) == direct(FILES["LZW"])).all()


def test_closing_ends_what_is_at_work():
    decoders, found = Decoders(1), []

    def decode():
        try:
            in_process(decoders, hostile.many_scans(), max_pixels=10**7)
        except DecodersClosedError as error:
            found.append(error)

    thread = threading.Thread(target=decode)
    thread.start()
    while not (decoders._busy and next(iter(decoders._busy))._is_started):
        time.sleep(0.01)
    (process,) = decoders._busy
    decoders.close()
    thread.join(5)
    assert len(found) == 1
    assert process._process.returncode == -signal.SIGKILL
    with pytest.raises(DecodersClosedError):
        in_process(decoders, FILES["LZW"])


SCRIPT = """
import os, sys
from pathlib import Path
from historyad.data.decoding import decode_image
path = Path(sys.argv[1])
before = decode_image(path)
child = os.fork()
found = [bool((decode_image(path) == before).all()) for _ in range(50)]
if child == 0:
    os._exit(0 if all(found) else 1)
print(all(found), os.waitpid(child, 0)[1], "torch" in sys.modules)
"""


def test_a_script_needs_no_guard_may_fork_and_may_stand_anywhere(tmp_path):
    # Spawned processes of Python's own import the script again, and modules from where it stands.
    (tmp_path / "a.tif").write_bytes(FILES["LZW"])
    for module in ("json", "socket", "PIL"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('from the wrong place')")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "script.py").write_text(SCRIPT)
    found = subprocess.run(
        [sys.executable, "elsewhere/script.py", "a.tif"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(historyad.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.stdout, found.stderr) == ("True 0 False\n", "")


# --- which files are plain


def test_ordinary_files_are_plain():
    grey, small = Image.new("L", (28, 28)), Image.new("RGB", (1, 1))
    for name in ("PNG", "JPEG", "BMP", "PPM"):
        assert is_plain(encoded(grey, name)), name
        assert is_plain(encoded(COLOUR, name)), name
        assert is_plain(encoded(small, name)), name
    assert is_plain(FILES["turned PNG"])
    assert is_plain(FILES["turned JPEG"])
    for mode in ("P", "RGBA", "LA", "1", "I;16"):
        assert is_plain(encoded(Image.new(mode, (28, 28)))), mode
    assert is_plain(encoded(Image.new("1", (9, 9)), "PPM"))
    assert is_plain(encoded(Image.new("CMYK", (28, 28)), "JPEG"))
    assert is_plain(encoded(COLOUR, dpi=(72, 72)))


def test_files_whose_cost_is_not_plain_are_not():
    jpeg, plain = FILES["JPEG"], FILES["PNG"]
    scan = jpeg.index(b"\xff\xda")
    segment = b"\xff\xe1\x40\x00" + bytes(0x3FFE)
    mpf = b"\xff\xe2\x00\x06MPF\0"
    odd = {
        "of other formats": [FILES[name] for name in ("GIF", "TIFF", "WEBP", "no image")],
        "of several scans": [FILES["progressive"], hostile.many_scans(100, 10)],
        "of one component a scan": [jpeg[: scan + 4] + b"\x01" + jpeg[scan + 5 :]],
        "of a long header": [jpeg[:2] + segment + jpeg[2:]],
        "of several pictures": [jpeg[:2] + mpf + jpeg[2:]],
        "too large": [encoded(Image.new("1", (2100, 2100))), plain + bytes(MOST_BYTES)],
        "of too many chunks": [hostile.png(3, 3, *[(b"IDAT", b"")] * 2000)],
        "that unpack more": [hostile.png(3, 3, (kind, b"x")) for kind in (b"zTXt", b"iCCP")],
        "of frames": [hostile.png(3, 3, (b"acTL", bytes(8)))],
        "of much EXIF": [hostile.png(3, 3, (b"eXIf", bytes(5000)))],
        "cut": [plain[:20], plain[:-13], jpeg[:scan], jpeg[:3], b"BM", b"P5 1"],
        "packed": [encoded(Image.new("P", (9, 9)), "BMP").replace(b"\0" * 4, b"\1\0\0\0", 6)],
        "of text or odd depth": [b"P2 1 1 255 0", b"P6 1 1 65535 000000", b"P5 #x\n1 1 255 0"],
    }
    for reason, files in odd.items():
        for data in files:
            assert not is_plain(data), reason


def test_what_is_plain_is_decoded_without_a_process():
    with closing(Decoders(1)) as decoders:
        decode_image(FILES["PNG"], decoders=decoders)
        assert not decoders._idle
        decode_image(FILES["GIF"], decoders=decoders)
        assert len(decoders._idle) == 1


# --- shapes that are of no use


def test_a_shape_of_no_use_is_refused_before_decoding(decoders):
    kind = Whole((8, 8, 1), 8)
    cases = [hostile.png(3000, 3000), hostile.many_scans(), hostile.png(8, 9)]
    for data in cases:
        started = time.process_time()
        with pytest.raises(InputError, match="the detector was fitted on 8 x 8 x 1"):
            decode_image(data, check=kind.check, decoders=decoders, seconds=5)
        assert time.process_time() - started < 0.1
    with pytest.raises(InputError, match="3 channels"):
        decode_image(FILES["progressive"], check=kind.check, decoders=decoders)


def test_a_check_sees_the_shape_that_pixels_will_have(decoders):
    def shapes(data, **options):
        seen = []
        pixels = decode_image(data, check=seen.append, decoders=decoders, **options)
        assert seen[-1] == pixels.shape
        return seen

    assert shapes(FILES["PNG"]) == [(30, 40, 3)] * 2
    assert shapes(FILES["TIFF"], side=8, channels=1) == [(8, 8, 1)] * 2
    for name in ("turned PNG", "turned JPEG"):
        assert shapes(FILES[name]) == [(40, 30, 3)] * 2


def test_an_image_that_is_to_be_turned_may_fit(decoders):
    for name in ("turned PNG", "turned JPEG"):
        upright = Whole((40, 30, 3), 64)
        assert decode_image(FILES[name], check=upright.check).shape == (40, 30, 3)
        lying = Whole((30, 40, 3), 64)
        with pytest.raises(InputError, match="40 x 30 x 3"):
            decode_image(FILES[name], check=lying.check)


def test_the_shape_of_an_image_is_told_undecoded(decoders):
    assert image_shape(hostile.png(3000, 1000)) == (1000, 3000, 1)
    assert image_shape(hostile.many_scans(), decoders=decoders) == (2000, 2000, 1)
    assert image_shape(b"no image", decoders=decoders) is None


# --- files that are none


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(FILES["PNG"])
    assert (decode_image(tmp_path / "link.png") == direct(FILES["PNG"])).all()
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(InputError, match=rf"{name} cannot be read .*no regular file"):
            decode_image(tmp_path / name)


# --- large images


def test_large_images_are_converted_as_small_ones_are():
    side = int(STRIP_PIXELS**0.5) + 7
    random = np.random.default_rng(0)
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "F", "I", "I;16"):
        if mode in ("F", "I", "I;16"):
            values = random.integers(0, 65536, (side, side)).astype(np.int32)
            image = {
                "F": lambda v=values: Image.fromarray((v / 65535).astype(np.float32)),
                "I": lambda v=values: Image.fromarray(v),
                "I;16": lambda v=values: Image.fromarray(v.astype(np.uint16)),
            }[mode]()
        else:
            image = Image.fromarray(random_pixels(side, side, 4)).convert(mode)
        if mode in ("L", "RGB", "P"):
            image.info["transparency"] = {"L": 7, "RGB": (1, 2, 3), "P": 5}[mode]
        large = image_pixels(image, "x")
        for box in [(0, 0, side, 40), (3, side - 40, side, side)]:
            small = image_pixels(image.crop(box), "x")
            assert (large[box[1] : box[3], box[0] : box[2]] == small).all(), mode
