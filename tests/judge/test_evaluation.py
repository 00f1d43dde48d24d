import numpy as np
import pytest
from archives import png, write_shard
from PIL import Image

from historyad.data.datasets import open_source
from historyad.errors import InputError
from historyad.judge.evaluation import (
    AUPRO_LIMIT,
    evaluate_model,
    judge,
    judge_maps,
    judge_pixels,
    read_masks,
    table_of,
)
from historyad.judge.metrics import auprc, auroc, fpr_at_tpr


@pytest.fixture(scope="module")
def sources(columns):
    """Vectors that were fitted on, normal ones to test on, and anomalous ones."""
    return [*map(open_source, (columns.train, columns.normal, columns.anomalous))]


@pytest.fixture(scope="module")
def model(columns):
    return columns.model


def test_figures_are_those_of_the_scores_with_anomalous_as_the_positive_class():
    normal, anomalous = np.array([0.0, 1, 2, 3]), np.array([2.5, 4])
    figures = judge(normal, anomalous)
    y, score = [0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 2.5, 4]
    assert figures["auroc"] == auroc(y, score) == 7 / 8
    assert figures["auprc"] == auprc(y, score)
    assert figures["fpr_at_95_tpr"] == fpr_at_tpr(y, score)
    assert figures["prevalence"] == 1 / 3
    assert (figures["n_normal"], figures["n_anomalous"]) == (4, 2)
    for name in ("auroc", "auprc"):
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]


def test_rates_are_those_at_the_models_own_threshold(model, sources):
    _, normal, anomalous = sources
    figures = evaluate_model(model, normal, anomalous)
    threshold = model.calibration.threshold
    scores = [model.anomaly_score(source.samples) for source in (normal, anomalous)]
    assert figures["threshold"] == threshold
    assert figures["false_positive_rate"] == (scores[0] > threshold).mean()
    assert figures["detection_rate"] == (scores[1] > threshold).mean()
    assert figures["requested_false_positive_rate"] == 0.05
    assert figures["auroc"] == auroc(np.repeat([0, 1], [150, 50]), np.concatenate(scores))
    assert figures["images_per_second"] == pytest.approx(200 / figures["seconds"])


def test_the_same_evaluation_gives_the_same_figures(model, sources):
    first, second = (evaluate_model(model, *sources[1:]) for _ in range(2))
    timed = {"seconds", "images_per_second"}
    assert all(first[name] == second[name] for name in first.keys() - timed)


def test_sources_that_the_model_does_not_know_are_refused(model, sources):
    with pytest.raises(InputError, match="shape 2, the detector was fitted on 5"):
        evaluate_model(model, sources[1], open_source(np.zeros((5, 2))))


def test_the_table_puts_auprc_beside_its_prevalence(model, sources):
    figures = evaluate_model(model, *sources[1:])
    rows = dict(table_of(figures))
    assert rows["AUPRC"].startswith(f"{figures['auprc']:.4f}  (")
    assert rows["AUPRC"].endswith("prevalence 0.250")
    assert rows["samples"] == "150 normal, 50 anomalous"
    assert "0.05 was asked for" in rows["false positives"]


def test_maps_are_judged_pixel_by_pixel_and_region_by_region():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2, :2] = masks[1, 3, 3] = True
    figures = judge_maps(np.zeros((3, 4, 4)), masks.astype(float), masks)
    assert figures["pixel_auroc"] == figures["pixel_auprc"] == figures["aupro"] == 1
    assert figures["pixel_prevalence"] == 5 / (5 * 16)
    assert (figures["n_masks"], figures["aupro_fpr_limit"]) == (2, AUPRO_LIMIT)
    blind = judge_maps(np.zeros((3, 4, 4)), np.zeros((2, 4, 4)), masks)
    assert blind["pixel_auroc"] == 0.5
    assert blind["aupro"] == pytest.approx(AUPRO_LIMIT / 2)
    with pytest.raises(InputError, match="one mask"):
        judge_maps(np.zeros((3, 4, 4)), np.zeros((2, 4, 4)), masks[:1])


# --- maps


@pytest.fixture(scope="module")
def of_crops(crops):
    return crops.model


@pytest.fixture
def defects(tmp_path):
    """A folder of four images, and one of their masks, each called in another way."""
    names = {"a.png": "a.png", "b.bmp": "b.png", "c.bmp": "c_mask.png", "d.bmp": "d.bmp"}
    for folder in ("bad", "masks"):
        (tmp_path / folder).mkdir()
    for number, (name, mask) in enumerate(names.items()):
        Image.new("L", (30, 24), 80 + number).save(tmp_path / "bad" / name)
        pixels = np.zeros((24, 30), np.uint8)
        pixels[:, : number + 1] = 255
        Image.fromarray(pixels).save(tmp_path / "masks" / mask)
    return tmp_path


def test_a_mask_may_be_called_in_three_ways(defects):
    source = open_source(defects / "bad")
    masks = read_masks(defects / "masks", source)
    assert [(mask.dtype, mask.shape) for mask in masks] == 4 * [(bool, (24, 30))]
    assert [mask.sum() for mask in masks] == [24, 48, 72, 96]
    soft = np.array(Image.open(defects / "masks" / "b.png"))
    for ones, faint in ((255, 100), (1, 0)):
        values = np.where(soft, ones, faint).astype(np.uint8)
        Image.fromarray(values).save(defects / "masks" / "b.png")
        assert read_masks(defects / "masks", source)[1].sum() == 48
    (defects / "masks" / "b.png").unlink()
    with pytest.raises(InputError, match=r"b.bmp has no mask: .*/b.bmp or .*/b.png or .*/b_mask"):
        read_masks(defects / "masks", source)
    Image.new("L", (9, 9)).save(defects / "masks" / "b.png")
    with pytest.raises(InputError, match=r"b.png has 9 x 9 pixels, its image 30 x 24"):
        read_masks(defects / "masks", source)


def test_maps_may_differ_in_size():
    random = np.random.default_rng(0)
    normal, anomalous = random.normal(size=(3, 6, 4)), random.normal(size=(2, 6, 4))
    masks = np.zeros((2, 6, 4), bool)
    masks[0, 1:3, 1:3] = masks[1, 4:, :] = True
    figures = judge_maps(normal, anomalous, masks)
    assert judge_maps(normal.reshape(4, 2, 9), anomalous, masks) == pytest.approx(figures)


def test_pixels_of_sources_of_two_sizes(of_crops, defects):
    normal, bad = open_source(np.full((3, 20, 24), 100, np.uint8)), open_source(defects / "bad")
    figures = judge_pixels(of_crops, normal, bad, read_masks(defects / "masks", bad))
    assert figures["pixel_prevalence"] == 240 / (3 * 20 * 24 + 4 * 24 * 30)
    assert figures["n_masks"] == 4


def test_nothing_stands_in_for_an_unreadable_image_of_a_stream(of_crops, tmp_path):
    members = [(f"{n}.png", png(90 + 20 * n, (24, 20))) for n in range(4)]
    members[1] = ("1.png", b"damaged")
    source = open_source(write_shard(tmp_path / "x.tar", members), skip_unreadable=True)
    masks = np.zeros((4, 20, 24), bool)
    masks[:3, :5] = True
    figures = evaluate_model(of_crops, source, source)
    assert (figures["n_normal"], figures["n_anomalous"]) == (3, 3)
    whole = of_crops.anomaly_score(source.samples)  # as an array, where 2.png stands in
    assert (len(whole), whole[1]) == (4, whole[2])
    assert judge_pixels(of_crops, source, source, masks)["n_masks"] == 2
