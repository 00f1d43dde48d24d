import math

import numpy as np
import pytest
import torch
from tiny import batches_of, history_for, networks_for, tiny_config

from historyad.errors import RunError
from historyad.method.batches import Batches
from historyad.method.detector import train_detector
from historyad.method.gan import build_gan, record_history
from historyad.method.loop import Loop, Session


@pytest.fixture
def images(digits):
    return digits[0][:500]


# Saves are rare, and so most checkpoints lie between two.
RARE = {"saves_per_epoch": 2}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class InterruptedReader:
    """Reads what another reader does, and is interrupted at its ``at``-th read: once a step."""

    def __init__(self, reader, at):
        self.reader, self.at, self.n_reads = reader, at, 0

    def __len__(self):
        return len(self.reader)

    def read(self, position, size, part):
        self.n_reads += 1
        if self.n_reads == self.at:
            raise KeyboardInterrupt
        return self.reader.read(position, size, part)


def interrupted(batches, at):
    """Return batches of the same samples that are interrupted once, and their reader."""
    reader = InterruptedReader(batches.reader, at)
    return Batches(reader, batches.networks), reader


def gan_in(folder, batches, records, seconds=30.0):
    """Record a history in ``folder``, with a checkpoint; return it."""
    history = history_for(batches, tiny_config(**RARE), folder / "history")
    record_history(batches, history, Session(folder / "checkpoint", records.append, seconds))
    return history


@pytest.mark.parametrize("at", [2, 7, 11, 16])
def test_step_1_is_resumed_between_two_saves_with_the_same_bytes(images, tmp_path, at):
    whole, parts = [], []
    batches = batches_of(images, tiny_config(**RARE))
    gan_in(tmp_path / "whole", batches, whole)
    batches, reader = interrupted(batches, at)
    with pytest.raises(KeyboardInterrupt):
        gan_in(tmp_path / "parts", batches, parts, seconds=-1.0)
    gan_in(tmp_path / "parts", batches, parts, seconds=-1.0)
    assert reader.n_reads == 17  # no step was taken twice
    assert parts == whole
    for name in ("history", "checkpoint"):
        assert contents(tmp_path / "parts" / name) == contents(tmp_path / "whole" / name)


@pytest.mark.parametrize("at", [2, 7])
def test_step_3_is_resumed_between_two_saves_and_not_after_its_end(images, tmp_path, at):
    batches = batches_of(images, tiny_config(**RARE))
    history = gan_in(tmp_path, batches, [])

    def train(batches, name, records, seconds=30.0):
        session = Session(tmp_path / name, records.append, seconds)
        return [*train_detector(batches, history, session).state_dict().values()]

    whole, parts = [], []
    expected = train(batches, "whole", whole)
    batches, reader = interrupted(batches, at)
    with pytest.raises(KeyboardInterrupt):
        train(batches, "parts", parts, seconds=-1.0)
    for _ in range(2):  # the second time, at its end
        assert all(map(torch.equal, train(batches, "parts", parts, seconds=-1.0), expected))
    assert reader.n_reads == 9
    assert parts == whole
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def images_in_checkpoint(loop, session, network):
    """Go on for three batches; return what the checkpoint says before each, and at the end."""
    found = []
    for _ in loop.until(loop.images_seen + 192):
        found.append(Loop(1, loop.config, session, {"critic": network}, {}).images_seen)
        loop.count(torch.tensor(0.1))
    return [*found, Loop(1, loop.config, session, {"critic": network}, {}).images_seen]


def test_a_checkpoint_is_replaced_when_it_is_old_enough_and_at_the_end(tmp_path):
    config = tiny_config(**RARE)
    network = networks_for((5,), config).critic()
    for seconds, expected in ((1e9, [0, 0, 0, 192]), (-1.0, [0, 64, 128, 192])):
        session = Session(tmp_path / str(seconds), seconds=seconds)
        loop = Loop(1, config, session, {"critic": network}, {})
        assert images_in_checkpoint(loop, session, network) == expected
    # A figure is that of a whole save interval, of four batches, also across an interruption.
    again = Loop(1, config, session, {"critic": network}, {})
    assert again.count(torch.tensor(0.5)) == pytest.approx(0.2)
    assert again.count(torch.tensor(0.5)) is None


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config()
    loop = Loop(1, config, Session(seconds=-1.0), {}, {})
    for _ in loop.until(128):
        loop.count(torch.tensor(0.1))
    assert not list(tmp_path.iterdir())
    assert Loop(1, config, Session(), {}, {}).images_seen == 0


def test_a_critic_that_diverged_stops_step_1_before_it_is_recorded(images, tmp_path):
    config = tiny_config(skip_epochs=0.0)
    batches = batches_of(images, config)
    history = history_for(batches, config, tmp_path / "history")
    gan = build_gan(batches.networks, config, "cpu")
    with torch.no_grad():
        next(gan.critic.parameters()).fill_(math.nan)
    with pytest.raises(
        RunError, match=r"step 1 diverged at epoch 0.125 .*lower learning_rate, and"
    ):
        record_history(batches, history, Session(tmp_path / "checkpoint"), gan=gan)
    assert not list(tmp_path.iterdir())


def test_a_detector_that_diverged_stops_step_3(images, tmp_path, monkeypatch):
    vectors = images.reshape(500, 64).astype(np.float32)
    history = gan_in(tmp_path, batches_of(vectors, tiny_config(**RARE)), [])
    critic = history.average_critic()
    with torch.no_grad():
        next(critic.parameters()).fill_(math.nan)
    monkeypatch.setattr(history, "average_critic", lambda: critic)
    with pytest.raises(RunError, match=r"step 3 diverged at .* lower detector_learning_rate"):
        train_detector(batches_of(vectors, history.config), history)
