import numpy as np
import pytest
import torch

from historyad.method.networks import ImageNetworks, initialise
from historyad.score.cells import (
    Bank,
    CellGaussian,
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
    assert scores.shape == (4, 4)
    features = critic.features(tile)[:, :, 1:-1, 1:-1]
    corners = [(2, 1), (2, 2), (3, 1), (3, 2)]
    expected = [critic.head(features[:, :, y : y + 4, x : x + 4]).item() for y, x in corners]
    assert scores[2, 1].item() == pytest.approx(np.mean(expected), abs=1e-5)


def test_a_bank_gives_the_distance_to_the_nearest():
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    bank = Bank.fit(x, np.random.default_rng(0))
    query = torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(bank(query), torch.cdist(query, x).amin(1), atol=1e-3, rtol=1e-3)


def test_the_gaussian_whitens_normal_cells():
    x = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 2, 5])
    distances = CellGaussian.fit(x + 7)(x + 7)
    assert distances.square().mean().item() == pytest.approx(3, rel=0.15)
    assert CellGaussian.fit(torch.ones(9, 3))(torch.ones(2, 3)).tolist() == [0, 0]
