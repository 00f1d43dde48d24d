import io

import numpy as np
import pytest
import torch
from archives import write_shard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import on_disk

from historyad.data import streams
from historyad.data.any_size import Images
from historyad.data.datasets import open_source
from historyad.data.decoding import decode_image, image_shape
from historyad.data.sources import Source
from historyad.errors import InputError

SIZES = [(4, 6), (5, 6), (9, 3), (4, 6), (1, 12)]  # height, width


def image(i, channels=1):
    return np.full((*SIZES[i], channels), 10 * i, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Five grey images of several sizes; image i has the value 10 i."""
    for i in range(5):
        Image.fromarray(image(i)[..., 0]).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.fixture(params=["in memory", "on the disk", "shards", "arrays", "tensors"])
def source(request, folder, monkeypatch):
    """The images of `folder`, in each way in which they come."""
    files = [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.png"))]
    if request.param == "on the disk":
        monkeypatch.setattr(streams, "IN_MEMORY_BYTES", 10)
    opened = {
        "shards": write_shard(folder / "tars" / "x.tar", files),
        "arrays": [image(i)[..., 0] for i in range(5)],
        "tensors": [(torch.from_numpy(image(i)), i) for i in range(5)],
    }.get(request.param, folder)
    return open_source(opened, any_size=True, skip_unreadable=True)


def test_images_of_any_size_are_read_one_by_one_or_as_lists(source):
    images = source.samples
    assert isinstance(source, Source)
    assert isinstance(images, Images)
    assert source.kind == "image"
    assert (len(source), len(images), images.dtype, images.ndim) == (5, 5, np.uint8, 4)
    assert images.shape == (5, None, None, 1)
    assert images.sizes.tolist() == [[*size] for size in SIZES]
    for i in range(5):
        np.testing.assert_array_equal(images[i], image(i))
        np.testing.assert_array_equal(images[i - 5], image(i))
    for index in (slice(1, 4), [3, 0, -1], np.array([2, 2]), np.arange(5) % 2 == 0, []):
        found = images[index]
        assert isinstance(found, list)
        expected = np.arange(5)[index].tolist()
        assert [one.shape for one in found] == [image(i).shape for i in expected]
        assert [int(one[0, 0, 0]) for one in found] == [10 * i for i in expected]
    with pytest.raises(IndexError):
        images[5]
    with pytest.raises(TypeError, match="are no array"):
        np.asarray(images)
    assert [int(one[0, 0, 0]) for one in images] == [0, 10, 20, 30, 40]


def test_chunks_and_parts_are_small_in_memory(source, monkeypatch):
    rows = np.array([4, 0, 1, 3, 2])
    monkeypatch.setattr(streams, "PART_BYTES", 50)
    parts = list(source.samples.in_parts(rows))
    assert [one[0, 0, 0] // 10 for part in parts for one in part] == rows.tolist()
    assert 1 < len(parts) < 5
    assert all(sum(one.size for one in part) <= 50 + 30 for part in parts)
    chunks = list(source.chunks(3))
    assert [len(names) for names, _ in chunks] == [1] * 5
    monkeypatch.setattr(streams, "PART_BYTES", 1000)
    chunks = list(source.chunks(99))
    assert [pixels.shape for _, pixels in chunks] == [(1, *image(i).shape) for i in range(5)]
    assert [name for names, _ in chunks for name in names] == list(source.names)


def test_the_fingerprint_tells_images_apart(source, folder):
    first = source.fingerprint
    assert len(first) == 64
    changed = [image(i)[..., 0] for i in range(5)]
    changed[3] = changed[3].T  # the same bytes
    prints = {open_source(some, any_size=True).fingerprint for some in (changed, changed[:4])}
    assert len(prints | {first}) == 3


def test_images_that_are_alike_are_not_an_array_either(tmp_path):
    for i in range(3):
        Image.new("L", (6, 4), i).save(tmp_path / f"{i}.png")
    assert isinstance(open_source(tmp_path, any_size=True).samples, Images)
    assert isinstance(open_source(tmp_path / "0.png", any_size=True).samples, Images)
    assert isinstance(open_source(tmp_path).samples, np.ndarray)
    assert isinstance(open_source(tmp_path, any_size=True, mixed=8).samples, np.ndarray)
    array = np.zeros((3, 4, 6), np.uint8)
    assert isinstance(open_source(array, any_size=True).samples, np.ndarray)
    assert open_source([np.ones(3), np.ones(3)], any_size=True).samples.shape == (2, 3)


@pytest.mark.parametrize("limit", [1 << 31, 10])
def test_grey_and_colour_are_told_apart_or_made_alike(folder, monkeypatch, limit):
    monkeypatch.setattr(streams, "IN_MEMORY_BYTES", limit)
    Image.new("RGB", (7, 5), (10, 10, 10)).save(folder / "5.png")
    with pytest.raises(InputError, match=r"5.png has 3 channels, the first image 1: .*--channels"):
        open_source(folder, any_size=True).samples[:]
    source = open_source(folder, any_size=True, channels=3)
    assert source.samples.shape == (6, None, None, 3)
    assert [one.shape[-1] for one in source.samples] == [3] * 6


@pytest.mark.parametrize("limit", [1 << 31, 10])
def test_what_cannot_be_read_is_refused_or_set_aside(folder, monkeypatch, limit):
    monkeypatch.setattr(streams, "IN_MEMORY_BYTES", limit)
    whole = (folder / "2.png").read_bytes()
    for data, size in ((b"hello", [0, 0]), (whole[:-20], [9, 3])):
        (folder / "2.png").write_bytes(data)
        with pytest.raises(InputError, match=r"2.png cannot be read .*--skip-unreadable"):
            open_source(folder, any_size=True).samples[:]
        source = open_source(folder, any_size=True, skip_unreadable=True)
        shown = [one[0, 0, 0] // 10 for one in source.samples]
        assert shown == ([0, 1, 3, 4] if limit > 10 else [0, 1, 3, 3, 4])  # the next one
        assert [name for name, _ in source.unreadable] == ["2.png"]
        if limit == 10:
            assert source.samples.sizes[2].tolist() == size
            assert source.samples.unreadable_rows.keys() == {2}
        assert [name for names, _ in source.chunks(9) for name in names] == [
            *("0.png", "1.png", "3.png", "4.png")
        ]
    for path in folder.glob("*.png"):
        path.write_bytes(b"hello")
    with pytest.raises(InputError, match=r"5 of 5 images|none of 5 images"):
        open_source(folder, any_size=True, skip_unreadable=True)


def test_what_a_reader_refuses_is_left_out(source):
    def check(shape):
        if shape[0] < 4:
            raise InputError("too small")

    chunks = list(source.chunks(9, check=check))
    assert sum(len(names) for names, _ in chunks) == 4
    ((_, reason),) = source.unreadable
    assert reason.endswith("too small")
    assert source.unreadable_in(4, 5) == source.unreadable
    assert source.unreadable_in(0, 4) == []
    with pytest.raises(InputError, match="4: too small"):
        list(open_source([image(i) for i in range(5)], any_size=True).chunks(9, check=check))


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"]
FORMATS = {"TIFF": MODES, "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"], "JPEG": ["L", "RGB"]}


@on_disk
@given(st.data(), st.sampled_from(list(FORMATS)), st.integers(0, 8))
def test_the_shape_of_an_image_is_known_before_it_is_decoded(tmp_path_factory, data, form, turned):
    mode = data.draw(st.sampled_from(FORMATS[form]))
    made = Image.new(mode, (7, 5))
    exif = Image.Exif()
    if turned:
        exif[0x0112] = turned
    stream = io.BytesIO()
    made.save(stream, form, exif=exif)
    path = tmp_path_factory.mktemp("shape") / "x.png"
    path.write_bytes(stream.getvalue())
    assert image_shape(stream.getvalue()) == image_shape(path) == decode_image(path).shape
    assert image_shape(stream.getvalue()[:20]) is None
