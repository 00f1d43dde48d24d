import contextlib
import gzip
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from tiny import write_idx

from historyad.data import decoding, in_memory, sources, streams
from historyad.data.datasets import open_source, open_stream
from historyad.data.named_sets import SETS
from historyad.data.sources import Source
from historyad.data.streams import ImageStream
from historyad.errors import InputError

DEBIAN = "/usr/share/datasets/fashion-mnist"


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Ten grey images of 6 x 4 pixels; image i has the value i."""
    for i in range(10):
        save(tmp_path / "parts" / f"{'ab'[i % 2]}/{i:02}.png", np.full((4, 6), i, np.uint8))
    return tmp_path / "parts"


# --- folders


def test_folder_is_read_in_order_of_relative_paths(folder):
    source = open_source(str(folder))
    assert source.kind == "image"
    assert source.samples.shape == (10, 4, 6, 1)
    assert source.samples.dtype == np.uint8
    assert source.samples[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    assert source.names[4:6] == ["a/08.png", "b/01.png"]
    assert source.description == str(folder)
    assert len(source) == 10
    assert source.labels is None


def test_stream_yields_what_open_source_holds(folder):
    whole, stream = open_source(folder), open_stream(folder)
    assert isinstance(stream.samples, ImageStream)
    assert len(stream) == 10
    assert stream.kind == "image"
    for size in (1, 3, 10, 99):
        names, samples = zip(*stream.chunks(size), strict=True)
        assert [len(chunk) for chunk in names[:-1]] == [size] * (len(names) - 1)
        assert list(chain(*names)) == whole.names
        assert (np.concatenate(samples) == whole.samples).all()


def test_unreadable_images_stop_fitting(folder):
    for i in range(7):
        (folder / f"bad{i}.png").write_bytes(b"damaged")
    with pytest.raises(InputError) as caught:
        open_source(folder)
    message = str(caught.value)
    assert message.startswith(f"7 of 17 images in {folder} cannot be read")
    assert message.count("bad") == 5
    assert "and 2 more" in message
    assert "--skip-unreadable" in message


def test_unreadable_images_are_skipped_on_request_and_in_streams(folder):
    (folder / "a/02.png").write_bytes(b"damaged")
    source = open_source(folder, skip_unreadable=True)
    assert source.samples[:, 0, 0, 0].tolist() == [0, 4, 6, 8, 1, 3, 5, 7, 9]
    [(name, reason)] = source.unreadable
    assert name == "a/02.png"
    assert "cannot be read as an image" in reason
    stream = open_stream(folder)
    for _ in range(2):  # a second pass does not count twice
        assert sum(len(names) for names, _ in stream.chunks(4)) == 9
        assert [name for name, _ in stream.unreadable] == ["a/02.png"]


def test_folder_without_a_readable_image(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match="1 of 1 images"):
        open_source(tmp_path, skip_unreadable=True)
    assert list(open_stream(tmp_path).chunks(4)) == []


@pytest.mark.parametrize("opener", [open_source, open_stream])
def test_empty_folder(tmp_path, opener):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=f"no images in {tmp_path}; give a folder.*.png"):
        opener(tmp_path)


def test_images_that_differ_are_named(folder):
    save(folder / "a/03.png", random_pixels(5, 6))
    with pytest.raises(
        InputError, match=r"a/00.png is 6 x 4 .* but a/03.png is 6 x 5 .*image_size"
    ):
        open_source(folder)
    save(folder / "a/03.png", random_pixels(4, 6, 3))
    with pytest.raises(InputError, match=r"with 1 channel but a/03.png .*3 channels; make all"):
        open_source(folder)


def test_mixed_images_on_a_grid(folder):
    save(folder / "a/03.png", np.full((50, 30, 3), 7, np.uint8))
    source = open_source(folder, mixed=8, channels=3)
    assert source.samples.shape == (11, 8, 8, 3)
    assert (source.samples[2] == 7).all()
    chunks = list(open_stream(folder, mixed=8, channels=3).chunks(4))
    assert (np.concatenate([samples for _, samples in chunks]) == source.samples).all()
    assert open_source(folder, mixed=8, channels=1).samples.shape == (11, 8, 8, 1)


def test_stream_decodes_ahead_but_never_the_whole_folder(folder, monkeypatch):
    decoded, finished = [], threading.Semaphore(0)
    before = set(threading.enumerate())
    decode = decoding.decode_image

    def decode_and_tell(path, **options):
        decoded.append(path)
        finished.release()
        return decode(path, **options)

    monkeypatch.setattr("historyad.data.streams.decode_image", decode_and_tell)
    chunks = open_stream(folder).chunks(2)
    next(chunks)
    for _ in range(4):  # the consumer is busy; the next chunk is decoded meanwhile
        assert finished.acquire(timeout=60)
    chunks.close()  # waits for what was begun
    assert len(decoded) == 4
    assert set(threading.enumerate()) <= before


def test_a_stream_of_large_images_does_not_decode_far_ahead(folder, monkeypatch):
    decoded = []
    decode = decoding.decode_image
    monkeypatch.setattr(
        "historyad.data.streams.decode_image",
        lambda path, **options: decoded.append(path) or decode(path, **options),
    )
    monkeypatch.setattr(streams, "PART_BYTES", 24)  # those of one image
    (folder / "a/00.png").write_bytes(b"damaged")
    chunks = open_stream(folder).chunks(8)
    assert next(chunks)[0] == ("a/02.png",)
    chunks.close()
    assert len(decoded) <= 4


def test_single_image(tmp_path):
    pixels = random_pixels(4, 6, 3)
    save(tmp_path / "part.PNG", pixels)
    source = open_source(tmp_path / "part.PNG")
    assert source.names == ["part.PNG"]
    assert (source.samples == pixels).all()
    assert open_source(tmp_path / "part.PNG", channels=1).samples.shape == (1, 4, 6, 1)
    assert isinstance(open_stream(tmp_path / "part.PNG"), Source)
    assert open_source(tmp_path / "part.PNG", mixed=8).samples.shape == (1, 8, 8, 3)


# --- arrays


def test_array_kinds():
    images = open_source(random_pixels(3, 4, 5))
    assert (images.kind, images.samples.shape) == ("image", (3, 4, 5, 1))
    assert images.names == ["0", "1", "2"]
    assert images.description == "array (3, 4, 5) of uint8"
    vectors = open_source([[1, 2], [3, 4]])
    assert (vectors.kind, vectors.samples.dtype) == ("vector", np.float32)
    tensor = open_source(torch.rand(2, 3, 8, 8, requires_grad=True))
    assert tensor.samples.shape == (2, 8, 8, 3)


def test_arrays_that_fit_are_not_copied():
    vectors = np.ones((2, 3), np.float32)
    assert np.shares_memory(open_source(vectors).samples, vectors)
    images = random_pixels(2, 3, 4)
    assert np.shares_memory(open_source(images).samples, images)


def test_source_is_returned_as_it_is():
    source = open_source(np.ones((2, 3)))
    assert open_source(source) is source
    assert open_stream(source) is source


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_vectors_must_be_finite(value, monkeypatch):
    monkeypatch.setattr(in_memory, "CHUNK_BYTES", 100)
    vectors = np.zeros((50, 3))
    vectors[41, 2] = value
    with pytest.raises(InputError, match=r"row 41, column 2 \(from 0\) is .*; NaN, infinity"):
        open_source(vectors)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"shape \(3,\); give \(N, F\)"),
        (np.zeros((0, 3)), "at least one"),
        (np.zeros((3, 0)), "at least one"),
        (np.zeros((1, 1, 1, 1, 1)), "shape"),
        (None, "a NoneType is no array of samples"),
        ({"image": 1}, "a dict is no array of samples"),
        ([[1, 2], [3]], "cannot be used as an array"),
        ([["a", "b"]], "type <U1"),
        (np.array([[1j]]), "complex"),
        (np.full((1, 2, 2), 3.0), r"0\.\.1"),
    ],
)
def test_unusable_arrays(array, message):
    with pytest.raises(InputError, match=message):
        open_source(array)


def test_fingerprint_depends_on_values_shape_and_type_only(tmp_path, monkeypatch):
    pixels = random_pixels(7, 4, 5)
    fingerprint = open_source(pixels).fingerprint
    np.save(tmp_path / "x.npy", pixels)
    assert open_source(tmp_path / "x.npy").fingerprint == fingerprint
    monkeypatch.setattr(sources, "CHUNK_BYTES", 50)
    assert open_source(pixels).fingerprint == fingerprint
    assert open_source(pixels.transpose(0, 2, 1).copy().transpose(0, 2, 1)).fingerprint == (
        fingerprint
    )
    assert open_source(pixels.reshape(7, 5, 4)).fingerprint != fingerprint
    assert open_source(pixels[::-1]).fingerprint != fingerprint
    assert open_source(pixels.reshape(7, 20)).fingerprint != fingerprint


@given(st.integers(1, 20), st.integers(1, 25))
@settings(deadline=None, max_examples=20)
def test_chunks_cover_everything_once(n, size):
    source = open_source(random_pixels(n, 2, 2))
    names, samples = zip(*source.chunks(size), strict=True)
    assert list(chain(*names)) == source.names
    assert (np.concatenate(samples) == source.samples).all()


# --- .npy and .npz


def test_npy_stays_memory_mapped(tmp_path):
    np.save(tmp_path / "x.npy", random_pixels(5, 4, 4, 3))
    np.save(tmp_path / "v.npy", np.ones((5, 3), np.float32))
    for name, kind in (("x.npy", "image"), ("v.npy", "vector")):
        source = open_source(str(tmp_path / name))
        assert source.kind == kind
        assert isinstance(source.samples, np.memmap)
        assert not source.samples.flags.writeable


def test_damaged_npy(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, random_pixels(50, 4, 4))
    whole = path.read_bytes()
    for data in (b"", whole[:9], whole[:-1], b"garbage", whole.replace(b"|u1", b"xyz")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"x.npy cannot be read as arrays of numbers"):
            open_source(path)
    np.save(path, np.array([None]), allow_pickle=True)
    with pytest.raises(InputError, match="without Python objects"):
        open_source(path)
    np.savez(tmp_path / "y.npz", x=np.ones((2, 2)))
    (tmp_path / "y.npz").rename(path)
    with pytest.raises(InputError, match=r"rename it to end in .npz"):
        open_source(path)


@pytest.fixture
def table(tmp_path):
    """An ADBench-like table in a folder whose name holds a colon."""
    path = tmp_path / "odd:name.npz:x" / "cardio.npz"
    path.parent.mkdir()
    np.savez(path, X=np.arange(12.0).reshape(6, 2), y=np.array([0, 0, 1, 0, 1, 2]))
    return path


def test_npz_key_and_labels(table):
    source = open_source(str(table))
    assert source.samples.shape == (6, 2)
    assert source.labels.tolist() == [0, 0, 1, 0, 1, 2]
    assert open_source(f"{table}:X").samples.shape == (6, 2)
    normal = open_source(f"{table}:X:0")
    assert normal.samples[:, 0].tolist() == [0, 2, 6]
    assert normal.names == ["0", "1", "3"]
    assert normal.labels.tolist() == [0, 0, 0]
    assert normal.description == f"{table}:X:0"
    assert open_source(f"{table}:X:!0").names == ["2", "4", "5"]
    assert open_source(f"{table}:X:0,2").names == ["0", "1", "3", "5"]
    assert open_source(f"{table}::1").names == ["2", "4"]


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (":Z", "no array 'Z'; it has X, y"),
        (":y", "shape"),
        (":X:a", "'a' selects no labels; write 0,1,2 or !3"),
        (":X:7", "the labels are 0, 1, 2"),
        (":X:!0,1,2", "leaves nothing"),
    ],
)
def test_bad_npz_suffix(table, suffix, message):
    with pytest.raises(InputError, match=message):
        open_source(f"{table}{suffix}")


def test_npz_with_several_candidates(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, train=np.ones((2, 2)), test=np.ones((2, 2)), note=np.array("a"))
    with pytest.raises(InputError, match=r"2 arrays .* train, test, note; name one, as in x.npz:K"):
        open_source(path)
    assert open_source(f"{path}:test").labels is None
    np.savez(path, images=random_pixels(2, 3, 3), labels=np.array([0.5, 1]), names=np.array(["a"]))
    source = open_source(path)
    assert source.kind == "image"
    assert source.labels is None  # 0.5 is no class
    with pytest.raises(InputError, match="no labels to select by"):
        open_source(f"{path}:images:0")


def test_damaged_npz(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, X=random_pixels(50, 50))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for data in (b"", whole[: len(whole) // 2], bytes(damaged), b"garbage"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"x.npz"):
            open_source(path)
    np.savez(path, X=np.array([[None]]))
    with pytest.raises(InputError, match="0 arrays that could be samples"):
        open_source(path)


# --- any file


@pytest.mark.parametrize(
    "suffix", [".csv", ".csv.gz", ".npy", ".npz", ".parquet", ".feather", ".png"]
)
@given(data=st.binary(max_size=100))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_files_raise_nothing_but_input_error(tmp_path, suffix, data):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    with contextlib.suppress(InputError):  # a few bytes may well be a table
        assert open_source(path).samples.ndim in (2, 4)


def test_missing_and_unknown_paths(tmp_path):
    with pytest.raises(InputError, match="did you mean the set 'fashion-mnist'"):
        open_source("fashion_mnist:test")
    with pytest.raises(InputError, match=r"gone/x.png does not exist"):
        open_source("gone/x.png")
    with pytest.raises(InputError, match=r"gone.npz does not exist"):
        open_source("gone.npz:X:0")
    with pytest.raises(InputError, match="check the path"):
        open_source("x" * 5000)
    (tmp_path / "x.docx").touch()
    with pytest.raises(InputError, match=r"of no known type; give a folder, .npy"):
        open_source(tmp_path / "x.docx")


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    assert len(open_source("~/x.npy")) == 2


# --- Datasets


class Items:
    """A map-style Dataset, as torch would call it."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_torch_dataset_of_tensors_and_labels():
    images = torch.rand(4, 3, 8, 8)
    source = open_source(torch.utils.data.TensorDataset(images, torch.arange(4)))
    assert (source.samples == open_source(images).samples).all()
    assert source.labels.tolist() == [0, 1, 2, 3]
    assert source.description == "TensorDataset of 4 samples"
    vectors = open_source(torch.utils.data.TensorDataset(torch.rand(4, 5)))
    assert (vectors.kind, vectors.samples.shape, vectors.labels) == ("vector", (4, 5), None)


def test_dataset_of_pillow_images_keeps_the_rules_for_files():
    hidden = Image.fromarray(np.array([[[200, 0], [200, 255]]], np.uint8), "LA")
    for dataset in (Items([hidden]), [hidden]):
        assert open_source(dataset).samples.ravel().tolist() == [0, 200]
    palette = Image.new("P", (2, 2))
    palette.putpalette([1, 2, 3])
    assert open_source([palette]).samples[0, 0, 0].tolist() == [1, 2, 3]


def test_dataset_of_arrays_with_other_labels():
    for label in ("good", 0.0, None, [1, 2]):
        source = open_source(Items([(random_pixels(4, 5), label)]))
        assert source.samples.shape == (1, 4, 5, 1)
        assert (source.labels is None) == (label != 0.0)


def test_unusable_datasets():
    with pytest.raises(InputError, match="0 samples is empty"):
        open_source(Items([]))
    with pytest.raises(InputError, match=r"item 0 has shape \(\)"):
        open_source(Items([{"image": 1}]))
    with pytest.raises(InputError, match=r"0 is 5 x 4 .* but 1 is 6 x 4"):
        open_source(Items([random_pixels(4, 5), random_pixels(4, 6)]))
    with pytest.raises(InputError, match="vector of 2 values but 1 is a vector of 3"):
        open_source(Items([np.ones(2), np.ones(3)]))
    with pytest.raises(InputError, match="item 1"):
        open_source(Items([np.ones(2), np.full(2, np.nan)]))


def test_what_gives_one_sample_at_a_time():
    images = random_pixels(3, 4, 5)
    for samples in (
        (image for image in images),
        iter([*images]),
        map(Image.fromarray, images),
        (torch.from_numpy(image) for image in images),
        ((image, 7) for image in images),
    ):
        source = open_source(samples)
        assert (source.samples == images[..., None]).all()
        assert len(source.names) == 3
    assert source.labels.tolist() == [7] * 3
    rows = open_source((float(i), 2) for i in range(4))
    assert rows.samples.tolist() == [[0, 2], [1, 2], [2, 2], [3, 2]]
    assert open_source((image for image in images), mixed=8).samples.shape == (3, 8, 8, 1)
    with pytest.raises(InputError, match="the generator gives no samples"):
        open_source(image for image in images[:0])
    loader = torch.utils.data.DataLoader([*images])
    with pytest.raises(InputError, match="a DataLoader is no array of samples: give an array"):
        open_source(loader)


def test_tensors_that_numpy_does_not_take():
    values = torch.tensor([[0.5, 3.0], [1.0, -2.0]])
    for tensor in (values.bfloat16(), values.clone().requires_grad_(), values.half()):
        assert open_source(tensor).samples.tolist() == values.tolist()
        assert open_source([*tensor]).samples.tolist() == values.tolist()
        assert open_source(row for row in tensor).samples.tolist() == values.tolist()
        assert open_source(Items([*tensor])).samples.tolist() == values.tolist()
    whole = values.round().to(torch.float8_e4m3fn)
    assert open_source(whole).samples.tolist() == values.round().tolist()
    for tensor in (values.to_sparse(), torch.empty(3, 2, device="meta")):
        for source in (tensor, [tensor]):
            with pytest.raises(InputError, match=r"cannot become an array .* give a dense one"):
                open_source(source)


def test_masked_values_are_not_taken_for_what_lies_behind_them():
    pixels = np.ma.masked_array(random_pixels(8, 8)[None].repeat(3, axis=0), mask=False)
    table = np.ma.masked_array([[1.0, 2.0], [3.0, -999.0]], mask=False)
    for values in (pixels, table):
        np.testing.assert_array_equal(open_source(values).samples[1].squeeze(), values.data[1])
        assert not isinstance(open_source(values).samples, np.ma.MaskedArray)
        masked = values.copy()
        masked[1, 1] = np.ma.masked
        for source in (masked, [*masked], Items([*masked])):
            with pytest.raises(InputError, match=r"values are masked: fill them, or leave out"):
                open_source(source)


def test_mixed_dataset():
    source = open_source(Items([random_pixels(4, 5), random_pixels(40, 6, 3)]), mixed=8, channels=1)
    assert source.samples.shape == (2, 8, 8, 1)


# --- named sets


def test_digits_split_is_fixed_and_disjoint(digits):
    images, labels = digits
    train, test = open_source("digits"), open_source("digits:test")
    assert (train.samples == images[np.arange(len(images)) % 3 != 0]).all()
    assert (test.samples == images[::3]).all()
    assert (test.labels == labels[::3]).all()
    assert set(open_source("digits:train:0,1,2").labels.tolist()) == {0, 1, 2}
    assert 3 not in open_source("digits:train:!3").labels
    assert open_stream("digits:test:5").labels.tolist() == [5] * (test.labels == 5).sum()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("place", ["MNIST/raw", "mnist"])
def test_idx_layouts(tmp_path, place, suffix):
    images = random_pixels(5, 28, 28)
    write_idx(tmp_path / place / f"t10k-images-idx3-ubyte{suffix}", images)
    write_idx(tmp_path / place / f"t10k-labels-idx1-ubyte{suffix}", np.arange(5, dtype=np.uint8))
    source = open_source("mnist:test", data_root=tmp_path)
    assert (source.samples[..., 0] == images).all()
    assert source.labels.tolist() == [0, 1, 2, 3, 4]
    assert open_source("mnist:test:!2", data_root=str(tmp_path)).names == ["0", "1", "3", "4"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:7],
        lambda data: b"\0\0\x0d" + data[3:],
        lambda data: data[:4] + b"\xff" * 12 + data[16:],
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_idx(tmp_path, damage, compressed):
    suffix = ".gz" if compressed else ""
    path = tmp_path / f"mnist/t10k-images-idx3-ubyte{suffix}"
    write_idx(path, random_pixels(5, 28, 28))
    write_idx(tmp_path / f"mnist/t10k-labels-idx1-ubyte{suffix}", np.arange(5, dtype=np.uint8))
    data = damage(gzip.decompress(path.read_bytes()) if compressed else path.read_bytes())
    path.write_bytes(gzip.compress(data) if compressed else data)
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte.*fetch it again"):
        open_source("mnist:test", data_root=tmp_path)


def test_damaged_gzip_and_unequal_counts(tmp_path):
    path = tmp_path / "mnist/t10k-images-idx3-ubyte.gz"
    write_idx(path, random_pixels(5, 28, 28))
    write_idx(tmp_path / "mnist/t10k-labels-idx1-ubyte.gz", np.arange(4, dtype=np.uint8))
    with pytest.raises(InputError, match=r"5 images but .* 4 labels"):
        open_source("mnist:test", data_root=tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"mnist:test: .* cannot be read .* fetch it again"):
        open_source("mnist:test", data_root=tmp_path)


@pytest.mark.parametrize("folder", ["", "svhn", "SVHN"])
def test_svhn_from_the_authors_files(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    images = random_pixels(3, 32, 32, 3)
    for part, found in (("train", images), ("test", images[::-1])):
        content = {"X": np.moveaxis(found, 0, -1), "y": [[1], [10], [5]]}
        savemat(tmp_path / folder / f"{part}_32x32.mat", content)
    source = open_source("svhn", data_root=tmp_path)
    assert (source.samples == images).all()
    assert source.labels.tolist() == [1, 0, 5]
    assert (open_source("svhn:test", data_root=tmp_path).samples == images[::-1]).all()


def test_official_svhn_goes_before_a_part_of_it(tmp_path):
    (tmp_path / "svhn").mkdir()
    part, whole = random_pixels(2, 32, 32, 3), random_pixels(3, 32, 32, 3)
    np.savez(tmp_path / "svhn/train.npz", images=part, labels=np.array([1, 2]))
    assert (open_source("svhn", data_root=tmp_path).samples == part).all()
    content = {"X": np.moveaxis(whole, 0, -1), "y": [[1], [10], [5]]}
    savemat(tmp_path / "svhn/train_32x32.mat", content)
    assert (open_source("svhn", data_root=tmp_path).samples == whole).all()


def test_cifar10_from_the_authors_binary_files(tmp_path):
    images, labels = random_pixels(10, 32, 32, 3), np.arange(10, dtype=np.uint8)
    records = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(10, -1)], 1)
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for i in range(5):
        records[2 * i : 2 * i + 2].tofile(tmp_path / f"cifar-10-batches-bin/data_batch_{i + 1}.bin")
    source = open_source("cifar10:train", data_root=tmp_path)
    assert (source.samples == images).all()
    assert (source.labels == labels).all()


def test_sets_that_are_folders(tmp_path):
    save(tmp_path / "tiny-imagenet-200/val/images/val_0.JPEG", random_pixels(64, 64, 3))
    save(tmp_path / "tiny-imagenet-200/val/images/val_1.JPEG", random_pixels(64, 64))
    assert open_source("tiny-imagenet:val", data_root=tmp_path).samples.shape == (2, 64, 64, 3)
    save(tmp_path / "celeba/img_align_celeba/000001.jpg", random_pixels(218, 178, 3))
    source = open_source("celeba:all", data_root=tmp_path, mixed=32)
    assert source.samples.shape == (1, 32, 32, 3)


def test_split_and_label_mistakes():
    with pytest.raises(InputError, match="no split 'val'; its splits are test, train"):
        open_source("mnist:val")
    with pytest.raises(InputError, match="'three' selects no labels"):
        open_source("digits:train:three")


def test_a_set_wins_over_a_folder_of_its_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    folder.rename(folder.parent / "digits")
    assert open_source("digits").samples.shape[1:] == (8, 8, 1)
    assert open_source("./digits").samples.shape == (10, 4, 6, 1)


# --- absent sets: nothing here may touch the network


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No data anywhere, and downloads fail at once; returns the list of attempted addresses."""
    attempts = []

    def retrieve(url, **_):
        attempts.append(url)
        raise ConnectionError("no network")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setenv("HISTORYAD_DATA", str(tmp_path / "environment"))
    return attempts


def test_absent_set_names_files_places_and_remedy(tmp_path, offline):
    with pytest.raises(InputError) as caught:
        open_source("kmnist:test", data_root=tmp_path / "given")
    message = str(caught.value)
    for part in (
        "kmnist:test is missing",
        "failed (ConnectionError)",
        f"{tmp_path}/given, {tmp_path}/environment, {tmp_path}/cache/historyad",
        "KMNIST/raw/t10k-images-idx3-ubyte.gz",
        "--data-root or HISTORYAD_DATA",
    ):
        assert part in message
    assert offline == ["http://codh.rois.ac.jp/kmnist/dataset/kmnist/t10k-images-idx3-ubyte.gz"]


def test_absent_set_that_is_never_downloaded(offline):
    with pytest.raises(InputError, match=r"data_batch_1.bin \(and 4 beside it\), or"):
        open_source("cifar10")
    assert offline == []


def test_absent_set_without_pooch(offline, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r"install historyad\[datasets\].*/.cache/historyad"):
        open_source("mnist")


def test_download_fetches_only_what_is_missing(tmp_path, offline, monkeypatch):
    images = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte.gz"
    write_idx(images, random_pixels(2, 28, 28))

    def retrieve(url, known_hash, fname, path, downloader):
        assert url.endswith("/mnist/t10k-labels-idx1-ubyte.gz")
        assert known_hash == "md5:ec29112dd5afa0611ce80d1b7f02629c"
        assert downloader.kwargs["timeout"] == 10
        write_idx(path / fname, np.zeros(2, np.uint8))

    monkeypatch.setattr("pooch.retrieve", retrieve)
    assert len(open_source("mnist:test", data_root=tmp_path)) == 2


def test_every_download_has_a_checksum():
    for layouts in SETS.values():
        for layout in layouts:
            if layout.url:
                names = {Path(f).name for files in layout.files.values() for f in files}
                assert names == set(layout.md5)
                assert all(len(checksum) == 32 for checksum in layout.md5.values())


def test_importing_needs_neither_torch_nor_scipy():
    code = (
        "import sys, historyad.data.datasets, historyad.judge.metrics;"
        "print(*{'torch', 'scipy', 'sklearn', 'pooch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- real sets


@pytest.mark.parametrize(
    ("source", "shape", "sum_of_labels"),
    [
        ("mnist:test", (10000, 28, 28, 1), 44434),
        ("kmnist:test", (10000, 28, 28, 1), 45000),
        ("svhn:test", (3000, 32, 32, 3), None),
        ("cifar10:test", (10000, 32, 32, 3), 45000),
        ("celeba:test_64x64", (250, 64, 64, 3), None),
        ("tiny-imagenet:test_64x64", (250, 64, 64, 3), None),
    ],
)
def test_real_sets(data_root, source, shape, sum_of_labels):
    opened = open_source(source, data_root=data_root)
    assert opened.samples.shape == shape
    if sum_of_labels:
        assert opened.labels.sum() == sum_of_labels


def test_real_mnist_has_its_published_statistics(data_root):
    threes = open_source("mnist:train:3", data_root=data_root)
    assert len(threes) == 6131
    assert open_source("mnist:test", data_root=data_root).samples.mean() == pytest.approx(
        33.7912, abs=1e-4
    )


def test_real_tables(data_root):
    table = data_root / "vectors/adbench/cardio.npz"
    assert open_source(f"{table}:X:0").samples.shape == (1655, 21)
    assert open_source(f"{table}:X:1").samples.shape == (176, 21)


def test_real_parts(data_root):
    stream = open_stream(data_root / "industrial/magnetic_tile/test/crack")
    assert sum(len(names) for names, _ in stream.chunks(20)) == 57
    assert stream.unreadable == []


@pytest.mark.skipif(not Path(DEBIAN).is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_the_debian_package(offline):
    assert open_source("fashion-mnist:test").samples.shape == (10000, 28, 28, 1)
    assert offline == []


TIMES = 1.7e9 + 10 * np.arange(200.0)


@pytest.mark.parametrize(
    ("column", "is_lost"),
    [
        (TIMES, True),
        (TIMES.astype(np.int64), True),
        (TIMES - TIMES.mean(), False),
        (TIMES.astype(np.float32), False),  # nothing is lost here
        (1.7e9 + 86_400.0 * np.arange(200), False),  # days apart
        (2**23 + np.arange(200), False),  # whole numbers that float32 holds
        (np.full(200, 1.7e9 + 1), False),  # constant
        (0.3 + 1e-16 * np.arange(200), False),  # constant but for rounding
        (np.random.default_rng(0).normal(size=200), False),
    ],
)
def test_columns_of_which_float32_keeps_too_little_are_named(column, is_lost):
    values = (
        np.stack([column, np.arange(200)], 1) if column.dtype != np.float32 else column[:, None]
    )
    source = open_source(values)
    assert source.imprecise.partition(" ranges")[0].endswith("column 0 (from 0)" if is_lost else "")
    assert bool(source.imprecise) == is_lost
    assert not open_source(values[:1]).imprecise  # one sample has no range
