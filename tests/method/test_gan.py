import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import TINY, batches_of, history_for, networks_for, tiny_config

from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.method import gan as gan_module
from historyad.method.gan import (
    build_gan,
    critic_step,
    generator_step,
    record_history,
)
from historyad.method.history import recorded_interval
from historyad.method.loop import Session
from historyad.method.losses import gradient_penalty
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory
from historyad.randomness import Stream, torch_generator


@pytest.fixture
def images(digits):
    return digits[0][:500]


def trained(samples, path, *, config=None, checkpoints=None):
    """Train on ``samples``; return the GAN, its history and the records of its progress."""
    config = config or tiny_config()
    batches = batches_of(samples, config)
    history, records = history_for(batches, config, path), []
    gan = record_history(batches, history, Session(checkpoints, records.append))
    return gan, history, records


def weights_of(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- what is learnt


def test_the_wasserstein_distance_rises_while_the_critic_learns_and_then_falls(tmp_path):
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 2000)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    config = tiny_config(
        hidden=64, epoch_images=16_384, learning_rate=2e-3, critic_steps=2, saves_per_epoch=16
    )
    _, _, records = trained(ring, tmp_path, config=config)
    distances = np.array([record["wasserstein_distance"] for record in records])
    assert distances[-4:].mean() < 0.4 * distances.max()
    assert distances.argmax() < len(distances) / 2


def test_the_critic_is_positive_on_generated_samples_relative_to_real_ones(images):
    """Eq. 2; eq. 14 hands this sign to D_TV, where +1 is anomalous."""
    config = tiny_config()
    batches = batches_of(images, config)
    gan = build_gan(batches.networks, config, "cpu")
    for step in range(40):
        random = torch_generator(0, Stream.GAN, step)
        distance = critic_step(
            gan, batches.at(step * 64, 64), random, config, penalised=step % 4 == 0
        )
    generated = gan.generator(torch.randn(64, config.latent_dim, generator=random))
    assert gan.critic(generated).mean() > gan.critic(batches.at(0, 64)).mean()
    assert distance > 0


def test_steps_change_one_network_and_leave_the_other(images):
    config = tiny_config()
    batches = batches_of(images, config)
    gan = build_gan(batches.networks, config, "cpu")
    parameters = {
        name: [p.detach().clone() for p in getattr(gan, name).parameters()]
        for name in ("generator", "critic")
    }

    def is_unchanged(name):
        return all(map(torch.equal, getattr(gan, name).parameters(), parameters[name]))

    critic_step(gan, batches.at(0, 64), torch_generator(0, Stream.GAN), config, penalised=True)
    assert is_unchanged("generator")
    assert not is_unchanged("critic")
    parameters["critic"] = [p.detach().clone() for p in gan.critic.parameters()]
    generator_step(gan, torch_generator(0, Stream.GAN), config)
    assert not is_unchanged("generator")
    assert is_unchanged("critic")
    assert all(p.requires_grad for p in gan.critic.parameters())


def test_the_generator_makes_the_critic_less_sure(images):
    config = tiny_config(learning_rate=1e-2)
    batches = batches_of(images, config)
    gan = build_gan(batches.networks, config, "cpu")
    for step in range(30):
        random = torch_generator(0, Stream.GAN, step)
        critic_step(gan, batches.at(step * 64, 64), random, config, penalised=True)
    z = torch.randn(64, config.latent_dim, generator=random)
    before = gan.critic(gan.generator(z)).mean()
    for step in range(10):
        generator_step(gan, torch_generator(1, Stream.GAN, step), config)
    assert gan.critic(gan.generator(z)).mean() < before


# --- the penalty and the learning rate


def critic_after_one_step(images, *, penalised=True, **values):
    config = tiny_config(**values)
    batches = batches_of(images, config)
    gan = build_gan(batches.networks, config, "cpu")
    random = torch_generator(0, Stream.GAN)
    critic_step(gan, batches.at(0, 64), random, config, penalised=penalised)
    return weights_of(gan.critic)


def test_the_penalty_changes_the_step_and_can_be_left_out(images):
    with_penalty = critic_after_one_step(images)
    without = critic_after_one_step(images, penalised=False)
    assert not same(with_penalty, without)
    assert same(without, critic_after_one_step(images, gradient_penalty_weight=0.0))


def test_the_weight_of_a_rarer_penalty_is_multiplied_by_its_interval(images):
    rare = critic_after_one_step(images, penalty_interval=4, gradient_penalty_weight=10.0)
    often = critic_after_one_step(images, penalty_interval=1, gradient_penalty_weight=40.0)
    assert same(rare, often)


def test_the_penalty_pulls_the_slope_of_the_critic_to_one(images):
    """With its sign flipped, it would push it away."""
    config = tiny_config(gradient_penalty_weight=1000.0, penalty_interval=1, learning_rate=5e-3)
    batches = batches_of(images, config)
    gan = build_gan(batches.networks, config, "cpu")
    real, latents = batches.at(0, 64), torch.randn(64, config.latent_dim, generator=seeded(0))
    generated, mix = gan.generator(latents).detach(), torch.rand(64, generator=seeded(1))
    before = gradient_penalty(gan.critic, real, generated, mix)
    for step in range(20):
        random = torch_generator(0, Stream.GAN, step)
        critic_step(gan, batches.at(step * 64, 64), random, config, penalised=True)
    assert gradient_penalty(gan.critic, real, generated, mix) < before / 10


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("interval", [1, 3, 16])
def test_the_penalty_comes_at_every_so_many_steps(images, tmp_path, monkeypatch, interval):
    penalised = []

    def spy(*arguments, **named):
        penalised.append(named["penalised"])
        return critic_step(*arguments, **named)

    monkeypatch.setattr(gan_module, "critic_step", spy)
    trained(images, tmp_path, config=tiny_config(penalty_interval=interval))
    assert penalised == [step % interval == 0 for step in range(16)]


@pytest.mark.parametrize(("critic_steps", "rate"), [(1, 0.0), (5, 4e-3)])
def test_generator_steps_and_the_falling_learning_rate(
    images, tmp_path, monkeypatch, critic_steps, rate
):
    rates = []

    def spy(gan, *arguments):
        rates.append(
            [o.param_groups[0]["lr"] for o in (gan.generator_optimizer, gan.critic_optimizer)]
        )
        return generator_step(gan, *arguments)

    monkeypatch.setattr(gan_module, "generator_step", spy)
    config = tiny_config(critic_steps=critic_steps, generator_learning_rate=rate)
    trained(images, tmp_path, config=config)
    seen = [64 * step for step in range(16) if (step + 1) % critic_steps == 0]
    left = np.array([1 - n / 1024 for n in seen])
    both = [rate or config.learning_rate, config.learning_rate]
    np.testing.assert_allclose(rates, np.outer(left, both))


def test_the_rate_falls_as_asked(images, tmp_path):
    config = tiny_config()
    batches = batches_of(images, config)
    shares = []

    def none(left):
        shares.append(left)
        return 0.0

    gan = build_gan(batches.networks, config, "cpu")
    before = weights_of(gan.critic)
    record_history(batches, history_for(batches, config, tmp_path), gan=gan, fall=none)
    assert same(before, weights_of(gan.critic))
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)


def test_the_optimisers_have_the_momenta_of_the_config():
    config = tiny_config(momentum=0.25, square_momentum=0.75)
    gan = build_gan(networks_for((1, 8, 8), config), config, "cpu")
    for optimizer in gan.optimizers.values():
        assert optimizer.param_groups[0]["betas"] == (0.25, 0.75)
        assert optimizer.param_groups[0]["lr"] == 5e-4


# --- what is recorded


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"skip_epochs": 0.0},
        {"skip_epochs": 1.5, "saves_per_epoch": 3},
        {"n_epochs": 6.0, "mass_tolerance": 0.05},
        {"n_epochs": 4.0, "skip_epochs": 2.0, "mass_tolerance": 0.01},
    ],
)
def test_snapshots_lie_between_alpha_and_the_end(images, tmp_path, values):
    config = tiny_config(**values)
    _, history, records = trained(images, tmp_path, config=config)
    start, end = recorded_interval(config)
    step = config.batch_size / config.epoch_images
    assert history.times.min() >= start
    assert history.times.max() <= end + step
    assert len(history) == pytest.approx((end - start) * config.saves_per_epoch, abs=1.5)
    assert (history.weights > 0).all()
    assert records[-1]["epoch"] == pytest.approx(end, abs=1 / config.saves_per_epoch + step)
    assert [s.images_seen for s in history.snapshots] == [
        r["images_seen"] for r in records if r["epoch"] >= start
    ]


def test_no_snapshot_is_recorded_after_the_end(images, tmp_path):
    """Where batches do not divide the epoch, the last step oversteps the end."""
    config = tiny_config(epoch_images=500)
    _, history, _ = trained(images, tmp_path, config=config)
    assert history.times.max() <= config.n_epochs
    assert (history.weights > 0).all()


def test_progress_counts_images_seen(images, tmp_path):
    _, _, records = trained(images, tmp_path)
    assert [record["images_seen"] for record in records] == list(range(64, 1025, 64))
    for record in records:
        assert record["step"] == "gan"
        assert record["epoch"] == record["images_seen"] / 512
        assert record["of"] == 2.0
        assert np.isfinite(record["wasserstein_distance"])


# --- determinism and resume


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_runs_write_the_same_bytes_and_another_seed_others(images, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        trained(images, tmp_path / name, config=tiny_config(seed=seed))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


def test_global_randomness_has_no_influence(images, tmp_path):
    trained(images, tmp_path / "one")
    torch.manual_seed(1)
    trained(images, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_finished_step_is_not_trained_again(images, tmp_path):
    kept = {"checkpoints": tmp_path / "checkpoint"}
    first, _, _ = trained(images, tmp_path / "history", **kept)
    before = contents(tmp_path / "history")
    second, history, records = trained(images, tmp_path / "history", **kept)
    assert records == []
    assert len(history) == 9
    assert same(weights_of(first.critic), weights_of(second.critic))
    assert contents(tmp_path / "history") == before


KILLED_FITS = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory

folder, config, scenarios = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
source, config = open_source(np.load(folder / "images.npy")), make_config(**config)


def fit(run, kill_at, seconds):
    records = []

    def on_progress(record):
        records.append(record)
        if len(records) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    run = RunDirectory(run, checkpoint_seconds=seconds)
    fit_model(source, config, run, on_progress=on_progress)


def killed_fit(run, kill_at, file, seconds):
    child = os.fork()
    if child == 0:
        fit(run, kill_at, seconds)
        os._exit(0)
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while file and not list(run.glob(file)) and not os.waitid(os.P_PID, child, ended):
        time.sleep(1e-4)  # the child needs the processor more
    if file:
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


statuses = {}
for name, moments in scenarios.items():
    statuses[name] = [killed_fit(folder / name, *moment) for moment in moments]
    fit(folder / name, 0, 30.0)
print(json.dumps(statuses))
"""
NEVER = 1e9
# Each fit is killed at one of its records, or when a file appears; then the next one goes on.
SCENARIOS = {
    "before the first checkpoint": [(3, "", NEVER), (12, "", NEVER)],
    "snapshots newer than the checkpoint": [(10, "", 0.0), (4, "", NEVER), (2, "", 0.0)],
    "while files of step 1 are written": [
        (0, "checkpoint/gan.safetensors.*.tmp", 0.0),
        (0, "history/*.safetensors.*.tmp", 0.0),
        (0, "history/manifest.json.*.tmp", 0.0),
    ],
    "in step 3": [(18, "", 0.0), (1, "", 0.0), (0, "checkpoint/detector.safetensors.*.tmp", 0.0)],
    "while the model is written": [(0, "detector.safetensors*", 0.0), (0, "detector.json*", 0.0)],
}


@pytest.fixture(scope="module")
def killed(digits, tmp_path_factory):
    """A folder with a run per scenario and an ``uninterrupted`` one; the fits' exit statuses."""
    folder = tmp_path_factory.mktemp("killed")
    np.save(folder / "images.npy", digits[0][:400])
    # 16 x 16: two convolutions, whose weights and moments have a layout of their own in memory.
    config = {**TINY, "image_size": 16}
    source = open_source(digits[0][:400])
    fit_model(source, make_config(**config), RunDirectory(folder / "uninterrupted"))
    arguments = [str(folder), json.dumps(config), json.dumps(SCENARIOS)]
    driver = subprocess.run(
        [sys.executable, "-c", KILLED_FITS, *arguments], check=True, stdout=subprocess.PIPE
    )
    return folder, json.loads(driver.stdout)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_fit_that_is_killed_ends_in_the_same_bytes(killed, scenario):
    folder, statuses = killed
    run, expected = folder / scenario, folder / "uninterrupted"
    # A file may come and go between two looks, and then the fit ends in peace.
    assert statuses[scenario][0] == -9
    assert set(statuses[scenario]) <= {-9, 0}
    assert contents(run / "history") == contents(expected / "history")
    for name in ("checkpoint/gan.safetensors", "detector.safetensors", "detector.json"):
        assert (run / name).read_bytes() == (expected / name).read_bytes(), name
    assert logged(run) == logged(expected)


def logged(run):
    return [(record["step"], record["images_seen"]) for record in RunDirectory(run).read_log()]
