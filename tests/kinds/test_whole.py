import numpy as np
import pytest
import torch
from tiny import tiny_config

from historyad.data import streams
from historyad.errors import InputError
from historyad.kinds.whole import Whole


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(1, 1, 8), (8, 8, 8), (9, 3, 16), (28, 28, 32), (33, 8, 64), (64, 64, 64), (300, 200, 64)],
)
def test_the_smallest_grid_that_holds_the_images(height, width, side):
    samples = images(2, height, width, 3)
    kind = Whole.choose(samples.shape[1:], 0)
    assert (kind.input_shape, kind.side, kind.any_size) == ((height, width, 3), side, False)
    assert kind.networks(tiny_config()).shape == (3, side, side)
    assert kind.prepare(samples).shape == (2, side, side, 3)
    assert kind.shrinks == (max(height, width) > side)
    assert (kind.grid, kind.work_pixels) == (None, None)


def test_a_chosen_grid_takes_images_of_any_size():
    kind = Whole.choose((20, 30, 1), 16)
    assert kind.any_size
    assert kind.grid == 16
    for height, width in ((20, 30), (5, 5), (100, 7), (16, 16)):
        assert kind.prepare(images(1, height, width, 1)).shape == (1, 16, 16, 1)


def test_images_that_fill_the_grid_are_not_touched():
    samples = images(3, 8, 8, 1)
    assert Whole.choose((8, 8, 1), 0).prepare(samples) is samples


def test_padding_repeats_the_edge_and_keeps_the_pixels():
    samples = images(1, 28, 28, 1)
    padded = Whole.choose((28, 28, 1), 0).prepare(samples)
    assert (padded[:, 2:30, 2:30] == samples).all()
    assert (padded[:, 0] == padded[:, 2]).all()
    assert (padded[:, :, 31] == padded[:, :, 29]).all()


def test_networks_see_grey_values_from_minus_1_to_1_channels_first():
    kind, samples = Whole.choose((8, 8, 3), 0), images(4, 8, 8, 3)
    samples[0, 2, 5] = 0, 255, 51
    floats = kind.floats(kind.prepare(samples))
    assert (floats.dtype, floats.shape) == (torch.float32, (4, 3, 8, 8))
    np.testing.assert_allclose(floats[0, :, 2, 5], [-1, 1, -0.6], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 8, 3), "the images have 3 channels, the detector was fitted on 1 channel: convert"),
        ((9, 8, 1), "shape 9 x 8 x 1, the detector was fitted on 8 x 8 x 1: .*--image-size"),
        ((64,), "shape 64, the detector was fitted on images of 8 x 8 x 1: give it such images$"),
    ],
)
def test_other_shapes_than_the_fitted_one_are_refused(shape, words):
    kind = Whole.choose((8, 8, 1), 0)
    kind.check((8, 8, 1))
    with pytest.raises(InputError, match=words):
        kind.check(shape)


def test_other_numbers_of_channels_are_refused_at_any_size():
    kind = Whole.choose((8, 8, 4), 8)
    kind.check((50, 20, 4))
    with pytest.raises(InputError, match="1 channel, the detector was fitted on 4 channels"):
        kind.check((8, 8, 1))


@pytest.mark.parametrize("shape", [(20, 11, 13, 2), (20, 80, 40, 1)])
def test_each_image_is_treated_alone(shape):
    samples = images(*shape)
    kind = Whole.choose(shape[1:], 0)
    together = kind.prepare(samples)
    for i in range(len(samples)):
        assert (kind.prepare(samples[i : i + 1])[0] == together[i]).all()


@pytest.mark.parametrize("kept", [10**9, 1])
def test_batches_are_of_the_rows_whether_reduced_images_are_kept_or_not(kept, monkeypatch):
    monkeypatch.setattr(streams, "IN_MEMORY_BYTES", kept)
    samples = (np.arange(40, dtype=np.uint8) + 100)[:, None, None, None].repeat(90, 1).repeat(70, 2)
    rows = np.arange(5, 40, 3)
    batches = Whole.choose((90, 70, 1), 0).batches(samples, tiny_config(seed=1), rows=rows)
    assert len(batches) == 12
    grey = (batches.at(0, 12) + 1) * 127.5
    assert grey.shape == (12, 1, 64, 64)
    assert sorted(grey[:, 0, 30, 30].round().int().tolist()) == (rows + 100).tolist()


def test_what_is_decided_is_read_again_from_json():
    for kind in (Whole.choose((9, 7, 1), 0), Whole.choose((9, 7, 3), 128)):
        again = Whole.from_json(kind.to_json(), kind.tensors())
        assert vars(again) == vars(kind)


@pytest.mark.parametrize(
    "fields",
    [
        {"side": 9},
        {"side": 8.0},
        {"side": 0},
        {"side": True},
        {"any_size": 1},
        {"any_size": None},
        {"input_shape": [8, 8]},
        {"input_shape": [8, 8, 0]},
        {"input_shape": [8, 8.0, 1]},
        {"input_shape": [True, 8, 8]},
        {"input_shape": [2**14, 2**14, 1]},
        {"input_shape": [8, 8, 1025]},
    ],
)
def test_json_that_contradicts_itself_is_refused(fields):
    good = {"input_shape": [8, 8, 1], "side": 8, "any_size": False}
    Whole.from_json(good, {})
    with pytest.raises(ValueError, match=r"a grid of side|samples of shape"):
        Whole.from_json({**good, **fields}, {})
