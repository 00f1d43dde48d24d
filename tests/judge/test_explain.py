from dataclasses import replace

import numpy as np
import pytest
from tiny import TINY, TRAINED

from historyad import HistoryAD, Model
from historyad.errors import InputError
from historyad.judge.explain import anomaly_map, feature_contributions, overlay, reasons
from historyad.score.score import DetectorScore


@pytest.fixture(scope="module")
def model(trained):
    return Model.load(trained)


@pytest.fixture(scope="module")
def normal(digits):
    return digits[0][1000:1020]


@pytest.fixture(scope="module")
def vector_model():
    vectors = np.random.default_rng(0).standard_normal((600, 5)) * [1, 10, 100, 0.1, 1]
    return HistoryAD(**TRAINED).fit(vectors).model_


# --- images


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_what_is_pasted_in_a_corner_lights_up_there(model, normal, corner):
    rows, columns = (slice(5, 8) if far else slice(0, 3) for far in corner)
    hits = 0
    for image in normal:
        odd = image.copy()
        odd[rows, columns] = 255
        values = anomaly_map(model, odd)
        inside = np.zeros((8, 8), bool)
        inside[rows, columns] = True
        hits += inside.flat[values.argmax()]
        assert values[inside].mean() > values[~inside].mean()
    assert hits >= 0.8 * len(normal)


def test_what_is_far_from_every_normal_image_has_a_map_too(model, normal):
    """Its score is near +1 with any part covered, and would not fall."""
    odd = (255 * (np.indices((8, 8)).sum(0) % 2))[..., None].astype(np.uint8)
    assert model.anomaly_score(odd[None])[0] > 0.9
    assert anomaly_map(model, odd).max() > 0.5


def test_the_map_has_the_sizes_of_the_image_and_is_the_same_each_time(model, normal):
    values = anomaly_map(model, normal[0])
    assert values.shape == (8, 8)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, anomaly_map(model, normal[0]))
    np.testing.assert_array_equal(values, anomaly_map(model, normal[0, :, :, 0]))


def test_an_image_is_not_changed(model, normal):
    before = normal[0].copy()
    anomaly_map(model, normal[0])
    np.testing.assert_array_equal(normal[0], before)


@pytest.mark.parametrize("size", [(8, 8), (5, 8), (8, 3), (40, 24), (31, 64)])
def test_any_size_that_the_detector_accepts(size):
    images = np.random.default_rng(0).integers(0, 256, (300, 20, 31, 2), np.uint8)
    model = HistoryAD(**TINY, image_size=8).fit(images).model_
    image = np.random.default_rng(1).integers(0, 256, (*size, 2), np.uint8)
    values = anomaly_map(model, image)
    assert values.shape == size
    assert np.isfinite(values).all()


def test_refusals_say_what_to_do(model, normal, vector_model):
    with pytest.raises(InputError, match="give it the same shape"):
        anomaly_map(model, normal[0, :4])
    with pytest.raises(InputError, match="scores vectors: use feature_contributions"):
        anomaly_map(vector_model, normal[0])
    with pytest.raises(InputError, match="use anomaly_map"):
        feature_contributions(model, np.zeros(5))
    with pytest.raises(InputError, match="give it the same shape"):
        feature_contributions(vector_model, np.zeros(4))


# --- overlay


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 7)])
def test_without_a_positive_value_the_overlay_is_the_grey_image(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    shown = overlay(image, -np.ones((4, 6), np.float32))
    assert shown.shape == (4, 6, 3)
    assert shown.dtype == np.uint8
    np.testing.assert_allclose(shown[..., 0], image.reshape(4, 6, -1).mean(-1), atol=0.5)
    assert (shown[..., 0] == shown[..., 1]).all()
    assert (shown[..., 0] == shown[..., 2]).all()


def test_the_hue_grows_with_the_map_up_to_full():
    values = np.array([[0, 0.5, 1, 2]], np.float32)
    (row,) = overlay(np.zeros((1, 4), np.uint8), values, full=1.0, opacity=1.0)
    assert row[:, 0].tolist() == [0, 106, 213, 213]
    with pytest.raises(InputError, match="does not belong"):
        overlay(np.zeros((2, 2), np.uint8), values)


# --- vectors


def test_the_feature_that_is_far_out_contributes(vector_model):
    medians = vector_model.kind.center
    for feature in range(5):
        vector = medians.copy()
        vector[feature] += 30 * vector_model.kind.spread[feature]
        contributions = feature_contributions(vector_model, vector)
        assert contributions.shape == (5,)
        assert contributions[feature] > 1
        assert np.abs(np.delete(contributions, feature)).max() < 0.2 * contributions[feature]


def test_contributions_are_falls_of_the_excess(vector_model):
    vector = np.array([1, -20, 300, 0.1, 0], np.float32)
    replaced = vector.copy()
    replaced[1] = vector_model.kind.usual(vector_model.score, vector)[1]
    excess, rest = vector_model.excess(vector_model.anomaly_score(np.stack([vector, replaced])))
    assert feature_contributions(vector_model, vector)[1] == pytest.approx(excess - rest, rel=1e-3)


def test_without_neighbours_a_column_takes_its_median(vector_model):
    kind = vector_model.kind
    alone = DetectorScore(kind, vector_model.score.d_tv)
    vector = np.array([1, -20, 300, 0.1, 0], np.float32)
    np.testing.assert_array_equal(kind.usual(alone, vector), kind.center)
    replaced = vector.copy()
    replaced[2] = kind.center[2]
    scores = alone.of(np.stack([vector, replaced])).anomaly_score
    found = kind.contributions(alone, vector, lambda scores: scores.astype(np.float64))
    assert found[2] == pytest.approx(scores[0] - scores[1], abs=1e-5)


# Where the cause is known: a column that goes with another, and is broken alone.


@pytest.fixture(scope="module")
def pump():
    """Normal rows (800, 4): pressure goes with speed, heat alone, and a constant."""
    random = np.random.default_rng(0)
    speed = random.uniform(10, 90, 800)
    pressure = 2 * speed + random.normal(0, 1, 800)
    heat = random.normal(60, 2, 800)
    return np.stack([speed, pressure, heat, np.full(800, 7.0)], axis=1)


@pytest.fixture(scope="module")
def pump_detector(pump):
    return HistoryAD(preset="instant").fit(pump)


def test_what_is_usual_is_by_the_other_columns(pump, pump_detector):
    model = pump_detector.model_
    usual = model.kind.usual(model.score, np.array([80, 20, 61, 7], np.float32))
    assert usual[0] == pytest.approx(10, abs=4)  # as the pressure is
    assert usual[1] == pytest.approx(160, abs=15)  # as the speed is
    assert usual[3] == 7


def test_the_broken_column_is_named_whatever_the_row(pump, pump_detector):
    random = np.random.default_rng(1)
    rows = pump[random.permutation(800)[:40]].copy()
    for column, shift in ((2, 30.0), (3, 1.0), (2, -1e6)):
        spoilt = rows.copy()
        spoilt[:, column] += shift
        falls = pump_detector.explain(spoilt)
        assert falls.shape == (40, 4)
        assert (falls.argmax(1) == column).mean() > 0.95, (column, shift)
    spoilt = rows.copy()
    spoilt[:, 1] = 300 - spoilt[:, 1]  # a pressure that the speed does not explain
    far = np.abs(spoilt[:, 1] - rows[:, 1]) > 100
    assert np.isin(pump_detector.explain(spoilt)[far].argmax(1), [0, 1]).all()


def test_reasons_name_columns_values_and_what_is_usual(pump_detector, model, normal):
    named = replace(pump_detector.model_, feature_names=("speed", "pressure", "heat", "seal"))
    (first, *_) = reasons(named, np.array([50, 100, 90, 7], np.float32))
    assert (first.column, first.value) == ("heat", 90)
    assert first.usual == pytest.approx(60, abs=5)
    assert first.fall > 0.5
    assert str(first._replace(usual=60.25)) == "heat 90, usually 60.25"
    assert all(one.fall < 1 for one in reasons(named, np.array([50, 100, 60, 7], np.float32)))
    assert len(reasons(named, np.array([50, 100, 90, 7], np.float32))) == 1
    of_images = HistoryAD()
    of_images.model_ = model
    with pytest.raises(InputError, match="use anomaly_map"):
        of_images.explain(normal)
