"""Images larger than what a backbone sees: cells of overlapping tiles, joined without seams.

Near its edge a tile knows less of what is around than in the middle. So neighbours overlap, and
there a cell is the mean of both, in which the share of a tile falls towards its edge. Cells come in
strips from the top to the bottom, of which few are held at a time, however large the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from historyad.backbones.backbone import Backbone
from historyad.backbones.cells import level_of, levels, on_level
from historyad.constants import CONSTANTS
from historyad.data.images import Pixels
from historyad.errors import InputError

Look = Callable[[Tensor], Tensor]  # squares (1, 3, side, side) to their cells (1, features, n, n)


@dataclass(frozen=True)
class Tiling:
    """Squares of ``side`` pixels, in which a backbone has a cell for each ``stride`` pixels."""

    side: int
    stride: int

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of cells that cover an image; the last may reach beyond."""
        return -(-height // self.stride), -(-width // self.stride)

    def strips(self, image: Pixels, look: Look, device: torch.device | str) -> Iterator[Tensor]:
        """Yield the cells of an image (H, W, C) from the top down, (features, rows, columns)."""
        rows, columns = self.grid(*image.shape[:2])
        pixels = torch.from_numpy(np.require(image, np.uint8, ["C", "W"]))
        level = [one.to(device) for one in level_of(pixels)]
        n = self.side // self.stride
        across, down = shares(columns, n), shares(rows, n)

        def cells(top: int, left: int) -> Tensor:
            y, x = (
                mirrored(start * self.stride, self.side, length)
                for start, length in zip((top, left), image.shape[:2], strict=True)
            )
            tile = pixels[y[:, None], x].to(device).permute(2, 0, 1)[None].float()
            return look(on_level(tile, *level))[0]

        held: Tensor | None = None
        starts = [*down]
        for top, following in zip(starts, [*starts[1:], rows], strict=True):
            strip = joined({left: cells(top, left) for left in across}, across)
            strip = strip * torch.from_numpy(down[top]).to(strip)[:, None]
            if held is not None:
                strip[:, : held.shape[1]] += held
            yield strip[:, : following - top, :columns]
            held = strip[:, following - top :].clone()


class TilesOfImages(nn.Module):
    """The tiles of images of one size, and the cells of the image from theirs: for a graph.

    As `Tiling.strips`, but all at once.
    """

    def __init__(self, tiling: Tiling, height: int, width: int) -> None:
        super().__init__()
        n = tiling.side // tiling.stride
        self.grid = tiling.grid(height, width)
        self.down, self.across = (shares(length, n) for length in self.grid)
        self.n_tiles = len(self.down) * len(self.across)
        self.rows, self.columns = (
            [torch.from_numpy(mirrored(at * tiling.stride, tiling.side, length)) for at in starts]
            for starts, length in ((self.down, height), (self.across, width))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to squares (N, tiles, 3, side, side) of one level."""
        x = images.permute(0, 3, 1, 2).float()
        x = on_level(x, *levels(x))
        strips = [x.index_select(2, rows) for rows in self.rows]
        return torch.stack([s.index_select(3, c) for s in strips for c in self.columns], 1)

    def joined(self, tiles: Tensor) -> Tensor:
        """Map the cells of tiles (N, tiles, features, n, n) to those of images, as `cells_of`."""
        rows, columns = (max(length, tiles.shape[3]) for length in self.grid)
        strips = [
            _side_by_side(tiles[:, start : start + len(self.across)], self.across, columns)
            for start in range(0, self.n_tiles, len(self.across))
        ]
        turned = torch.stack(strips, 1).transpose(3, 4)
        return _side_by_side(turned, self.down, rows).transpose(2, 3)[
            :, :, : self.grid[0], : self.grid[1]
        ]


def _side_by_side(tiles: Tensor, starts: dict[int, NDArray[np.float32]], length: int) -> Tensor:
    """Return tiles (N, tiles, features, rows, n) as one, (N, features, rows, length)."""
    found = tiles.new_zeros(*tiles.shape[:1], *tiles.shape[2:4], length)
    for number, (start, share) in enumerate(starts.items()):
        after = length - start - len(share)
        found = found + functional.pad(tiles[:, number] * torch.from_numpy(share), (start, after))
    return found


def tiling_of(backbone: Backbone) -> Tiling:
    """Return the tiles that a backbone sees; InputError where its cells do not fill them evenly."""
    rows, columns = backbone.grid
    if rows != columns or backbone.side % rows:
        raise InputError(
            f"{backbone.name} has {rows} x {columns} cells in {backbone.side} pixels, which do not "
            "join: give a --backbone-side that is a multiple of them, or --resize to see images "
            "whole"
        )
    return Tiling(backbone.side, backbone.side // rows)


def shares(length: int, n: int) -> dict[int, NDArray[np.float32]]:
    """Return the starts of tiles of ``n`` cells that cover ``length`` cells, with their shares.

    These are those of each tile in its cells, (n,), and add up to 1 in every cell.
    """
    overlap = max(1, round(CONSTANTS.tile_overlap * n))
    n_tiles = 1 + max(0, -(-(length - n) // (n - overlap)))
    starts = np.linspace(0, max(0, length - n), n_tiles).round().astype(int).tolist()
    weights = np.zeros((n_tiles, max(length, n)))
    for number, start in enumerate(starts):
        # The same from both ends; at the ends of the image, no other tile has a part.
        ramp = np.minimum(np.arange(n) + 1, n - np.arange(n)).clip(max=overlap) / overlap
        weights[number, start : start + n] = ramp
    weights /= weights.sum(0)
    found = zip(starts, weights, strict=True)
    return {start: one[start : start + n].astype(np.float32) for start, one in found}


def joined(tiles: dict[int, Tensor], across: dict[int, NDArray[np.float32]]) -> Tensor:
    """Return tiles (features, n, n) that stand side by side as one, (features, n, columns)."""
    last = [*tiles][-1]
    first = tiles[last]
    found = first.new_zeros(*first.shape[:2], last + first.shape[2])
    for left, tile in tiles.items():
        share = torch.from_numpy(across[left]).to(tile)
        found[:, :, left : left + tile.shape[2]] += tile * share
    return found


def mirrored(start: int, size: int, length: int) -> NDArray[np.intp]:
    """Return ``size`` places from ``start`` on, mirrored at the ends of [0, length)."""
    period = max(1, 2 * (length - 1))
    places = np.arange(start, start + size) % period
    found: NDArray[np.intp] = np.minimum(places, period - places) if length > 1 else places * 0
    return found
