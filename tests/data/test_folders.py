import contextlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from storing import too_deep

from historyad.data import streams
from historyad.data.datasets import open_source, open_stream, shadowed
from historyad.data.folders import (
    defects_in,
    describe,
    find_images,
    look_into,
    natural,
    normal_part,
    of_category,
    refuse_dataset_root,
)
from historyad.data.shards import find_shards
from historyad.errors import InputError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names_in(folder):
    return [path.relative_to(folder).as_posix() for path in find_images(folder)]


# --- which files, in which order


def test_images_below_a_folder_are_found_in_order(tmp_path):
    names = ["b.PNG", "a/z.jpg", "a.png", "c.txt", ".hidden.png", ".cache/x.png", "a/._z.jpg"]
    touch(tmp_path, *names, "folder.png/e.png", ".DS_Store", "Makefile", "d.txt")
    assert names_in(tmp_path) == ["a.png", "a/z.jpg", "b.PNG", "folder.png/e.png"]
    found = look_into(tmp_path)
    assert found.left_out == {
        **{"hidden images": 2, "hidden folders": 1, ".txt files": 2, "files without a suffix": 1}
    }
    assert found.closed == []
    assert describe(found.left_out) == (
        ".txt files (2), hidden images (2), files without a suffix (1), hidden folders (1)"
    )
    many = {f".{i} files": 2 for i in range(9)} | {"hidden images": 1000}
    assert describe(many).startswith("hidden images (1,000), .0 files (2)")
    assert describe(many).endswith("others (4)")


def test_a_hidden_folder_may_be_asked_for(tmp_path):
    touch(tmp_path, ".data/a.png")
    assert names_in(tmp_path / ".data") == ["a.png"]


def test_numbers_in_names_are_numbers(tmp_path):
    names = ["2", "frame_1", "frame_2", "frame_02", "frame_10", "frame_10b", "set2/9", "set10/1"]
    touch(tmp_path, *(f"{name}.png" for name in names))
    expected = ["2", "frame_1", "frame_02", "frame_2", "frame_10", "frame_10b", "set2/9", "set10/1"]
    assert names_in(tmp_path) == [f"{name}.png" for name in expected]
    touch(tmp_path, "x-10.tar", "x-9.tar")
    assert [path.name for path in find_shards(tmp_path)] == ["x-9.tar", "x-10.tar"]
    assert [path.name for path in find_shards(tmp_path / "x-*.tar")] == ["x-9.tar", "x-10.tar"]


@given(st.lists(st.text(st.sampled_from("ab01 2²٣-.")), unique=True), st.randoms())
def test_the_order_of_names_is_one_and_depends_on_no_other(names, random):
    ordered = sorted(names, key=natural)
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert sorted(shuffled, key=natural) == ordered
    numbers = [name for name in ordered if name.isascii() and name.isdigit()]
    assert list(map(int, numbers)) == sorted(map(int, numbers))


# --- links


def test_links_to_folders_are_followed_once(tmp_path):
    elsewhere = touch(tmp_path / "elsewhere", "c.png", "deep/d.png")
    folder = touch(tmp_path / "photos", "b.png", "sub/a.png")
    (folder / "link").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere / "deep")
    (folder / "loop").symlink_to(folder)
    (folder / "a").symlink_to(folder / "sub")
    (elsewhere / "back").symlink_to(folder / "sub")
    (folder / "file.png").symlink_to(elsewhere / "c.png")
    # What lies behind two links has the name of the first of them.
    assert names_in(folder) == [
        *("again/d.png", "b.png", "file.png", "link/c.png", "sub/a.png"),
    ]
    assert look_into(folder).left_out == {"links to folders that are read anyway": 4}
    assert names_in(folder / "link") == ["back/a.png", "c.png", "deep/d.png"]


def test_a_broken_link_is_an_image_that_cannot_be_read(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "b.png").symlink_to("b.png")
    (tmp_path / "c").symlink_to(tmp_path / "gone")
    assert names_in(tmp_path) == ["a.png", "b.png"]
    stream = open_stream(tmp_path)
    assert list(stream.chunks(4)) == []
    assert {name for name, _ in stream.unreadable} == {"a.png", "b.png"}  # read side by side
    assert stream.left_out == {"files without a suffix": 1}


# --- what is never opened


def test_pipes_and_sockets_are_counted_and_never_opened(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        assert names_in(tmp_path) == ["a.png"]
        for opened in (open_source, open_stream):
            source = opened(tmp_path)
            assert source.left_out == {"pipes, devices and sockets": 3}
            assert len(source) == 1
    (tmp_path / "pipe.tar").symlink_to(tmp_path / "pipe.png")
    assert find_shards(tmp_path) == find_shards(tmp_path / "a.png") == []


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz", ".csv", ".csv.gz", ".parquet", ".xyz"])
def test_a_pipe_or_device_as_a_source_is_refused(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(InputError, match=f"{name}{suffix} is a pipe, a device or a socket"):
            open_source(tmp_path / f"{name}{suffix}")


# --- folders that cannot be entered


@contextlib.contextmanager
def as_nobody():
    """Be somebody who may not do everything: root enters every folder."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_folder_without_permission_is_closed():
    folder = Path(tempfile.mkdtemp())
    try:
        touch(folder, "a.png", "b/c.png", "d/e.png")
        folder.chmod(0o755)
        (folder / "b").chmod(0)
        with as_nobody():
            found = look_into(folder)
            (b, reason), *others = found.closed
            with pytest.raises(InputError, match=r"/b: the folder cannot be entered \(Perm"):
                open_stream(folder / "b")
        assert [path.name for path in found.images] == ["a.png", "e.png"]
        assert (b, reason) == ("b", "the folder cannot be entered (Permission denied)")
        assert others == []
    finally:
        (folder / "b").chmod(0o755)
        shutil.rmtree(folder)


def test_a_closed_folder_counts_as_what_cannot_be_read(tmp_path, monkeypatch):
    for i in range(4):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    closed = too_deep(tmp_path / "deep")
    with pytest.raises(InputError, match=r"deep/.*: the folder cannot be ente.* --skip-unreadable"):
        open_source(tmp_path)
    for limit in (1 << 31, 1):
        monkeypatch.setattr(streams, "IN_MEMORY_BYTES", limit)
        source = open_source(tmp_path, skip_unreadable=True)
        assert isinstance(source.samples, np.ndarray) == (limit > 1)
        assert [name for name, _ in source.unreadable] == [closed]
        assert len(source) == 4
    stream = open_stream(tmp_path)
    for _ in range(2):
        assert sum(len(names) for names, _ in stream.chunks(3)) == 4
        assert [name for name, _ in stream.unreadable] == [closed]
    list(stream.chunks(3, 2, 4))  # of a later part, which has none of it
    assert stream.unreadable_in(2, 4) == []


def test_a_folder_without_images_says_what_it_has(tmp_path):
    touch(tmp_path, "a.txt", "b.heic", "c.heic")
    with pytest.raises(InputError, match=r"\.webp\. There are: \.heic files \(2\), \.txt files"):
        open_source(tmp_path)


# --- names that mean something else


def test_who_means_a_folder_called_like_a_named_set_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shadowed("digits:test") == ""
    touch(tmp_path, "digits/a.png")
    assert shadowed("digits:test").endswith("write ./digits")
    assert shadowed("./digits") == shadowed("mnist") == ""


def data_set(root, *folders):
    for name in folders or ("train/good", "test/good", "test/crack", "ground_truth/crack"):
        touch(root, f"{name}/a.png")
    return root


def test_the_root_of_a_data_set_is_refused(tmp_path, monkeypatch):
    root = data_set(tmp_path / "sets" / "bottle")
    for path in (root, root / "test", root / "ground_truth", tmp_path / "sets"):
        with pytest.raises(InputError, match=r"holds anomalous .* is in .*/bottle/train/good"):
            refuse_dataset_root(path)
    for path in (root / "train", root / "train/good", root / "test/good", tmp_path, root / "no"):
        refuse_dataset_root(path)
    refuse_dataset_root(data_set(tmp_path / "other", "train/good", "train/fine"))
    refuse_dataset_root(data_set(tmp_path / "another", "test/good", "train/ok"))
    for here, path in ((root, "."), (root, "test"), (root / "test", ".")):
        monkeypatch.chdir(here)
        with pytest.raises(InputError, match=r"is in .*train/good"):
            refuse_dataset_root(Path(path))
    monkeypatch.chdir(root / "train")
    refuse_dataset_root(Path())
    refuse_dataset_root(Path("good"))
    refuse_dataset_root(Path("digits:train"))
    refuse_dataset_root(Path("x" * 5000))


def test_the_normal_part_of_a_data_set_is_found(tmp_path):
    root = data_set(tmp_path / "bottle")
    assert normal_part(root) == root / "train" / "good"
    for path in (
        root / "train",
        root / "test",
        tmp_path,
        root / "no",
        data_set(tmp_path / "x", "a"),
    ):
        assert normal_part(path) is None
    touch(root, "test/dent/a.png")
    found = defects_in(root)
    assert list(found) == ["crack", "dent"]
    assert found["dent"] == (root / "test/dent", root / "ground_truth/dent")
    for path, words in (
        (tmp_path, "no data set in MVTec's layout: give a folder with train/good, test/good"),
        (data_set(tmp_path / "y", "train/good", "test/good"), "holds no kind of defect"),
        (data_set(tmp_path / "z", "train/good", "test/dent"), "no data set in MVTec's layout"),
    ):
        with pytest.raises(InputError, match=words):
            defects_in(path)


def test_one_of_several_data_sets_is_chosen_by_its_name(tmp_path):
    for name in ("screw", "bottle"):
        data_set(tmp_path / name)
    touch(tmp_path, "papers/a.png", "readme.txt")
    assert of_category(tmp_path, "screw") == tmp_path / "screw"
    for path in (tmp_path / "screw", tmp_path / "papers", tmp_path / "no", Path("digits:train")):
        assert of_category(path, None) == path
    for path, category, words in (
        (tmp_path, None, r"holds 2 data sets \(bottle, screw\): choose with --category"),
        (tmp_path, "papers", r"no data set papers: it holds 2 data sets \(bottle, screw\)"),
        (tmp_path, "../x", r"no data set ../x: it holds 2 data sets \(bottle, screw\)"),
        (tmp_path / "screw", "screw", "screw is one data set itself: leave out --category screw"),
        (tmp_path / "papers", "screw", "papers holds no data set in MVTec's layout, NAME/train"),
    ):
        with pytest.raises(InputError, match=words):
            of_category(path, category)


def test_real_data_sets_are_refused_whole(data_root):
    refuse_dataset_root(data_root / "industrial/magnetic_tile/train/good")
    for path in ("industrial/magnetic_tile", "industrial"):
        with pytest.raises(InputError, match=r"train/good"):
            refuse_dataset_root(data_root / path)


def test_mixed_grey_and_colour_name_the_option(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="make all grey or colour with --channels 1 or 3"):
        open_source(tmp_path)
    assert open_source(tmp_path, channels=3).samples.shape == (2, 4, 4, 3)
