import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from historyad.randomness import Stream, numpy_generator, torch_generator

seeds = st.integers(0, 2**63 - 1)
positions = st.lists(st.integers(0, 2**63 - 1), max_size=3)


def first_numpy(*where):
    return numpy_generator(*where).integers(2**63)


def first_torch(*where):
    return int(torch.randint(2**63 - 1, (1,), generator=torch_generator(*where)))


@given(seeds, st.sampled_from(Stream), positions)
def test_the_same_place_gives_the_same_numbers(seed, stream, position):
    for first in (first_numpy, first_torch):
        assert first(seed, stream, *position) == first(seed, stream, *position)


@given(seeds, positions)
def test_streams_are_different(seed, position):
    for first in (first_numpy, first_torch):
        assert len({first(seed, stream, *position) for stream in Stream}) == len(Stream)


@given(st.lists(st.tuples(seeds, seeds, seeds), min_size=2, max_size=8, unique=True))
def test_seeds_and_positions_are_different(places):
    for first in (first_numpy, first_torch):
        numbers = {first(seed, Stream.GAN, *position) for seed, *position in places}
        assert len(numbers) == len(places)


def test_large_numbers_do_not_run_into_the_next_one():
    assert first_numpy(0, Stream.GAN, 2**32) != first_numpy(0, Stream.GAN, 0, 1)
    assert first_numpy(2**32, Stream.GAN) != first_numpy(0, Stream.GAN)
    assert first_torch(2**32 + 1, Stream.GAN) != first_torch(1, Stream.GAN)


def test_neighbouring_positions_are_independent():
    draws = np.stack([numpy_generator(0, Stream.GAN, i).normal(size=500) for i in range(20)])
    correlations = np.corrcoef(draws)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(500)


def test_no_global_state_is_read_or_changed():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    expected = first_numpy(5, Stream.MIX), first_torch(5, Stream.MIX)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
    torch.manual_seed(1)
    assert (first_numpy(5, Stream.MIX), first_torch(5, Stream.MIX)) == expected
    torch.set_rng_state(before[1])
