import dataclasses
import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from tiny import tiny_config

from historyad.backbones import lite0
from historyad.data.any_size import Images
from historyad.data.datasets import open_source
from historyad.errors import ConfigError, InputError
from historyad.kinds import features as module
from historyad.kinds.cells import CellBatches
from historyad.kinds.choose import choose_kind, settle
from historyad.kinds.features import Features
from historyad.kinds.remembered import Remembered
from historyad.method.networks import count_parameters
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory
from historyad.model.untrained import of_others, untrained_score
from historyad.score import damage


@pytest.fixture
def config(tiny_backbone):
    return tiny_config(backbone=str(tiny_backbone), views="all")


@pytest.fixture
def kind(config):
    return Features.choose((40, 50, 3), config)


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_networks_see_the_cells_of_images_of_any_size(kind, config):
    assert kind.networks(config).shape == (20,)
    assert (kind.side, kind.grid, kind.work_pixels, kind.takes_any_size) == (32, None, 2000, True)
    for shape in ((40, 50, 3), (7, 900, 3)):
        kind.check(shape)
        assert kind.cells(images(*shape)).shape == (20, 8, 8)
    with pytest.raises(InputError, match="the images have 1 channel, the detector was fitted on"):
        kind.cells(images(40, 50, 1))
    assert kind.describe()["cells"] == "8 x 8 of 20 features"
    assert kind.describe()["backbone"] == "tiny.onnx, 32 x 32"


def test_other_channels_are_refused_when_the_kind_is_chosen(config):
    for channels in (1, 3):
        assert isinstance(choose_kind(images(5, 40, 40, channels), config), Features)
    with pytest.raises(InputError, match="2 channels, and a backbone sees grey or colour: give"):
        choose_kind(images(5, 40, 40, 2), config)
    with pytest.raises(InputError, match="a backbone is for images, and these are vectors"):
        choose_kind(np.zeros((30, 4), np.float32), config)
    with pytest.raises(ConfigError, match="backbone is 'auto': call `settle` first"):
        choose_kind(images(5, 40, 40, 3), tiny_config(backbone="auto"))


def test_batches_are_residuals_of_the_cells_of_rows(kind, config):
    samples = images(12, 40, 50, 3)
    rows = np.array([1, 4, 9])
    batches = kind.batches(samples, config, rows=rows)
    assert isinstance(batches, CellBatches)
    assert batches.cells.shape == (3, 64, 20)
    assert len(batches) == 64  # of the image that is new to the others
    expected = kind.cells(samples[4]).flatten(1).T.numpy()
    np.testing.assert_allclose(batches.cells[1], expected, rtol=2e-3, atol=1e-3)
    x = batches.at(0, 64)
    assert (x.shape, x.dtype) == ((64, 20), torch.float32)
    torch.testing.assert_close(x.mean(0), torch.zeros(20), atol=1e-3, rtol=0)
    again = kind.batches(samples, config, rows=rows)
    torch.testing.assert_close(again.at(20, 10), x[20:30], rtol=0, atol=0)
    together = kind.batches(samples, config, rows=np.arange(9), groups=np.arange(9) // 8)
    assert len(together) == 64  # the one image that shows something else


def test_nothing_is_learnt_of_residuals_that_no_detector_is_trained_on(kind, config):
    config = tiny_config(backbone=config.backbone, views="auto")
    batches = kind.batches(images(12, 40, 50, 3), config)
    assert batches.residuals is None
    assert len(batches) == 0
    assert batches.cells.shape == (12, 64, 20)
    assert count_parameters(kind.networks(config).critic()) < 10


def test_some_images_are_damaged_each_alike_in_every_fold(kind, config, constants):
    constants(module, damaged_images=5)
    samples = images(12, 40, 50, 3)
    rows = np.array([0, 1, 3, 4, 6, 7, 9, 10])
    some = kind.batches(samples, config, rows=rows).damaged
    assert some.cells.shape == (5, 64, 20)
    assert len(np.unique(some.of)) == 5
    fresh = dataclasses.replace(kind, remembered=Remembered(0))
    of_all = fresh.damage_some(samples, np.arange(12), config)
    seen = dict(zip(of_all.of.tolist(), of_all.cells, strict=True))
    its_rows = zip(rows[some.of].tolist(), some.cells, strict=True)
    both = [(seen[row], cells) for row, cells in its_rows if row in seen]
    assert both
    for one, other in both:
        np.testing.assert_array_equal(one, other)
    row, cells = int(rows[some.of[0]]), some.cells[0]
    assert np.abs(cells - kind.cells(samples[row]).flatten(1).T.numpy()).max() > 0.05
    assert kind.damage_some(samples, rows, tiny_config(views="history")) is None


def test_only_as_many_images_are_kept_as_have_room(kind, config, constants):
    constants(module, cell_bytes=5 * 64 * 20 * 2)
    samples = images(20, 8, 8, 3)
    found = kind.batches(samples, config).cells
    assert found.shape == (5, 64, 20)
    np.testing.assert_allclose(
        found[-1], kind.cells(samples[19]).flatten(1).T, rtol=2e-3, atol=1e-3
    )


def test_what_is_decided_is_read_again_from_json(kind):
    content = json.loads(json.dumps(kind.to_json()))
    again = Features.from_json(content, kind.tensors())
    image = images(30, 30, 3)
    torch.testing.assert_close(again.cells(image), kind.cells(image), rtol=0, atol=0)
    for fields in ({"input_shape": [40, 50, 2]}, {"input_shape": [0, 50, 3]}, {"input_shape": [3]}):
        with pytest.raises(ValueError, match=r"channels|samples of shape"):
            Features.from_json({**content, **fields}, kind.tensors())


def test_auto_takes_the_network_for_photos_where_it_is_there_and_else_wavelets(monkeypatch):
    assert settle(images(2, 64, 70, 3)) == ("lite0", "images of 70 x 64 pixels are large enough")
    for samples, why in (
        (images(2, 63, 70, 3), "images of 70 x 63 pixels are too small for it"),
        (images(2, 70, 70, 2), "images of 2 channels are neither grey nor colour"),
        (np.zeros((3, 4), np.float32), "a backbone is for images"),
    ):
        assert settle(samples) == ("none", why)
    monkeypatch.setattr(lite0, "_PACKAGE", "no_such_package")
    backbone, why = settle(images(2, 64, 70, 3))
    assert (backbone, why.endswith("install historyad[backbone]")) == ("wavelets", True)


def test_before_any_training_an_image_is_looked_at_cell_by_cell(kind, config):
    samples = images(4, 40, 50, 3)
    first, second = kind.looks(samples, np.array([3, 1]), config)
    assert first.shape == (64, 20)
    np.testing.assert_array_equal(second, kind.cells(samples[1]).flatten(1).T)
    assert kind.n_worst == 3


def test_detectors_of_folds_are_as_aligned_as_that_of_all(kind, config, constants):
    """Whatever their own images would say."""
    constants(damage, damage_steps=1)
    samples = images(12, 40, 50, 3)
    config = dataclasses.replace(config, views="companions")
    for aligned in (True, False):
        known = dataclasses.replace(kind, aligned=aligned)
        whole = untrained_score(known, samples, np.arange(12), config)
        whole.kind = kind
        for score, _ in of_others(samples, [np.arange(4), np.arange(4, 12)], config, whole):
            assert score.is_aligned == whole.is_aligned == aligned
            assert score.kind.backbone is kind.backbone  # which is read from the disk once


def test_large_images_are_seen_as_they_are_in_tiles(config, kind):
    config = dataclasses.replace(config, resize=0)
    tiled = choose_kind(images(3, 40, 90, 3), config)
    assert (tiled.side, tiled.tiling.stride, tiled.has_places) == (32, 4, False)
    image = images(41, 90, 3)
    cells = tiled.cells(image)
    assert cells.shape == (20, 11, 23)
    assert tiled.covered(11, 23, image.shape) == (44, 92)
    assert kind.covered(8, 8, image.shape) == (41, 90)
    found = tiled.extract(images(4, 41, 90, 3), np.arange(4))
    assert found.shape == (4, 1024, 20)
    assert len(np.unique(found[0], axis=0)) == 11 * 23  # each, some of them several times
    again = Features.from_json(json.loads(json.dumps(tiled.to_json())), tiled.tensors())
    torch.testing.assert_close(again.cells(image), cells, rtol=0, atol=0)
    with pytest.raises(TypeError, match="in_tiles 1"):
        Features.from_json({**tiled.to_json(), "in_tiles": 1}, tiled.tensors())


def test_images_are_seen_whole_unless_they_are_large(config, constants):
    constants(module, largest_whole=60)
    for shape, resize, in_tiles in (
        ((50, 60), -1, False),
        ((61, 50), -1, True),
        ((61, 50), 32, False),
        ((50, 60), 0, True),
    ):
        found = choose_kind(images(3, *shape, 3), dataclasses.replace(config, resize=resize))
        assert (found.tiling is not None) == in_tiles
    sizes = [(70, 30), (50, 40), (80, 20), (30, 30), (20, 20)]
    several = Images.in_memory([*"abcde"], [images(*size, 3) for size in sizes])
    assert choose_kind(several, config).tiling is None  # half of them are at most 50 pixels long
    assert choose_kind(several, dataclasses.replace(config, resize=0)).tiling is not None


@pytest.fixture
def looked(monkeypatch):
    """Return a list that grows by each image that the network sees."""
    seen, look = [], Features._look
    monkeypatch.setattr(Features, "_look", lambda *given: seen.append(1) or look(*given))
    return seen


def fit(config, tmp_path):
    return fit_model(open_source(images(24, 40, 50, 1)), config, RunDirectory(tmp_path))


def test_a_fit_looks_at_each_image_once_however_many_folds_there_are(config, looked, tmp_path):
    config = dataclasses.replace(config, views="auto", folds=4, calibration_share=0.0)
    model = fit(config, tmp_path / "run")
    assert len(looked) == 2 * 24  # as it is, and damaged
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Features, "remembering", lambda self: nullcontext())
        expected = fit(config, tmp_path / "again")
    assert len(looked) > 5 * 24
    np.testing.assert_array_equal(model.calibration.scores, expected.calibration.scores)


def test_only_as_many_images_are_remembered_as_have_room(kind, looked):
    samples = images(3, 40, 50, 3)
    cells = kind.cells(samples[0])
    remembered = Remembered(2 * cells.nbytes)
    kind = dataclasses.replace(kind, remembered=remembered)
    looked.clear()
    with kind.remembering():
        found = [[kind.cells(image) for image in samples] for _ in range(3)]
    assert len(looked) == 2 + 3
    assert all(torch.equal(cells, image[0]) for image in found)
    kind.cells(samples[0])  # afterwards nothing is known
    assert len(looked) == 2 + 3 + 1
