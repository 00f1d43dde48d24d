import numpy as np
import pytest
from PIL import Image
from tiny import save_table, write_idx

from historyad.errors import InputError
from historyad.research.splits import (
    NAMED_SPLITS,
    find_splits,
    load_split,
    on_some,
    select,
    training_set,
)


@pytest.fixture
def tables(tmp_path):
    return save_table(tmp_path)


def test_a_table_is_halved_by_the_seed(tables):
    first, again, other = (load_split("vectors-blob", seed, tables) for seed in (0, 0, 1))
    assert (len(first.train), len(first.normal), len(first.anomalous)) == (30, 30, 10)
    assert first.train.names == again.train.names
    assert first.train.names != other.train.names
    assert not set(first.train.names) & set(first.normal.names)
    assert first.train.samples.max() < 6  # no anomaly among them


def test_a_table_without_labels_is_refused(tables):
    np.savez(tables / "vectors" / "made" / "bare.npz", X=np.zeros((4, 2), np.float32))
    with pytest.raises(InputError, match="has no labels"):
        load_split("vectors-bare", 0, tables)


def test_three_sources_make_a_split():
    split = load_split("digits:train:1,2|digits:test:1|digits:test:!1,2", 0, None)
    train, normal, anomalous = (
        set(source.labels.tolist()) for source in (split.train, split.normal, split.anomalous)
    )
    assert (train, normal, anomalous) == ({1, 2}, {1}, {0, 3, 4, 5, 6, 7, 8, 9})


@pytest.mark.parametrize("folder", ["magnetic-tile-mine", "vectors-mine", "svhn-vs-mine"])
def test_three_sources_may_begin_like_a_split_of_ours(folder, tmp_path, monkeypatch):
    for kind, n in (("good", 5), ("fresh", 2), ("bad", 3)):
        (tmp_path / folder / kind).mkdir(parents=True)
        for i in range(n):
            Image.new("L", (80, 80), i).save(tmp_path / folder / kind / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    (name,) = find_splits([f"{folder}/good|{folder}/fresh|{folder}/bad"], tmp_path / "elsewhere")
    assert training_set(name) == f"{folder}/good"
    split = load_split(name, 0, tmp_path / "elsewhere")
    assert [len(part) for part in vars(split).values()] == [5, 2, 3]
    assert split.train.samples.shape[1:3] == (80, 80)  # as they are


def test_samples_of_different_shapes_make_none(tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((3, 8, 9), np.uint8))
    with pytest.raises(InputError, match="one shape"):
        load_split(f"digits:train|digits:test|{tmp_path / 'wide.npy'}", 0, None)


def test_wildcards_find_splits_in_order_and_once(tables):
    triple = "digits:train:!3|digits:test:!3|digits:test:3"
    found = find_splits(["mnist-without-[12]", "vectors-*", "mnist-without-1", triple], tables)
    assert found == ["mnist-without-1", "mnist-without-2", "vectors-blob", triple]
    assert len(find_splits(["*-only-*"], tables)) == 20


def test_an_unknown_split_is_named(tables):
    for name in ("mnist-without-x", "cats-*", "vectors-nothing", "a|b", "a||c", "a|b|c|d"):
        with pytest.raises(InputError, match="unknown split"):
            find_splits([name], tables)
        with pytest.raises(InputError, match=r"unknown split|no table"):
            load_split(name, 0, tables)


def test_select_calls_the_names_what_they_are():
    with pytest.raises(InputError, match="unknown method 'c': choose one of a, b"):
        select(["c"], ["a", "b"], "method")


def test_splits_that_train_on_the_same_samples_are_known_by_them():
    assert training_set("mnist-vs-kmnist") == training_set("mnist-vs-fashion") == "mnist:train"
    assert training_set("mnist:train|mnist:test|digits:test") == "mnist:train"
    assert training_set("magnetic-tile") == training_set("magnetic-tile-crack")
    assert training_set("mnist-vs-kmnist") == training_set("mnist:train|a|b")
    assert training_set("celeba-vs-svhn") != training_set("celeba:test|a|b")  # three quarters
    tiles = NAMED_SPLITS["magnetic-tile"][0]
    assert training_set("magnetic-tile") != training_set(f"{tiles}|a|b")  # reduced
    assert training_set("vectors-a") != training_set("vectors-b")


def test_tiles_are_read_from_folders(tmp_path):
    folders = {folder for name in ("magnetic-tile",) for folder in NAMED_SPLITS[name]}
    assert len(folders) == 7
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (112, 112), 100).save(tmp_path / folder / "tile.png")
    split = load_split("magnetic-tile", 0, tmp_path)
    assert (len(split.train), len(split.normal), len(split.anomalous)) == (1, 1, 5)
    assert split.train.samples.shape == (1, 64, 64, 1)
    assert len(load_split("magnetic-tile-fray", 0, tmp_path).anomalous) == 1


def write_digits(root, n_per_digit=10):
    """Write MNIST's files with images of one grey value each, different in all of them."""
    folder = root / "mnist"
    for offset, part in enumerate(("train", "t10k")):
        labels = np.tile(np.arange(10, dtype=np.uint8), n_per_digit)
        images = np.arange(len(labels), dtype=np.uint8) * 2 + offset
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
        write_idx(folder / f"{part}-images-idx3-ubyte", images.reshape(-1, 1, 1))
    return root


def test_the_split_of_80_to_20_is_seeded_disjoint_and_complete(tmp_path):
    root = write_digits(tmp_path)
    split, again, other = (load_split("mnist-80-20-without-3", s, root) for s in (0, 0, 1))
    parts = [set(part.samples.ravel().tolist()) for part in vars(split).values()]
    assert [len(part) for part in parts] == [144, 36, 20]
    assert len(set.union(*parts)) == 200
    assert parts[2] == {2 * i + offset for i in range(3, 100, 10) for offset in (0, 1)}
    np.testing.assert_array_equal(split.train.samples, again.train.samples)
    assert not np.array_equal(split.train.samples, other.train.samples)
    assert "without 3" in split.train.description
    assert training_set("mnist-80-20-without-3") != training_set("mnist-80-20-without-4")
    assert len(find_splits(["mnist-80-20-*"], root)) == 10


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("svhn-vs-celeba", (7000, 3000, 3000)),
        ("cifar10-vs-svhn", (7500, 2500, 2500)),
        ("celeba-vs-svhn", (3000, 1000, 1000)),
        ("mnist-without-3", (53869, 8990, 7141)),
        ("mnist-80-20-without-3", (50287, 12572, 7141)),
        ("mnist-only-3", (6131, 1010, 8990)),
        ("fashion-only-7", (6000, 1000, 9000)),
        ("magnetic-tile", (500, 200, 392)),
        ("magnetic-tile-uneven", (500, 200, 103)),
        ("vectors-cardio", (827, 828, 176)),
    ],
)
def test_real_splits_have_the_sizes_of_their_descriptions(name, sizes, data_root):
    split = load_split(name, 0, data_root)
    assert (len(split.train), len(split.normal), len(split.anomalous)) == sizes


def test_some_test_samples_are_drawn_by_the_seed(tables):
    split = load_split("digits-without-0", 0, tables)
    some, again, other = (on_some(split, 40, seed) for seed in (0, 0, 1))
    assert some.normal.names == again.normal.names != other.normal.names
    assert (some.normal.samples == again.normal.samples).all()
    assert len(set(some.normal.names)) == len(some.normal) == len(some.anomalous) == 40
    rows = [split.normal.names.index(name) for name in some.normal.names]
    assert (some.normal.samples == split.normal.samples[rows]).all()
    assert some.train is split.train
    assert len(on_some(split, 10**6, 0).anomalous) == len(split.anomalous)
