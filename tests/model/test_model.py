import dataclasses
import json
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import on_disk, tiny_config

from historyad.data.datasets import open_source
from historyad.errors import InputError, RunError
from historyad.files import load_tensors, save_tensors
from historyad.model.files import VERSION, _checksum
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.score.calibration import Calibration

JSON, TENSORS = "detector.json", "detector.safetensors"


@pytest.fixture(scope="module", params=["images", "vectors"])
def fitted(request, digits, tmp_path_factory):
    """A folder with a saved model, the model, and samples to score."""
    samples = digits[0][:300]
    if request.param == "vectors":
        samples = samples.reshape(300, 64)[:, 10:20].astype(np.float32)
    folder = tmp_path_factory.mktemp(request.param)
    model = fit_model(open_source(samples), tiny_config(), RunDirectory(folder / "run"))
    model.save(folder / "model")
    return folder / "model", model, samples


def test_excess_is_0_for_the_typical_and_1_at_the_threshold_and_has_no_end(fitted):
    _, model, _ = fitted
    median, threshold = np.median(model.calibration.scores), model.calibration.threshold
    scores = np.array([median, threshold, 0.9, 0.99, 0.999, 1.0])
    excess = model.excess(scores)
    np.testing.assert_allclose(excess[:2], [0, 1], atol=1e-9)
    assert (np.diff(excess[1:]) > 0).all()
    assert excess[4] > 5 * excess[3]
    assert np.isfinite(excess).all()


def test_excess_of_d_tv_alone_is_linear_in_its_score(digits, tmp_path):
    source = open_source(digits[0][:300])
    model = fit_model(source, tiny_config(views="history"), RunDirectory(tmp_path / "run"))
    excess = model.excess(np.array([-1.0, 0.0, 1.0, 2.0]))
    np.testing.assert_allclose(np.diff(excess), excess[1] - excess[0])


@pytest.fixture
def copied(fitted, tmp_path):
    """A copy of the folder, to be altered."""
    return shutil.copytree(fitted[0], tmp_path / "model")


def alter(folder, change):
    """Change the JSON as someone would who also mends its checksum."""
    content = json.loads((folder / JSON).read_text())
    del content["sha256"]
    content = change(content) or content
    (folder / JSON).write_text(json.dumps({**content, "sha256": _checksum(content)}))


def alter_tensors(folder, change):
    """Change the tensors as someone would who also mends both checksums."""
    tensors, _ = load_tensors(folder / TENSORS)
    change(tensors)
    sha256 = save_tensors(folder / TENSORS, tensors)
    alter(folder, lambda content: content.update(tensors_sha256=sha256))


# --- what is saved is what was fitted


def test_a_loaded_model_gives_the_same_scores_and_decisions(fitted):
    folder, model, samples = fitted
    loaded = Model.load(folder)
    assert (loaded.anomaly_score(samples) == model.anomaly_score(samples)).all()
    assert loaded.calibration.threshold == model.calibration.threshold
    assert (loaded.calibration.scores == model.calibration.scores).all()
    assert loaded.describe() == model.describe()


def test_saving_again_writes_the_same_bytes(fitted, tmp_path):
    folder = fitted[0]
    Model.load(folder).save(tmp_path / "again")
    for name in (JSON, TENSORS):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_two_files_are_all_it_takes(fitted):
    assert sorted(path.name for path in fitted[0].iterdir()) == [JSON, TENSORS]


def test_a_loaded_model_is_ready_to_score(fitted):
    detector = Model.load(fitted[0]).detector
    assert not detector.training
    assert all(p.device.type == "cpu" and p.dtype == torch.float32 for p in detector.parameters())


def test_scores_come_with_views_for_the_price_of_one(fitted):
    _, model, samples = fitted
    scores, views = model.scores_and_views(samples)
    np.testing.assert_array_equal(scores, model.anomaly_score(samples))
    assert tuple(views) == model.view_names
    assert all(values.shape == (len(samples),) for values in views.values())


def test_the_description_is_json(fitted):
    _, model, samples = fitted
    description = json.loads(json.dumps(model.describe()))
    assert description["input"] == " x ".join(map(str, samples.shape[1:]))
    assert description["held_out"] == 60
    assert description["members"] == 1
    of_images = "history, pattern, neighbours, blocks, edges, gaussian, simplicity, features"
    of_vectors = "history, neighbours, gaussian"
    assert description["views"] == (of_images if samples.ndim == 4 else of_vectors)
    assert description["parameters"] == sum(p.numel() for p in model.detector.parameters())
    assert description["source"]["n_train"] == 240


def test_a_new_calibration_replaces_the_json_alone(fitted, copied):
    _, model, _ = fitted
    scores = np.linspace(-1, 0, 50, dtype=np.float32)
    stamp = (copied / TENSORS).stat()
    renewed = dataclasses.replace(
        model, calibration=Calibration.fit(scores, 0.05), calibration_source={"n": 50}
    )
    renewed.save_calibration(copied)
    after = (copied / TENSORS).stat()
    assert (after.st_ino, after.st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    loaded = Model.load(copied)
    assert (loaded.calibration.scores == scores).all()
    assert loaded.calibration_source == {"n": 50}
    assert loaded.source == model.source
    (copied / JSON).unlink()
    with pytest.raises(RunError, match="is missing"):
        renewed.save_calibration(copied)


def test_names_of_features_are_optional_and_checked(fitted, copied):
    kind = fitted[1].preprocessing.kind
    names = [f"column {i}" for i in range(10)]
    alter(copied, lambda content: content.update(feature_names=names))
    if kind == "vector":
        assert Model.load(copied).feature_names == tuple(names)
        wrong = [names[:9], [*names[:9], 1], 3, [1] * 10]
    else:
        wrong = [names]
    for value in wrong:
        alter(copied, lambda content, value=value: content.update(feature_names=value))
        with pytest.raises(RunError, match="is damaged"):
            Model.load(copied)


def test_samples_that_are_not_those_of_a_source_are_refused(fitted):
    _, model, samples = fitted
    if model.preprocessing.kind == "image":
        wrong = [samples / 255, samples.astype(np.float32), samples.astype(np.int64)]
        wrong += [samples[..., 0], samples.transpose(0, 3, 1, 2)]
    else:
        wrong = [samples.astype(str), samples.astype(object), samples[:, :9], samples[0]]
    for value in wrong:
        with pytest.raises(InputError, match=r"the images|the vectors|the input has shape"):
            model.anomaly_score(value)


# --- what is damaged is refused


@pytest.mark.parametrize("name", [JSON, TENSORS])
def test_a_missing_file_is_refused(copied, name):
    (copied / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing: .* a finished run"):
        Model.load(copied)


@pytest.mark.parametrize("name", [JSON, TENSORS])
def test_any_flipped_bit_is_refused(copied, name):
    data = bytearray((copied / name).read_bytes())
    for i in np.random.default_rng(0).integers(0, len(data), 40).tolist():
        data[i] ^= 1
        (copied / name).write_bytes(data)
        with pytest.raises(RunError, match=r"altered|damaged|version|not the description"):
            Model.load(copied)
        data[i] ^= 1


def test_a_pickle_in_place_of_a_file_is_not_run(copied, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("run").touch, ())

    for name in (TENSORS, JSON):
        (copied / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(RunError, match=r"altered|not JSON"):
            Model.load(copied)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "companions",
    [
        1,
        "x",
        [],
        [3, 3],
        {},
        {"bank": 1},
        {"bank": -1, "components": 1},
        {"bank": 10**9, "components": 2},
        {"bank": 2, "components": "2"},
        {"bank": True, "components": 2},
        {"bank": 2, "components": 2},
    ],
)
def test_wrong_sizes_of_companions_are_refused(copied, companions):
    alter(copied, lambda content: content.update(companions=companions))
    with pytest.raises(RunError, match="is damaged"):
        Model.load(copied)


def test_a_model_without_its_companions_is_refused(copied):
    alter(copied, lambda content: content.update(companions=None))
    with pytest.raises(RunError, match="is damaged"):
        Model.load(copied)


@pytest.mark.parametrize("version", [0, 6, VERSION + 1, str(VERSION), None])
def test_an_unknown_version_is_refused(copied, version):
    alter(copied, lambda content: content.update(version=version))
    with pytest.raises(
        RunError, match=f"has version {version!r}, this program reads {VERSION}: use"
    ):
        Model.load(copied)


@pytest.mark.parametrize("version", [7, 8, 9])
def test_an_earlier_model_is_read_unless_it_lacks_views(fitted, copied, version):
    alter(copied, lambda content: content.update(version=version))
    if fitted[1].preprocessing.kind == "image":
        with pytest.raises(
            RunError, match=f"has version {version}, this program reads {VERSION}: use"
        ):
            Model.load(copied)
    else:
        assert Model.load(copied).calibration.threshold == fitted[1].calibration.threshold


@pytest.mark.parametrize("content", [{}, [], 1, None, {"format": "other"}])
def test_json_of_something_else_is_refused(copied, content):
    (copied / JSON).write_text(json.dumps(content))
    with pytest.raises(RunError, match="is not the description of a detector"):
        Model.load(copied)


def test_an_altered_json_is_refused_by_its_checksum(copied):
    text = (copied / JSON).read_text()
    (copied / JSON).write_text(
        text.replace('"false_positive_rate": 0.05', '"false_positive_rate": 0.5')
    )
    with pytest.raises(RunError, match=r"was altered \(its checksum differs\)"):
        Model.load(copied)


@pytest.mark.parametrize(
    "name",
    [
        "tensors_sha256",
        "members",
        "preprocessing",
        "config",
        "source",
        "calibration",
        "format",
        "version",
    ],
)
@pytest.mark.parametrize("value", [None, [], "x", -1, 1.5])
def test_wrong_types_are_refused_even_with_the_right_checksum(copied, name, value):
    alter(copied, lambda content: content.update({name: value}))
    with pytest.raises(RunError):
        Model.load(copied)
    alter(copied, lambda content: content.pop(name) and None)
    with pytest.raises(RunError):
        Model.load(copied)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (None, {"members": 64}),
        (None, {"members": 10**9}),
        ("config", {"width": 256, "hidden": 8192}),
        ("config", {"width": 10**9}),
        ("config", {"n_epochs": 10**400}),
        ("preprocessing", {"input_shape": [10**6]}),
        ("preprocessing", {"input_shape": [10**9, 10**9, 3]}),
        ("preprocessing", {"input_shape": [128, 128, 1000], "side": 128}),
        ("preprocessing", {"side": 2**40}),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(copied, part, values):
    alter(copied, lambda content: (content if part is None else content[part]).update(values))
    tracemalloc.start()
    with pytest.raises(RunError):
        Model.load(copied)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def spoil_first(value):
    def change(tensors):
        tensors[min(tensors)].view(-1)[0] = value

    return change


TENSOR_CHANGES = {
    "NaN in a weight": spoil_first(float("nan")),
    "infinity in a weight": spoil_first(float("inf")),
    "a weight too many": lambda tensors: tensors.update({"detector.more": torch.zeros(1)}),
    "a weight too few": lambda tensors: tensors.pop(min(tensors)),
    "half precision": lambda tensors: tensors.update({n: v.half() for n, v in tensors.items()}),
    "double precision": lambda tensors: tensors.update({n: v.double() for n, v in tensors.items()}),
    "whole numbers": lambda tensors: tensors.update({n: v.long() for n, v in tensors.items()}),
    "nothing": dict.clear,
}


@pytest.mark.parametrize("change", TENSOR_CHANGES.values(), ids=TENSOR_CHANGES)
def test_wrong_tensors_are_refused_even_with_the_right_checksums(copied, change):
    alter_tensors(copied, change)
    with pytest.raises(RunError, match="is damaged"):
        Model.load(copied)


SCORES = [i / 64 for i in range(60)]
BAD_SCORES = {
    "none": [],
    "few": SCORES[:3],
    "of two axes": [SCORES],
    "unsorted": SCORES[::-1],
    "NaN": [*SCORES, float("nan")],
    "too large for float32": [*SCORES, 1e300],
    "too large for float64": [*SCORES, 10**400],
    "words": ["high"] * 60,
    "a number": 1.0,
    "null": None,
}


@pytest.mark.parametrize("scores", BAD_SCORES.values(), ids=BAD_SCORES)
def test_wrong_held_out_scores_are_refused_even_with_the_right_checksum(copied, scores):
    alter(copied, lambda content: content["calibration"].update(scores=scores))
    with pytest.raises(RunError, match="is damaged"):
        Model.load(copied)


@pytest.mark.parametrize(
    "scores",
    [
        [],
        [0.0] * 3,
        [[0.0]] * 60,
        [0.0] * 59 + [float("nan")],
        [0.0] * 59 + [1e39],
        [1.0] + [0.0] * 59,
        ["zero"] * 60,
        0.0,
        None,
    ],
)
def test_wrong_held_out_scores_are_refused(copied, scores):
    alter(copied, lambda content: content["calibration"].update(scores=scores))
    with pytest.raises(RunError, match="is damaged"):
        Model.load(copied)


@pytest.mark.parametrize("name", ["center", "scale"])
@pytest.mark.parametrize("value", [None, torch.ones(3), torch.ones(10, 1)])
def test_a_wrong_scaling_is_refused(copied, fitted, name, value):
    if fitted[1].preprocessing.kind == "image":
        value = torch.ones(8)  # images have none

    def change(tensors):
        tensors.pop(f"preprocessing.{name}", None)
        if value is not None:
            tensors[f"preprocessing.{name}"] = value

    alter_tensors(copied, change)
    with pytest.raises(RunError, match="is damaged"):
        Model.load(copied)


# --- whatever is in the JSON

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["image", "vector", 8, 8.0, 16, [8, 8, 1], [10], [True, 8, 8]]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
PLACES = [
    *((name,) for name in ("members", "config", "preprocessing", "source", "calibration", "new")),
    *(("preprocessing", name) for name in ("kind", "input_shape", "side", "any_size", "center")),
    *(("config", name) for name in ("width", "hidden", "n_epochs", "seed", "device", "preset")),
    *(("config", name) for name in ("detector_start", "false_positive_rate", "image_size")),
    *(("calibration", name) for name in ("source", "scores")),
    *(("source", "n"), ("calibration", "source"), ("calibration", "scores")),
]


@on_disk
@given(place=st.sampled_from(PLACES), value=values, remove=st.booleans())
@example(place=("preprocessing", "side"), value=9, remove=False)
@example(place=("preprocessing", "side"), value=8.0, remove=False)
@example(place=("preprocessing", "kind"), value="sound", remove=False)
@example(place=("preprocessing", "any_size"), value="no", remove=False)
@example(place=("config", "preset"), value="quick", remove=False)
def test_a_changed_json_is_refused_or_gives_the_same_scores(fitted, copied, place, value, remove):
    folder, model, samples = fitted
    shutil.copy(folder / JSON, copied / JSON)

    def change(content):
        inner = content
        for name in place[:-1]:
            inner = inner[name]
        if remove:
            inner.pop(place[-1], None)
        else:
            inner[place[-1]] = value

    alter(copied, change)
    try:
        loaded = Model.load(copied)
    except RunError:
        return
    scores = loaded.anomaly_score(samples[:5])  # in the shape that it was fitted on
    assert (scores == model.anomaly_score(samples[:5])).all()
