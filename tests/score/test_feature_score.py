import numpy as np
import onnxruntime
import pytest
import torch
from fitted import striped, textures
from PIL import Image
from tiny import TINY

from historyad import HistoryAD
from historyad.backbones.parts import Part
from historyad.deploy.onnx import export_onnx
from historyad.errors import InputError
from historyad.judge.explain import anomaly_map
from historyad.judge.metrics import auroc
from historyad.score import features as module
from historyad.score.bounded import bounded_score
from historyad.score.coreset import components_of, standard_of, standardise
from historyad.score.gaussian import principal_components
from historyad.score.places import Places


@pytest.fixture(scope="module")
def model(features):
    return features.model


def test_what_is_damaged_is_found_and_its_map_shows_where(model, features):
    bad, mask = striped(features.normal)
    scored = model(bad, maps=True)
    scores = [model.anomaly_score(features.normal), scored.anomaly_score]
    assert auroc(np.repeat([0, 1], len(bad)), np.concatenate(scores)) > 0.9
    for values in scored.maps:
        assert values.shape == mask.shape
        assert values.dtype == np.float32
    mean = np.mean(scored.maps, 0)
    assert mean[mask].mean() > mean[~mask].mean()


def test_the_score_is_that_of_the_map_and_of_its_image_alone(model, features):
    fresh = features.normal
    scores = model.anomaly_score(fresh)
    np.testing.assert_array_equal(scores[3:4], model.anomaly_score(fresh[3:4]))
    np.testing.assert_array_equal(scores[::-1], model.anomaly_score(fresh[::-1]))
    score = model.score
    worst = [score.cell_map(image).flatten().topk(3).values.mean() for image in fresh]
    cells = [score.standard(model.kind.cells(image).flatten(1)) for image in fresh]
    spread = torch.stack(
        [torch.cat([x.mean(1), x.std(1, correction=0).clamp(0.05).log()]) for x in cells]
    )
    whole = score.whole.gaussian(score.whole.standard(spread.T).T)
    placed = [score.bank.place(x.T)[None] for x in cells]
    law = score.gaussian if score.is_aligned else None
    told = torch.cat([score.damage(x, law).detach().topk(3).values.mean(1) for x in placed])
    both = score.total_scale(torch.stack([torch.stack(worst), told, whole]))
    total = score.sum_scale(both.sum(0)[None])[0]
    np.testing.assert_allclose(scores, bounded_score(total), atol=1e-4)
    views = model(fresh, views=True).views
    np.testing.assert_allclose([*views.values()], both, atol=1e-3)
    full, threshold = model.map_scale
    assert full == 3 * threshold
    typical = torch.tensor([threshold, *score.total_scale.center[1:]])[:, None]
    at_threshold = float(score.score_of(typical)[0])
    assert at_threshold == pytest.approx(model.calibration.threshold, abs=1e-4)
    assert model.score.of_prepared(fresh) is None


def test_images_of_any_size_are_seen_alike(model):
    (image,) = textures(1, 80, 100)
    half = image.reshape(40, 2, 50, 2, 1).mean((1, 3)).round().astype(np.uint8)
    assert anomaly_map(model, image).shape == (80, 100)
    larger, smaller = (float(model.anomaly_score(one[None])[0]) for one in (image, half))
    assert abs(larger - smaller) < 0.5
    brighter = (image // 2 + 100).astype(np.uint8)
    darker = (image // 2).astype(np.uint8)
    scores = [model.anomaly_score(one[None])[0] for one in (brighter, darker)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_views_of_a_cell_are_on_one_scale(model):
    assert model.score.cell_views[:2] == ("history", "neighbours")
    raw = torch.stack([model.score.raw(image)[0] for image in textures(30, seed=7)], 1)
    (scale,) = model.score.cell_scales
    z = scale(raw.flatten(1))
    assert (z.median(1).values.abs() < 0.6).all()
    assert ((z > 1).float().mean(1) < 0.3).all()
    assert ((z > 1).float().mean(1) > 0).all()
    assert model.view_names == ("map", "damage", "whole")


def test_what_is_spread_over_an_image_and_nowhere_strange_is_seen_as_a_whole(model, features):
    fresh, other = features.normal, textures(15, seed=5)
    other[:, ::2, ::2] = np.clip(other[:, ::2, ::2].astype(int) + 160, 0, 255)
    both = [model(some, views=True).views for some in (fresh, other)]
    y = np.repeat([0, 1], 15)
    found = {name: auroc(y, np.concatenate([v[name] for v in both])) for name in both[0]}
    assert found["whole"] > max(0.75, found["map"])


def test_d_tv_alone(tiny_backbone):
    settings = {**TINY, "backbone": str(tiny_backbone), "views": "history"}
    detector = HistoryAD(**settings).fit(textures(110))
    assert detector.model_.score.cell_views == ("history",)
    assert set(detector.model_.score.sizes) == {"known", "values"}
    assert detector.model_.view_names == ("map",)
    assert len(np.unique(detector.anomaly_score(textures(15, seed=5)))) > 10


def test_nothing_but_companions_is_kept_by_default(tiny_backbone, tmp_path):
    settings = {**TINY, "backbone": str(tiny_backbone), "views": "auto"}
    model = HistoryAD(**settings).fit(textures(110), run=tmp_path).model_
    assert model.score.cell_views[0] == "neighbours"
    assert model.view_names == ("map", "damage", "whole")
    assert "known" not in model.score.sizes
    assert model.score.residuals is None
    again = HistoryAD.load(tmp_path)
    fresh = textures(5, seed=5)
    np.testing.assert_array_equal(again.anomaly_score(fresh), model.anomaly_score(fresh))
    names = {name.split(".")[0] for name in model.score.state_dict()}
    scales = {"standard", "cell_scales", "total_scale", "sum_scale"}
    assert names == {"d_tv", "bank", "gaussian", "whole", "damage", *scales}


def test_images_of_several_sizes_are_seen_in_tiles(tiny_backbone, tmp_path):
    settings = {**TINY, "false_positive_rate": 0.1, "backbone": str(tiny_backbone)}
    settings |= {"resize": 0, "views": "auto"}
    sizes = [(40 + 10 * (n % 3), 60) for n in range(60)]
    normal = [Image.fromarray(textures(1, *sizes[n], seed=n)[0, :, :, 0]) for n in range(60)]
    model = HistoryAD(**settings).fit(normal, run=tmp_path).model_
    assert model.score.cell_views == ("neighbours", "gaussian")
    fresh = textures(6, 45, 130, seed=99)
    bad, mask = striped(fresh)
    scored = HistoryAD.load(tmp_path).model_(bad, maps=True)
    assert auroc([0] * 6 + [1] * 6, [*model.anomaly_score(fresh), *scored.anomaly_score]) > 0.9
    shown = np.mean(scored.maps, 0)
    assert shown.shape == mask.shape
    assert shown[mask].mean() > shown[~mask].mean() + 1
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert mask[row, column]
    export_onnx(model, tmp_path / "x.onnx", size=fresh.shape[1:3])
    graph = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    scores, *_, maps = graph.run(None, {"images": bad})
    np.testing.assert_allclose(scores, scored.anomaly_score, atol=1e-4)
    np.testing.assert_allclose(maps, np.stack(scored.maps), atol=1e-3, rtol=1e-3)


def test_places_are_chosen_where_images_are_aligned(constants):
    random = np.random.default_rng(0)
    means = random.normal(0, 3, (9, 5))
    aligned = (means + random.normal(size=(60, 9, 5))).astype(np.float16)
    moved = np.stack([image[random.permutation(9)] for image in aligned])
    for cells, expected in ((aligned, True), (moved, False)):
        standard = standard_of(cells)
        x = standardise(cells, standard)
        pca = principal_components(x, 64)
        bank = module.Bank.keep(x, 100, pca=pca)
        found = module._aligned(module._placed(cells, standard, bank), 0)
        assert isinstance(found, Places) == expected


def test_auto_takes_lite0_for_images_of_several_sizes_and_one_graph_has_all_of_it(tmp_path):
    sizes = [(64, 80), (72, 64), (90, 70)]
    images = [Image.fromarray(textures(1, *sizes[i % 3], seed=i)[0, :, :, 0]) for i in range(60)]
    settings = {**TINY, "false_positive_rate": 0.1, "epoch_images": 1024, "backbone": "auto"}
    detector = HistoryAD(**settings, backbone_side=64).fit(images)
    assert detector.model_.config.backbone == "lite0"
    scores = [detector.anomaly_score([image])[0] for image in images[:3]]
    np.testing.assert_array_equal(detector.anomaly_score(images[:3]), scores)
    found = export_onnx(detector.model_, tmp_path / "x.onnx", size=(40, 50))
    assert found["outputs"] == "anomaly_score, p_value, is_anomalous, map"
    graph = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    some = textures(3, seed=99)
    *_, maps = graph.run(None, {"images": some})
    expected = detector.model_(some, maps=True).maps
    np.testing.assert_allclose(maps, np.stack(expected), rtol=1e-3, atol=1e-3)
    tiled = HistoryAD(**settings, backbone_side=64, resize=0).fit(images)
    export_onnx(tiled.model_, tmp_path / "y.onnx", size=(40, 130))
    with pytest.raises(InputError, match="the images have several sizes, and no backbone suits"):
        HistoryAD(**settings).fit([image.crop((0, 0, image.width, 40)) for image in images[::-1]])


def test_without_a_network_wavelets_find_what_is_damaged_and_one_graph_has_all_of_it(tmp_path):
    settings = {**TINY, "false_positive_rate": 0.1, "backbone": "wavelets", "backbone_side": 128}
    settings |= {"views": "auto"}
    detector = HistoryAD(**settings).fit(textures(60, 96, 120), run=tmp_path)
    score = detector.model_.score
    assert score.whole is None  # how strong a texture is, is no fault of an image
    assert detector.model_.view_names == ("map", "damage")
    fresh = textures(8, 96, 120, seed=99)
    bad, mask = striped(fresh)
    scored = HistoryAD.load(tmp_path).model_(bad, maps=True)
    assert auroc([0] * 8 + [1] * 8, [*detector.anomaly_score(fresh), *scored.anomaly_score]) > 0.9
    mean = np.mean(scored.maps, 0)
    assert mean[mask].mean() > mean[~mask].mean()
    export_onnx(detector.model_, tmp_path / "x.onnx", size=(96, 120))
    graph = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    scores, *_, maps = graph.run(None, {"images": bad})
    np.testing.assert_allclose(scores, scored.anomaly_score, atol=1e-4)
    np.testing.assert_allclose(maps, np.stack(scored.maps), atol=1e-3, rtol=1e-3)


def test_each_part_of_the_features_has_its_own_components():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(200, 9, generator=random) * torch.tensor([9, 9, 9, 9, 9, 1, 1, 1, 1.0])
    found = components_of(x, [Part(5, 3), Part(4, 2, of_filters=True)]).components_
    assert found.shape == (5, 9)
    assert (found[:3, 5:] == 0).all()
    assert (found[3:, :5] == 0).all()
    assert (np.abs(found[3:, 5:]).sum(1) > 0.5).all()  # though the others vary more
