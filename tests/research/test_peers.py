import numpy as np
import pytest
from tiny import auroc_of

from historyad.errors import InputError
from historyad.research.peers import PEERS
from historyad.research.peers.features import Features
from historyad.research.peers.mahalanobis import Mahalanobis
from historyad.research.peers.neighbours import Neighbours
from historyad.research.peers.one_number import mean_gradient
from historyad.research.peers.pca_residual import PCAResidual
from historyad.research.peers.sums import SumOfPeers

# Those that fit in a second with their default settings; the others have tests of their own.
SIMPLE = [
    *("pca-residual", "mahalanobis", "neighbours", "neighbours-pca-cosine"),
    *("isolation-forest", "one-class-svm", "pca+neighbours+forest"),
]
OF_IMAGES = ["mean-gradient", "png-size", "gradient+neighbours"]


def test_peers_learn_on_digits_and_score_each_sample_alone(split):
    train, normal, anomalous = split
    for name in SIMPLE:
        peer = PEERS[name](0).fit(train)
        assert auroc_of(peer, normal, anomalous) > 0.7, name
        together = peer.anomaly_score(normal[:20])
        alone = np.concatenate([peer.anomaly_score(normal[i : i + 1]) for i in range(20)])
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5, err_msg=name)


def test_peers_learn_zeros(zeros):
    for name in SIMPLE:
        assert auroc_of(PEERS[name](0).fit(zeros[0]), *zeros[1:]) > 0.9, name


def test_peers_take_vectors_with_a_constant_column():
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    x[:, 2] = 7
    for name in SIMPLE:
        scores = PEERS[name](0).fit(x).anomaly_score(x)
        assert scores.shape == (200,), name
        assert np.isfinite(scores).all(), name


def test_features_are_pixels_or_standardised_columns():
    images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    np.testing.assert_array_equal(Features().fit(images)(images).ravel(), [0, 1])
    vectors = np.array([[1.0], [3.0]], np.float32)
    np.testing.assert_array_equal(Features().fit(vectors)(vectors).ravel(), [-1, 1])


def test_mahalanobis_is_the_closed_form():
    random = np.random.default_rng(0)
    x = (random.normal(size=(5000, 3)) @ np.diag([1.0, 2.0, 3.0])).astype(np.float32)
    peer = Mahalanobis(ridge=1e-6).fit(x)
    z = ((x - x.mean(0)) / x.std(0)).astype(np.float64)
    inverse = np.linalg.inv(np.cov(z, rowvar=False))
    expected = np.sqrt(np.einsum("ni,ij,nj->n", z, inverse, z))
    np.testing.assert_allclose(peer.anomaly_score(x), expected, rtol=1e-3)


def test_the_ridge_of_mahalanobis_follows_the_contrast():
    images = np.random.default_rng(0).integers(0, 128, (50, 4, 4, 1)).astype(np.uint8)
    faint, strong = Mahalanobis().fit(images), Mahalanobis().fit(2 * images)
    np.testing.assert_allclose(
        faint.anomaly_score(images), strong.anomaly_score(2 * images), rtol=1e-4
    )


def test_the_residual_of_a_plane_is_the_distance_to_it():
    x = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    plane = np.hstack([x, x])  # each column twice: rank 2 of 4
    peer = PCAResidual(n_components=2).fit(plane)
    np.testing.assert_allclose(peer.anomaly_score(plane), 0, atol=1e-5)
    # Columns are standardised, and the plane's normals are those of equal pairs.
    off = np.hstack([x, -x])
    z = (off - plane.mean(0)) / plane.std(0)
    expected = np.linalg.norm(z[:, :2] - z[:, 2:], axis=1) / np.sqrt(2)
    np.testing.assert_allclose(peer.anomaly_score(off), expected, rtol=1e-4)


def test_neighbours_are_those_found_by_hand():
    x = np.array([[0.0], [1.0], [3.0]], np.float32)
    peer = Neighbours(metric="euclidean", k=2).fit(x)
    deviation = x.std()
    np.testing.assert_allclose(peer.anomaly_score(x[:1]), [0.5 / deviation], rtol=1e-5)


def test_one_number_is_judged_in_either_direction(digits):
    images = digits[0]
    for name in ("mean-gradient", "png-size"):
        peer = PEERS[name](0).fit(images[:500])
        plain = np.full_like(images[:1], 255)
        noise = np.random.default_rng(0).integers(0, 256, images[:1].shape).astype(np.uint8)
        usual = np.median(peer.anomaly_score(images[500:]))
        for odd in (plain, noise):
            assert peer.anomaly_score(odd)[0] > 3 * usual, name


def test_the_mean_gradient_is_that_of_both_directions():
    image = np.array([[0, 10, 30], [0, 10, 30]], np.uint8)[..., None]
    assert mean_gradient(image) == (0 + 15) / 2
    assert mean_gradient(image.transpose(1, 0, 2)) == (0 + 15) / 2


def test_numbers_about_images_refuse_vectors():
    vectors = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    for name in OF_IMAGES:
        with pytest.raises(InputError, match="takes images"):
            PEERS[name](0).fit(vectors)


def test_a_sum_has_its_parts_on_one_scale():
    x = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)

    class Column:
        def __init__(self, column, unit):
            self.column, self.unit = column, unit

        def fit(self, samples):
            self.n = len(samples)
            return self

        def anomaly_score(self, samples):
            return self.unit * samples[:, self.column]

    parts = [Column(0, 1.0), Column(1, 1e6)]
    scores = SumOfPeers(parts).fit(x).anomaly_score(x)
    assert parts[0].n == 900
    for column in (0, 1):
        assert 0.6 < np.corrcoef(scores, x[:, column])[0, 1] < 0.8
    assert abs(np.corrcoef(scores, x[:, 2])[0, 1]) < 0.1
