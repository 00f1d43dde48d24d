from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import batches_of, networks_for
from torch import nn

from historyad.config import make_config
from historyad.errors import RunError
from historyad.judge.metrics import auroc
from historyad.method.detector import (
    Pool,
    detector_step,
    put_on_scale,
    start_detector,
    train_detector,
)
from historyad.method.gan import make_adam, record_history
from historyad.method.history import History
from historyad.method.loop import Session
from historyad.method.losses import detector_loss, total_variation_estimate
from historyad.method.networks import initialise
from historyad.method.theory import minimum_loss, optimal_detector, total_variation

# Counts out of 100 on a space of six points; the densities differ at every point, and each is
# somewhere 0.
DATA = np.array([40, 30, 20, 10, 0, 0])
HISTORY = np.array([5, 10, 0, 25, 20, 40])
BOUND_WEIGHT = 10.0


def tiny_config(**values):
    settings = {"width": 4, "hidden": 32, "latent_dim": 8, "epoch_images": 8192, "n_epochs": 2.0}
    return make_config(**{**settings, "detector_epochs": 2.0, "penalty_interval": 2, **values})


@pytest.fixture(scope="module")
def problem(digits, tmp_path_factory):
    """Digits 0-4 are normal: their batches and a short history of a GAN trained on them."""
    images, labels = digits
    batches = batches_of(images[labels < 5], tiny_config())
    history = History(tmp_path_factory.mktemp("history"), tiny_config(), batches.networks)
    record_history(batches, history)
    return batches, history


class CountedHistory(History):
    """A history that notes how many samples are drawn at a time."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.drawn = []

    def sample(self, size, position=0):
        self.drawn.append(size)
        return super().sample(size, position)


def with_config(history: History, **values) -> CountedHistory:
    return CountedHistory(Path(history.path), tiny_config(**values), history.networks)


def test_a_trained_detector_reaches_the_closed_forms():
    """Where batches hold every point in exact proportion."""
    config = make_config(bound_weight=BOUND_WEIGHT)
    detector = networks_for((6,), tiny_config()).critic()
    initialise(detector, torch.Generator().manual_seed(0))
    points = torch.eye(6)
    real = points.repeat_interleave(torch.from_numpy(DATA), 0)
    generated = points.repeat_interleave(torch.from_numpy(HISTORY), 0)
    optimizer = make_adam(detector, 1e-2, (0.5, 0.9))
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 600)
        estimate = detector_step(detector, optimizer, real, generated, config)

    data, history = DATA / 100, HISTORY / 100
    with torch.no_grad():
        optimum = optimal_detector(data, history, BOUND_WEIGHT)
        np.testing.assert_allclose(detector(points).numpy(), optimum, atol=0.02)
        loss = float(detector_loss(detector(real), detector(generated), BOUND_WEIGHT))
    assert loss == pytest.approx(minimum_loss(data, history, BOUND_WEIGHT), rel=0.01)
    assert float(estimate) == pytest.approx(total_variation(data, history), rel=0.01)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_where_each_start_begins(problem):
    _, history = problem
    average = history.average_critic()
    starts = {
        start: start_detector(with_config(history, detector_start=start))
        for start in ("average", "standardised", "random", "untrained")
    }
    assert same_weights(starts["average"], average)
    assert same_weights(starts["standardised"], average)  # until it is shown samples
    assert same_weights(starts["untrained"], average)
    assert not same_weights(starts["random"], average)
    assert not same_weights(
        starts["random"], start_detector(with_config(history, detector_start="random", seed=1))
    )


def test_training_starts_on_the_scale_of_d_tv(problem):
    """Mean 0 and deviation 1 of data and history together, whatever a critic says of them."""
    batches, history = problem
    pool, starts = Pool(history, 640), [0, 64, 128]
    shown = torch.cat([of.at(start, 64, slice(None)) for start in starts for of in (batches, pool)])
    critic = history.average_critic()
    with torch.no_grad():
        before = critic(shown)
        critic.head[-1].weight.mul_(30)
        critic.head[-1].bias.mul_(30).sub_(500)
        put_on_scale(critic, batches, pool, starts)
        after = critic(shown)
    expected = (before - before.mean()) / before.std()
    np.testing.assert_allclose(after.numpy(), expected.numpy(), atol=2e-3)


def test_training_starts_near_its_bounds(problem):
    """What is far outside [-1, 1] costs Adam's memory of squares most of its steps."""
    batches, history = problem
    shifted = with_config(history, detector_epochs=0.1, detector_start="standardised")
    usual = shifted.average_critic

    def far_outside():
        critic = usual()
        with torch.no_grad():
            critic.head[-1].bias.sub_(1000)
        return critic

    trained = train_detector(batches, shifted)
    shifted.average_critic = far_outside
    same = train_detector(batches, shifted)
    for one, other in zip(trained.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=5e-3, rtol=0)


def test_untrained_is_the_averaged_critic(problem):
    batches, history = problem
    untrained = with_config(history, detector_start="untrained")
    assert same_weights(train_detector(batches, untrained), history.average_critic())
    assert not untrained.drawn


def test_no_snapshot_is_a_run_error(problem, tmp_path):
    batches, _ = problem
    with pytest.raises(RunError, match="no snapshot"):
        train_detector(batches, History(tmp_path, tiny_config(), batches.networks))


def estimates(detector, batches, history):
    """Eqs. 7 and 10 on data and on history samples that step 3 has not drawn."""
    with torch.no_grad():
        real = detector(batches.at(0, 512))
        generated = detector(history.networks.floats(history.sample(512, position=2**40)))
    return total_variation_estimate(real, generated), detector_loss(real, generated, BOUND_WEIGHT)


@pytest.mark.parametrize("start", ["average", "standardised", "random"])
def test_training_lowers_the_loss_and_keeps_scores_apart(problem, start):
    batches, history = problem
    history = with_config(history, detector_start=start)
    records = []
    trained = train_detector(batches, history, Session(on_progress=records.append))
    variation, loss = estimates(trained, batches, history)
    _, loss_before = estimates(start_detector(history), batches, history)
    assert loss < loss_before
    assert variation > 0.5
    assert len(records) > 10
    assert all(-1 <= record["total_variation"] <= 1 for record in records)
    with torch.no_grad():
        scores = trained(batches.at(0, 512)).numpy()
    assert len(np.unique(scores.round(4))) > 100  # not collapsed


def test_a_trained_detector_finds_what_is_far_from_the_data(problem):
    batches, history = problem
    trained = train_detector(batches, history)
    noise = np.random.default_rng(0).integers(0, 256, (512, 8, 8, 1), np.uint8)
    with torch.no_grad():
        scores = torch.cat([trained(batches.at(0, 512)), trained(history.networks.floats(noise))])
    assert auroc(np.repeat([0, 1], 512), scores.numpy()) > 0.95


def test_only_as_many_history_samples_are_drawn_as_are_used(problem):
    batches, history = problem
    short = with_config(history, detector_epochs=0.3)  # 2,457.6 images: 39 batches of 64
    train_detector(batches, short)
    assert sum(short.drawn) == 39 * 64
    small = with_config(history)
    pool = Pool(small, 2458, most=300)
    found = [pool.at(position, 64, slice(10, 64)) for position in range(0, 2458, 64)]
    assert {len(samples) for samples in found} == {54}
    assert sum(small.drawn) == 39 * 64
    assert max(small.drawn) <= 300


def test_samples_of_a_pool_are_those_of_the_history_at_its_position(problem):
    _, history = problem
    pool = Pool(history, 640, most=128)
    for position in (0, 64, 256, 192):
        drawn = history.networks.floats(history.sample(128, position // 128 * 128))
        place = position % 128
        own = pool.at(position, 64, slice(3, 9))
        assert torch.equal(own, drawn[place + 3 : place + 9])


@pytest.mark.parametrize(
    ("shape", "n_images"),
    [((1, 32, 32), 65_536), ((1, 64, 64), 65_536), ((1024,), 65_536), ((3, 128, 128), 5460)],
)
def test_a_pool_has_no_more_bytes_than_a_quarter_of_a_gigabyte(tmp_path, shape, n_images):
    class Empty(CountedHistory):
        def sample(self, size, position=0):
            self.drawn.append(size)
            return np.zeros((size, 1, 1, 1), np.uint8)

    config = tiny_config(batch_size=2)
    history = Empty(tmp_path, config, networks_for(shape, config))
    Pool(history, 10**6).at(0, 2, slice(None))
    assert history.drawn == [n_images]


def test_the_last_batch_is_whole_where_the_length_is_rounded(problem):
    """1.1 * 50,000 is a bit more than 55,000; so is 1.1 * 50."""
    batches, history = problem
    assert 1.1 * 50 > 55
    short = with_config(history, detector_epochs=1.1, batch_size=5, epoch_images=50)
    records = []
    train_detector(batches, short, Session(on_progress=records.append))
    assert sum(short.drawn) == 55
    assert [record["images_seen"] for record in records] == [*range(5, 56, 5)]


@pytest.mark.parametrize("setting", ["detector_momentum", "detector_square_momentum"])
def test_the_momenta_of_step_3_are_its_own(problem, setting):
    batches, history = problem
    few = {"detector_epochs": 0.05}
    usual, other, of_step_1 = (
        train_detector(batches, with_config(history, **few, **values))
        for values in ({}, {setting: 0.99}, {"momentum": 0.99, "square_momentum": 0.99})
    )
    assert same_weights(usual, of_step_1)
    assert not same_weights(usual, other)
