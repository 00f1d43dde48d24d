import numpy as np
import pytest
from tiny import tiny_config

from historyad.errors import ConfigError, InputError
from historyad.kinds.choose import choose_kind, read_kind, settle, write_kind
from historyad.kinds.windows import Windows

CENTER, SPREAD = [5, -1000, 7], [1, 100, 0]


@pytest.fixture(scope="module")
def windows():
    """Windows (300, 16, 3) of channels of different units; the last is constant."""
    values = np.random.default_rng(0).standard_normal((300, 16, 3))
    return (CENTER + SPREAD * values).astype(np.float32)


@pytest.fixture(scope="module")
def kind(windows):
    return choose_kind(windows, tiny_config(), np.arange(200))


def test_each_channel_is_scaled_as_a_column_is(kind, windows):
    assert isinstance(kind, Windows)
    np.testing.assert_allclose(kind.center, CENTER, rtol=0.02)
    np.testing.assert_allclose(kind.spread, SPREAD, rtol=0.1)
    prepared = kind.prepare(windows).reshape(300, 16, 3)
    scaled = np.sinh(prepared.astype(np.float64))
    np.testing.assert_allclose(
        scaled[..., :2], (windows - kind.center)[..., :2] / kind.spread[:2], rtol=1e-3, atol=1e-3
    )
    assert not prepared[..., 2].any()
    assert kind.networks(tiny_config()).shape == (48,)


def test_other_shapes_are_refused(kind):
    kind.check((16, 3))
    for other in ((15, 3), (16, 2), (48,)):
        with pytest.raises(InputError, match="the detector was fitted on 16 x 3: give"):
            kind.check(other)


def test_settings_of_images_are_refused(windows):
    with pytest.raises(InputError, match="patch is for images, and these are windows"):
        choose_kind(windows, tiny_config(patch=8))
    with pytest.raises(InputError, match="a backbone is for images, and these are windows"):
        choose_kind(windows, tiny_config(backbone="lite0"))
    with pytest.raises(ConfigError, match="augment is 'flip', which is for images"):
        choose_kind(windows, tiny_config(augment="flip"))
    assert settle(windows) == ("none", "a backbone is for images")


def test_only_what_is_asked_for_is_trained():
    trains = {views: Windows.trains(tiny_config(views=views)) for views in
              ("auto", "all", "history", "companions")}  # fmt: skip
    assert trains == {"auto": False, "all": True, "history": True, "companions": False}


def test_a_kind_is_written_and_read(kind, windows):
    found = read_kind(write_kind(kind), kind.tensors())
    np.testing.assert_array_equal(found.prepare(windows), kind.prepare(windows))
    with pytest.raises(ValueError, match="the scaling of"):
        read_kind({"kind": "windows", "input_shape": [16, 4]}, kind.tensors())


def test_damage_is_in_spreads_and_leaves_constant_channels(kind, windows):
    shift = next(d for d in kind.damages((16, 3)) if d.name == "shift")
    damaged = kind.damage(shift, windows, 2.0, np.random.default_rng(0))
    moved = (damaged - windows)[..., :2] / SPREAD[:2]
    assert (np.abs(moved).max(2) > 1.7).all()
    np.testing.assert_allclose(np.abs(moved).sum(2), 2, rtol=0.1)
    np.testing.assert_array_equal(damaged[..., 2], windows[..., 2])


def test_other_damage_of_windows(kind, windows):
    damages = {damage.name: damage for damage in kind.damages((16, 3))}
    random = np.random.default_rng(0)
    spiked = kind.damage(damages["spike"], windows, 8.0, random)
    assert ((np.abs(spiked - windows) / [1, 100, 1] > 4).sum((1, 2)) == 1).all()
    stopped = kind.damage(damages["standstill"], windows, 40, random)
    np.testing.assert_allclose(stopped[:, :10], windows[:, :10], rtol=1e-5)
    assert (np.ptp(stopped[:, 10:], axis=1) == 0).all()


def test_a_channel_contributes_what_the_score_falls_by(kind):
    class Sum:
        """Scores a window by the sum of its squares, in spreads."""

        def usual(self, sample, owners):
            return None

        def of(self, samples):
            z = (samples - kind.center) / np.where(kind.spread > 0, kind.spread, 1)
            return type("Scored", (), {"anomaly_score": (z**2).sum((1, 2))})

    window = np.tile(kind.center, (16, 1))
    window[:, 1] += 3 * kind.spread[1]
    found = kind.contributions(Sum(), window, lambda scores: scores)
    np.testing.assert_allclose(found, [0, 9 * 16, 0], rtol=1e-3, atol=1e-3)


def test_a_service_gets_windows_in_rows(kind, windows):
    np.testing.assert_array_equal(kind.from_rows(windows.reshape(300, 48)), windows)
    with pytest.raises(InputError, match="the input has shape 47"):
        kind.check(kind.from_rows(np.zeros((1, 47))).shape[1:])


def test_there_is_no_graph(kind):
    with pytest.raises(InputError, match="a detector of series cannot be exported"):
        kind.onnx((16, 3))
