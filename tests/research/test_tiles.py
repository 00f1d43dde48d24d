"""The detectors on windows that our maps are compared with, and what is said of their maps."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks.tiles import measure, peers, picture
from historyad.data.sources import Source


def textures(n, seed):
    noise = np.random.default_rng(seed).normal(size=(n, 48, 64, 1))
    return np.clip(128 + 150 * gaussian_filter(noise, (0, 2, 2, 0)), 0, 255).astype(np.uint8)


def test_windows_are_put_back_where_they_were_cut():
    images = torch.randn(3, 1, 48, 64)
    for side, stride in ((8, 2), (16, 4), (32, 8)):
        windows = peers.cut(images, side, stride)
        back = peers.mean_of_windows(windows, side, stride, images.shape[2:])
        torch.testing.assert_close(back, images[:, 0])
        with pytest.raises(ValueError, match="do not cover"):
            peers.cut(images[..., :-1], side, stride)


def test_the_distance_to_a_gaussian_is_that_of_mahalanobis():
    mixing = torch.randn(9, 9)
    windows = torch.randn(2000, 1, 9) @ mixing
    found = peers.WindowGaussian(per_place=False, ridge=0.0).fit(windows).errors(windows)
    # Its mean square over the sample that it was fitted on is the number of dimensions.
    assert found[..., 0].square().mean().item() == pytest.approx(9, rel=1e-3)


def test_at_each_place_what_is_usual_there():
    windows = torch.randn(500, 2, 4) + torch.tensor([-10.0, 10.0])[:, None]
    swapped = windows.flip(1)
    for per_place in (True, False):
        detector = peers.WindowGaussian(per_place=per_place).fit(windows)
        usual, unusual = (detector.errors(x).mean() for x in (windows, swapped))
        assert (unusual > 2 * usual) == per_place


@pytest.mark.parametrize("name", ["residual", "Mahalanobis", "place", "neighbours", "autoencoder"])
def test_a_scratch_is_found_whatever_else_is_looked_at(name):
    (method,) = [make for full, make in peers.PEERS.items() if full.endswith(name)]
    detector = method(0)
    if name == "autoencoder":
        detector.n_windows = 5_000
    if name == "residual":
        detector.n_components = 64
    peers.fit_windows(detector, textures(60, 1))
    good = textures(8, 2)
    bad = good.copy()
    bad[:, 20:28, 20:44:2] = 255
    maps = {kind: peers.window_maps(detector, images) for kind, images in (("g", good), ("b", bad))}
    assert maps["b"].shape == good.shape[:3]
    assert peers.worst_of(maps["b"]).min() > peers.worst_of(maps["g"]).max()
    alone = peers.window_maps(detector, bad[3:4])
    np.testing.assert_allclose(alone, maps["b"][3:4], rtol=1e-3, atol=1e-5)


def test_elsewhere_is_a_half_where_only_the_defect_is_seen(monkeypatch):
    monkeypatch.setattr(measure, "ELSEWHERE", 4)
    random = np.random.default_rng(0)
    good, maps = random.normal(size=(2, 60, 40, 40)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[:, 10:16, 10:16] = True
    maps[masks] += 10
    assert measure.elsewhere(good, maps, masks) == pytest.approx(0.5, abs=0.1)
    assert measure.elsewhere(good, maps + 0.5, masks) > 0.95


def test_the_picture_is_of_tiles_and_not_of_the_space_between_them(tmp_path):
    normal = Source("image", textures(5, 1)[:, :, :48] // 2, [str(i) for i in range(5)], "good")
    masks = {"crack": np.zeros((5, 48, 48), bool)}
    masks["crack"][:3, 10:20, 10:20] = True
    scores = {"crack": np.linspace(-1, 1, 5)}
    picture.draw(
        lambda images: images[..., 0] / np.float32(255),
        *(normal, scores["crack"], {"crack": normal}, scores, masks, tmp_path / "tiles.webp"),
    )
    with Image.open(tmp_path / "tiles.webp") as drawn:
        assert (np.asarray(drawn.convert("L")) > 250).mean() < 0.25
