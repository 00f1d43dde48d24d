import numpy as np
import pytest
import torch
from tiny import batches_of

from historyad.config import make_config
from historyad.errors import ConfigError
from historyad.kinds.augment import parse_augmentations
from historyad.kinds.choose import choose_kind

N = 23


@pytest.fixture
def patterned():
    """Images (N, 8, 8, 2) without any symmetry."""
    return np.random.default_rng(0).integers(0, 256, (N, 8, 8, 2), dtype=np.uint8)


def batches(samples, augment=""):
    return batches_of(samples, make_config(augment=augment))


def dihedral(names, image):
    """Return all images (C, H, W) that a list of augmentations may make of one."""
    results = [image]
    for name in names.split(","):
        if name == "rotate90":
            results = [x.rot90(k, (1, 2)) for x in results for k in range(4)]
        else:
            axis = {"flip": 2, "flip-vertical": 1}[name]
            results = [y for x in results for y in (x, x.flip(axis))]
    return results


@pytest.mark.parametrize(
    ("names", "n_results"),
    [("flip", 2), ("flip-vertical", 2), ("rotate90", 4), ("flip,rotate90", 8), ("flip,flip", 2)],
)
def test_augmented_images_are_allowed_images_and_all_of_them_occur(patterned, names, n_results):
    augmented, plain = batches(patterned, names), batches(patterned)
    found = set()
    for position in range(0, 10 * N, N):
        for image, original in zip(augmented.at(position, N), plain.at(position, N), strict=True):
            allowed = dihedral(names, original)
            found.add(next(i for i, x in enumerate(allowed) if torch.equal(x, image)))
    assert len(found) == n_results


def test_augmentation_depends_on_the_position_alone(patterned):
    source = batches(patterned, "flip,flip-vertical,rotate90")
    first = source.at(5, 40)
    source.at(100, 3)
    assert torch.equal(source.at(5, 40), first)
    other = batches(patterned, " flip, flip-vertical ,rotate90,")
    assert torch.equal(other.at(5, 40), first)


def test_flips_are_as_frequent_as_not(patterned):
    one = np.repeat(patterned[:1], 1000, axis=0)
    flipped = batches(one, "flip").at(0, 1000)
    original = batches(one).at(0, 1000)
    share = (flipped == original.flip(3)).all(dim=(1, 2, 3)).float().mean()
    assert abs(share - 0.5) < 0.08


def test_unknown_augmentations_are_refused_when_the_kind_is_chosen(patterned):
    assert parse_augmentations("") == []
    for values in ({}, {"patch": 8}):
        with pytest.raises(
            ConfigError, match="unknown augmentation 'mirror': choose flip, flip-vert"
        ):
            choose_kind(patterned, make_config(augment="flip,mirror", **values))


def test_vectors_cannot_be_flipped():
    with pytest.raises(ConfigError, match="augment is 'flip', which is for images"):
        choose_kind(np.zeros((5, 3), np.float32), make_config(augment="flip"))
