import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from historyad.config import make_config
from historyad.errors import RunError
from historyad.judge.metrics import auroc
from historyad.kinds.preprocessing import Preprocessing
from historyad.method import detector as detector_module
from historyad.method.batches import Batches, to_float
from historyad.method.detector import (
    Detector,
    _Pool,
    detector_step,
    in_batches,
    start_detector,
    train_detector,
)
from historyad.method.gan import make_adam, train_gan
from historyad.method.history import History
from historyad.method.losses import detector_loss, total_variation_estimate
from historyad.method.networks import Critic, initialise
from historyad.method.theory import minimum_loss, optimal_detector, total_variation

# Counts out of 100 on a space of six points; the densities differ at every point, and each is
# somewhere 0.
DATA = np.array([40, 30, 20, 10, 0, 0])
HISTORY = np.array([5, 10, 0, 25, 20, 40])
BOUND_WEIGHT = 10.0


def tiny_config(**values):
    settings = {"width": 4, "hidden": 32, "latent_dim": 8, "epoch_images": 8192, "n_epochs": 2.0}
    return make_config(**{**settings, "detector_epochs": 2.0, "penalty_interval": 2, **values})


def network_of(seed, shape=(6,)):
    critic = Critic(shape, 4, 32)
    initialise(critic, torch.Generator().manual_seed(seed))
    return critic


@pytest.fixture(scope="module")
def problem(digits, tmp_path_factory):
    """Digits 0-4 are normal: their batches and a short history of a GAN trained on them."""
    images, labels = digits
    normal = images[labels < 5]
    prepare = Preprocessing.fit(normal, 0)
    batches = Batches(normal, prepare=prepare, seed=0)
    history = History(tmp_path_factory.mktemp("history"), tiny_config(), batches.shape)
    train_gan(batches, history)
    return batches, history


def with_config(history: History, **values) -> History:
    return History(Path(history.path), tiny_config(**values), history.shape)


def train_on_exact_expectations(members):
    """Minimise eq. 10 on batches that hold every point in exact proportion."""
    config = make_config(bound_weight=BOUND_WEIGHT)
    detector = Detector(members)
    points = torch.eye(6)
    real = points.repeat_interleave(torch.from_numpy(DATA), 0)
    generated = points.repeat_interleave(torch.from_numpy(HISTORY), 0)
    optimizer = make_adam(detector, 1e-2)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 600)
        estimate = detector_step(detector, optimizer, real, generated, config)
    with torch.no_grad():
        return detector(points), detector(real), detector(generated), float(estimate)


def test_a_trained_detector_reaches_the_closed_forms():
    scores, real, generated, estimate = train_on_exact_expectations([network_of(0)])
    data, history = DATA / 100, HISTORY / 100
    optimum = optimal_detector(data, history, BOUND_WEIGHT)
    np.testing.assert_allclose(scores.numpy(), optimum, atol=0.02)
    loss = float(detector_loss(real, generated, BOUND_WEIGHT))
    assert loss == pytest.approx(minimum_loss(data, history, BOUND_WEIGHT), rel=0.01)
    assert estimate == pytest.approx(total_variation(data, history), rel=0.01)


def test_the_mean_of_two_members_reaches_them_too():
    scores, *_ = train_on_exact_expectations([network_of(0), network_of(1)])
    np.testing.assert_allclose(
        scores.numpy(), optimal_detector(DATA / 100, HISTORY / 100, BOUND_WEIGHT), atol=0.02
    )


def test_members_are_trained_as_if_alone():
    random = torch.Generator().manual_seed(2)
    batches = [torch.randn(2, 16, 6, generator=random) for _ in range(3)]

    def train(seeds):
        detector = Detector([network_of(seed) for seed in seeds])
        optimizer = make_adam(detector, 1e-2)
        for real, generated in batches:
            detector_step(detector, optimizer, real, generated, make_config())
        return detector.members

    together = train([0, 1])
    for member, seed in zip(together, (0, 1), strict=True):
        (alone,) = train([seed])
        for a, b in zip(member.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
            torch.testing.assert_close(a, b)


def test_the_score_is_the_mean_of_the_members():
    detector = Detector([network_of(0), network_of(1)])
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    scores = detector.scores_of_members(x)
    assert scores.shape == (2, 5)
    torch.testing.assert_close(detector(x), scores.mean(0))


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_where_each_start_begins(problem):
    _, history = problem
    average = history.average_critic()
    starts = {
        start: list(start_detector(with_config(history, detector_start=start)).members)
        for start in ("both", "average", "random", "untrained")
    }
    assert [len(members) for members in starts.values()] == [2, 1, 1, 1]
    assert same_weights(starts["average"][0], average)
    assert same_weights(starts["untrained"][0], average)
    assert not same_weights(starts["random"][0], average)
    assert same_weights(starts["both"][0], average)
    assert same_weights(starts["both"][1], starts["random"][0])


def test_untrained_is_the_averaged_critic(problem):
    batches, history = problem
    detector = train_detector(batches, with_config(history, detector_start="untrained"))
    assert same_weights(detector.members[0], history.average_critic())


def test_no_snapshot_is_a_run_error(problem, tmp_path):
    batches, _ = problem
    with pytest.raises(RunError, match="no snapshot"):
        train_detector(batches, History(tmp_path, tiny_config(), batches.shape))


def estimates(detector, batches, history):
    """Eqs. 7 and 10 on data and on history samples that step 3 has not drawn."""
    with torch.no_grad():
        real = detector(batches.at(0, 512))
        generated = detector(to_float(history.sample(512, position=2**40)))
    return total_variation_estimate(real, generated), detector_loss(real, generated, BOUND_WEIGHT)


@pytest.mark.parametrize("start", ["both", "average", "random"])
def test_training_lowers_the_loss_and_keeps_scores_apart(problem, start):
    batches, history = problem
    history = with_config(history, detector_start=start)
    records = []
    trained = train_detector(batches, history, on_progress=records.append)
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
        scores = torch.cat([trained(batches.at(0, 512)), trained(to_float(noise))])
    assert auroc(np.repeat([0, 1], 512), scores.numpy()) > 0.95


def test_a_score_depends_on_its_own_image_alone(digits):
    images, _ = digits
    prepare = Preprocessing.fit(images, 0)
    detector = Detector([network_of(0, (1, 8, 8)), network_of(1, (1, 8, 8))])
    scores = detector.anomaly_scores(images[:300], prepare)
    assert (scores.dtype, scores.shape) == (np.float32, (300,))
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_allclose(
        detector.anomaly_scores(images[order], prepare), scores[order], atol=1e-5
    )
    alone = [detector.anomaly_scores(images[i : i + 1], prepare)[0] for i in range(20)]
    np.testing.assert_allclose(alone, scores[:20], atol=1e-5)
    with torch.no_grad():
        by_hand = detector(to_float(images[:300]))
    np.testing.assert_allclose(scores, by_hand.numpy(), atol=1e-5)


def test_no_samples_have_no_scores(digits):
    images, _ = digits
    detector = Detector([network_of(0, (1, 8, 8))])
    assert detector.anomaly_scores(images[:0], Preprocessing.fit(images, 0)).shape == (0,)


def test_only_as_many_history_samples_are_drawn_as_are_used(problem, monkeypatch):
    batches, history = problem
    drawn, used = [], []
    sample, step = History.sample, detector_module.detector_step

    def counted_sample(self, size, position=0):
        drawn.append(size)
        return sample(self, size, position)

    def counted_step(detector, optimizer, real, generated, config):
        used.append(len(generated))
        return step(detector, optimizer, real, generated, config)

    monkeypatch.setattr(History, "sample", counted_sample)
    monkeypatch.setattr(detector_module, "detector_step", counted_step)
    monkeypatch.setattr(detector_module, "_POOL_IMAGES", 300)
    train_detector(batches, with_config(history, detector_epochs=0.3))
    assert sum(drawn) == sum(used)
    assert max(drawn) <= 300


@pytest.mark.parametrize(
    ("shape", "n_images"),
    [((1, 28, 28), 65_536), ((1, 64, 64), 65_536), ((1024,), 65_536), ((3, 128, 128), 5460)],
)
def test_a_pool_has_no_more_bytes_than_a_quarter_of_a_gigabyte(tmp_path, shape, n_images):
    class Counted(History):
        drawn: ClassVar[list[int]] = []

        def sample(self, size, position=0):
            self.drawn.append(size)
            return np.zeros((size, 1), np.float32)

    history = Counted(tmp_path, tiny_config(batch_size=2), shape)
    _Pool(history, 10**6).at(0, 2, slice(None))
    assert history.drawn == [n_images]


def test_the_last_batch_is_whole_where_the_length_is_rounded(problem, monkeypatch):
    """1.1 * 50,000 is a bit more than 55,000; so is 1.1 * 50."""
    batches, history = problem
    assert 1.1 * 50 > 55
    pairs, step = [], detector_module.detector_step

    def counted(detector, optimizer, real, generated, config):
        pairs.append((len(real), len(generated)))
        return step(detector, optimizer, real, generated, config)

    monkeypatch.setattr(detector_module, "detector_step", counted)
    short = with_config(history, detector_epochs=1.1, batch_size=5, epoch_images=50)
    short.snapshots = history.snapshots
    train_detector(batches, short)
    assert pairs == [(5, 5)] * 11


def test_batches_are_filled_up_and_their_filling_is_not_scored():
    x = np.arange(14, dtype=np.float32).reshape(7, 2)
    prepare, sizes = Preprocessing.fit(x, 0), []

    def score(batch):
        sizes.append(len(batch))
        return batch.sum(1)

    scores = in_batches(score, x, prepare, size=4, grain=4)
    np.testing.assert_allclose(scores, prepare(x).sum(1))
    assert sizes == [4, 4]
    assert in_batches(score, x[:0], prepare).shape == (0,)


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_batches_side_by_side_give_the_scores_of_batches_in_turn(digits, four_threads):
    images, prepare = digits[0][:300], Preprocessing.fit(digits[0], 0)
    detector = Detector([network_of(seed, (1, 8, 8)) for seed in (0, 1)])
    threads = set()

    def score(batch):
        threads.add(threading.get_ident())
        return detector(batch)

    with torch.inference_mode():
        side_by_side = in_batches(score, images, prepare, size=16)
        torch.set_num_threads(1)
        in_turn = in_batches(score, images, prepare, size=16)
    assert len(threads) > 2
    np.testing.assert_array_equal(side_by_side, in_turn)


def test_threads_inherit_the_modes_and_keep_the_number_of_threads(four_threads):
    x = np.ones((6, 2), np.float32)
    prepare = Preprocessing.fit(np.arange(14, dtype=np.float32).reshape(7, 2), 0)
    seen = set()

    def score(batch):
        seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        assert torch.get_num_threads() == 2  # two batches, four threads
        return batch.sum(1)

    in_batches(score, x, prepare, size=3, grain=3)
    with torch.no_grad():
        in_batches(score, x, prepare, size=3, grain=3)
    with torch.inference_mode():
        in_batches(score, x, prepare, size=3, grain=3)
    assert seen == {(True, False), (False, False), (False, True)}
    assert torch.get_num_threads() == 4


def test_an_error_in_a_batch_is_that_of_the_whole(four_threads):
    prepare = Preprocessing.fit(np.arange(14, dtype=np.float32).reshape(7, 2), 0)

    def score(batch):
        raise RunError("this batch")

    with pytest.raises(RunError, match="this batch"):
        in_batches(score, np.ones((9, 2), np.float32), prepare, size=3, grain=3)
    assert torch.get_num_threads() == 4
