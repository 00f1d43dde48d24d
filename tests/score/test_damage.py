import numpy as np
import pytest
import torch

from historyad.score import damage as module
from historyad.score import places as places_module
from historyad.score.damage import DamageView, apart, law_of, parts_of, white
from historyad.score.places import Places


def cells(n, n_places=6, n_values=3, seed=0):
    """Cells of good images, whose places differ."""
    random = torch.Generator().manual_seed(seed)
    shift = 5 * torch.arange(n_places, dtype=torch.float32)[:, None]
    return torch.randn(n, n_places, n_values, generator=random) + shift


def test_whitened_cells_vary_alike_in_all_directions(constants):
    constants(places_module, place_prior=0.0, place_ridge=0.0)
    x = cells(400) * torch.tensor([1.0, 4.0, 0.2])
    for aligned in (True, False):
        z = white(law_of(x, aligned=aligned), x)
        flat = z.flatten(0, 1)
        torch.testing.assert_close(flat.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
        covariance = flat.T @ flat / len(flat)
        torch.testing.assert_close(covariance, torch.eye(3), atol=2e-3, rtol=0)
    places = Places.fit(x)
    torch.testing.assert_close(white(places, x).norm(dim=2), places(x))


def test_each_part_is_whitened_by_the_others_and_what_did_not_change_is_no_damage():
    good, of = cells(30), np.array([4, 11, 29])
    bad = good[of].clone()
    bad[1, 2] += 3
    parts = np.arange(30) % 3
    whites, changed = apart(good, bad, of, parts, aligned=True)
    assert whites.shape == (180, 3)
    for part in range(3):
        own = torch.from_numpy(parts == part)
        law = Places.fit(good[~own])
        expected = law.turned(good[own]).flatten(0, 1)
        torch.testing.assert_close(whites[60 * part : 60 * part + 60], expected)
    law = Places.fit(good[torch.from_numpy(parts != parts[11])])
    torch.testing.assert_close(changed, law.turned(bad[1:2])[:, 2])


@pytest.mark.parametrize("aligned", [True, False])
def test_d_tv_learns_in_which_direction_damage_lies(constants, aligned):
    """Good images differ from each other in another, and by as much."""
    constants(module, damage_steps=300)
    good = cells(90)
    parts = np.arange(90) % 3
    good[..., 0] += 4 * torch.from_numpy(parts)[:, None]
    of, struck = np.arange(0, 90, 2), torch.tensor([0.0, 0.0, 4.0])
    view = DamageView.fit(good, good[of] + struck, of, parts, 0, aligned=aligned)
    places = Places.fit(good) if aligned else None
    assert (view.ground is None) == aligned
    new = cells(40, seed=1)
    with torch.inference_mode():
        found = [view(new + shift, places) for shift in (0, struck[[2, 0, 1]], struck)]
    assert found[0].shape == (40, 6)
    usual, other, damaged = (float(one.mean()) for one in found)
    assert damaged > max(usual, other) + 1
    again = DamageView.fit(good, good[of] + struck, of, parts, 0, aligned=aligned)
    for one, expected in zip(view.d_tv.parameters(), again.d_tv.parameters(), strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=0)


def test_where_damage_changes_nothing_d_tv_is_not_trained():
    good = cells(9)
    view = DamageView.fit(good, good[:3], np.arange(3), np.arange(9) % 3, 0, aligned=True)
    assert view(good, Places.fit(good)).isfinite().all()


def test_groups_are_in_one_part_and_so_are_images_stored_together():
    groups = np.repeat(np.arange(20), 3)
    parts = parts_of(60, groups, 0)
    assert sorted(np.bincount(parts)) == [18, 21, 21]
    assert all(len(np.unique(parts[groups == group])) == 1 for group in range(20))
    for few in (None, np.zeros(90, np.intp)):  # all of one group are parted nevertheless
        parts = parts_of(90, few, 0)
        assert (np.bincount(parts) == 30).all()
        assert (parts.reshape(30, 3) == parts[::3, None]).all()
    assert len(np.unique(parts_of(2, None, 0))) == 2
