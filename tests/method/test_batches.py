import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import batches_of

from historyad.config import make_config
from historyad.errors import InputError
from historyad.kinds.choose import choose_kind

N = 23


@pytest.fixture
def numbered():
    """Images (N, 8, 8, 1), each filled with its own row number."""
    return np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 8, 8, 1)).copy()


@pytest.fixture
def patterned():
    """Images (N, 8, 8, 2) without any symmetry."""
    return np.random.default_rng(0).integers(0, 256, (N, 8, 8, 2), dtype=np.uint8)


def batches(samples, seed=0, rows=None, **values):
    return batches_of(samples, make_config(seed=seed, **values), rows)


def rows_of(batch):
    """Return which rows of `numbered` are in a batch."""
    return ((batch[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_every_pass_is_a_permutation_of_its_own(numbered):
    for seed in (0, 1, 2**63 - 1):
        source = batches(numbered, seed)
        passes = [rows_of(source.at(turn * N, N)) for turn in range(4)]
        assert all(sorted(order) == list(range(N)) for order in passes)
        assert len({tuple(order) for order in passes}) == 4


def test_seeds_differ(numbered):
    assert rows_of(batches(numbered, 0).at(0, N)) != rows_of(batches(numbered, 1).at(0, N))


@functools.cache
def one_by_one():
    """Return batches of numbered images, and 9 passes of their rows, each asked for alone."""
    samples = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 8, 8, 1))
    source = batches(samples)
    return samples, source, [row for i in range(9 * N) for row in rows_of(source.at(i, 1))]


@settings(deadline=None)
@given(position=st.integers(0, 5 * N), size=st.integers(1, 3 * N))
def test_a_batch_is_a_window_on_one_endless_sequence(position, size):
    """Across the ends of passes, and whatever was asked before."""
    samples, source, sequence = one_by_one()
    assert rows_of(source.at(position, size)) == sequence[position : position + size]
    assert rows_of(batches(samples).at(position, size)) == sequence[position : position + size]


def test_only_the_chosen_rows_are_used(numbered):
    rows = np.array([3, 5, 8, 13])
    source = batches(numbered, rows=rows)
    assert len(source) == 4
    assert sorted(rows_of(source.at(0, 4))) == rows.tolist()
    assert set(rows_of(source.at(100, 40))) == set(rows.tolist())


def test_of_a_part_of_a_batch_only_that_is_returned(patterned):
    for augment in ("", "flip,rotate90"):
        source = batches(patterned, augment=augment)
        whole = source.at(30, 10)
        parts = [source.at(30, 10, part) for part in (slice(0, 3), slice(3, 7), slice(7, 10))]
        assert torch.equal(torch.cat(parts), whole)


def test_batches_are_prepared(patterned):
    source = batches(np.pad(patterned, [(0, 0), (0, 4), (0, 2), (0, 0)]))
    assert source.networks.shape == (2, 16, 16)
    assert source.at(0, 5).shape == (5, 2, 16, 16)
    table = np.random.default_rng(0).normal(7, 3, (50, 4)).astype(np.float32)
    assert batches(table).networks.shape == (4,)
    assert batches(table).at(0, 50).median(0).values.abs().max() < 0.2


def test_samples_of_another_shape_are_refused(patterned):
    kind = choose_kind(patterned[..., :1], make_config())
    with pytest.raises(InputError, match="channel"):
        kind.batches(patterned, make_config()).at(0, 2)


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
