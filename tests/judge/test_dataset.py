import numpy as np
import pytest
from fitted import save_images, striped, textures
from PIL import Image

from historyad.cli import main
from historyad.files import load_json
from historyad.judge import dataset as module
from historyad.judge.dataset import columns_of, count_pixels, judge_counts
from historyad.judge.metrics import aupro, auroc


def some(n=8, seed=0):
    """Maps (24, 32) and masks, of which the later half are normal."""
    random = np.random.default_rng(seed)
    masks = np.zeros((n, 24, 32), bool)
    for mask in masks[: n // 2]:
        for _ in range(3):
            y, x = random.integers(20), random.integers(28)
            mask[y : y + 4, x : x + 4] = True
    maps = random.normal(size=masks.shape) + 1.5 * masks
    return maps.astype(np.float32), masks


def counted(maps, masks):
    return module._stacked([count_pixels(*one, 2.0) for one in zip(maps, masks, strict=True)])


def test_figures_from_counts_are_those_of_the_pixels():
    maps, masks = some()
    found = judge_counts(counted(maps[4:], masks[4:]), counted(maps[:4], masks[:4]))
    assert found["pixel_auroc"] == pytest.approx(auroc(masks.ravel(), maps.ravel()), abs=2e-3)
    assert found["aupro"] == pytest.approx(aupro(masks, maps), abs=5e-3)
    for name in ("pixel_auroc", "aupro"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
        assert found[f"{name}_high"] - found[f"{name}_low"] < 0.3
    upside_down = judge_counts(counted(-maps[4:], masks[4:]), counted(-maps[:4], masks[:4]))
    assert upside_down["pixel_auroc"] == pytest.approx(1 - found["pixel_auroc"], abs=2e-3)


def test_a_data_set_is_fitted_and_judged_whole(tmp_path, crops, capsys):
    good = crops.normal
    bad, mask = striped(good)
    root = tmp_path / "bottle"
    save_images(root / "train/good", crops.train[:3])
    save_images(root / "test/good", good)
    save_images(root / "test/stripe", bad)
    save_images(root / "test/none", textures(6, seed=9))
    for name in sorted(path.stem for path in (root / "test/stripe/0").iterdir())[:10]:
        path = root / "ground_truth/stripe/0" / f"{name}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    out = tmp_path / "figures.json"
    assert main(["evaluate", str(crops.run), str(root), "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["defect", "none", "stripe", "all"]
    figures = load_json(out)["defects"]
    scores = [crops.model.anomaly_score(images) for images in (good, bad)]
    y = np.repeat([0, 1], len(good))
    assert figures["stripe"]["auroc"] == pytest.approx(auroc(y, np.concatenate(scores)), abs=1e-9)
    threshold = crops.model.calibration.threshold
    assert figures["stripe"]["detection_rate"] == (scores[1] > threshold).mean()
    assert figures["all"]["n_anomalous"] == 21
    assert (figures["stripe"]["n_masks"], figures["none"]["n_masks"]) == (10, 0)
    assert figures["stripe"]["pixel_auroc"] > 0.9
    assert "pixel_auroc" not in figures["none"]
    assert figures["all"]["pixel_auroc"] == figures["stripe"]["pixel_auroc"]
    head, *rest = columns_of(figures)
    assert {len(line) for line in rest} == {len(head)}


def test_what_to_judge_is_said_once(tmp_path, crops, capsys):
    for arguments, words in (
        ([], "give a data set in MVTec's layout, or --normal and --anomalous"),
        ([str(tmp_path)], "no data set in MVTec's layout"),
        ([str(tmp_path), "--normal", "x"], "alone, or --normal and --anomalous without it"),
    ):
        assert main(["evaluate", str(crops.run), *arguments]) == 2
        assert words in capsys.readouterr().err
