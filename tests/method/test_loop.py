import math

import numpy as np
import pytest
import torch
from tiny import batches_of, history_for, tiny_config

from historyad.checkpoints import Checkpoint
from historyad.errors import RunError
from historyad.method import detector as detector_module
from historyad.method import gan as gan_module
from historyad.method import loop as training_module
from historyad.method.detector import train_detector
from historyad.method.gan import build_gan, train_gan
from historyad.method.loop import Training


@pytest.fixture
def images(digits):
    return digits[0][:500]


# Saves are rare, and so most checkpoints lie between two.
RARE = {"saves_per_epoch": 2}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def interrupted(monkeypatch, module, name, at):
    """Let the function ``name`` of ``module`` raise at its ``at``-th call."""
    step, calls = getattr(module, name), []

    def stepping(*arguments, **named):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return step(*arguments, **named)

    monkeypatch.setattr(module, name, stepping)
    return calls


def gan_in(folder, images, records):
    config = tiny_config(**RARE)
    batches = batches_of(images, config)
    history = history_for(batches, config, folder / "history")
    checkpoint = Checkpoint(folder / "checkpoint" / "gan")
    train_gan(batches, history, checkpoint=checkpoint, on_progress=records.append)
    return batches, history


@pytest.mark.parametrize("at", [2, 7, 11, 16])
def test_step_1_is_resumed_between_two_saves_with_the_same_bytes(images, tmp_path, monkeypatch, at):
    whole, parts = [], []
    gan_in(tmp_path / "whole", images, whole)
    monkeypatch.setattr(training_module, "CHECKPOINT_SECONDS", -1.0)
    calls = interrupted(monkeypatch, gan_module, "gan_step", at)
    with pytest.raises(KeyboardInterrupt):
        gan_in(tmp_path / "parts", images, parts)
    gan_in(tmp_path / "parts", images, parts)
    assert len(calls) == 17  # no step was taken twice
    assert parts == whole
    for name in ("history", "checkpoint"):
        assert contents(tmp_path / "parts" / name) == contents(tmp_path / "whole" / name)


@pytest.mark.parametrize("at", [2, 7])
def test_step_3_is_resumed_between_two_saves_and_not_after_its_end(
    images, tmp_path, monkeypatch, at
):
    batches, history = gan_in(tmp_path, images, [])

    def train(name, records):
        checkpoint = Checkpoint(tmp_path / name)
        trained = train_detector(
            batches, history, checkpoint=checkpoint, on_progress=records.append
        )
        return [*trained.state_dict().values()]

    whole, parts = [], []
    expected = train("whole", whole)
    monkeypatch.setattr(training_module, "CHECKPOINT_SECONDS", -1.0)
    calls = interrupted(monkeypatch, detector_module, "detector_step", at)
    with pytest.raises(KeyboardInterrupt):
        train("parts", parts)
    for _ in range(2):  # the second time, at its end
        assert all(map(torch.equal, train("parts", parts), expected))
    assert len(calls) == 9
    assert parts == whole
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_checkpoint_is_replaced_when_it_is_old_enough(tmp_path, monkeypatch):
    config = tiny_config()
    network = build_gan((1, 8, 8), config, "cpu").critic
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    training = Training(1, config, checkpoint, {"critic": network}, {})
    training.count(torch.tensor(0.1))
    training.save_in_time()
    assert not checkpoint.path.exists()
    monkeypatch.setattr(training_module, "CHECKPOINT_SECONDS", 0.0)
    training.save_in_time()
    again = Training(1, config, checkpoint, {"critic": network}, {})
    again.count(torch.tensor(0.2))
    assert again.images_seen == 128
    assert again.take_figure() == pytest.approx(0.15)


def test_a_critic_that_diverged_stops_step_1_before_it_is_recorded(images, tmp_path):
    config = tiny_config(skip_epochs=0.0)
    batches = batches_of(images, config)
    history = history_for(batches, config, tmp_path / "history")
    gan = build_gan(batches.shape, config, "cpu")
    with torch.no_grad():
        next(gan.critic.parameters()).fill_(math.nan)
    with pytest.raises(
        RunError, match=r"step 1 diverged at epoch 0.125 .*lower learning_rate, and"
    ):
        train_gan(batches, history, gan=gan, checkpoint=Checkpoint(tmp_path / "checkpoint"))
    assert not list(tmp_path.iterdir())


def test_a_detector_that_diverged_stops_step_3(images, tmp_path):
    vectors = images.reshape(500, 64).astype(np.float32)
    _, history = gan_in(tmp_path, vectors, [])
    vectors[:, 0] = math.nan
    with pytest.raises(RunError, match=r"step 3 diverged at .* lower detector_learning_rate"):
        train_detector(batches_of(vectors, history.config), history)
