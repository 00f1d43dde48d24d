import math

import numpy as np
import pytest
import torch
from tiny import auroc_of, missed_by
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import logsigmoid

from historyad.errors import InputError
from historyad.research.peers.memae import MemAE, entropy, hard_shrinkage
from historyad.research.peers.one_class_svm import OneClassSVMPeer
from historyad.research.peers.vae import VAE, BernoulliVAE, divergence, gaussian_log_likelihood

SMALL = {"width": 8, "hidden": 64, "latent_dim": 16}
MAKE = {
    "vae": lambda n_images: VAE(n_images=n_images, **SMALL),
    "vae-dense": lambda n_images: VAE(n_images=n_images, dense=True, hidden=256, latent_dim=16),
    "vae-bernoulli": lambda n_images: BernoulliVAE(n_images=n_images, hidden=256),
    "memae": lambda n_images: MemAE(n_images=n_images, **SMALL),
}
LENGTH = 16_000  # images seen: a second or two


@pytest.fixture(scope="module", params=MAKE)
def make(request):
    return MAKE[request.param]


@pytest.fixture(scope="module")
def fitted(make, split):
    return make(LENGTH).fit(split[0])


def test_a_peer_learns_on_digits(fitted, make, split):
    untrained = make(0).fit(split[0])
    assert auroc_of(fitted, *split[1:]) > max(0.7, auroc_of(untrained, *split[1:]) + 0.1)


def test_a_peer_learns_zeros(make, zeros):
    fitted, untrained = (make(n_images).fit(zeros[0]) for n_images in (LENGTH, 0))
    assert missed_by(fitted, zeros) < min(0.2, missed_by(untrained, zeros) / 2)


def test_a_score_depends_on_its_own_sample_alone(fitted, split):
    normal = split[1][:20]
    together = fitted.anomaly_score(normal)
    assert len(np.unique(together)) == 20
    np.testing.assert_allclose(fitted.anomaly_score(normal[::-1])[::-1], together, rtol=1e-5)
    alone = np.concatenate([fitted.anomaly_score(normal[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, together[:5], rtol=1e-5)


def test_the_same_seed_gives_the_same_scores(make, split):
    train, normal, _ = split
    first, again, other = (make(640) for _ in range(3))
    other.seed = 1
    scores = [peer.fit(train).anomaly_score(normal) for peer in (first, again, other)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])


@pytest.mark.parametrize("name", [name for name in MAKE if name != "vae-bernoulli"])
def test_a_peer_takes_vectors_with_a_constant_column_and_a_far_row(name):
    make = MAKE[name]
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    x[:, 2] = 7
    peer = make(6400).fit(x)
    scores = peer.anomaly_score(np.concatenate([x, np.full((1, 4), 1e30, np.float32)]))
    assert scores.shape == (201,)
    assert np.isfinite(scores).all()
    assert scores[-1] > scores[:-1].max()


def test_likelihood_and_divergence_are_those_of_gaussians():
    random = torch.Generator().manual_seed(0)
    x, mean, log_deviation = torch.randn(3, 5, 2, generator=random, dtype=torch.float64)
    gaussian = Normal(mean, log_deviation.exp())
    torch.testing.assert_close(
        gaussian_log_likelihood(x, mean, log_deviation), gaussian.log_prob(x).sum(1)
    )
    standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(
        divergence(mean, log_deviation), kl_divergence(gaussian, standard).sum(1)
    )


def test_a_plain_vae_takes_images_alone():
    with pytest.raises(InputError, match="takes images"):
        BernoulliVAE().fit(np.zeros((9, 3), np.float32))


def test_the_likelihood_of_a_plain_vae_is_that_of_pixels_drawn_one_by_one(split):
    vae = BernoulliVAE(n_images=640).fit(split[0])
    x = vae._kind.floats(vae._kind.prepare(split[1][:5]))
    z = torch.zeros(5, vae.latent_dim)
    logits = vae._decoder(z)
    ink = (x.flatten(1) + 1) / 2  # the probability by which a pixel is drawn
    expected = (ink * logsigmoid(logits) + (1 - ink) * logsigmoid(-logits)).sum(1)
    torch.testing.assert_close(vae._log_likelihood(x, z), expected)


def test_hard_shrinkage_is_equation_7():
    weights = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)
    distance = weights - 0.2
    shrunk = distance.clamp(min=0) * weights / (distance.abs() + 1e-12)
    expected = shrunk / shrunk.sum()
    torch.testing.assert_close(hard_shrinkage(weights, 0.2), expected)
    torch.testing.assert_close(expected[0, 2:], torch.zeros(2, dtype=torch.float64))


def test_entropy_is_highest_for_equal_weights_and_zero_for_a_single_one():
    weights = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0]], requires_grad=True)
    found = entropy(weights)
    torch.testing.assert_close(found, torch.tensor([math.log(4), 0.0]))
    found.sum().backward()
    assert weights.grad.isfinite().all()


def test_a_one_class_svm_keeps_the_share_asked_for_of_a_seeded_subset(split):
    train = split[0]
    peer = OneClassSVMPeer(nu=0.2, max_samples=400).fit(train)
    assert 0.2 * 400 <= peer._svm.n_support_.sum() < 0.4 * 400  # nu bounds it from below
    scores = [OneClassSVMPeer(max_samples=400, seed=s).fit(train) for s in (0, 0, 1)]
    first, again, other = (peer.anomaly_score(split[1]) for peer in scores)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
