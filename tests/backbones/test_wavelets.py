import math

import numpy as np
import pytest
import torch

from historyad.backbones.backbone import open_backbone, read_backbone
from historyad.backbones.wavelets import Wavelets

FIRST = slice(1, 7)  # the finest magnitudes of brightness, by direction


def waves(angle, wavelength=4.0, strength=30.0):
    """Return an image with waves that run in one direction on its left side, (1, 3, 64, 128)."""
    place = torch.arange(64.0)
    along = place * math.cos(angle) + place[:, None] * math.sin(angle)
    image = 127 + strength * torch.cos(2 * math.pi * along / wavelength)
    return torch.cat([image, torch.full((64, 64), 127.0)], 1).expand(1, 3, -1, -1)


def middle(x):
    """Return how the features of the left side differ from those of the right, (features,)."""
    found = Wavelets()(x)[0, :, 1:3]
    return found[..., 1:3].mean((1, 2)) - found[..., 5:7].mean((1, 2))


def test_each_direction_and_scale_has_a_feature_that_it_raises():
    for number in range(6):
        found = middle(waves(number * math.pi / 6))[FIRST]
        assert found.argmax() == number
    # The magnitudes of the second scale come after those that belong to the first.
    second = 1 + 6 + 3 * 36
    fine, coarse = middle(waves(0.0)), middle(waves(0.0, wavelength=8.0))
    assert coarse[second : second + 6].argmax() == 0
    assert coarse[second] > coarse[1] + 0.3
    assert fine[1] > fine[second] + 0.3


def test_a_texture_of_twice_the_strength_is_further_by_one_step():
    once, twice, four_times = (middle(waves(0.0, strength=s))[1] for s in (15, 30, 60))
    assert twice - once == pytest.approx(math.log(2), abs=0.03)
    assert four_times - twice == pytest.approx(math.log(2), abs=0.03)


def test_how_strong_a_texture_is_all_over_an_image_does_not_count():
    random = torch.Generator().manual_seed(0)
    weak = 127 + 100 * torch.randn(1, 1, 64, 64, generator=random).expand(-1, 3, -1, -1)
    found = [Wavelets()(x)[:, 1:] for x in (weak, 127 + 2 * (weak - 127))]
    assert (found[0] - found[1]).abs().mean() < 0.05  # and not the logarithm of 2


def test_what_changes_from_place_to_place_is_seen_by_the_second_layer():
    even = waves(0.0)
    envelope = 1 + torch.cos(2 * math.pi * torch.arange(64.0) / 8)[:, None]
    uneven = 127 + (even - 127) * envelope
    rises = (middle(uneven) - middle(even))[7 : 7 + 36].view(6, 6)  # by the first direction
    assert rises[0].argmax() == 3  # up and down
    assert rises[0, 3] > 1


def test_a_map_covers_an_image_of_any_size_and_has_the_features_that_it_says():
    random = torch.Generator().manual_seed(0)
    for in_colour, n in ((False, 241), (True, 291)):
        found = Wavelets(in_colour=in_colour)
        assert found.n_features == n
        for shape, grid in (((32, 48), (2, 3)), ((50, 65), (4, 5))):
            x = torch.rand(1, 3, *shape, generator=random) * 255
            assert found(x).shape == (1, n, *grid)
    grey = torch.full((1, 3, 32, 32), 90.0)
    red = grey.clone()
    red[:, 0, :, 16:] = 200
    red[:, 1:, :, 16:] = 35  # as bright
    of_both = Wavelets(in_colour=True)(torch.cat([grey, red]))
    torch.testing.assert_close(of_both[0, :241], of_both[1, :241], atol=1e-3, rtol=0)
    assert (of_both[0, 241:] - of_both[1, 241:]).abs().max() > 1


def test_wavelets_are_a_backbone_that_is_read_again():
    backbone = open_backbone("wavelets", 64, in_colour=True)
    assert (backbone.side, backbone.grid, backbone.parts[0].n_features) == (64, (4, 4), 291)
    assert open_backbone("wavelets").side == 320
    again = read_backbone(backbone.to_json(), backbone.tensors())
    x = torch.from_numpy(np.random.default_rng(0).random((1, 3, 64, 64), np.float32))
    torch.testing.assert_close(again(x)[0], backbone(x)[0], rtol=0, atol=0)
    with pytest.raises(TypeError, match="in_colour 1"):
        read_backbone({**backbone.to_json(), "in_colour": 1}, {})
