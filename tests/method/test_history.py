import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny import networks_for
from torch import nn

from historyad.config import Config, as_dict, make_config
from historyad.errors import ConfigError, RunError
from historyad.method.gan import build_gan
from historyad.method.history import (
    History,
    effective_snapshots,
    history_weights,
    is_save,
    recorded_interval,
    resolve,
)

EPOCH_IMAGES = 100


def config_of(**values):
    defaults = {"epoch_images": EPOCH_IMAGES, "hidden": 8, "width": 4, "latent_dim": 3}
    return make_config(**{**defaults, **values})


def history_in(path, shape=(1, 8, 8), **values):
    config = config_of(**values)
    return History(path, config, networks_for(shape, config))


def networks_of(seed, shape=(1, 8, 8)):
    config = config_of(seed=seed)
    gan = build_gan(networks_for(shape, config), config, "cpu")
    return gan.generator, gan.critic


def constant_generator(value, shape=(1,)):
    """A generator of vectors whose every sample is ``value``: its samples say where they are from.

    ``value`` is one that half precision holds.
    """
    generator, critic = networks_of(0, shape)
    last = generator.layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, value)
    return generator, critic


@pytest.fixture
def history(tmp_path):
    """Three snapshots of images at epochs 1, 1.5 and 2, none alike."""
    history = history_in(tmp_path / "history")
    for seed, images_seen in enumerate((100, 150, 200)):
        history.record(images_seen, *networks_of(seed))
    return history


def test_weights_in_epochs_by_hand():
    config = config_of(skip_epochs=1.0, n_epochs=5.0, decay=2.0)
    weights = history_weights(np.array([0.5, 1.0, 1.5, 2.0, 5.0, 5.1]), config)
    terms = np.array([0, 1, np.exp(-1), np.exp(-2), np.exp(-8), 0])
    np.testing.assert_allclose(weights, terms / terms.sum())


def test_no_snapshot_after_skip_epochs_is_a_run_error():
    with pytest.raises(RunError, match=r"skip_epochs = 0\.75: lower skip_epochs or train longer"):
        history_weights(np.array([0.2, 0.7]), config_of())


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.integers(20, 400), st.integers(1, 9), st.integers(2, 50), st.floats(0, 3), st.floats(0.1, 4),
    st.floats(0, 20), st.sampled_from([0.0, 0.01, 0.5]),
)  # fmt: skip
def test_settings_are_refused_exactly_where_no_save_is_recorded(
    epoch_images, saves, batch, skip, length, decay, tolerance
):
    config = Config(
        epoch_images=epoch_images, saves_per_epoch=saves, batch_size=batch, skip_epochs=skip,
        n_epochs=skip + length, decay=decay, mass_tolerance=tolerance,
    )  # fmt: skip
    start, end = recorded_interval(config)
    ends = range(batch, batch + math.ceil(end * epoch_images), batch)
    recorded = [n for n in ends if is_save(n, config) and n / epoch_images >= start]
    if recorded:
        assert as_dict(resolve(config, 1)) == as_dict(config)
    else:
        with pytest.raises(ConfigError, match="saves no snapshot"):
            resolve(config, 1)


def test_an_epoch_is_as_long_as_the_data_but_not_shorter_than_50_000_unless_it_is_set():
    lengths = {0: {100: 50_000, 60_000: 60_000}, 700: {100: 700, 60_000: 700}}
    for epoch_images, expected in lengths.items():
        for n_train, length in expected.items():
            config = resolve(make_config(epoch_images=epoch_images), n_train)
            assert as_dict(config) == {**as_dict(make_config()), "epoch_images": length}


@pytest.mark.parametrize("value", [1e6, math.nan, math.inf])
def test_weights_that_half_precision_does_not_hold_are_not_recorded(tmp_path, value):
    history = history_in(tmp_path / "history", (1,))
    with pytest.raises(RunError, match=r"step 1 diverged at epoch 1 \(generator.layers.*half prec"):
        history.record(100, *constant_generator(value))
    assert len(history) == 0
    assert not history.path.exists()


def test_no_decay_gives_equal_weights():
    np.testing.assert_allclose(history_weights(np.arange(1, 4.0), config_of(decay=0.0)), 1 / 3)


@pytest.mark.parametrize("values", [{}, {"skip_epochs": 0.2, "decay": 0.7}])
def test_recording_stops_when_the_mass_left_is_the_tolerance(values):
    config = config_of(mass_tolerance=0.01, **values)
    start, end = recorded_interval(config)
    mass = lambda a, b: np.exp(-config.decay * a) - np.exp(-config.decay * b)  # noqa: E731
    assert start == config.skip_epochs
    assert mass(end, config.n_epochs) / mass(start, config.n_epochs) == pytest.approx(0.01)


@pytest.mark.parametrize("values", [{"mass_tolerance": 0.0}, {"decay": 0.0}])
def test_recording_goes_on_to_the_end_where_mass_is_never_negligible(values):
    assert recorded_interval(config_of(**values)) == (0.75, 3.0)


def test_effective_snapshots():
    assert effective_snapshots(np.full(8, 1 / 8)) == pytest.approx(8)
    assert effective_snapshots(np.array([1.0, 0.0])) == 1


def test_a_history_comes_back_from_its_folder(history):
    again = History(history.path, history.config, history.networks)
    assert again.snapshots == history.snapshots
    np.testing.assert_allclose(again.times, [1, 1.5, 2])
    generator, _ = networks_of(1)
    for name, tensor in again.load_generator(1).state_dict().items():
        torch.testing.assert_close(tensor, generator.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_the_critic_of_a_snapshot_is_the_recorded_one(history):
    _, critic = networks_of(1)
    loaded = history.load_critic(1)
    assert not loaded.training
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, critic.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_rewind_forgets_what_came_later(history):
    history.rewind(150)
    assert [s.images_seen for s in history.snapshots] == [100, 150]
    assert len(History(history.path, history.config, history.networks)) == 2


def test_thin_keeps_every_second_and_leaves_the_original_alone(history):
    assert [s.images_seen for s in history.thin(2).snapshots] == [100, 200]
    assert len(history) == 3
    assert len(History(history.path, history.config, history.networks)) == 3


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"version": 99, "snapshots": []}', '{"version": 2, "snapshots": [{"file": "x"}]}'],
)
def test_a_damaged_manifest_is_a_run_error(history, text):
    (history.path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json"):
        History(history.path, history.config, history.networks)


def test_a_missing_or_altered_snapshot_is_a_run_error(history):
    first, second = (history.path / s.file for s in history.snapshots[:2])
    first.unlink()
    with pytest.raises(RunError, match=f"{first.name} is missing"):
        history.load_generator(0)
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)
    with pytest.raises(RunError, match=f"{second.name} was altered"):
        history.load_generator(1)


def test_the_manifest_is_json_with_checksums(history):
    manifest = json.loads((history.path / "manifest.json").read_text())
    assert [len(entry["sha256"]) for entry in manifest["snapshots"]] == [64] * 3


def test_average_critic_is_the_weighted_mean_of_parameters(history):
    terms = np.exp(-3 * np.array([1, 1.5, 2]))
    weights = terms / terms.sum()
    critics = [dict(networks_of(seed)[1].named_parameters()) for seed in range(3)]
    for name, parameter in history.average_critic().named_parameters():
        expected = sum(
            w * critic[name].half().double() for w, critic in zip(weights, critics, strict=True)
        )
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-6, atol=1e-7)


def test_snapshots_are_drawn_as_often_as_eq_13_says(tmp_path):
    history = history_in(tmp_path, (1,), decay=1.0, n_epochs=3.0)
    times = np.array([50, 100, 125, 150, 200, 250, 300])
    for value, images_seen in enumerate(times):
        history.record(int(images_seen), *constant_generator(value))
    samples = history.sample(20_000)
    counts = np.bincount(samples[:, 0].astype(int), minlength=len(times))
    expected = np.where(times >= 100, np.exp(-times / 100), 0)
    assert counts[0] == 0  # before alpha
    assert chisquare(counts[1:], expected[1:] / expected.sum() * 20_000).pvalue > 1e-3
    # The order carries no information either: it was shuffled.
    assert abs(np.corrcoef(np.arange(20_000), samples[:, 0])[0, 1]) < 0.03


class LatentScale(nn.Module):
    """In the place of a generator: says how long each latent is."""

    def forward(self, z):
        return z.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_case_2_widens_a_share_of_the_latents(tmp_path, monkeypatch, share):
    history = history_in(tmp_path, (1,), latent_dim=400, wide_share=share, wide_latent=3.0)
    history.record(100, *constant_generator(0))
    monkeypatch.setattr(history, "load_generator", lambda index: LatentScale())
    scale = history.sample(4000)[:, 0] / 20  # the norm of 400 standard normals is near 20
    wide = scale > 2
    assert wide.mean() == pytest.approx(share, abs=0.03)
    np.testing.assert_allclose(scale[~wide], 1, atol=0.2)
    np.testing.assert_allclose(scale[wide], 3, atol=0.6)


def test_a_draw_is_a_function_of_seed_and_position(history):
    again = History(history.path, history.config, history.networks)
    other_seed = history_in(history.path, seed=1)
    first = history.sample(50, 64)
    history.sample(50, 128)
    np.testing.assert_array_equal(again.sample(50, 64), first)
    assert (history.sample(50, 0) != first).any()
    assert (other_seed.sample(50, 64) != first).any()


def test_no_latent_comes_twice_whatever_the_position_snapshot_or_seed(tmp_path):
    """One generator, recorded twice: each of its samples has a latent of its own."""
    generator, critic = networks_of(0, (5,))
    draws = []
    for seed in (0, 1):
        history = history_in(tmp_path / str(seed), (5,), seed=seed, decay=0.0)
        for images_seen in (100, 150):
            history.record(images_seen, generator, critic)
        draws += [history.sample(50, position) for position in (0, 50, 2**40)]
    samples = np.concatenate(draws).round(4)
    assert len(np.unique(samples, axis=0)) == len(samples) == 300


def test_samples_of_images_are_images_at_rest(history):
    samples = history.sample(7)
    assert (samples.dtype, samples.shape) == (np.uint8, (7, 8, 8, 1))
    assert samples.std() > 1


def test_samples_of_vectors_are_float32(tmp_path):
    history = history_in(tmp_path, (5,))
    history.record(100, *networks_of(0, (5,)))
    samples = history.sample(7)
    assert (samples.dtype, samples.shape) == (np.float32, (7, 5))


def test_recorded_batch_norm_statistics_are_used(tmp_path):
    generator, critic = networks_of(0, (2,))
    with torch.no_grad():
        for _ in range(100):  # until the running statistics are those of these latents
            generator(5 + torch.randn(64, 3, generator=torch.Generator().manual_seed(1)))
    history = history_in(tmp_path, (2,))
    history.record(100, generator, critic)
    loaded = history.load_generator(0)
    assert not loaded.training
    for name, buffer in generator.named_buffers():
        torch.testing.assert_close(dict(loaded.named_buffers())[name], buffer, rtol=0, atol=0)
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(loaded(z)[:1], loaded(z[:1]))  # no neighbour has a say
    torch.testing.assert_close(loaded(z), generator.eval()(z), rtol=1e-2, atol=1e-2)
    assert (loaded(z) - generator.train()(z)).abs().max() > 0.1
