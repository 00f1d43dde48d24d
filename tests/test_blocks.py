"""Neighbours block by block: closed forms of the distance, and what a move does to it."""

import pytest
import torch
from torch.nn import functional

from historyad.blocks import Blocks

N = 30


def images(side, channels=1, seed=0, n=N):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, side, side, generator=random) * 2 - 1


def all_others():
    """Return for each of N samples all others, (N, N - 1)."""
    others = torch.arange(N).repeat(N, 1)
    return others[~torch.eye(N, dtype=torch.bool)].reshape(N, N - 1)


def by_hand(x, other, cell, step):
    """Distance of two images (side, side): the best of nine moves for each block of 2 x 2 cells."""
    if len(x) <= 16:  # a pixel is a cell, and a step half of it
        x, other = (image.repeat_interleave(2, 0).repeat_interleave(2, 1) for image in (x, other))
    side = x.shape[-1]
    padded = functional.pad((x[None, None] + 1) / 2, [step] * 4, mode="replicate")[0]
    block = 2 * cell
    mean = functional.avg_pool2d((other[None] + 1) / 2, cell)[0]
    mean = (mean * 255).round() / 255
    total = 0.0
    for top in range(0, side, block):
        for left in range(0, side, block):
            kept = mean[top // cell :, left // cell :][:2, :2]
            squares = []
            for row in (-step, 0, step):
                for column in (-step, 0, step):
                    moved = padded[:, step + top + row :, step + left + column :]
                    moved = functional.avg_pool2d(moved[:, :block, :block], cell)[0]
                    squares.append(float((moved - kept).square().sum()))
            total += min(squares) + 4 / 12 / 255**2  # what rounding adds to a block, on average
    return total**0.5


@pytest.mark.parametrize(("side", "cell", "step"), [(8, 2, 1), (16, 2, 1), (32, 2, 1), (64, 4, 2)])
def test_the_distance_is_the_least_over_the_moves_of_every_block(side, cell, step):
    x = images(side)
    blocks = Blocks.fit(x, all_others())
    new = images(side, seed=1, n=2)
    candidates = torch.tensor([[3, 7], [0, 29]])
    found = blocks.distances(new, candidates)
    expected = [
        [by_hand(image[0], x[i, 0], cell, step) for i in row]
        for image, row in zip(new, candidates.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_the_mean_of_channels_counts():
    x = images(16, channels=3)
    grey = x.mean(1, keepdim=True)
    candidates = all_others()
    of_colours, of_grey = Blocks.fit(x, candidates), Blocks.fit(grey, candidates)
    torch.testing.assert_close(of_colours(x, candidates), of_grey(grey, candidates))


def test_the_score_is_relative_to_the_gaps_of_the_neighbours():
    x = images(16)
    blocks = Blocks.fit(x, all_others())
    among_others = blocks.distances(x, all_others()).topk(5, largest=False).values.mean(1)
    torch.testing.assert_close(blocks.gaps, among_others)
    new = images(16, seed=1, n=4)
    everyone = torch.arange(N).expand(4, -1)
    distances, order = blocks.distances(new, everyone).topk(5, largest=False)
    expected = distances.mean(1) / blocks.gaps[order].mean(1).sqrt()
    torch.testing.assert_close(blocks(new, everyone), expected)


def test_a_moved_image_is_near_and_another_one_is_far():
    x = functional.interpolate(images(8), scale_factor=4, mode="bilinear")  # smooth, of side 32
    blocks = Blocks.fit(x, all_others())
    moved = functional.pad(x, (2, 2, 2, 2), mode="replicate")[:, :, 2:-2, 3:-1]  # by a pixel
    itself = torch.arange(N)[:, None]
    to_itself, to_another = blocks.distances(moved, itself), blocks.distances(moved, itself.flip(0))
    assert (to_itself < to_another / 3).all()
    assert blocks.distances(x, itself).max() < 0.05  # but for the rounding to grey values


def test_equal_images_have_no_distance_and_a_finite_score():
    x = images(8, n=1).repeat(N, 1, 1, 1)
    blocks = Blocks.fit(x, all_others())
    scores = blocks(torch.cat([x[:1], -x[:1]]), torch.arange(N).expand(2, -1))
    assert scores.isfinite().all()
    assert scores[0] < scores[1] / 10
