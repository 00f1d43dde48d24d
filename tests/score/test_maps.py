import numpy as np
import pytest
import torch
from fitted import striped, textures
from tiny import TINY

from historyad import HistoryAD
from historyad.errors import ConfigError, InputError
from historyad.judge.explain import anomaly_map, picture
from historyad.judge.metrics import auroc
from historyad.score.bounded import bounded_score
from historyad.score.cells import cell_features, in_tiles
from historyad.score.mapped import enlarge
from historyad.score.maps import worst

SETTINGS = {**TINY, "epoch_images": 256, "patch": 8, "seed": 1}


@pytest.fixture(scope="module")
def fitted(crops):
    return HistoryAD.load(crops.run)


@pytest.fixture(scope="module")
def fresh(crops):
    return crops.normal


def test_what_is_damaged_is_found_and_its_map_shows_where(fitted, fresh):
    bad, mask = striped(fresh)
    scores = [fitted.anomaly_score(images) for images in (fresh, bad)]
    assert auroc(np.repeat([0, 1], len(fresh)), np.concatenate(scores)) > 0.9
    hits = 0
    for image in bad:
        values = anomaly_map(fitted.model_, image)
        assert values.shape == image.shape[:2]
        assert values.dtype == np.float32
        assert values[mask].mean() > values[~mask].mean()
        hits += mask.flat[values.argmax()]
    assert hits >= 0.8 * len(bad)


def test_the_map_does_not_depend_on_the_tiles(fitted, fresh):
    score = fitted.model_.score

    def features(tile):
        return torch.cat(cell_features(score.d_tv, tile, score.kind.cell), 1)[0]

    whole, *others = (
        in_tiles(fresh[0], score.kind.cell, score.kind.floats, features, side)
        for side in (64, 1, 3, 7)
    )
    for other in others:
        torch.testing.assert_close(other, whole, atol=1e-4, rtol=1e-4)


def test_the_score_is_that_of_the_map_and_of_its_image_alone(fitted, fresh):
    model = fitted.model_
    scores = model.anomaly_score(fresh)
    np.testing.assert_array_equal(scores[3:4], model.anomaly_score(fresh[3:4]))
    totals = torch.stack([worst(model.score.cell_map(image), 2) for image in fresh])
    standardised = model.score.total_scale(totals[None])[0]
    np.testing.assert_array_equal(scores, bounded_score(standardised))
    np.testing.assert_array_equal(model(fresh, views=True).views["map"], standardised)
    assert model.score.total_at(float(scores[2])) == pytest.approx(float(totals[2]), abs=1e-3)
    full, threshold = model.map_scale
    above = scores > model.calibration.threshold
    np.testing.assert_array_equal(above, totals.numpy() > threshold)
    assert full == 3 * threshold
    assert model.anomaly_score(fresh[:0]).shape == (0,)
    assert model.score.of_prepared(fresh) is None


@pytest.mark.parametrize("size", [(16, 16), (17, 90), (64, 31)])
def test_images_of_any_size(fitted, size):
    (image,) = textures(1, *size)
    assert anomaly_map(fitted.model_, image).shape == size
    assert np.isfinite(fitted.anomaly_score(image[None])).all()


def test_a_saved_model_gives_the_same_scores(fitted, fresh, tmp_path):
    fitted.save(tmp_path)
    loaded = HistoryAD.load(tmp_path)
    np.testing.assert_array_equal(loaded.anomaly_score(fresh), fitted.anomaly_score(fresh))
    np.testing.assert_array_equal(
        loaded.view_scores(fresh)["map"] > 1, loaded.anomaly_score(fresh) > 0
    )


def test_scores_come_with_views_for_the_price_of_one(fitted, fresh):
    scored = fitted.model_(fresh, views=True)
    np.testing.assert_array_equal(scored.anomaly_score, fitted.anomaly_score(fresh))
    assert scored.views["map"].shape == (len(fresh),)


def test_d_tv_alone(fresh):
    detector = HistoryAD(**{**SETTINGS, "contrast": "local", "views": "history"}).fit(textures(110))
    assert anomaly_map(detector.model_, fresh[0]).shape == (40, 50)
    assert len(np.unique(detector.anomaly_score(fresh))) == len(fresh)


def test_the_picture_has_the_image_and_the_map_beside_it(fitted, fresh):
    bad, mask = striped(fresh)
    shown = picture(fitted.model_, bad[0])
    assert shown.shape == (40, 104, 3)
    np.testing.assert_array_equal(shown[:, :50, 0], bad[0, :, :, 0])
    coloured = shown[:, 54:, 0] != shown[:, 54:, 2]
    assert coloured[mask].mean() > 0.9
    maps = fitted.model_(bad, maps=True).maps
    np.testing.assert_array_equal(maps[0], anomaly_map(fitted.model_, bad[0]))
    np.testing.assert_array_equal(maps[0], fitted.model_.score.of(bad[:1], maps=True).maps[0])
    assert len(maps) == len(bad)


def test_refusals_say_what_to_do(fitted, fresh):
    with pytest.raises(InputError, match=r"12 x 40 pixels, too few .*give at least 16 x 16"):
        fitted.anomaly_score(fresh[:, :, :12])
    with pytest.raises(InputError, match="the images have 3 channels"):
        fitted.anomaly_score(np.repeat(fresh, 3, axis=-1))
    with pytest.raises(InputError, match="Give about 96 normal samples"):
        HistoryAD(**SETTINGS).fit(textures(20))
    with pytest.raises(InputError, match="leave it 0"):
        HistoryAD(**SETTINGS).fit(np.random.default_rng(0).normal(size=(200, 5)))
    with pytest.raises(ConfigError, match="take image_size for whole images, or patch"):
        HistoryAD(**SETTINGS, image_size=32).fit(fresh)
    with pytest.raises(ConfigError, match="set patch"):
        HistoryAD(contrast="local").fit(fresh)


def test_worst_and_enlarge_in_closed_form():
    ramp = torch.arange(100.0).view(10, 10)
    assert worst(ramp, 8) == 97.5  # four cells of 8 x 8 pixels
    assert worst(ramp, 16) == worst(ramp, 32) == 99
    assert worst(torch.tensor([[1.0, 3.0]]), 8) == 2
    torch.testing.assert_close(enlarge(torch.ones(3, 2), 4, 10, 7), torch.ones(10, 7))
    ramp = torch.arange(4.0).expand(4, 4)
    assert enlarge(ramp, 2, 8, 8)[0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
