"""Cells of good images as they are kept: on one scale, drawn at random, or chosen to cover all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.backbones.parts import Part
from historyad.constants import CONSTANTS
from historyad.progress import each
from historyad.randomness import Stream, numpy_generator, torch_generator
from historyad.score.gaussian import principal_components
from historyad.score.scale import Scale

Cells = NDArray[np.float16]  # of images, (N, places, features), as they are kept


def standardise(cells: NDArray[Any], standard: Scale) -> Tensor:
    """Return cells (..., features) on their scale, float32 (N, features)."""
    flat = torch.from_numpy(cells.reshape(-1, cells.shape[-1]).astype(np.float32))
    x: Tensor = standard.cpu()(flat.T).T
    return x.contiguous()


def standard_of(cells: Cells) -> Scale:
    """Return the scale on which each feature of ``cells`` has mean 0 and deviation 1.

    Of very many cells, some stand for all.
    """
    flat = cells.reshape(-1, cells.shape[-1])
    flat = flat[:: math.ceil(len(flat) / CONSTANTS.cells_measured)].astype(np.float32)
    standard = Scale(flat.shape[1])
    standard.center.copy_(torch.from_numpy(flat.mean(0)))
    deviation = torch.from_numpy(flat.std(0))
    standard.spread.copy_(deviation.clamp(min=CONSTANTS.smallest_spread))
    return standard


def drawn(cells: Cells, most: int, seed: int) -> Cells:
    """Return at ``most`` so many of all cells, in a random order, (n, features)."""
    flat = cells.reshape(-1, cells.shape[-1])
    order = numpy_generator(seed, Stream.CELL).permutation(len(flat))[:most]
    return flat[order]


@dataclass(frozen=True)
class Components:
    """Directions (n, features), named as those of a PCA are."""

    components_: NDArray[np.float32]


def components_of(x: Tensor, parts: Sequence[Part]) -> Components:
    """Return principal components of cells (N, features), of each part of features for itself."""
    split = torch.split(x, [part.n_features for part in parts], 1)
    pcas = [principal_components(a, b.n_components) for a, b in zip(split, parts, strict=True)]
    directions = (torch.from_numpy(pca.components_.astype(np.float32)) for pca in pcas)
    together: Tensor = torch.block_diag(*directions)  # type: ignore[no-untyped-call]
    return Components(together.numpy())


def coreset(x: Tensor, n: int, seed: int) -> Tensor:
    """Return which ``n`` of cells (N, features) to keep: each the farthest from those before it.

    Greedy k-center selection on a random projection (Roth et al., 2022, "Towards total recall in
    industrial anomaly detection"). Rare good cells are kept, and common ones are not kept twice.
    """
    random = torch_generator(seed, Stream.CELL)
    k = CONSTANTS.coreset_dimensions
    projection = torch.randn(x.shape[1], k, generator=random) / math.sqrt(k)
    places = (x.cpu() @ projection).contiguous()
    squares = places.square().sum(1)
    chosen = [0]
    nearest = torch.full((len(x),), math.inf)
    for _ in each(range(min(n, len(x)) - 1)):
        last = chosen[-1]
        beside = torch.addmv(squares + squares[last], places, places[last], alpha=-2)
        torch.minimum(nearest, beside, out=nearest)
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen, device=x.device)
