import numpy as np
import pytest
from tiny import TINY, TRAINED

from historyad import HistoryAD, Model
from historyad.errors import InputError
from historyad.judge.explain import anomaly_map, feature_contributions, overlay


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


def test_only_the_feature_that_differs_from_its_median_contributes(vector_model):
    medians = vector_model.kind.center
    for feature in range(5):
        vector = medians.copy()
        vector[feature] += 30 * vector_model.kind.spread[feature]
        contributions = feature_contributions(vector_model, vector)
        assert contributions.shape == (5,)
        assert abs(contributions[feature]) > 0.01
        np.testing.assert_allclose(np.delete(contributions, feature), 0, atol=1e-5)


def test_contributions_are_falls_of_the_excess(vector_model):
    vector = np.array([1, -20, 300, 0.1, 0], np.float32)
    replaced = vector.copy()
    replaced[1] = vector_model.kind.center[1]
    excess, rest = vector_model.excess(vector_model.anomaly_score(np.stack([vector, replaced])))
    assert feature_contributions(vector_model, vector)[1] == pytest.approx(excess - rest, rel=1e-3)
