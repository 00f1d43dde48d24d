from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from historyad.backbones.cells import level_of, levelled, on_level
from historyad.backbones.tiles import TilesOfImages, Tiling, mirrored, shares, tiling_of
from historyad.errors import InputError

TILING = Tiling(side=32, stride=4)


def image_of(height, width, channels=3, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


def means(squares):
    return functional.avg_pool2d(squares, 4)


def test_what_depends_on_a_cell_alone_is_that_of_the_whole_image():
    for height, width in ((100, 64), (33, 200), (32, 32), (36, 60)):
        image = image_of(height, width)
        strips = list(TILING.strips(image, means, "cpu"))
        found = torch.cat(strips, 1)
        assert found.shape[1:] == TILING.grid(height, width)
        pixels = torch.from_numpy(image)
        whole = on_level(pixels.permute(2, 0, 1)[None].float(), *level_of(pixels))
        expected = means(whole)[0]
        rows, columns = expected.shape[1:]  # those that are whole
        torch.testing.assert_close(found[:, :rows, :columns], expected, atol=1e-3, rtol=1e-4)
        assert max(strip.shape[1] for strip in strips) <= 8


def test_a_graph_sees_the_same_tiles_and_joins_them_alike():
    for height, width in ((100, 64), (33, 200), (10, 7)):
        images = np.stack([image_of(height, width, seed=seed) for seed in (0, 1)])
        tiles = TilesOfImages(TILING, height, width)
        squares = tiles(torch.from_numpy(images))
        assert squares.shape == (2, tiles.n_tiles, 3, 32, 32)
        cells = means(squares.flatten(0, 1)).view(2, -1, 3, 8, 8)
        expected = [torch.cat(list(TILING.strips(one, means, "cpu")), 1) for one in images]
        torch.testing.assert_close(tiles.joined(cells), torch.stack(expected), atol=1e-3, rtol=1e-4)


def test_a_small_image_is_mirrored_up_to_a_tile():
    image = image_of(10, 7, 1)
    found = torch.cat(list(TILING.strips(image, means, "cpu")), 1)
    assert found.shape == (3, 3, 2)
    assert torch.isfinite(found).all()
    places = mirrored(-2, 12, 4)
    assert places.tolist() == [2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert mirrored(0, 3, 1).tolist() == [0, 0, 0]


def test_where_tiles_meet_there_is_no_seam():
    values = iter(range(1000))

    def unlike(squares):
        return torch.full((1, 1, 8, 8), float(next(values) % 2))

    found = torch.cat(list(TILING.strips(image_of(32, 400), unlike, "cpu")), 1)[0, 0]
    assert found.diff().abs().max() < 0.67
    assert found.unique().numel() > 2
    smooth = Tiling(side=256, stride=4)  # as many cells as lite0 has in tiles of 1,024
    found = torch.cat(list(smooth.strips(image_of(256, 900), wide_tiles(), "cpu")), 1)[0, 0]
    assert found.diff().abs().max() < 0.13


def wide_tiles():
    values = iter(range(1000))
    return lambda squares: torch.full((1, 1, 64, 64), float(next(values) % 2))


def test_shares_of_tiles_add_up_to_one_in_every_cell():
    for n in (8, 32):
        for length in (1, n - 1, n, n + 1, n + 3, 2 * n - 2, 2 * n, 5 * n + 3, 40 * n):
            total = np.zeros(max(length, n))
            found = shares(length, n)
            for start, share in found.items():
                assert (share > 0).all()
                total[start : start + n] += share
            np.testing.assert_allclose(total, 1, atol=1e-6)
            assert max(found) == max(0, length - n)
            assert len(found) <= 1 + -(-max(0, length - n) // (n - n // 8))


def test_the_level_of_a_large_image_is_that_of_all_its_pixels():
    image = torch.from_numpy(image_of(200, 50))
    mean, deviation = level_of(image)
    x = image.permute(2, 0, 1)[None].float()
    torch.testing.assert_close(mean, x.mean((2, 3), keepdim=True))
    expected = (x - mean).square().mean().sqrt()
    torch.testing.assert_close(deviation.flatten()[0], expected)
    square = image[:50]
    one = on_level(square.permute(2, 0, 1)[None].float(), *level_of(square))
    torch.testing.assert_close(one, levelled(square[None], 50), atol=1e-3, rtol=0)


def test_cells_that_do_not_fill_a_square_are_refused():
    assert tiling_of(SimpleNamespace(side=32, grid=(8, 8), name="x")) == TILING
    for side, grid in ((32, (8, 4)), (500, (32, 32))):
        with pytest.raises(InputError, match="which do not join: give a --backbone-side that"):
            tiling_of(SimpleNamespace(side=side, grid=grid, name="x.onnx"))
