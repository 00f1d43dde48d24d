import numpy as np
import pytest
import torch

from historyad.method.networks import ImageNetworks, initialise
from historyad.score.cells import (
    cell_features,
    crop_scores,
    feature_counts,
)


@pytest.fixture
def critic():
    """D_TV for crops of 8 x 8 pixels, untrained: its cells have 2 pixels a side."""
    critic = ImageNetworks((1, 8, 8), width=4, hidden=16, latent_dim=8).critic()
    initialise(critic, torch.Generator().manual_seed(0))
    return critic


def test_features_of_cells_are_the_highest_within_them(critic):
    tile = torch.randn(1, 1, 20, 18, generator=torch.Generator().manual_seed(1))
    layers = cell_features(critic, tile, 2)
    assert [layer.shape[1] for layer in layers] == feature_counts(critic)
    assert {layer.shape[2:] for layer in layers} == {(4, 3)}  # 10 x 9 without a halo of three
    last = critic.features(tile)
    torch.testing.assert_close(layers[-1], last[:, :, 3:-3, 3:-3])


def test_d_tv_over_a_tile_is_d_tv_where_no_padding_is_seen(critic):
    """The mean over four crops, whose inner features are those of the larger tile."""
    tile = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    scores = crop_scores(critic, tile)
    assert scores.shape == (1, 4, 4)
    features = critic.features(tile)[:, :, 1:-1, 1:-1]
    corners = [(2, 1), (2, 2), (3, 1), (3, 2)]
    expected = [critic.head(features[:, :, y : y + 4, x : x + 4]).item() for y, x in corners]
    assert scores[0, 2, 1].item() == pytest.approx(np.mean(expected), abs=1e-5)
