"""What crops of images of one size are cut from, as a module: `Crops.pyramid` in a graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # which imports its parts, slow ones among them, where they are first used
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.constants import CONSTANTS
from historyad.score.cells import with_halo

_NamesPlaces = Callable[[int], NDArray[np.intp]]  # of a side of so many pixels


class PyramidOfImages(nn.Module):
    """Images at each of ``scales``, as networks see them, with the halo that their cells need.

    They have the values of `halved` and `local_contrast`, to the last grey level: what scipy
    adds up in double precision is in double precision here.
    """

    def __init__(
        self, height: int, width: int, cell: int, scales: int, contrast_of: int | None
    ) -> None:
        super().__init__()
        sizes = [(-(-height // 2**n), -(-width // 2**n)) for n in range(scales)]
        self.halos = nn.ModuleList(_Places(*size, _haloed(cell)) for size in sizes)
        self.contrasts = nn.ModuleList(
            [] if contrast_of is None else [LocalContrast(*size, contrast_of) for size in sizes]
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map uint8 (N, H, W, C) to float32 (N, C, h, w) in [-1, 1], the finest first."""
        x, found = images.permute(0, 3, 1, 2).float(), []
        for n, halo in enumerate(self.halos):
            x = x if n == 0 else halved_planes(x)
            seen = self.contrasts[n](x) if len(self.contrasts) else x
            found.append(halo(seen) / 127.5 - 1)
        return found


class LocalContrast(nn.Module):
    """`local_contrast` of planes of one size, for crops of ``patch`` pixels."""

    def __init__(self, height: int, width: int, patch: int) -> None:
        super().__init__()
        grid = CONSTANTS.contrast_grid
        coarse = -(-height // grid), -(-width // grid)
        self.whole_cells = _Places(height, width, lambda n: _symmetric(0, n + -n % grid, n))
        self.detail = _Gaussian(height, width, CONSTANTS.contrast_detail * patch)
        self.surroundings = _Gaussian(*coarse, CONSTANTS.contrast_surroundings * patch / grid)
        self.fine = _Linear(*coarse, height, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map grey values (N, C, H, W) to whole ones around 128."""
        x = x - self.detail(x)
        cells = self.whole_cells(x.square()).double()
        grid = CONSTANTS.contrast_grid
        rows, columns = (side // grid for side in cells.shape[2:])
        squares = cells.view(*cells.shape[:2], rows, grid, columns, grid).mean((3, 5)).float()
        strength = self.surroundings(squares) + CONSTANTS.contrast_flat**2
        # onnxruntime's root is not exact in single precision.
        x = x / self.fine(strength.double().sqrt().float())
        return (128 + CONSTANTS.contrast_grey * x).clamp(0, 255).round()


class _Places(nn.Module):
    """Takes rows and columns of planes: those that ``places`` names of as many as there are."""

    rows: Tensor
    columns: Tensor

    def __init__(self, height: int, width: int, places: _NamesPlaces) -> None:
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(places(height)))
        self.register_buffer("columns", torch.from_numpy(places(width)))

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(2, self.rows).index_select(3, self.columns)


class _Gaussian(nn.Module):
    """`scipy.ndimage.gaussian_filter` of planes: first down, then across, in double precision."""

    weights: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, height: int, width: int, sigma: float) -> None:
        super().__init__()
        reach = int(CONSTANTS.contrast_reach * sigma + 0.5)
        impulse = np.zeros(2 * reach + 1)
        impulse[reach] = 1
        found = scipy.ndimage.gaussian_filter1d(
            impulse, sigma, truncate=CONSTANTS.contrast_reach, mode="constant"
        )
        # As a tensor: a graph would take a Python number in single precision.
        self.register_buffer("weights", torch.from_numpy(found))
        for name, n in (("rows", height), ("columns", width)):
            places = _symmetric(-reach, n + 2 * reach, n)
            self.register_buffer(name, torch.from_numpy(places))

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (N, C, H, W) to the same."""
        for dim, places in ((2, self.rows), (3, self.columns)):
            n, around = x.shape[dim], x.double().index_select(dim, places)
            total = around.narrow(dim, 0, n) * self.weights[0]
            for i in range(1, len(self.weights)):
                total = total + around.narrow(dim, i, n) * self.weights[i]
            x = total.float()
        return x


class _Linear(nn.Module):
    """Planes (N, C, rows, columns) at ``contrast_grid`` times as many places, cut to a size."""

    def __init__(self, rows: int, columns: int, height: int, width: int) -> None:
        super().__init__()
        for name, n, m in (("rows", rows, height), ("columns", columns, width)):
            at = np.clip((np.arange(m) + 0.5) / CONSTANTS.contrast_grid - 0.5, 0, n - 1)
            below = np.floor(at).astype(np.intp)
            self.register_buffer(f"{name}_below", torch.from_numpy(below))
            self.register_buffer(f"{name}_above", torch.from_numpy(np.minimum(below + 1, n - 1)))
            self.register_buffer(f"{name}_share", torch.from_numpy(at - below))

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 to float32, by double precision."""
        x = x.double()
        for dim, name in ((2, "rows"), (3, "columns")):
            below, above, share = (
                self.get_buffer(f"{name}_{part}") for part in ("below", "above", "share")
            )
            share = share[:, None] if dim == 2 else share
            x = x.index_select(dim, below) * (1 - share) + x.index_select(dim, above) * share
        return x.float()


def halved_planes(x: Tensor) -> Tensor:
    """Return whole grey values (N, C, H, W) of half the size, as `contrast.halved` does."""
    height, width = x.shape[2:]
    x = functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    total = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]
    return ((total + 2) / 4).floor()


def _haloed(cell: int) -> _NamesPlaces:
    return lambda n: with_halo(0, -(-n // cell), cell, n)


def _symmetric(start: int, size: int, length: int) -> NDArray[np.intp]:
    """Return ``size`` places from ``start`` on, mirrored at the edges, which are seen twice."""
    places = np.arange(start, start + size) % (2 * length)
    inside: NDArray[np.intp] = np.minimum(places, 2 * length - 1 - places)
    return inside
