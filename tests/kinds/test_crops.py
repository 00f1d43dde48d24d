import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_config

from historyad.data.datasets import open_source
from historyad.errors import InputError
from historyad.kinds import crops as module
from historyad.kinds.choose import choose_kind
from historyad.kinds.contrast import halved, local_contrast
from historyad.kinds.crops import Crops, cut_crops
from historyad.score.cells import in_tiles
from historyad.score.maps import MapScore


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_networks_see_squares_of_images_of_any_size():
    kind = Crops.choose((40, 50, 3), tiny_config(patch=16, scales=2))
    assert kind.networks(tiny_config()).shape == (3, 16, 16)
    assert (kind.smallest_side, kind.cell) == (32, 4)
    assert (kind.grid, kind.work_pixels) == (None, 2000)
    for shape in ((40, 50, 3), (32, 32, 3), (32, 1000, 3)):
        kind.check(shape)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((31, 90, 3), r"have 90 x 31 pixels, too few for crops of 16 at 2 scales: .* 32 x 32"),
        ((90, 31, 3), r"have 31 x 90 pixels, too few for crops of 16 at 2 scales: .* 32 x 32"),
        ((90, 90, 1), "the images have 1 channel, the detector was fitted on 3 channels: convert"),
        ((90,), "shape 90, the detector was fitted on images of 40 x 50 x 3: give it such images"),
    ],
)
def test_images_that_hold_no_crop_are_refused(shape, words):
    kind = Crops.choose((40, 50, 3), tiny_config(patch=16, scales=2))
    with pytest.raises(InputError, match=words):
        kind.check(shape)


def test_images_too_small_are_refused_when_the_kind_is_chosen():
    with pytest.raises(InputError, match="too few for crops of 16 at 1 scale: give at least 16"):
        Crops.choose((15, 90, 1), tiny_config(patch=16))


def test_a_pyramid_has_the_image_at_every_scale_the_finest_first():
    samples = images(2, 33, 40, 1)
    levels = Crops((33, 40, 1), 8, scales=3).pyramid(samples)
    assert [level.shape[1:3] for level in levels] == [(33, 40), (17, 20), (9, 10)]
    np.testing.assert_array_equal(levels[0], samples)
    np.testing.assert_array_equal(levels[2], halved(halved(samples)))
    shown = Crops((33, 40, 1), 8, scales=2, contrast="local").pyramid(samples)
    for found, level in zip(shown, levels, strict=False):
        np.testing.assert_array_equal(found, local_contrast(level, 8))


def test_batches_are_crops_of_the_rows_at_every_scale():
    kind = Crops((32, 32, 1), 8, scales=2)
    samples = np.stack([np.full((32, 32, 1), 10 * i, np.uint8) for i in range(20)])
    samples[:, ::2] += 1  # stripes, which are gone at half the size
    rows = np.array([2, 3, 11])
    batches = kind.batches(samples, tiny_config(), rows=rows)
    crops = ((batches.at(0, 300) + 1) * 127.5).round().int()
    assert crops.shape == (300, 1, 8, 8)
    tens = crops[:, 0, 0, 0] // 10
    for row in rows:
        assert 70 < (tens == row).sum() < 130
    assert set(tens.tolist()) == set(rows.tolist())
    striped = crops[:, 0].amin((1, 2)) != crops[:, 0].amax((1, 2))
    assert 100 < striped.sum() < 200


def test_as_many_crops_are_cut_as_are_trained_on_or_have_room(constants):
    kind, samples, rows = Crops((16, 16, 1), 8), images(7, 16, 16, 1), np.arange(7)
    batches = kind.batches(samples, tiny_config(), rows=rows)
    assert len(batches) == 7 * 220  # 1,536 samples are seen in steps 1 and 3
    constants(module, crop_bytes=64 * 70)
    assert len(kind.batches(samples, tiny_config(), rows=rows)) == 70


def test_a_crop_depends_on_its_image_and_the_seed_alone():
    kind, samples = Crops((20, 30, 1), 8, scales=2), images(4, 20, 30, 1)
    whole = cut_crops(kind, samples, np.arange(4), 40, seed=1)
    assert whole.shape == (40, 8, 8, 1)
    np.testing.assert_array_equal(cut_crops(kind, samples, np.array([2]), 10, 1), whole[20:30])
    assert (cut_crops(kind, samples, np.arange(4), 40, seed=2) != whole).any()


def test_a_map_is_full_at_three_times_the_threshold_of_its_worst_cells():
    kind = Crops.choose((16, 16, 1), tiny_config(patch=8))
    score = MapScore(kind, kind.networks(tiny_config()).critic())
    full, threshold = kind.map_scale(score, 0.0)
    assert threshold == pytest.approx(score.total_at(0.0))
    assert full == pytest.approx(3 * threshold)


@pytest.mark.parametrize("contrast", ["", "local"])
def test_a_graph_sees_the_tiles_that_scoring_sees(contrast):
    kind = Crops((40, 50, 3), 8, scales=3, contrast=contrast)
    images = np.random.default_rng(0).integers(0, 256, (2, 37, 51, 3), np.uint8)
    images[1] = images[1] // 32 + 100  # hardly any texture
    levels = kind.onnx((37, 51, 3))(torch.from_numpy(images))
    for n, image in enumerate(images):
        for level, expected in zip(levels, kind.pyramid(image[None]), strict=True):
            tile = in_tiles(expected[0], kind.cell, kind.floats, lambda tile: tile)  # the only one
            np.testing.assert_array_equal(level[n].numpy(), tile[0].numpy())


def test_what_is_decided_is_read_again_from_json():
    kind = Crops((40, 50, 3), 8, scales=3, contrast="local")
    assert vars(Crops.from_json(kind.to_json(), kind.tensors())) == vars(kind)


@pytest.mark.parametrize(
    "fields",
    [
        {"side": 9},
        {"side": 8.0},
        {"side": 64},
        {"scales": 0},
        {"scales": 5},
        {"scales": True},
        {"scales": 4},
        {"contrast": "global"},
        {"contrast": None},
        {"input_shape": [40, 50]},
        {"input_shape": [40, -50, 3]},
        {"input_shape": [7, 50, 3]},
    ],
)
def test_json_that_contradicts_itself_is_refused(fields):
    good = {"input_shape": [40, 50, 3], "side": 8, "scales": 1, "contrast": ""}
    Crops.from_json(good, {})
    with pytest.raises(ValueError, match=r"crops of|scales|samples of shape"):
        Crops.from_json({**good, **fields}, {})


def test_an_image_that_holds_no_crop_is_named_before_anything_is_fitted(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, size in enumerate([(40, 30), (40, 40), (12, 40), (40, 15)]):
        Image.new("L", size, i).save(folder / f"{i}.png")
    source = open_source(folder, any_size=True)
    with pytest.raises(InputError, match=r"^2\.png: the images have 12 x 40 pixels, too few for"):
        choose_kind(source.samples, tiny_config(patch=16))
    with pytest.raises(InputError, match=r"^0\.png: .* at least 32 x 32"):
        choose_kind(source.samples, tiny_config(patch=16, scales=2))
    assert choose_kind(source.samples, tiny_config(patch=8)).name == "crops"
