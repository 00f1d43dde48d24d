import importlib
import random

import numpy as np
import pytest
import torch
from tiny import missed_by

from historyad.errors import InputError
from historyad.method.networks import count_parameters
from historyad.research.peers.pyod import PyOD

# Passes over 89 zeros that suffice to learn.
LENGTHS = {"autoencoder": 60, "vae": 100, "deepsvdd": 100, "alad": 220}


def make(detector, n_epochs, seed=0):
    hidden = (128, 64) if detector == "alad" else (256, 128)
    return PyOD(detector, n_epochs=n_epochs, n_images=0, hidden=hidden, latent_dim=16, seed=seed)


@pytest.fixture(scope="module", params=LENGTHS)
def detector(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(detector, zeros):
    return make(detector, LENGTHS[detector]).fit(zeros[0])


def test_a_detector_learns_zeros(fitted, detector, zeros):
    untrained = make(detector, 0).fit(zeros[0])
    assert missed_by(fitted, zeros) < min(0.2, missed_by(untrained, zeros) / 2)


def test_a_score_depends_on_its_own_sample_alone(fitted, zeros):
    normal = zeros[1][:20]
    together = fitted.anomaly_score(normal)
    assert len(np.unique(together)) == 20
    np.testing.assert_allclose(fitted.anomaly_score(normal[::-1])[::-1], together, rtol=1e-4)
    alone = np.concatenate([fitted.anomaly_score(normal[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(alone, together, rtol=1e-4)


def test_the_same_seed_gives_the_same_scores(detector, zeros):
    train, normal, _ = zeros
    first, again, other = (
        make(detector, 1, seed).fit(train).anomaly_score(normal) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_global_states_are_left_as_they_were(detector, zeros):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    make(detector, 1).fit(zeros[0]).anomaly_score(zeros[1])
    assert states() == before


def test_a_detector_takes_vectors_with_a_constant_column(detector):
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    x[:, 2] = 7
    scores = make(detector, 1).fit(x).anomaly_score(x)
    assert scores.shape == (200,)
    assert np.isfinite(scores).all()


def test_a_detector_takes_fewer_samples_than_a_batch(detector):
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    for samples in (x, images):
        scores = make(detector, 1).fit(samples).anomaly_score(samples)
        assert len(np.unique(scores)) > 1


def test_few_images_are_passed_over_as_often_as_it_takes(detector, zeros):
    train, normal, _ = zeros
    three, enough = make(detector, 3), make(detector, 1)
    enough.n_images = 3 * len(train) - 1
    scores = [peer.fit(train).anomaly_score(normal) for peer in (three, enough)]
    np.testing.assert_array_equal(*scores)


def test_networks_for_vectors_are_those_of_pyod(detector):
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    wide, narrow = (
        count_parameters(make(detector, 1).fit(samples)._networks)
        for samples in ((x[:, :, None, None] > 0).astype(np.uint8) * 255, x)
    )
    assert wide > 3 * narrow


def test_without_pyod_the_error_says_how_to_install_it(detector, zeros, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named '{name}'", name="pyod")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"needs pyod: pip install historyad\[peers\]"):
        make(detector, 1).fit(zeros[0])
