import numpy as np
import pytest

from historyad.kinds import damages
from historyad.kinds.damages import image_damages, vector_damages

SHAPES = [(6, 8, 8, 1), (5, 12, 31, 3), (4, 33, 7, 5), (3, 1, 1, 2), (3, 1, 9, 1)]
KINDS = [kind.name for kind in image_damages(8, 8)]


def random():
    return np.random.default_rng(0)


def images_of(shape):
    return random().integers(30, 200, shape, np.uint8)


def kind_named(name, shape):
    (kind,) = (kind for kind in image_damages(*shape[1:3]) if kind.name == name)
    return kind


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_any_size_and_channels_keep_shape_type_and_the_original(name, shape):
    images, kind = images_of(shape), kind_named(name, shape)
    before = images.copy()
    for strength in (0, *kind.strengths):
        damaged = kind.apply(images, strength, random())
        assert damaged.shape == shape
        assert damaged.dtype == np.uint8
        assert damaged is not images
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", KINDS)
def test_strength_0_changes_nothing_and_more_strength_changes_more(name):
    images = images_of((20, 24, 24, 3))
    kind = kind_named(name, images.shape)
    np.testing.assert_array_equal(kind.apply(images, 0, random()), images)
    assert list(kind.strengths) == sorted(set(kind.strengths))
    changes = [
        np.abs(kind.apply(images, strength, random()) - images.astype(float)).mean()
        for strength in kind.strengths
    ]
    assert changes[-1] > changes[0]
    assert changes[-1] > 1


@pytest.mark.parametrize("name", KINDS)
def test_the_same_generator_gives_the_same_damage(name):
    images = images_of((4, 16, 16, 1))
    kind = kind_named(name, images.shape)
    one, other = (kind.apply(images, kind.strengths[4], random()) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_noise_has_the_standard_deviation_asked_for():
    grey = np.full((10, 32, 32, 3), 128, np.uint8)
    noisy = damages.add_noise(grey, 16, random())
    assert noisy.std() == pytest.approx(16, rel=0.05)
    assert noisy.mean() == pytest.approx(128, abs=1)


def test_brightness_is_in_grey_levels_and_saturates():
    image = np.array([0, 100, 250], np.uint8).reshape(1, 1, 3, 1)
    assert damages.brighten(image, 10, random()).ravel().tolist() == [10, 110, 255]
    assert damages.darken(image, 10, random()).ravel().tolist() == [0, 90, 240]


def test_contrast_is_lost_towards_the_mean_of_each_channel():
    image = np.array([[0, 10], [100, 30]], np.uint8).reshape(1, 1, 2, 2)
    half = damages.reduce_contrast(image, 50, random())
    assert half.tolist() == [[[[25, 15], [75, 25]]]]


def test_blur_spreads_a_point_by_its_standard_deviation():
    image = np.zeros((1, 33, 33, 1), np.uint8)
    image[0, 16, 16] = 255
    blurred = damages.blur(image, 1, random())[0, :, :, 0].astype(float)
    assert blurred[16, 16] == pytest.approx(255 / (2 * np.pi), rel=0.05)
    assert blurred[16, 17] / blurred[16, 16] == pytest.approx(np.exp(-0.5), rel=0.05)


@pytest.mark.parametrize("percent", [1, 4, 25])
def test_a_covered_patch_has_the_area_asked_for(percent):
    images = np.full((50, 40, 20, 1), 255, np.uint8)
    covered = damages.cover_patch(images, percent, random())
    changed = (covered != images).mean((1, 2, 3))
    assert changed.max() == percent / 100


def test_a_scratch_has_the_length_asked_for_and_contrasts():
    dark, bright = np.full((20, 64, 64, 1), 20, np.uint8), np.full((20, 64, 64, 1), 230, np.uint8)
    for images, paint in ((dark, 255), (bright, 0)):
        scratched = damages.scratch(images, 20, random())
        drawn = np.abs(scratched - images.astype(float)) / abs(paint - float(images[0, 0, 0, 0]))
        assert drawn.sum((1, 2, 3)) == pytest.approx(20 * 2, rel=0.2)  # 2 pixels wide
        assert drawn.max() == pytest.approx(1, abs=0.05)


def test_swapped_patches_keep_every_pixel():
    for shape in ((9, 20, 30, 2), (9, 30, 20, 2)):
        images = images_of(shape)
        swapped = damages.swap_patches(images, 9, random())
        assert (swapped != images).any(-1).mean() == pytest.approx(2 * 0.09, rel=0.05)
        for one, other in zip(images, swapped, strict=True):
            np.testing.assert_array_equal(
                np.sort(one.reshape(-1, 2), 0), np.sort(other.reshape(-1, 2), 0)
            )


def test_rotation_turns_by_the_angle_either_way():
    images = images_of((20, 15, 15, 1))
    turned = damages.rotate(images, 90, random())
    quarter_turns = {
        k
        for k in (1, 3)
        for one, other in zip(images, turned, strict=True)
        if np.array_equal(np.rot90(one, k), other)
    }
    assert quarter_turns == {1, 3}


def test_a_texture_takes_over():
    images = np.full((5, 64, 64, 1), 10, np.uint8)
    whole = damages.blend_texture(images, 100, random())
    assert whole.min() < 5
    assert whole.max() > 250
    half = damages.blend_texture(images, 50, random())
    np.testing.assert_allclose(half, (whole.astype(float) + 10) / 2, atol=1)


# --- vectors


@pytest.mark.parametrize("n_features", [1, 2, 7, 100])
def test_vectors_of_any_length(n_features):
    vectors = random().standard_normal((30, n_features))
    before = vectors.copy()
    for kind in vector_damages(n_features):
        assert list(kind.strengths) == sorted(set(kind.strengths))
        np.testing.assert_array_equal(kind.apply(vectors, 0, random()), vectors)
        for strength in kind.strengths:
            damaged = kind.apply(vectors, strength, random())
            assert damaged.shape == vectors.shape
            assert (damaged != vectors).any()
    np.testing.assert_array_equal(vectors, before)


def test_one_feature_is_shifted_up_or_down():
    shifted = damages.shift_feature(np.zeros((200, 3)), 2.5, random())
    assert (np.abs(shifted).sum(1) == 2.5).all()
    assert set(shifted.ravel()) == {-2.5, 0, 2.5}
    assert (shifted != 0).any(0).all()


def test_noise_on_features_is_in_spreads():
    noisy = damages.add_noise_to_features(np.zeros((500, 20)), 3, random())
    assert noisy.std() == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("pairs", [1, 3])
def test_pairs_of_features_are_swapped_and_those_of_less_strength_stay(pairs):
    vectors = np.tile(np.arange(7.0), (50, 1))
    swapped = damages.swap_features(vectors, pairs, random())
    assert ((swapped != vectors).sum(1) == 2 * pairs).all()
    np.testing.assert_array_equal(np.sort(swapped), vectors)
    weaker = damages.swap_features(vectors, pairs - 1, random())
    assert ((weaker != vectors) <= (swapped != vectors)).all()
