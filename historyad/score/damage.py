"""D_TV of cells: trained to tell those of good images from those of damaged ones.

This is step 3 of the paper against another law than the history, and by another loss. Cells of good
images on which defects were drawn lie where defects bring a cell, and not all around, as the
history does. The logistic loss goes on where that of eq. 10 is content: once both are told apart.
What D_TV sees is how far a cell is from good ones of its place, in the directions in which these
vary alike: new good images differ from known ones in some directions, and defects in others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.constants import CONSTANTS
from historyad.method.gan import make_adam, set_learning_rate
from historyad.method.networks import VectorNetworks, initialise
from historyad.randomness import Stream, numpy_generator, torch_generator
from historyad.score.coreset import Cells
from historyad.score.places import Places

_BETAS = 0.9, 0.999


@dataclass(frozen=True, eq=False)
class Damaged:
    """Cells of damaged images (m, places, features), and which of the good ones each was, (m,)."""

    cells: Cells
    of: NDArray[np.intp]


class DamageView(nn.Module):
    """What D_TV says of a cell; ``ground`` whitens cells where they have no place of their own."""

    def __init__(self, n_values: int, ground: Places | None = None) -> None:
        super().__init__()
        self.ground = ground
        self.d_tv = VectorNetworks((n_values,), CONSTANTS.damage_hidden, 1).critic()

    @classmethod
    def fit(
        cls,
        good: Tensor,
        bad: Tensor,
        of: NDArray[np.intp],
        parts: NDArray[np.intp],
        seed: int,
        *,
        aligned: bool,
    ) -> DamageView:
        """Train on cells of good images (n, places, values) and of damaged ones (m, ...).

        ``of`` (m,) says which of the good each was. ``parts`` (n,) number parts of the images: the
        cells of each are looked at beside those of the others, as new images will be.
        """
        ground = None if aligned else law_of(good, aligned=False)
        view = cls(good.shape[2], ground).to(good.device)
        view._train(*apart(good, bad, of, parts, aligned=aligned), seed)
        return view

    @torch.enable_grad()
    def _train(self, good: Tensor, bad: Tensor, seed: int) -> None:
        """The logistic loss on whitened cells (N, values) of good images, and of damaged ones."""
        initialise(self.d_tv, torch_generator(seed, Stream.WEIGHTS, 2))
        if not len(bad):
            return
        random = torch_generator(seed, Stream.CELL, 6)
        rate, steps = CONSTANTS.damage_learning_rate, CONSTANTS.damage_steps
        optimizer = make_adam(self.d_tv, rate, _BETAS)
        for step in range(steps):
            set_learning_rate(optimizer, rate * (1 - step / steps))
            drawn = [
                x[torch.randint(len(x), (CONSTANTS.damage_batch,), generator=random).to(x.device)]
                for x in (good, bad)
            ]
            outputs = self.d_tv(torch.cat(drawn)).chunk(2)
            loss = functional.softplus(outputs[0]).mean() + functional.softplus(-outputs[1]).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.d_tv.eval().requires_grad_(False)

    def forward(self, x: Tensor, places: Places | None) -> Tensor:
        """Map cells (N, places, values) to D_TV's output, (N, places).

        It is a logit of the logistic loss: the higher, the more like damage, and without a bound.
        """
        law = places if self.ground is None else self.ground
        assert law is not None
        found: Tensor = self.d_tv(white(law, x).flatten(0, 1))
        return found.view(x.shape[:2])


def law_of(x: Tensor, *, aligned: bool) -> Places:
    """Return a Gaussian for each place of cells (N, places, values), or one of all."""
    return Places.fit(x if aligned else x.flatten(0, 1)[:, None])


def white(law: Places, x: Tensor) -> Tensor:
    """Return whitened cells (N, places, values), by place or all alike."""
    if len(law.means) == 1:
        return law.turned(x.flatten(0, 1)[:, None]).view(x.shape)
    return law.turned(x)


def apart(
    good: Tensor,
    bad: Tensor,
    of: NDArray[np.intp],
    parts: NDArray[np.intp],
    *,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """Return the whitened cells of good images, and those of damaged ones that damage changed.

    Both (N, values). Each part of the images is whitened by the others.
    """
    whites, changed = [], []
    for part in np.unique(parts):
        own = torch.from_numpy(parts == part)
        rows = torch.from_numpy(np.flatnonzero(parts[of] == part))
        law = law_of(good[~own], aligned=aligned)
        whites.append(white(law, good[own]).flatten(0, 1))
        if len(rows):
            after = white(law, bad[rows])
            moved = (after - white(law, good[of][rows])).square().mean(2)
            changed.append(after[moved > CONSTANTS.damage_change])
    return torch.cat(whites), torch.cat(changed)


def parts_of(n: int, groups: NDArray[np.intp] | None, seed: int) -> NDArray[np.intp]:
    """Return into which of a few parts each of n > 1 images falls, (n,), with all of its group.

    Without ``groups`` (n,), or of fewer than parts, images that are stored side by side stay so.
    """
    n_parts = CONSTANTS.damage_parts
    if groups is None or len(np.unique(groups)) < n_parts:
        n_blocks = min(n, CONSTANTS.held_out_blocks)
        groups = np.arange(n) * n_blocks // n
    names, numbers = np.unique(groups, return_inverse=True)
    order = numpy_generator(seed, Stream.CELL, 7).permutation(len(names))
    found: NDArray[np.intp] = order[numbers] % n_parts
    return found
