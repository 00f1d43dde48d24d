import numpy as np
import pytest
import torch

from historyad.score import residuals as module
from historyad.score.coreset import standard_of, standardise
from historyad.score.residuals import Residuals


def cells_of(n=30, n_places=16, n_features=6, seed=0):
    """Cells of images that each have a mean of their own, so that new images are new."""
    random = np.random.default_rng(seed)
    means = random.normal(0, 2, (n, 1, n_features))
    return (means + random.normal(size=(n, n_places, n_features))).astype(np.float16)


def test_what_is_trained_on_is_of_images_that_the_bank_has_no_cell_of():
    cells = cells_of()
    cells[..., 0] = np.arange(30)[:, None]  # each image says which one it is
    standard = standard_of(cells)
    residuals, learnt = Residuals.fit(cells, standard, 6, 0)
    numbers = residuals.known * standard.spread + standard.center
    in_bank = set(numbers[:, 0].round().int().tolist())
    assert len(in_bank) == 18  # of 30, two fifths are left out
    assert len(learnt) == 12 * 16


def test_images_of_one_group_are_all_known_or_all_new():
    cells = cells_of()
    cells[..., 0] = np.arange(30)[:, None]
    standard = standard_of(cells)
    groups = np.arange(30) % 5
    residuals, learnt = Residuals.fit(cells, standard, 6, 0, groups)
    known = (residuals.known * standard.spread + standard.center)[:, 0].round().int().unique()
    assert len(known) * 16 + len(learnt) == 30 * 16
    assert len(known) == 18
    assert len({*groups[known]}) == 3
    alone, new = Residuals.fit(cells, standard, 6, 0, np.zeros(30, int))
    assert (len(alone.known), len(new)) == (18 * 16, 12 * 16)  # of one group, images are parted


def test_residuals_are_whitened_differences_from_the_nearest():
    cells = cells_of()
    standard = standard_of(cells)
    residuals, learnt = Residuals.fit(cells, standard, 6, 0)
    torch.testing.assert_close(learnt.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    variances = learnt.var(0)
    assert (variances > 0.5).all()
    assert (variances < 1.01).all()
    off = torch.cov(learnt.T) - torch.diag(variances)
    assert off.abs().max() < 1e-2
    x = standardise(cells_of(seed=1)[:2], standard)
    nearest = torch.cdist(x, residuals.known).topk(3, largest=False).indices
    beside = x - residuals.known[nearest].mean(1)
    torch.testing.assert_close(residuals.beside(x), beside, atol=1e-4, rtol=1e-4)
    expected = (beside - residuals.mean) @ residuals.whitening
    torch.testing.assert_close(residuals(x), expected, atol=1e-4, rtol=1e-4)


def test_only_the_first_components_are_seen_where_there_are_too_many():
    cells = cells_of()
    standard = standard_of(cells)
    whole, _ = Residuals.fit(cells, standard, 6, 0)
    some, learnt = Residuals.fit(cells, standard, 2, 0)
    assert learnt.shape[1] == 2
    torch.testing.assert_close(some.whitening, whole.whitening[:, :2])


def test_of_few_images_and_of_cells_that_do_not_vary():
    for cells in (cells_of(2), np.ones((4, 5, 3), np.float16)):
        residuals, learnt = Residuals.fit(cells, standard_of(cells), 3, 0)
        assert torch.isfinite(learnt).all()
        assert torch.isfinite(residuals(torch.ones(2, cells.shape[2]))).all()


def test_one_is_built_of_its_sizes_and_loaded(constants):
    constants(module, residual_bank=50)
    cells = cells_of()
    residuals, _ = Residuals.fit(cells, standard_of(cells), 4, 0)
    assert residuals.sizes == {"known": 50, "values": 4}
    again = Residuals(6, 50, 4)
    again.load_state_dict(residuals.state_dict())
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again(x), residuals(x), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="size mismatch"):
        Residuals(6, 51, 4).load_state_dict(residuals.state_dict())
