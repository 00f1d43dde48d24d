import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from tiny import normal_samples

from historyad.constants import CONSTANTS
from historyad.score import neighbours as module
from historyad.score.gaussian import principal_components
from historyad.score.neighbours import Bank, Neighbours, largest


def fitted(x, *, cosine=False, project=True):
    """Return neighbours of features, or of vectors as they are, with their gaps."""
    if not (project or cosine):
        return Neighbours.of_vectors(x)
    few = CONSTANTS.bank_components
    pca = principal_components(x, few) if project else None
    neighbours = Neighbours.keep(x, len(x), pca=pca, cosine=cosine)
    neighbours.fit_gaps(neighbours.candidates_of_bank())
    return neighbours


def relative_distances(x, new, metric="euclidean"):
    """Mean distances to 5 neighbours, over the root of those that the neighbours have to theirs."""
    index = NearestNeighbors(n_neighbors=5, metric=metric).fit(x)
    distances, nearest = index.kneighbors(new)
    gaps = index.kneighbors()[0].mean(1)  # without an argument, no sample is its own neighbour
    return distances.mean(1) / np.sqrt(gaps[nearest].mean(1))


@pytest.mark.parametrize("project", [False, True])
def test_euclidean_neighbours_are_those_of_scikit_learn(project):
    x, new = normal_samples(), normal_samples(50, seed=1)
    # All six components are kept: projected or not, distances are the same.
    found = fitted(x, project=project)(new)
    np.testing.assert_allclose(found, relative_distances(x, new), rtol=1e-4 if project else 1e-5)


def test_a_gap_counts_where_normal_samples_are_dense():
    random = torch.Generator().manual_seed(0)
    dense, loose = torch.randn(2, 200, 4, generator=random) * torch.tensor([[[0.01]], [[1.0]]])
    shift = torch.tensor([20.0, 0, 0, 0])
    neighbours = fitted(torch.cat([dense, loose + shift]))
    inside_loose = torch.randn(100, 4, generator=random) + shift
    near_dense = torch.randn(100, 4, generator=random) * 0.1
    assert neighbours(near_dense).median() > neighbours(inside_loose).median()


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 5), st.integers(0, 3))
def test_the_largest_by_groups_are_the_largest(n, k, seed):
    values = torch.randn(4, n, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    k = min(k, n)
    columns = largest(values, k)
    torch.testing.assert_close(values.gather(1, columns), values.topk(k).values, rtol=0, atol=0)
    assert all(len(set(row.tolist())) == k for row in columns)


def test_features_are_compared_by_cosine_on_few_principal_components(constants):
    constants(module, bank_components=2)
    x, new = normal_samples(), normal_samples(50, seed=1)
    pca = PCA(2).fit(x)
    halfway = pca.explained_variance_**0.25
    index = NearestNeighbors(n_neighbors=5, metric="cosine").fit(pca.transform(x) / halfway)
    expected, nearest = index.kneighbors(pca.transform(new) / halfway)
    bank = Bank.of_features(x)
    places = bank.place(new)
    distances, others = bank.nearest(places, bank.candidates(places), 5)
    np.testing.assert_allclose(distances, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(others, nearest)


def test_cosine_neighbours_are_those_of_scikit_learn_halfway_to_equal_variances():
    x, new = normal_samples(), normal_samples(50, seed=1)
    pca = PCA(6).fit(x)
    halfway = pca.explained_variance_**0.25
    places, new_places = pca.transform(x) / halfway, pca.transform(new) / halfway
    expected = relative_distances(places, new_places, metric="cosine")
    found = fitted(x, cosine=True)(new)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cosine", [False, True])
def test_the_distance_does_not_depend_on_the_parts_of_the_bank(cosine, constants):
    x, new = normal_samples(), normal_samples(50, seed=1)
    neighbours = fitted(x, cosine=cosine)
    whole = neighbours(new)
    for parts in (1, 4, 150):  # the last hold fewer samples than there are neighbours
        constants(module, bank_parts=parts)
        torch.testing.assert_close(neighbours(new), whole, rtol=1e-4, atol=1e-5)


def test_neighbours_are_the_nearest_of_the_candidates():
    x, new = normal_samples(), normal_samples(50, seed=1)
    neighbours = fitted(x)
    candidates = torch.arange(20).expand(50, -1)
    distances, nearest = neighbours.nearest(neighbours.place(new), candidates, 8)
    expected, order = torch.cdist(new, x[:20]).topk(8, largest=False)
    torch.testing.assert_close(nearest, order)
    torch.testing.assert_close(distances, expected, rtol=1e-4, atol=1e-4)


def test_gaps_are_those_between_candidates():
    x = normal_samples(40)
    candidates = torch.arange(20).expand(40, -1).clone()
    candidates[20:] += 20  # each among its own half
    neighbours = Neighbours.keep(x, len(x), pca=principal_components(x))
    neighbours.fit_gaps(candidates)
    _, others = neighbours.others(candidates, 8)
    halves = [torch.cdist(half, half).topk(9, largest=False) for half in x.split(20)]
    expected = torch.cat([half.values for half in halves])[:, 1:6].mean(1)
    torch.testing.assert_close(neighbours.gaps, expected, rtol=1e-4, atol=1e-4)
    nearest = torch.cat([halves[0].indices, halves[1].indices + 20])[:, 1:]
    torch.testing.assert_close(others, nearest)


@pytest.mark.parametrize("shift", [0, 1000])
def test_a_bank_gives_the_distance_to_the_closest(shift):
    x, new = normal_samples() + shift, normal_samples(400, seed=1) + shift  # two portions
    for pca in (None, principal_components(x)):
        bank = Bank.keep(x, 300, pca=pca)
        assert len(bank.bank) == 300
        expected = torch.cdist(new.double(), x[:300].double()).amin(1).float()
        torch.testing.assert_close(bank.closest(new), expected, atol=1e-3, rtol=1e-3)
    few = Bank.keep(x, 300, pca=principal_components(x, 2)).closest(new)
    assert (few < expected).all()


@pytest.mark.parametrize("is_dense", [False, True])
def test_rows_that_are_close_and_far_from_0_are_told_apart(is_dense):
    rare = torch.arange(4000) % 2 * 60.0  # half of the rows lie far from the other half
    spread = 0.01 if is_dense else 1.0
    x, new = ((rare[:n, None] + spread * normal_samples(n, seed=n)) for n in (4000, 60))
    neighbours = fitted(x, project=False)
    assert neighbours.is_dense == is_dense
    expected = relative_distances(x.double().numpy(), new.double().numpy())
    np.testing.assert_allclose(neighbours(new), expected, rtol=2e-2)


def test_the_distance_to_equal_samples_is_zero():
    x = normal_samples(5).repeat(6, 1) * 1000
    assert fitted(x, project=False)(x).max() < 1e-3


def test_the_gaps_of_equal_samples_are_not_zero():
    same, other = torch.ones(30, 6), torch.zeros(30, 6)
    neighbours = fitted(torch.cat([same, other]))
    assert (neighbours.gaps > 0).all()
    assert neighbours(torch.rand(5, 6)).isfinite().all()


@pytest.mark.parametrize("project", [False, True])
def test_the_bank_is_bounded(project, constants):
    constants(module, bank_values=60, bank_components=4)
    x = normal_samples()
    neighbours = Bank.of_features(x) if project else Neighbours.of_vectors(x)
    assert neighbours.bank.shape == ((15, 4) if project else (10, 6))


@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("cosine", [False, True])
def test_a_few_samples_are_enough(n, cosine, project):
    x = normal_samples(n)
    assert fitted(x, cosine=cosine, project=project)(x).isfinite().all()


def test_a_bank_that_was_loaded_knows_its_norms():
    bank = Bank.keep(normal_samples(), 30)
    loaded = Bank(*bank.bank.shape[::-1])
    loaded.load_state_dict(bank.state_dict())
    new = 3 * normal_samples(20)
    torch.testing.assert_close(loaded.closest(new), bank.closest(new), rtol=0, atol=0)
