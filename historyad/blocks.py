"""Neighbours of an image where every block of it may have moved a little.

A stroke that lies a pixel aside is far away by pixels, and most of what differs between two normal
images is of that kind. Here an image is compared with another one block by block, and each block is
taken where it fits best, among itself and its moves by a step in every direction: a simple relative
of the image distortion model, in which every pixel moves by itself (Keysers et al., 2007,
"Deformation models for image recognition").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from historyad.companions import NEIGHBOURS, gaps_between, relative

CANDIDATES = 16  # of each image, the nearest by another view

_MAP = 16  # cells of a map, each way, at most
_BLOCK = 2  # cells of a block, each way
_GREY_VALUES = 255  # of a cell as the bank keeps it
_ROUNDING = 1 / 12 / _GREY_VALUES**2  # mean square of what that loses
_CHUNK = 512  # images of the bank that are compared with others at a time


class Blocks(nn.Module):
    """Mean distance of an image to the nearest of its candidates in a bank, block by block.

    Of the channels, their mean counts. A map of an image has cells of a few pixels, which they are
    averaged over; a block has 2 x 2 of them. A step is half a cell, so that blocks are moved more
    finely than the maps in the bank are stored. The distance of two images is the root of the sum,
    over blocks, of the least squared distance over moves; like that of other neighbours, it is
    divided by the root of the gap that normal samples have between them in that place.
    """

    bank: Tensor
    gaps: Tensor

    def __init__(self, side: int, n_bank: int) -> None:
        super().__init__()
        self.enlarged = 2 if side <= _MAP else 1  # times, so that a cell has halves
        self.cell = max(2, side // _MAP)
        self.step = self.cell // 2
        self.n_blocks = side * self.enlarged // self.cell // _BLOCK  # each way
        n_cells = (self.n_blocks * _BLOCK) ** 2
        self.register_buffer("bank", torch.zeros(n_bank, n_cells, dtype=torch.uint8))
        self.register_buffer("gaps", torch.ones(n_bank))

    @classmethod
    def fit(cls, images: Tensor, candidates: Tensor) -> Blocks:
        """Keep normal images (N, C, side, side), whose candidates (N, K) are others of them."""
        blocks = cls(images.shape[-1], len(images)).to(images.device)
        unmoved = [blocks.moves(part)[:, :, 4] for part in torch.split(images, _CHUNK)]
        blocks.bank.copy_((torch.cat(unmoved).flatten(1) * _GREY_VALUES).round())
        parts = zip(torch.split(images, _CHUNK), torch.split(candidates, _CHUNK), strict=True)
        nearest = torch.cat([blocks.nearest(a, few)[0] for a, few in parts])
        blocks.gaps.copy_(gaps_between(nearest))
        return blocks

    def forward(self, x: Tensor, candidates: Tensor) -> Tensor:
        """Return relative distances of images (B, C, side, side) to candidates (B, K), (B,)."""
        distances, nearest = self.nearest(x, candidates)
        return relative(distances, self.gaps[nearest])

    def nearest(self, x: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances to the nearest candidates, rising, and which of the bank, (B, k)."""
        distances = self.distances(x, candidates)
        k = min(NEIGHBOURS, distances.shape[1])
        found, order = distances.topk(k, largest=False)
        return found, candidates.gather(1, order)

    def distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        """Return the distance of images (B, C, side, side) to each of theirs, (B, K)."""
        moved = self.moves(x)
        others = self.bank[candidates].float() / _GREY_VALUES
        # (B, blocks, cells of a block, K)
        others = others.reshape(-1, candidates.shape[1], self.n_blocks**2, _BLOCK**2)
        others = others.permute(0, 2, 3, 1)
        # |a - b|^2 = |a|^2 - 2 ab + |b|^2, of which the last is the same for all moves.
        squared = moved.square().sum(3, keepdim=True) - 2 * moved @ others
        squared = (squared.amin(2) + others.square().sum(2)).clamp(min=0).sum(1)
        # A root is steep at 0, where differences are those of rounding.
        return (squared + self.bank.shape[1] * _ROUNDING).sqrt()

    def moves(self, x: Tensor) -> Tensor:
        """Return maps of images (B, C, side, side) in [-1, 1], of values in [0, 1], by blocks.

        Each is moved by no step or by one, each way; the fifth of nine has not moved: (B, blocks,
        9, cells of a block).
        """
        grey = (x.mean(1, keepdim=True) + 1) / 2
        grey = functional.interpolate(grey, scale_factor=self.enlarged)
        padded = functional.pad(grey, [self.step] * 4, mode="replicate")
        fine = functional.avg_pool2d(padded, self.cell, self.step)[:, 0]
        # From a cell to the next there are two steps.
        end = fine.shape[-1] - 2
        columns = [fine[:, :, column : column + end : 2] for column in range(3)]
        moved = [part[:, row : row + end : 2] for row in range(3) for part in columns]
        n = (self.n_blocks, _BLOCK)
        maps = torch.stack(moved, 1).reshape(-1, len(moved), *n, *n)
        return maps.permute(0, 2, 4, 1, 3, 5).flatten(4).flatten(1, 2)
