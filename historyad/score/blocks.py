"""Neighbours of an image where every block of it may have moved a little.

A stroke that lies a pixel aside is far away by pixels, and most of what differs between two normal
images is of that kind. Here an image is compared with another one block by block, and each block is
taken where it fits best, among itself and its moves by a step or two in every direction: a simple
relative of the image distortion model, in which every pixel moves by itself (Keysers et al., 2007,
"Deformation models for image recognition"). As there, edges are compared besides grey values: they
tell one stroke from another even where blocks move further.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from historyad.constants import CONSTANTS
from historyad.score.batching import of_parts
from historyad.score.neighbours import gaps_between, relative

_GREY_VALUES = 255  # of a cell as the bank keeps it
_CHUNK = 256  # images of the bank that are compared with others at a time
_PART = 16  # images that are scored at a time; what lies between stays in the cache


class Look(nn.Module):
    """What is compared of a cell, and by how many steps a block may move for it, each way."""

    places: Tensor
    steps: ClassVar[int]
    # Mean square of what the bank loses of a cell, where nothing is to be seen.
    rounding: ClassVar[float]

    def __init__(self, n_blocks: int) -> None:
        super().__init__()
        self.n_blocks = n_blocks
        self.register_buffer("places", _places(n_blocks, self.steps), persistent=False)

    def look(self, padded: Tensor, spacing: int) -> Tensor:
        """Return what is compared of the cells of maps whose border goes on.

        (B, 1, n + 2 spacing, n + 2 spacing, ...), with neighbours ``spacing`` apart, to (B, values,
        n, n, ...).
        """
        raise NotImplementedError

    def forward(self, half_cells: Tensor, cells: Tensor) -> Tensor:
        """Return the distances of images to some of the bank, (B, K).

        The first are given by every half cell, with 4 beyond the border, (B, 1, 2n + 7, 2n + 7),
        the others by cells, with one, (B, 1, n + 2, n + 2, K).
        """
        a, b = (
            self._moved(self.look(half_cells, CONSTANTS.block_halves)),
            self._by_blocks(self.look(cells, 1)),
        )
        # |a - b|^2 = |a|^2 - 2 ab + |b|^2, all in one product.
        squared = _least(a @ b).clamp(min=0).sum(1)
        # A root is steep at 0, where differences are those of rounding.
        distances: Tensor = (squared + (2 * self.n_blocks) ** 2 * self.rounding).sqrt()
        return distances

    def _moved(self, a: Tensor) -> Tensor:
        """Return a, |a|^2 and 1 of every block at every move, (B, blocks, moves, 4 cells + 2)."""
        start = CONSTANTS.block_steps - self.steps  # what is beyond is for looks that move further
        n = a.shape[-1] - 2 * start - CONSTANTS.block_halves
        at = [slice(start + offset, start + offset + n) for offset in (0, CONSTANTS.block_halves)]
        a = torch.cat([a[:, :, rows, columns] for rows in at for columns in at], 1)
        a = torch.cat([a, a.square().sum(1, keepdim=True), torch.ones_like(a[:, :1])], 1)
        everywhere = a.flatten(2).transpose(1, 2).contiguous()
        shape = (a.shape[0], self.n_blocks**2, (2 * self.steps + 1) ** 2, a.shape[1])
        return everywhere.index_select(1, self.places).reshape(shape)

    def _by_blocks(self, b: Tensor) -> Tensor:
        """Return -2 b, 1 and |b|^2 of every block, (B, blocks, 4 cells + 2, K)."""
        n, n_values, _, _, k = b.shape
        b = b.reshape(
            n, n_values, self.n_blocks, CONSTANTS.block_side, self.n_blocks, CONSTANTS.block_side, k
        )
        b = b.permute(0, 2, 4, 3, 5, 1, 6).reshape(n, self.n_blocks**2, -1, k)
        return torch.cat([-2 * b, torch.ones_like(b[:, :, :1]), b.square().sum(2, keepdim=True)], 2)


class Grey(Look):
    """The grey value of a cell, from black at 0 to white at 1."""

    steps = 1
    rounding = 1 / 12 / _GREY_VALUES**2

    def look(self, padded: Tensor, spacing: int) -> Tensor:
        """Return it, (B, 1, n, n, ...), around 0, where squares lose the fewest digits."""
        return padded[:, :, spacing:-spacing, spacing:-spacing] - 0.5


class Edges(Look):
    """Signed roots of the edges e through a cell, down and across: e / sqrt(|e| + 0.02).

    An edge is half the difference of the two cells beside. A root, so that faint ones count, too.
    """

    steps = 2
    # Of half the difference of two, each way.
    rounding = 2 / 24 / _GREY_VALUES**2 / CONSTANTS.faint_edge

    def look(self, padded: Tensor, spacing: int) -> Tensor:
        """Return them, (B, 2, n, n, ...)."""
        inner = slice(spacing, -spacing)
        down = padded[:, :, 2 * spacing :, inner] - padded[:, :, : -2 * spacing, inner]
        across = padded[:, :, inner, 2 * spacing :] - padded[:, :, inner, : -2 * spacing]
        edges = torch.cat([down, across], 1) / 2
        return edges * (edges.abs() + CONSTANTS.faint_edge).rsqrt()


class Blocks(nn.Module):
    """Mean distances of an image to the nearest of its candidates in a bank, block by block.

    Of the channels, their mean counts. A map of an image has cells of a few pixels, which they are
    averaged over; a block has 2 x 2 of them. A step is half a cell, so that blocks are moved more
    finely than the maps in the bank are stored. There are two distances of two images, by grey
    values and by edges, each the root of the sum, over blocks, of the least squared distance over
    moves; like that of other neighbours, it is divided by the root of the gap that normal samples
    have between them in that place.
    """

    bank: Tensor
    gaps: Tensor

    def __init__(self, side: int, n_bank: int) -> None:
        super().__init__()
        self.enlarged = 2 if side <= CONSTANTS.block_map else 1  # times, so that a cell has halves
        self.cell = max(2, side // CONSTANTS.block_map)
        n_blocks = side * self.enlarged // self.cell // CONSTANTS.block_side  # each way
        self.n_cells = n_blocks * CONSTANTS.block_side  # each way
        self.grey, self.edges = Grey(n_blocks), Edges(n_blocks)
        self.register_buffer("bank", torch.zeros(n_bank, self.n_cells**2, dtype=torch.uint8))
        self.register_buffer("gaps", torch.ones(2, n_bank))

    @classmethod
    def fit(cls, images: Tensor, candidates: Tensor) -> Blocks:
        """Keep normal images (N, C, side, side), whose candidates (N, K) are others of them."""
        blocks = cls(images.shape[-1], len(images)).to(images.device)
        maps = [
            blocks.half_cells(part)[:, :, :: CONSTANTS.block_halves, :: CONSTANTS.block_halves]
            for part in torch.split(images, _CHUNK)
        ]
        blocks.bank.copy_((torch.cat(maps).flatten(1) * _GREY_VALUES).round())
        distances = torch.cat(of_parts(blocks.distances, images, candidates, size=_CHUNK), 1)
        for gaps, found in zip(blocks.gaps, distances, strict=True):
            k = min(CONSTANTS.neighbours, found.shape[1])
            gaps.copy_(gaps_between(found.topk(k, largest=False).values))
        return blocks

    def forward(self, x: Tensor, candidates: Tensor) -> list[Tensor]:
        """Return relative distances of images (B, C, side, side) to candidates (B, K), (B,) each.

        By grey values, and by edges.
        """
        k = min(CONSTANTS.neighbours, candidates.shape[1])
        relatives = []
        for gaps, found in zip(self.gaps, self.distances(x, candidates), strict=True):
            distances, order = found.topk(k, largest=False)
            relatives.append(relative(distances, gaps[candidates.gather(1, order)]))
        return relatives

    def distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        """Return the distances of images (B, C, side, side) to each of theirs, (looks, B, K)."""
        if torch.compiler.is_exporting():  # a graph has no loop over a batch of any size
            return self._distances(x, candidates)
        parts = zip(torch.split(x, _PART), torch.split(candidates, _PART), strict=True)
        return torch.cat([self._distances(few, theirs) for few, theirs in parts], 1)

    def _distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        # Beyond an image its border goes on, for moves and for the edges at their ends.
        half_cells = functional.pad(
            self.half_cells(x),
            [CONSTANTS.block_steps + CONSTANTS.block_halves] * 4,
            mode="replicate",
        )
        n, k = candidates.shape
        maps = self.bank[candidates].transpose(1, 2).float() / _GREY_VALUES
        maps = maps.reshape(n, 1, self.n_cells, self.n_cells, k)
        maps = torch.cat([maps[:, :, :1], maps, maps[:, :, -1:]], 2)
        cells = torch.cat([maps[:, :, :, :1], maps, maps[:, :, :, -1:]], 3)
        looks = (self.grey, self.edges)
        return torch.stack([look(half_cells, cells) for look in looks])

    def half_cells(self, x: Tensor) -> Tensor:
        """Return the mean grey value, from 0 to 1, of the cells at every half cell of images.

        (B, C, side, side) in [-1, 1] to (B, 1, 2 cells - 1, 2 cells - 1).
        """
        grey = (x.mean(1, keepdim=True) + 1) / 2
        if self.enlarged > 1:
            grey = functional.interpolate(grey, scale_factor=self.enlarged)
        return functional.avg_pool2d(grey, self.cell, self.cell // CONSTANTS.block_halves)


def _least(values: Tensor) -> Tensor:
    """Return the least over moves of (B, blocks, moves, K), (B, blocks, K).

    By halves, whole rows at a time: on a processor, `amin` over a dimension in the middle is slow.
    """
    while values.shape[2] > 1:
        half = (values.shape[2] + 1) // 2
        values = torch.minimum(values[:, :, :half], values[:, :, -half:])
    return values[:, :, 0]


def _places(n_blocks: int, steps: int) -> Tensor:
    """Return where each block is at each move, in a map of all of its places, row by row."""
    stride, n_moves = CONSTANTS.block_halves * CONSTANTS.block_side, 2 * steps + 1
    width = stride * (n_blocks - 1) + n_moves
    rows = stride * np.arange(n_blocks)[:, None] + np.arange(n_moves)
    # By numpy: on the device without memory on which a model is first built, torch's arithmetic
    # would import its compiler, which takes seconds.
    return torch.from_numpy((width * rows[:, None, :, None] + rows[None, :, None, :]).flatten())
