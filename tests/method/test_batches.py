import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from historyad.errors import ConfigError, InputError
from historyad.kinds.preprocessing import Preprocessing
from historyad.method.batches import Batches, from_float, parse_augmentations, to_float

N = 23


@pytest.fixture
def numbered():
    """Images (N, 8, 8, 1), each filled with its own row number."""
    return np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 8, 8, 1)).copy()


@pytest.fixture
def patterned():
    """Images (N, 8, 8, 2) without any symmetry."""
    return np.random.default_rng(0).integers(0, 256, (N, 8, 8, 2), dtype=np.uint8)


def batches(samples, seed=0, **arguments):
    return Batches(samples, prepare=Preprocessing.fit(samples, 0), seed=seed, **arguments)


def rows_of(batch):
    """Return which rows of `numbered` are in a batch."""
    return from_float(batch)[:, 0, 0, 0].tolist()


def test_grey_values_survive_the_way_to_floats_and_back():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    floats = to_float(values)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (-1, 1)
    assert (from_float(floats) == values).all()
    assert from_float(floats).dtype == np.uint8


@given(st.floats(-1.5, 1.5, width=32))
def test_a_generated_value_becomes_the_nearest_grey_value(value):
    grey = from_float(torch.full((1, 1, 1, 1), value)).item()
    exact = min(max((value + 1) * 127.5, 0), 255)
    assert abs(grey - exact) <= 0.5 + 1e-4


def test_channels_come_first_in_shape_and_last_in_memory(patterned):
    floats = to_float(patterned)
    assert floats.shape == (N, 2, 8, 8)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert floats[3, 1, 5, 6].item() == pytest.approx(patterned[3, 5, 6, 1] / 127.5 - 1)


def test_vectors_stay_as_they_are():
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert (from_float(to_float(vectors)) == vectors).all()
    assert (from_float(to_float(vectors[:, ::-1])) == vectors[:, ::-1]).all()


def test_from_float_leaves_its_argument_alone(patterned):
    floats = to_float(patterned)
    before = floats.clone()
    from_float(floats)
    assert torch.equal(floats, before)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_every_pass_is_a_permutation_of_its_own(numbered, seed):
    source = batches(numbered, seed)
    passes = [rows_of(source.at(turn * N, N)) for turn in range(4)]
    assert all(sorted(order) == list(range(N)) for order in passes)
    assert len({tuple(order) for order in passes}) == 4


def test_seeds_differ(numbered):
    assert rows_of(batches(numbered, 0).at(0, N)) != rows_of(batches(numbered, 1).at(0, N))


@settings(deadline=None)
@given(position=st.integers(0, 5 * N), size=st.integers(1, 3 * N))
def test_a_batch_is_a_window_on_one_endless_sequence(position, size):
    """Across the ends of passes, and whatever was asked before."""
    samples = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 8, 8, 1))
    source = batches(samples)
    sequence = [row for i in range(9 * N) for row in rows_of(source.at(i, 1))][: 9 * N]
    assert rows_of(source.at(position, size)) == sequence[position : position + size]
    assert rows_of(batches(samples).at(position, size)) == sequence[position : position + size]


def test_only_the_chosen_rows_are_used(numbered):
    rows = np.array([3, 5, 8, 13])
    source = batches(numbered, rows=rows)
    assert len(source) == 4
    assert sorted(rows_of(source.at(0, 4))) == rows.tolist()
    assert set(rows_of(source.at(100, 40))) == set(rows.tolist())


def test_batches_are_prepared(patterned):
    source = batches(np.pad(patterned, [(0, 0), (0, 4), (0, 2), (0, 0)]))
    assert source.shape == (2, 16, 16)
    assert source.at(0, 5).shape == (5, 2, 16, 16)
    table = np.random.default_rng(0).normal(7, 3, (50, 4)).astype(np.float32)
    assert batches(table).shape == (4,)
    assert batches(table).at(0, 50).median(0).values.abs().max() < 0.2


def test_samples_of_another_shape_are_refused(patterned):
    prepare = Preprocessing.fit(patterned[..., :1], 0)
    with pytest.raises(InputError, match="channel"):
        Batches(patterned, prepare=prepare, seed=0).at(0, 2)


# --- memory-mapped samples


class CountingMap(np.memmap):
    """A memory map that notes how many rows are asked for."""

    rows_read = 0

    def __getitem__(self, index):
        found = super().__getitem__(index)
        if isinstance(index, np.ndarray):
            CountingMap.rows_read += len(index)
        return found


def test_only_the_rows_of_a_batch_are_read_from_a_read_only_map(tmp_path, patterned):
    patterned.tofile(tmp_path / "x")
    samples = CountingMap(tmp_path / "x", np.uint8, "r", shape=patterned.shape)
    source = batches(samples, augment="flip,rotate90")
    CountingMap.rows_read = 0
    mapped = source.at(0, 7)
    assert CountingMap.rows_read == 7
    assert torch.equal(mapped, batches(patterned, augment="flip,rotate90").at(0, 7))
    assert (samples == patterned).all()


def test_vectors_of_a_read_only_map(tmp_path):
    table = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", table)
    samples = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert torch.equal(batches(samples).at(0, 9), batches(table).at(0, 9))


# --- augmentation


def dihedral(names, image):
    """Return all images (C, H, W) that a list of augmentations may make of one."""
    results = [image]
    for name in names.split(","):
        if name == "rotate90":
            results = [x.rot90(k, (1, 2)) for x in results for k in range(4)]
        else:
            axis = {"flip": 2, "flip-vertical": 1}[name]
            results = [y for x in results for y in (x, x.flip(axis))]
    return results


@pytest.mark.parametrize(
    ("names", "n_results"),
    [("flip", 2), ("flip-vertical", 2), ("rotate90", 4), ("flip,rotate90", 8), ("flip,flip", 2)],
)
def test_augmented_images_are_allowed_images_and_all_of_them_occur(patterned, names, n_results):
    augmented, plain = batches(patterned, augment=names), batches(patterned)
    found = set()
    for position in range(0, 10 * N, N):
        for image, original in zip(augmented.at(position, N), plain.at(position, N), strict=True):
            allowed = dihedral(names, original)
            found.add(next(i for i, x in enumerate(allowed) if torch.equal(x, image)))
    assert len(found) == n_results


def test_augmentation_depends_on_the_position_alone(patterned):
    source = batches(patterned, augment="flip,flip-vertical,rotate90")
    first = source.at(5, 40)
    source.at(100, 3)
    assert torch.equal(source.at(5, 40), first)
    other = batches(patterned, augment=" flip, flip-vertical ,rotate90,")
    assert torch.equal(other.at(5, 40), first)


def test_flips_are_as_frequent_as_not(patterned):
    one = np.repeat(patterned[:1], 1000, axis=0)
    flipped = batches(one, augment="flip").at(0, 1000)
    share = (flipped == to_float(one).flip(3)).all(dim=(1, 2, 3)).float().mean()
    assert abs(share - 0.5) < 0.08


def test_unknown_augmentations_are_refused():
    assert parse_augmentations("") == []
    with pytest.raises(ConfigError, match="unknown augmentation 'mirror': choose flip, flip-vert"):
        parse_augmentations("flip,mirror")


def test_vectors_cannot_be_flipped():
    with pytest.raises(ConfigError, match="augment is 'flip', which is for images"):
        batches(np.zeros((5, 3), np.float32), augment="flip")
