import math
from functools import partial

import numpy as np
import pytest
import torch
from tiny import missed_by

from historyad.method.networks import ImageNetworks
from historyad.research.peers import PEERS, early_stopped
from historyad.research.peers.adgan import ADGAN
from historyad.research.peers.anogan import AnoGAN
from historyad.research.peers.early_stopped import EarlyStopped
from historyad.research.peers.egbad import EGBAD
from historyad.research.peers.fence_gan import (
    FenceGAN,
    discriminator_loss,
    dispersion_loss,
    encirclement_loss,
)
from historyad.research.peers.ganomaly import GANomaly
from historyad.research.peers.training import (
    Encoder,
    cross_entropy,
    dcgan_adam,
    l1_distance,
    last_features,
    take_step,
)
from historyad.research.peers.wgan_encoder import WGANEncoder

SMALL = {"width": 8, "hidden": 64, "latent_dim": 16}
# The lengths, in images seen, are enough to learn zeros, and take seconds.
MAKE = {
    "anogan": partial(AnoGAN, n_images=20_000, learning_rate=1e-3, n_steps=100, **SMALL),
    "egbad": partial(EGBAD, n_images=60_000, learning_rate=1e-3, **SMALL),
    "egbad-fm": partial(EGBAD, n_images=60_000, learning_rate=1e-3, feature_matching=True, **SMALL),
    "adgan": partial(ADGAN, n_images=40_000, learning_rate=2e-3, n_seeds=2, **SMALL),
    "ganomaly": partial(GANomaly, n_images=20_000, learning_rate=1e-3, **SMALL),
    "fence-gan": partial(FenceGAN, n_images=80_000, **SMALL),
    "wgan-encoder": partial(WGANEncoder, n_images=60_000, learning_rate=2e-3, **SMALL),
    "early-stopped": partial(EarlyStopped, n_images=20_000, **SMALL),
}
STEP = 64  # the images of one step


@pytest.fixture(scope="module", params=MAKE)
def make(request):
    return MAKE[request.param]


@pytest.fixture(scope="module")
def fitted(make, zeros):
    return make().fit(zeros[0])


def test_these_are_the_peers_of_the_benchmark():
    for name, make in MAKE.items():
        peer = PEERS[name](7)
        assert type(peer) is make.func
        assert peer.seed == 7
    assert PEERS["egbad-fm"](0).feature_matching


def test_a_peer_learns_zeros(fitted, make, zeros):
    untrained = make(n_images=STEP).fit(zeros[0])
    assert missed_by(fitted, zeros) < min(0.2, missed_by(untrained, zeros) / 2)


def test_a_score_depends_on_its_own_sample_alone(fitted, zeros):
    normal = zeros[1][:12]
    together = fitted.anomaly_score(normal)
    assert len(np.unique(together)) == 12
    np.testing.assert_allclose(fitted.anomaly_score(normal[::-1])[::-1], together, rtol=1e-5)
    alone = np.concatenate([fitted.anomaly_score(normal[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(alone, together[:3], rtol=1e-5)


def test_the_same_seed_gives_the_same_scores(make, zeros):
    train, normal, _ = zeros
    first, again, other = (
        make(n_images=2 * STEP, seed=seed).fit(train).anomaly_score(normal[:3])
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_a_peer_takes_vectors_with_a_constant_column(make):
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    x[:, 2] = 7
    scores = make(n_images=5 * STEP).fit(x).anomaly_score(x[:5])
    assert scores.shape == (5,)
    assert np.isfinite(scores).all()


def test_a_peer_takes_colour_images_that_are_not_square(make):
    x = np.random.default_rng(0).integers(0, 256, size=(5, 9, 14, 3), dtype=np.uint8)
    assert np.isfinite(make(n_images=STEP).fit(x).anomaly_score(x[:2])).all()


def test_the_search_of_anogan_goes_down(zeros):
    peer = MAKE["anogan"](n_images=STEP, n_steps=0).fit(zeros[0])
    before = peer.anomaly_score(zeros[1])
    peer.n_steps = 50
    assert (peer.anomaly_score(zeros[1]) < before).all()


def test_the_search_of_adgan_goes_down_and_leaves_the_generator_as_it_was(zeros):
    peer = MAKE["adgan"](n_images=STEP, n_steps=0).fit(zeros[0])
    weights = {name: tensor.clone() for name, tensor in peer._generator.state_dict().items()}
    before = peer.anomaly_score(zeros[1][:5])
    peer.n_steps = 5
    assert (peer.anomaly_score(zeros[1][:5]) < before).all()
    for name, tensor in peer._generator.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_the_early_stopped_generator_is_a_history_of_one_snapshot(zeros, monkeypatch):
    train_detector = early_stopped.train_detector
    times = []

    def spy(batches, history):
        times.extend(history.times)
        return train_detector(batches, history)

    monkeypatch.setattr(early_stopped, "train_detector", spy)
    MAKE["early-stopped"](n_images=30 * STEP).fit(zeros[0])
    assert times == [1.0]


def test_encirclement_is_least_where_d_is_alpha():
    logits = torch.logit(torch.tensor([0.1, 0.1])).requires_grad_()
    loss = encirclement_loss(logits, 0.1)
    entropy = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert loss.item() == pytest.approx(entropy, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros(2), atol=1e-7, rtol=0)


def test_dispersion_is_the_inverse_of_the_mean_distance_to_the_centre():
    corners = torch.tensor([[3.0, 4.0], [-3.0, -4.0]]).view(2, 1, 1, 2) + 7
    assert dispersion_loss(corners).item() == pytest.approx(1 / 5)


def test_the_discriminator_of_fence_gan_weighs_generated_samples_by_gamma():
    undecided = torch.zeros(4)
    loss = discriminator_loss(undecided, undecided, gamma=0.1)
    assert loss.item() == pytest.approx(1.1 * math.log(2))


def test_cross_entropy_is_the_logarithm_of_the_sigmoid():
    logits = torch.tensor([-2.0, 0.5])
    torch.testing.assert_close(cross_entropy(logits, 1), -torch.sigmoid(logits).log())
    torch.testing.assert_close(cross_entropy(logits, 0), -(1 - torch.sigmoid(logits)).log())


def test_l1_distance_sums_over_all_dimensions_of_a_sample():
    x = torch.ones(2, 3, 4, 4)
    torch.testing.assert_close(l1_distance(x, -x), torch.tensor([96.0, 96.0]))


def test_the_critic_is_a_layer_on_its_last_features():
    networks = ImageNetworks((1, 8, 8), width=4, hidden=16, latent_dim=8)
    critic, x = networks.critic(), torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(critic.head[-1](last_features(critic, x)).squeeze(1), critic(x))
    assert Encoder(networks, 5)(x).shape == (3, 5)


def test_a_step_leaves_the_other_network_without_gradients():
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    before = first.weight.clone()
    take_step(dcgan_adam(first, 0.1), second(first(torch.ones(1, 2))).sum())
    assert not torch.equal(first.weight, before)
    assert all(parameter.grad is None for parameter in second.parameters())


def test_steps_are_the_length_and_their_draws_are_their_own(zeros):
    peer = MAKE["adgan"]()
    peer._look_at(zeros[0])
    steps = list(peer._steps(zeros[0], n_images=3 * STEP - 1))
    assert [len(batch) for batch, _ in steps] == [STEP] * 3
    assert len({float(torch.rand(1, generator=random)) for _, random in steps}) == 3
