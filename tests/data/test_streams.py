import io
import os
import re
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import png, write_shard
from PIL import Image
from tiny import TINY, batches_of, tiny_config

from historyad.cli import main
from historyad.data import streams
from historyad.data.datasets import open_source, open_stream
from historyad.data.folders import look_into
from historyad.data.rows import ShuffledRows, ShuffledSamples, Windows
from historyad.data.streams import FolderFiles, ImageStream, Names, in_parts
from historyad.errors import InputError
from historyad.files import load_json
from historyad.kinds.augment import parse_augmentations
from historyad.kinds.choose import choose_kind
from historyad.method.batches import Batches
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 images whose grey value is their number."""
    for n in range(12):
        Image.new("L", (6, 4), n).save(tmp_path / f"{n:02}.png")
    return tmp_path


def stream_of(folder, **arguments):
    return ImageStream(FolderFiles(folder, look_into(folder)), **arguments)


def shards_of(folder, images, size=40):
    """Write images (N, H, W, 1) into tar shards; return their folder."""
    for start in range(0, len(images), size):
        members = [
            (f"{n:05}.png", png_of(images[n])) for n in range(start, min(start + size, len(images)))
        ]
        write_shard(folder / f"{start // size:03}.tar", members)
    return folder


def png_of(image):
    import io

    stream = io.BytesIO()
    Image.fromarray(image[..., 0]).save(stream, "PNG")
    return stream.getvalue()


# --- an array on the disk


def test_it_is_read_as_an_array_is(photos):
    stream, whole = stream_of(photos), open_source(photos)
    assert (stream.shape, stream.dtype, len(stream)) == ((12, 4, 6, 1), np.uint8, 12)
    mask = np.arange(12) % 5 == 1
    for index in (3, -1, slice(2, 9, 3), slice(-2, None), np.array([5, 1, -5]), [], mask):
        np.testing.assert_array_equal(stream[index], whole.samples[index])
    for index in (12, -13, np.array([0, 12]), mask[1:]):
        with pytest.raises(IndexError):
            stream[index]
    assert [int(image[0, 0, 0]) for image in stream] == list(range(12))
    np.testing.assert_array_equal(np.asarray(stream), whole.samples)
    assert list(stream.names) == list(whole.names)
    assert stream.names[2:4] == ["02.png", "03.png"]
    assert Names(3, str) == ["0", "1", "2"]
    placed = stream_of(photos, side=8, channels=3)
    np.testing.assert_array_equal(placed[:], open_source(photos, mixed=8, channels=3).samples)


def test_an_unreadable_image_is_refused_or_replaced_by_the_next(photos):
    for name in ("00", "05", "11"):
        (photos / f"{name}.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"00.png cannot be read .*--skip-unreadable"):
        _ = stream_of(photos).shape
    stream = stream_of(photos, skip_unreadable=True)
    assert stream[np.arange(12)][:, 0, 0, 0].tolist() == [1, 1, 2, 3, 4, 6, 6, 7, 8, 9, 10, 1]
    stream[:]
    assert sorted(name for name, _ in stream.unreadable) == ["00.png", "05.png", "11.png"]
    names, chunks = zip(*stream.chunks(4), strict=True)
    assert [len(chunk) for chunk in chunks] == [4, 4, 1]
    assert names[1] == ("06.png", "07.png", "08.png", "09.png")
    ((names, _),) = stream.chunks(9, 4, 7)
    assert names == ("04.png", "06.png")


def test_nothing_readable_at_all(tmp_path):
    (tmp_path / "a.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match="none of 1 images can be read"):
        _ = stream_of(tmp_path, skip_unreadable=True).shape


def test_images_that_differ_are_named(photos):
    Image.new("L", (5, 4)).save(photos / "07.png")
    stream = stream_of(photos, skip_unreadable=True)
    with pytest.raises(InputError, match=r"07.png is of shape \(4, 5, 1\), the first image"):
        stream[:]


def refuse_others(shape):
    if shape != (4, 6, 1):
        raise InputError(f"of shape {shape}")


@pytest.mark.parametrize("source_of", [stream_of, open_stream])
def test_chunks_are_of_one_shape_and_leave_out_what_is_refused(photos, source_of):
    skip = {"skip_unreadable": True} if source_of is stream_of else {}
    Image.new("L", (5, 4), 7).save(photos / "07.png")
    shapes = [chunk.shape for _, chunk in source_of(photos, **skip).chunks(20)]
    assert shapes == [(7, 4, 6, 1), (1, 4, 5, 1), (4, 4, 6, 1)]
    source = source_of(photos, **skip)
    ((names, chunk),) = source.chunks(20, 3, 11, check=refuse_others)
    assert names == ("03.png", "04.png", "05.png", "06.png", "08.png", "09.png", "10.png")
    assert chunk[:, 0, 0, 0].tolist() == [3, 4, 5, 6, 8, 9, 10]
    ((name, reason),) = source.unreadable
    assert name == "07.png"
    assert "of shape (4, 5, 1)" in reason


@pytest.mark.parametrize("source_of", [stream_of, open_stream])
def test_chunks_are_bounded_by_their_bytes(photos, source_of, monkeypatch):
    monkeypatch.setattr(streams, "PART_BYTES", 3 * 24)
    assert [len(chunk) for _, chunk in source_of(photos).chunks(20)] == [3, 3, 3, 3]
    monkeypatch.setattr(streams, "PART_BYTES", 1)
    assert [len(chunk) for _, chunk in source_of(photos).chunks(20)] == [1] * 12


def test_the_fingerprint_tells_data_apart_without_reading_all(photos):
    first = stream_of(photos).fingerprint
    assert stream_of(photos).fingerprint == first
    assert stream_of(photos, side=8).fingerprint != first
    Image.new("L", (6, 4), 99).save(photos / "07.png")
    assert stream_of(photos).fingerprint != first


def test_the_fingerprint_passes_over_what_cannot_be_read(photos, tmp_path):
    (photos / "05.png").unlink()
    (photos / "05.png").symlink_to(photos / "gone.png")
    assert len(stream_of(photos, skip_unreadable=True).fingerprint) == 64
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        huge = tarfile.TarInfo("b.png")
        huge.size = 2**28 + 1  # more than an image can have; the file is sparse
        for member, content in ((tarfile.TarInfo("a.png"), png(1)), (huge, b"")):
            member.size = member.size or len(content)
            tar.addfile(member, io.BytesIO(content) if content else None)
        tar.fileobj.truncate(2**28 + 2**20)
    source = open_source(path, skip_unreadable=True)
    assert len(source.fingerprint) == 64
    assert len(source.samples[:]) == 2
    assert [name for name, _ in source.unreadable] == ["x.tar/b.png"]


def test_names_need_not_be_utf8(photos, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (photos / "05.png").rename(photos / name)
    assert len(stream_of(photos).fingerprint) == 64
    source = open_source(write_shard(tmp_path / "x.tar", [(name, png(1))]))
    assert len(source.fingerprint) == 64
    assert source.names[0] == f"x.tar/{name}"


def test_parts_are_bounded_by_their_bytes(monkeypatch):
    samples = np.arange(40, dtype=np.uint8).reshape(10, 4)
    monkeypatch.setattr(streams, "PART_BYTES", 12)
    rows = np.array([1, 3, 5, 7, 9, 0, 2])
    parts = list(in_parts(samples, rows))
    assert [len(part) for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), samples[rows])


# --- which sources stream


def test_shards_stream_and_a_folder_does_when_it_is_large(photos, tmp_path, monkeypatch):
    whole = open_source(photos)
    assert isinstance(whole.samples, np.ndarray)
    shards_of(tmp_path / "shards", whole.samples, size=5)
    sharded = open_source(tmp_path / "shards")
    assert isinstance(sharded.samples, ImageStream)
    np.testing.assert_array_equal(sharded.samples[:], whole.samples)
    scored = list(open_stream(str(tmp_path / "shards" / "{000..002}.tar")).chunks(8))
    assert scored[1][0][0] == "001.tar/00008.png"
    np.testing.assert_array_equal(np.concatenate([x for _, x in scored]), whole.samples)
    monkeypatch.setattr(streams, "IN_MEMORY_BYTES", 12 * 24 - 1)
    large = open_source(photos)
    assert isinstance(large.samples, ImageStream)
    assert large.names[3] == "03.png"


def test_a_folder_with_images_is_a_folder_of_images(photos):
    write_shard(photos / "x.tar", [("a.png", png(1))])
    assert isinstance(open_source(photos).samples, np.ndarray)


# --- the order of training


SMALL = Windows(block=4, n_blocks=3)


@pytest.mark.parametrize("n", [1, 4, 11, 12, 13, 50])
def test_every_pass_of_a_windowed_order_has_every_row_once(n):
    rows = np.arange(100, 100 + n)
    order = ShuffledRows(rows, 0, SMALL)
    passes = [order.at(turn * n, n).tolist() for turn in range(3)]
    assert all(sorted(found) == rows.tolist() for found in passes)
    assert n < 11 or len(set(map(tuple, passes))) == 3
    endless = np.concatenate([ShuffledRows(rows, 0, SMALL).at(i, 1) for i in range(2 * n)])
    for position, size in ((0, n), (n // 2, n), (n - 1, 2), (3, 1)):
        there = ShuffledRows(rows, 0, SMALL).at(position, size)
        np.testing.assert_array_equal(there[: 2 * n - position], endless[position:][:size])


def test_a_window_reads_few_stretches_of_the_disk_and_mixes_them():
    order = ShuffledRows(np.arange(4000), 0, SMALL)
    window = order.at(0, 12)
    assert len(set((window // 4).tolist())) == 3  # three blocks of four neighbours
    assert (np.diff(window) != 1).any()
    assert np.ptp(window) > 400


def test_batches_of_a_stream_are_those_of_the_array(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)
    stream = open_source(shards_of(tmp_path, images, size=7)).samples
    monkeypatch.setattr(streams, "IN_MEMORY_BYTES", 10)  # the array's order is windowed, too
    config = tiny_config(seed=1, augment="flip")
    kind, flip = choose_kind(images, config), parse_augmentations("flip")

    def in_small_windows(samples, config):
        reader = ShuffledSamples(samples, np.arange(50), config.seed, kind.prepare, SMALL)
        return Batches(reader, kind.networks(config), seed=config.seed, augmentations=flip)

    for batches in (in_small_windows, batches_of):
        streamed, array = batches(stream, config), batches(images, config)
        for position in (0, 16, 32, 48, 64, 7, 200):
            assert torch.equal(streamed.at(position, 16), array.at(position, 16))
        parts = (slice(0, 5), slice(5, 10), slice(10, 16))
        together = [streamed.at(16, 16, part) for part in parts]
        assert torch.equal(torch.cat(together), array.at(16, 16))


def test_only_the_own_part_is_decoded_and_the_next_batches_meanwhile(photos, monkeypatch):
    decoded = []
    read = FolderFiles.read
    monkeypatch.setattr(FolderFiles, "read", lambda f, n: decoded.append(n) or read(f, n))
    stream = stream_of(photos)
    assert stream.shape == (12, 4, 6, 1)
    reader = ShuffledSamples(stream, np.arange(12), 0)
    decoded.clear()
    reader.read(0, 4, slice(0, 1))
    assert any(thread.name.startswith("read") for thread in threading.enumerate())
    reader._reader.shutdown()  # waits for what was asked for
    assert len(decoded) == 4  # one of this batch, one of each of the three that follow


def test_large_photos_are_reduced_once_where_that_fits(tmp_path, monkeypatch):
    for n in range(6):
        Image.new("L", (80, 100), n).save(tmp_path / f"{n}.png")
    stream, config = stream_of(tmp_path), tiny_config(image_size=8)
    once = batches_of(stream, config)
    monkeypatch.setattr(FolderFiles, "read", None)  # the disk is not asked again
    first = once.at(0, 6)
    monkeypatch.undo()
    monkeypatch.setattr(streams, "IN_MEMORY_BYTES", 6 * 64 - 1)
    each = batches_of(stream, config).at(0, 6)
    assert sorted(each[:, 0, 0, 0].tolist()) == sorted(first[:, 0, 0, 0].tolist())


# --- fit


def test_a_fit_on_shards_goes_on_where_it_was_and_counts_what_it_could_not_read(
    digits, tmp_path, capsys
):
    shards = shards_of(tmp_path / "shards", digits[0][:300], size=60)
    config = tiny_config(views="history")

    def model(run, stop_at=None):
        records = []

        def on_progress(record):
            records.append(record)
            if len(records) == stop_at:
                raise KeyboardInterrupt

        fit_model(open_source(shards), config, RunDirectory(run), on_progress=on_progress)
        return (run / "detector.safetensors").read_bytes()

    with pytest.raises(KeyboardInterrupt):
        model(tmp_path / "stopped", stop_at=18)
    assert model(tmp_path / "stopped") == model(tmp_path / "whole")

    bad = write_shard(tmp_path / "shards" / "x.tar", [(f"{i}.png", b"bad") for i in range(40)])
    options = [f"--{k.replace('_', '-')}={v}" for k, v in {**TINY, "views": "history"}.items()]
    fit = ["fit", str(shards), *options, "--out", str(tmp_path / "run")]
    assert main(fit) == 2
    assert f"{bad.name}/" in capsys.readouterr().err
    assert main([*fit, "--skip-unreadable"]) == 0
    assert "340 normal samples (40 could not be read)" in capsys.readouterr().out
    assert load_json(tmp_path / "run" / "detector.json")["source"]["unreadable"] == 40


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says what is in memory")
def test_a_file_that_is_mapped_does_not_stay_in_memory(tmp_path):
    path, images = tmp_path / "x.npy", np.zeros((40_000, 28, 28), np.uint8)  # 31 MB
    images[:, 0, 0] = np.arange(40_000) % 251
    np.save(path, images)

    def mapped():
        """MB of the file that are in memory."""
        text = Path("/proc/self/smaps").read_text()
        found = re.findall(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss: +(\d+) kB", text)
        return sum(map(int, found)) / 1024

    source = open_source(path)
    assert source.fingerprint
    assert mapped() < 5
    samples = source.samples
    assert samples.sum() > 0
    assert mapped() > 25
    parts = [part[:, 0, 0, 0] for part in in_parts(samples, np.arange(len(samples)))]
    np.testing.assert_array_equal(np.concatenate(parts), images[:, 0, 0])
    assert mapped() < 5
    shuffled = ShuffledSamples(samples, np.arange(len(samples)), 0)
    for position in range(0, 32_768, 64):
        shuffled.read(position, 64, slice(None))
    assert mapped() < 5
    changed = np.load(path, mmap_mode="c")
    changed[0, 0, 0] = 7
    streams.let_go(changed)
    assert changed[0, 0, 0] == 7
