import copy
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas
import pytest
from fitted import textures
from PIL import Image
from tiny import TINY, tiny_config

from historyad import HistoryAD, Model, __version__
from historyad.cli import main
from historyad.deploy.onnx import TOLERANCE, Graph, _shown_difference, export_onnx
from historyad.errors import ConfigError, InputError, RunError
from historyad.kinds.choose import choose_kind
from historyad.method.networks import initialise
from historyad.randomness import Stream, torch_generator
from historyad.score.calibration import Calibration
from historyad.score.decide import decide
from historyad.score.result import FIGURES
from historyad.score.score import DetectorScore

EXAMPLE = Path(__file__).parents[2] / "examples" / "score_with_onnxruntime.py"


class Shifted(Model):
    """A model whose answers are not those of its network."""

    def __call__(self, samples, **options):
        scored = super().__call__(samples, **options)
        return dataclasses.replace(scored, anomaly_score=scored.anomaly_score + 0.001)


def random_model(samples, image_size=0):
    """Return a model that was calibrated on ``samples`` but not trained, which takes no time."""
    config = tiny_config(image_size=image_size)
    kind = choose_kind(samples, config)
    d_tv = kind.networks(config).critic()
    initialise(d_tv, torch_generator(0, Stream.WEIGHTS))
    score = DetectorScore(kind, d_tv).eval()
    calibration = Calibration.fit(score.of(samples).anomaly_score, config.false_positive_rate)
    return Model(score, calibration, config, {"fingerprint": "abc"})


def with_views(samples):
    """Return a model with all views, whose D_TV was not trained."""
    model, rows = random_model(samples), np.arange(len(samples))
    kind, config = model.kind, model.config
    batches = kind.batches(samples, config)
    score = kind.fit_score(model.score.d_tv, batches, config).eval()
    calibration = decide(score, samples, [(score, rows)], config)
    return dataclasses.replace(model, score=score, calibration=calibration)


@pytest.fixture(scope="module")
def images(digits):
    return digits[0][:400]


@pytest.fixture(scope="module")
def model(images):
    return random_model(images)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path)
    return path


def answers(path, samples):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    return session.run(list(FIGURES), {name: samples})


def assert_same_answers(path, model, samples):
    score, p_value, is_anomalous = answers(path, samples)
    assert (score.dtype, p_value.dtype, is_anomalous.dtype) == (np.float32, np.float64, np.bool_)
    expected = model.anomaly_score(samples)
    np.testing.assert_allclose(score, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(p_value, model.calibration.p_value(score))
    clear = np.abs(expected - model.calibration.threshold) > TOLERANCE
    np.testing.assert_array_equal(
        is_anomalous[clear], (expected > model.calibration.threshold)[clear]
    )


# --- the answers


@pytest.mark.parametrize("n", [1, 3, 400])
def test_onnxruntime_agrees_with_python(exported, model, images, n):
    assert_same_answers(exported, model, images[:n])


@pytest.mark.parametrize("kind", ["colours", "large"])  # those of small grey images: test_matrix
def test_the_views_are_in_the_graph(kind, images, tmp_path):
    samples = {
        "colours": np.concatenate([images, 255 - images, images // 2], 3),
        "large": images.repeat(5, 1).repeat(5, 2),
    }[kind]
    model = with_views(samples)
    export_onnx(model, tmp_path / "model.onnx")
    assert_same_answers(tmp_path / "model.onnx", model, samples[:50])


def test_both_verdicts_and_many_p_values_occur(exported, images):
    damaged = np.concatenate([images, 255 - images])
    _, p_value, is_anomalous = answers(exported, damaged)
    assert set(is_anomalous.tolist()) == {True, False}
    assert len(set(p_value.tolist())) > 20


def test_a_score_equal_to_a_held_out_one_has_its_p_value(model, images, tmp_path):
    scores = model.anomaly_score(images)
    tied = Calibration.fit(np.repeat(scores, 2), 0.05)
    path = tmp_path / "tied.onnx"
    export_onnx(dataclasses.replace(model, calibration=tied), path)
    score, p_value, _ = answers(path, images)
    np.testing.assert_array_equal(p_value, tied.p_value(score))


def test_a_score_equal_to_the_threshold_is_normal(model, exported, images, tmp_path):
    tied = Calibration.fit(answers(exported, images)[0], 0.05)
    path = tmp_path / "tied.onnx"
    export_onnx(dataclasses.replace(model, calibration=tied), path)
    score, _, is_anomalous = answers(path, images)
    equal = score == np.float32(tied.threshold)
    assert equal.any()
    assert not is_anomalous[equal].any()
    np.testing.assert_array_equal(is_anomalous, score > np.float32(tied.threshold))


def test_smaller_images_are_padded_in_the_graph(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 11, 9, 3), np.uint8)
    model = random_model(images)
    export_onnx(model, tmp_path / "model.onnx")
    assert_same_answers(tmp_path / "model.onnx", model, images[:50])


@pytest.mark.parametrize("size", [(21, 13), (8, 300)])
def test_larger_images_are_reduced_in_the_graph_as_by_pillow(size, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 20, 31, 3), np.uint8)
    model = random_model(images, image_size=8)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, size=size)
    others = np.random.default_rng(1).integers(0, 256, (50, *size, 3), np.uint8)
    assert_same_answers(path, model, others)
    # To the last bit: the largest difference is that of the networks alone.
    difference = np.abs(answers(path, others)[0] - model.anomaly_score(others)).max()
    assert difference < 1e-5


def test_vectors_also_far_outside_what_was_seen(tmp_path):
    random = np.random.default_rng(0)
    vectors = (random.standard_normal((500, 5)) * 10.0 ** np.arange(-2, 3)).astype(np.float32)
    model = random_model(vectors)
    path = tmp_path / "model.onnx"
    found = export_onnx(model, path, samples=vectors, opset=20)
    assert (found["input"], found["opset"]) == ("vectors (N, 5)", 20)
    assert [entry.version for entry in onnx.load(path).opset_import] == [20]
    extreme = np.array([[0.0] * 5, [3e38] * 5, [-3e38, 3e38, 0, 1e-40, -1e-40]], np.float32)
    assert_same_answers(path, model, np.concatenate([vectors, 100 * vectors, extreme]))


@pytest.fixture(scope="module")
def of_vectors(images, tmp_path_factory):
    """A model of vectors with all views, its graph, and vectors."""
    vectors = images.reshape(len(images), -1).astype(np.float32)
    model, path = with_views(vectors), tmp_path_factory.mktemp("vectors") / "model.onnx"
    export_onnx(model, path)
    return model, path, vectors


def test_texts_and_missing_values_are_in_the_graph(tmp_path):
    """It takes texts by their numbers, and NaN for what is missing."""
    random = np.random.default_rng(0)
    frame = pandas.DataFrame({"kind": random.choice(["a", "b", "c"], 300), "flow": range(300)})
    frame["heat"] = np.where(random.random(300) < 0.2, np.nan, random.normal(size=300))
    model = HistoryAD(preset="instant").fit(frame).model_
    export_onnx(model, tmp_path / "model.onnx")
    samples = np.float32([[0, 5, 1], [2, 9, np.nan], [3, 9, 0], [np.nan, 9, 0], [1, np.nan, 0]])
    score, _, is_anomalous = answers(tmp_path / "model.onnx", samples)
    np.testing.assert_allclose(score, model.anomaly_score(samples), atol=1e-4)
    assert is_anomalous[2:].all()


def test_the_views_of_vectors_are_in_the_graph(of_vectors):
    model, path, vectors = of_vectors
    assert_same_answers(path, model, vectors[:50])


def test_a_vector_of_which_a_value_is_unknown_is_anomalous_in_the_graph_too(of_vectors):
    model, path, vectors = of_vectors
    vectors, bad = vectors[:64].copy(), np.arange(64) % 2 == 0
    vectors[np.flatnonzero(bad), np.arange(32)] = np.resize([np.inf, -np.inf], 32)
    score, p_value, is_anomalous = answers(path, vectors)
    np.testing.assert_array_equal(np.isnan(score), bad)
    assert is_anomalous[bad].all()
    assert (p_value[bad] == 1 / (1 + len(model.calibration.scores))).all()
    expected = model(vectors)
    np.testing.assert_array_equal(np.isnan(expected.anomaly_score), bad)
    # Scores are those of Python but for rounding, which may move a rank by one.
    np.testing.assert_array_equal(p_value[bad], expected.p_value[bad])
    np.testing.assert_allclose(p_value, expected.p_value, atol=1.01 * p_value[bad][0])
    np.testing.assert_array_equal(is_anomalous, expected.is_anomalous)


def test_a_graph_that_calls_the_unknown_normal_is_not_written(of_vectors, tmp_path, monkeypatch):
    def forward(self, *samples):
        score = self.score(self.prepare(*samples))
        return score, self.p_value(score), score > self.threshold

    monkeypatch.setattr(Graph, "forward", forward)
    with pytest.raises(RunError, match="p-values equal, verdicts different"):
        export_onnx(random_model(of_vectors[2]), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


# --- the file


def test_the_graph_has_plain_convolutions_and_a_free_batch(exported):
    graph = onnx.load(exported).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    weights = {initializer.name for initializer in graph.initializer}
    assert convolutions
    assert all(node.input[1] in weights for node in convolutions)
    assert not {"AveragePool", "Loop", "If", "Scan"} & {node.op_type for node in graph.node}
    (given,) = graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["N", 8, 8, 1]
    assert [output.name for output in graph.output] == list(FIGURES)


def test_the_file_says_what_it_is_and_nothing_of_this_machine(exported, model):
    proto = onnx.load(exported)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["historyad_version"] == __version__
    assert float(metadata["threshold"]) == model.calibration.threshold
    assert float(metadata["false_positive_rate"]) == TINY["false_positive_rate"]
    assert metadata["source_fingerprint"] == model.source["fingerprint"]
    assert json.loads(metadata["config"])["width"] == TINY["width"]
    assert str(Path(__file__).parents[2]).encode() not in exported.read_bytes()


def test_a_backbone_in_a_file_becomes_a_part_of_the_graph(features, tmp_path):
    export_onnx(features.model, tmp_path / "x.onnx", size=(30, 60))
    graph = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    some = features.model.kind.example(3, np.random.default_rng(5), (30, 60, 1))
    score, _, verdict, maps = graph.run(None, {"images": some})
    expected = features.model(some, maps=True)
    np.testing.assert_allclose(score, expected.anomaly_score, atol=TOLERANCE)
    np.testing.assert_array_equal(verdict, expected.is_anomalous)
    np.testing.assert_allclose(maps, np.stack(expected.maps), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", [{"scales": 2, "contrast": "local"}, {"views": "history"}])
def test_a_graph_of_crops_returns_the_map_of_images_of_its_size(settings, tmp_path):
    fitted = HistoryAD(**{**TINY, "epoch_images": 256, "patch": 8, **settings}).fit(textures(110))
    model, path = fitted.model_, tmp_path / "x.onnx"
    export_onnx(model, path, size=(41, 67))
    some = model.kind.example(3, np.random.default_rng(5), (41, 67, 1))
    _, _, verdict, maps = onnxruntime.InferenceSession(path).run(None, {"images": some})
    expected = model(some, maps=True)
    np.testing.assert_array_equal(verdict, expected.is_anomalous)
    np.testing.assert_allclose(maps, np.stack(expected.maps), atol=1e-4 * model.map_scale[0])


def test_a_score_and_its_worst_cells_differ_by_the_nearer_of_the_two(features):
    model = features.model
    some = model.kind.example(3, np.random.default_rng(5), (30, 60, 1))
    ours = model(some, maps=True)
    maps, shown = np.stack(ours.maps), model.map_scale[0]

    def differ(score, other, maps=maps):
        theirs = dataclasses.replace(ours, anomaly_score=np.full(3, other, np.float32))
        return _shown_difference(model, np.full(3, score, np.float32), maps, theirs)

    far = np.float32(1) - np.float32(2) ** -24  # worlds apart in cells, and next to each other
    assert 0 < differ(far, far - np.float32(2) ** -23) < TOLERANCE
    low, high = (abs(model.score.total_at(x) - model.score.total_at(0.0)) for x in (0.01, 0.5))
    assert differ(0.01, 0.0) == pytest.approx(min(0.01, low / shown), rel=1e-3)
    assert differ(0.5, 0.0) == pytest.approx(min(0.5, high / shown), rel=1e-3)
    assert differ(0.5, 0.0) > TOLERANCE
    assert differ(0.0, 0.0, maps + 0.01 * shown) == pytest.approx(0.01, rel=1e-3)
    assert np.isnan(differ(np.nan, 0.0))


# --- what is refused leaves no file


def test_a_backbone_that_takes_one_image_at_a_time_is_not_exported(features, tmp_path):
    model = features.model
    proto = onnx.load_from_string(model.kind.backbone.graph)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    backbone = dataclasses.replace(model.kind.backbone, graph=proto.SerializeToString())
    score = copy.copy(model.score)
    score.kind = dataclasses.replace(model.kind, backbone=backbone)
    with pytest.raises(InputError, match=r"takes 1 image at a time.*: write it again with"):
        export_onnx(dataclasses.replace(model, score=score), tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_a_graph_that_disagrees_is_not_written(model, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("the old file")
    with pytest.raises(RunError, match="onnxruntime and PyTorch disagree"):
        export_onnx(Shifted(**vars(model)), path)
    assert path.read_text() == "the old file"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_refusals_say_what_to_do(model, images, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match="opset is 11: take 18 to 25"):
        export_onnx(model, path, opset=11)
    with pytest.raises(InputError, match="fit with --image-size to accept any size"):
        export_onnx(model, path, size=(16, 16))
    with pytest.raises(InputError, match="give height and width in pixels"):
        export_onnx(model, path, size=(0, 16))
    with pytest.raises(InputError, match="give samples of that shape"):
        export_onnx(model, path, samples=images[:, :4])
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_named(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*file/model\.onnx"):
        export_onnx(model, tmp_path / "file" / "model.onnx")


def test_a_missing_extra_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"export needs onnxscript: install historyad\[export\]"):
        export_onnx(model, tmp_path / "model.onnx")


# --- the command and the example


def test_the_command(model, tmp_path, capsys):
    run = tmp_path / "run"
    model.save(run)
    path = tmp_path / "model.onnx"
    assert main(["export", str(run), str(path), "--samples", "digits:test"]) == 0
    out = capsys.readouterr().out
    assert "images (N, 8, 8, 1)" in out
    assert path.exists()
    assert main(["export", str(run), str(tmp_path / "no.onnx"), "--size", "9", "9"]) == 2
    assert "--image-size" in capsys.readouterr().err
    assert not (tmp_path / "no.onnx").exists()


def test_the_example_scores_a_file_without_this_package(exported, model, images, tmp_path):
    assert "historyad" not in EXAMPLE.read_text()
    file = tmp_path / "digit.png"
    Image.fromarray(images[0].squeeze()).save(file)
    command = [sys.executable, EXAMPLE, exported, file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = re.search(r"anomaly score ([+-][0-9.]+)", done.stdout)
    score = model.anomaly_score(images[:1])[0]
    assert float(printed[1]) == pytest.approx(score, abs=1e-4)
    Image.new("L", (9, 9)).save(file)
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "the detector takes (8, 8, 1)" in refused.stderr
