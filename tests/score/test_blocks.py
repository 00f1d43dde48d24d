"""Neighbours block by block: closed forms of the distance, and what a move does to it."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from historyad.score.blocks import Blocks

N = 30


def images(side, channels=1, seed=0, n=N):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, side, side, generator=random) * 2 - 1


def all_others():
    """Return for each of N samples all others, (N, N - 1)."""
    others = torch.arange(N).repeat(N, 1)
    return others[~torch.eye(N, dtype=torch.bool)].reshape(N, N - 1)


def at(grey, rows, columns):
    """Cells of a map whose border goes on beyond it, (rows, columns)."""
    n = len(grey) - 1
    return grey[rows.clip(0, n)[:, None], columns.clip(0, n)]


def grey_values(grey, rows, columns, spacing):
    return at(grey, rows, columns)[None]


def edges(grey, rows, columns, spacing):
    down = at(grey, rows + spacing, columns) - at(grey, rows - spacing, columns)
    across = at(grey, rows, columns + spacing) - at(grey, rows, columns - spacing)
    return np.stack([edge / np.sqrt(abs(edge) + 0.02) for edge in (down / 2, across / 2)])


# What is compared, steps of a block each way, and what rounding adds to a cell where there is none.
LOOKS = [(grey_values, 1, 1 / 12 / 255**2), (edges, 2, 2 / 24 / 0.02 / 255**2)]


def by_hand(x, other, cell, look, steps, rounding):
    """Distance of two images (side, side): the best of the moves for each block of 2 x 2 cells."""
    if len(x) <= 16:  # a pixel is a cell, and a step half of it
        x, other = (np.kron(image, np.ones((2, 2))) for image in (x, other))
    n = len(x) // cell
    windows = np.lib.stride_tricks.sliding_window_view((x + 1) / 2, (cell, cell))
    half_cells = windows.mean((2, 3))[:: cell // 2, :: cell // 2]
    cells = ((other + 1) / 2).reshape(n, cell, n, cell).mean((1, 3))
    cells = (cells * 255).round() / 255
    total = n**2 * rounding
    for top, left in itertools.product(range(0, n, 2), repeat=2):
        rows, columns = top + np.arange(2), left + np.arange(2)
        kept = look(cells, rows, columns, 1)
        total += min(
            np.square(look(half_cells, 2 * rows + down, 2 * columns + right, 2) - kept).sum()
            for down, right in itertools.product(range(-steps, steps + 1), repeat=2)
        )
    return total**0.5


@pytest.mark.parametrize(("side", "cell"), [(8, 2), (16, 2), (32, 2), (64, 4), (128, 8)])
def test_the_distance_is_the_least_over_the_moves_of_every_block(side, cell):
    x = images(side)
    blocks = Blocks.fit(x, all_others())
    new = images(side, seed=1, n=2)
    candidates = torch.tensor([[3, 7], [0, 29]])
    expected = [
        [
            [by_hand(image[0].numpy(), x[i, 0].numpy(), cell, *look) for i in row]
            for image, row in zip(new, candidates.tolist(), strict=True)
        ]
        for look in LOOKS
    ]
    torch.testing.assert_close(
        blocks.distances(new, candidates), torch.tensor(expected).float(), rtol=1e-4, atol=1e-4
    )


def test_the_mean_of_channels_counts():
    x = images(16, channels=3)
    grey = x.mean(1, keepdim=True)
    candidates = all_others()
    of_colours, of_grey = Blocks.fit(x, candidates), Blocks.fit(grey, candidates)
    torch.testing.assert_close(of_colours(x, candidates), of_grey(grey, candidates))


def test_the_score_is_relative_to_the_gaps_of_the_neighbours():
    x = images(16)
    blocks = Blocks.fit(x, all_others())
    among_others = blocks.distances(x, all_others()).topk(5, largest=False).values.mean(2)
    torch.testing.assert_close(blocks.gaps, among_others)
    new = images(16, seed=1, n=4)
    everyone = torch.arange(N).expand(4, -1)
    found = blocks(new, everyone)
    for view, gaps, distances in zip(
        found, blocks.gaps, blocks.distances(new, everyone), strict=True
    ):
        nearest, order = distances.topk(5, largest=False)
        torch.testing.assert_close(view, nearest.mean(1) / gaps[order].mean(1).sqrt())


def test_a_moved_image_is_near_and_another_one_is_far():
    x = functional.interpolate(images(8), scale_factor=4, mode="bilinear")  # smooth, of side 32
    blocks = Blocks.fit(x, all_others())
    moved = functional.pad(x, (2, 2, 2, 2), mode="replicate")[:, :, 2:-2, 3:-1]  # by a pixel
    itself = torch.arange(N)[:, None]
    to_itself, to_another = blocks.distances(moved, itself), blocks.distances(moved, itself.flip(0))
    assert (to_itself < to_another / 3).all()
    # But for the rounding to grey values:
    grey, by_edges = blocks.distances(x, itself)
    assert grey.max() < 0.05
    assert by_edges.max() < 0.15


def test_edges_are_blind_to_brightness_which_grey_values_are_not():
    x = functional.interpolate(images(8), scale_factor=4, mode="bilinear") / 2
    blocks = Blocks.fit(x, all_others())
    itself = torch.arange(N)[:, None]
    grey, by_edges = blocks.distances(x + 0.5, itself)
    assert grey.min() > 1
    assert by_edges.max() < 0.15


def test_equal_images_have_no_distance_and_a_finite_score():
    x = images(8, n=1).repeat(N, 1, 1, 1)
    blocks = Blocks.fit(x, all_others())
    for scores in blocks(torch.cat([x[:1], -x[:1]]), torch.arange(N).expand(2, -1)):
        assert scores.isfinite().all()
        assert scores[0] < scores[1] / 10
