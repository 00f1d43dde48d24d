import numpy as np
import torch

from historyad.score import coreset as module
from historyad.score.coreset import coreset, drawn, standard_of, standardise


def test_a_coreset_covers_what_a_random_draw_misses():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 3, generator=random) ** 3 @ torch.randn(3, 30, generator=random)
    x[7] += 50  # a rare good cell
    x[1000:] = x[:1000] + 0.01
    chosen = coreset(x, 200, 0)
    assert len(chosen.unique()) == 200
    assert 7 in chosen or 1007 in chosen
    assert len((chosen % 1000).unique()) == 200  # nothing twice
    far = [float(torch.cdist(x, x[rows]).amin(1).max()) for rows in (chosen, torch.arange(500))]
    assert far[0] < far[1] / 2
    assert len(coreset(x[:5], 200, 0)) == 5


def test_cells_are_standardised_by_all_of_them():
    cells = np.random.default_rng(0).normal(3, [1, 2, 0], (40, 6, 3)).astype(np.float16)
    x = standardise(cells, standard_of(cells))
    assert x.shape == (240, 3)
    torch.testing.assert_close(x.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std(0)[:2], torch.ones(2), atol=1e-2, rtol=0)
    assert (x[:, 2] == 0).all()
    assert drawn(cells, 50, 0).shape == (50, 3)
    assert (drawn(cells, 50, 0) != drawn(cells, 50, 1)).any()


def test_of_very_many_cells_some_stand_for_all(constants):
    cells = np.random.default_rng(0).normal(size=(100, 12, 2)).astype(np.float16)
    cells[::2] += 50
    constants(module, cells_measured=300)
    assert abs(float(standard_of(cells).center[0]) - 25) < 3
