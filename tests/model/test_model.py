import copy
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

from historyad.constants import CONSTANTS
from historyad.errors import InputError, RunError
from historyad.files import load_tensors, save_tensors
from historyad.kinds.choose import choose_kind
from historyad.method.history import resolve
from historyad.model.files import VERSION, _checksum
from historyad.model.model import Model
from historyad.model.split import split_rows
from historyad.score.calibration import Calibration
from historyad.score.decide import decide
from historyad.score.score import DetectorScore

JSON, TENSORS = "detector.json", "detector.safetensors"


@pytest.fixture
def copied(fitted, tmp_path):
    """A copy of a model, to be altered."""
    (tmp_path / "model").mkdir()
    for name in (JSON, TENSORS):
        shutil.copy(fitted.run / name, tmp_path / "model")
    return tmp_path / "model"


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


def refused(fitted, folder, change, match="is damaged"):
    """Check that the model is refused once its JSON is changed, and mend it."""
    alter(folder, change)
    with pytest.raises(RunError, match=match):
        Model.load(folder)
    shutil.copy(fitted.run / JSON, folder)


# --- what a model says of samples


def test_one_call_gives_scores_verdicts_views_and_maps(fitted):
    model, samples = fitted.model, np.concatenate([fitted.normal[:6], fitted.anomalous[:6]])
    plain, full = model(samples), model(samples, views=True)
    assert (plain.views, plain.maps, full.maps) == (None, None, None)
    assert len(plain) == len(samples)
    scores = model.anomaly_score(samples)
    for scored in (plain, full):
        np.testing.assert_array_equal(scored.anomaly_score, scores)
        np.testing.assert_array_equal(scored.p_value, model.calibration.p_value(scores))
        np.testing.assert_array_equal(scored.is_anomalous, scores > model.calibration.threshold)
    assert set(plain.is_anomalous.tolist()) == {True, False}
    assert tuple(full.views) == model.view_names
    assert all(values.shape == (len(samples),) for values in full.views.values())
    assert tuple(full.columns()) == (*plain.columns(), *model.view_names)


def test_no_samples_have_no_scores(fitted):
    scored = fitted.model(fitted.normal[:0], views=True)
    assert all(column.shape == (0,) for column in scored.columns().values())


def test_excess_is_0_for_the_typical_and_1_at_the_threshold_and_has_no_end(fitted):
    model = fitted.model
    median, threshold = np.median(model.calibration.scores), model.calibration.threshold
    scores = np.array([median, threshold, 0.9, 0.99, 0.999, 1.0])
    excess = model.excess(scores)
    np.testing.assert_allclose(excess[:2], [0, 1], atol=1e-9)
    assert (np.diff(excess[1:]) > 0).all()
    assert excess[4] > 5 * excess[3]
    assert np.isfinite(excess).all()


def test_excess_of_d_tv_alone_is_linear_in_its_score(fitted):
    if fitted.name in ("crops", "features"):  # whose maps have a scale of their own
        return
    score = DetectorScore(fitted.model.kind, fitted.model.score.d_tv)
    calibration = Calibration.fit(score.of(fitted.normal).anomaly_score, 0.05)
    model = dataclasses.replace(fitted.model, score=score, calibration=calibration)
    excess = model.excess(np.array([-1.0, 0.0, 1.0, 2.0]))
    np.testing.assert_allclose(np.diff(excess), excess[1] - excess[0])


def test_samples_that_are_not_those_of_a_source_are_refused(fitted):
    samples = fitted.normal
    wrong = {
        "columns": lambda: [samples.astype(str), samples.astype(object), samples[:, :4], samples[0]]
    }.get(
        fitted.name,
        lambda: [
            *(samples / 255, samples.astype(np.float32), samples.astype(np.int64)),
            *(samples[..., 0], samples.transpose(0, 3, 1, 2)),
        ],
    )
    for value in wrong():
        with pytest.raises(InputError, match=r"the images|the vectors|the input has shape"):
            fitted.model.anomaly_score(value)


def test_a_vector_of_which_a_value_is_unknown_is_anomalous(columns):
    """Nothing is known of it, so that it has the smallest p-value; the others keep theirs."""
    model, rows = columns.model, columns.normal[:9].copy()
    expected = model(columns.normal[:9])
    for row, value in ((1, np.nan), (4, np.inf), (6, -np.inf)):
        rows[row, row % 5] = value
    missing = model(rows[1:2])  # which it never was in the fit
    assert missing.is_anomalous[0]
    assert missing.anomaly_score[0] > expected.anomaly_score.max()
    rows[1, 1] = np.inf
    scored, bad = model(rows, views=True), np.isin(np.arange(9), [1, 4, 6])
    np.testing.assert_array_equal(np.isnan(scored.anomaly_score), bad)
    assert scored.is_anomalous[bad].all()
    assert (scored.p_value[bad] == 1 / (1 + len(model.calibration.scores))).all()
    for name in ("anomaly_score", "p_value", "is_anomalous"):
        np.testing.assert_array_equal(getattr(scored, name)[~bad], getattr(expected, name)[~bad])


# --- what is saved is what was fitted


def test_a_loaded_model_gives_the_scores_of_the_one_that_was_saved(fitted, tmp_path):
    """Of one that was never in a file, as `fit_model` returns none."""
    config = resolve(tiny_config(**{**fitted.settings, "false_positive_rate": 0.2}), 100)
    held_out = np.arange(len(fitted.normal))
    kind = choose_kind(fitted.train, config)
    batches = kind.batches(fitted.train, config)
    score = kind.fit_score(fitted.model.score.d_tv, batches, config).eval()
    calibration = decide(score, fitted.normal, [(score, held_out)], config)
    model = Model(score, calibration, config, {"n": 3})
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    for samples in (fitted.normal, fitted.anomalous):
        one, other = model(samples, views=True), loaded(samples, views=True)
        for name, column in one.columns().items():
            np.testing.assert_array_equal(column, other.columns()[name])
    assert loaded.calibration.threshold == model.calibration.threshold
    assert (loaded.calibration.scores == model.calibration.scores).all()
    assert loaded.describe() == model.describe()


def test_the_scale_and_the_threshold_are_those_of_held_out_samples(fitted):
    model = fitted.model
    train, held_out = split_rows(len(fitted.train), model.config)
    score = copy.deepcopy(model.score)
    for rows, is_same in ((held_out, True), (train, False)):
        score.fit_scale(fitted.train, rows)
        for found, expected in zip(scales_of(score), scales_of(model.score), strict=True):
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5) == is_same
    scores = np.sort(model.anomaly_score(fitted.train[held_out]))
    np.testing.assert_allclose(model.calibration.scores, scores, rtol=1e-4, atol=1e-5)


def scales_of(score):
    return [value for name, value in score.state_dict().items() if "scale" in name]


def test_saving_again_writes_the_same_bytes(fitted, tmp_path):
    Model.load(fitted.run).save(tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [JSON, TENSORS]
    for name in (JSON, TENSORS):
        assert (tmp_path / "again" / name).read_bytes() == (fitted.run / name).read_bytes()


def test_a_loaded_model_is_ready_to_score(fitted):
    score = fitted.model.score
    assert not score.training
    assert all(p.device.type == "cpu" and p.dtype == torch.float32 for p in score.parameters())


VIEWS = {
    "whole": "history, blocks, edges, gaussian, simplicity, smoothness",
    "crops": "map",
    "features": "map, damage, whole",
    "columns": "history, neighbours, gaussian",
}


def test_the_description_is_json(fitted):
    description = json.loads(json.dumps(fitted.model.describe()))
    n_train = {"whole": 240, "crops": 88, "features": 88, "columns": 240}[fitted.name]
    assert description["input"] == " x ".join(map(str, fitted.train.shape[1:]))
    assert description["views"] == VIEWS[fitted.name]
    assert description["held_out"] == len(fitted.train) - n_train
    assert description["source"]["n_train"] == n_train
    n_parameters = sum(p.numel() for p in fitted.model.score.parameters())
    assert description["parameters"] == n_parameters > 0
    assert description["constants"] == json.loads(json.dumps(CONSTANTS.to_json()))


def test_a_new_calibration_replaces_the_json_alone(fitted, copied):
    model = fitted.model
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
    names = [f"column {i}" for i in range(5)]
    wrong = [names]
    if fitted.name == "columns":
        alter(copied, lambda content: content.update(feature_names=names))
        assert Model.load(copied).feature_names == tuple(names)
        wrong = [names[:4], [*names[:4], 1], 3, [1] * 5]
    for value in wrong:
        refused(fitted, copied, lambda content, value=value: content.update(feature_names=value))


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
        with pytest.raises(
            RunError, match=r"altered|damaged|version|not the description|other constants"
        ):
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


COMPANIONS = [
    *(None, 1, "x", [], [3, 3], {}),
    {"bank": 1},
    {"bank": -1, "components": 1},
    {"bank": 10**9, "components": 2},
    {"bank": 2, "components": "2"},
    {"bank": True, "components": 2},
    {"bank": 2, "components": 2},
    {"bank 0": 2, "bank 1": 2, "components": 2},
    {"bank": 2, "components": 2, "feature_components": 2},
]


def test_wrong_sizes_of_companions_are_refused(fitted, copied):
    for sizes in COMPANIONS:
        refused(fitted, copied, lambda content, sizes=sizes: content.update(companions=sizes))


def test_a_model_of_another_version_is_refused_with_the_remedy(fitted, copied):
    assert VERSION == 15
    for version in (0, 6, 7, 8, 9, 10, 11, VERSION + 1, str(VERSION), None):
        refused(
            fitted,
            copied,
            lambda content, version=version: content.update(version=version),
            rf"detector.json has version {version!r}, this program reads {VERSION}: fit again, "
            r"in a new --out$",
        )


def test_a_model_fitted_with_other_constants_is_refused_with_the_remedy(fitted, copied):
    for name, value in (("neighbours", 6), ("image_ridge", None), ("new", 1)):
        refused(
            fitted,
            copied,
            lambda content, name=name, value=value: content["constants"].update({name: value}),
            r"fitted with other constants .* or fit again, in a new --out$",
        )


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


REQUIRED = (
    *("tensors_sha256", "kind", "config", "constants", "source", "calibration"),
    *("format", "version"),
)


def test_wrong_types_are_refused_even_with_the_right_checksum(fitted, copied):
    for name in REQUIRED:
        for value in (None, [], "x", -1, 1.5):
            change = {name: value}
            refused(fitted, copied, lambda content, change=change: content.update(change), ".")
        refused(fitted, copied, lambda content, name=name: content.pop(name) and None, ".")


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (None, {"companions": {"bank": 2**20, "components": 2**20}}),
        (None, {"companions": {"bank": 2**20, "components": 9, "feature_components": 9}}),
        (None, {"companions": {"bank 0": 2**20, "bank 1": 2**20, "components": 2**20}}),
        ("config", {"width": 256, "hidden": 8192}),
        ("config", {"width": 10**9}),
        ("config", {"n_epochs": 10**400}),
        ("kind", {"input_shape": [10**6]}),
        ("kind", {"input_shape": [10**9, 10**9, 3]}),
        ("kind", {"input_shape": [128, 128, 1000], "side": 128}),
        ("kind", {"side": 2**40}),
        ("kind", {"input_shape": [1, 1, 2**24]}),
        ("kind", {"input_shape": [128, 1, 2**16], "scales": 1}),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(fitted, copied, part, values):
    sides = {"side", "input_shape"} & values.keys() == {"side"}
    if sides and fitted.name in ("columns", "features"):
        return  # which have none
    alter(copied, lambda content: (content if part is None else content[part]).update(values))
    tracemalloc.start()
    with pytest.raises(RunError):
        Model.load(copied)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def spoil_first(value):
    def change(tensors):
        name = min(name for name, tensor in tensors.items() if tensor.is_floating_point())
        tensors[name].view(-1)[0] = value

    return change


TENSOR_CHANGES = {
    "NaN in a weight": spoil_first(float("nan")),
    "infinity in a weight": spoil_first(float("inf")),
    "a weight too many": lambda tensors: tensors.update({"score.more": torch.zeros(1)}),
    "one of the kind too many": lambda tensors: tensors.update({"kind.more": torch.zeros(5)}),
    "one of nothing": lambda tensors: tensors.update({"more": torch.zeros(1)}),
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
    "few zeros": [0.0] * 3,
    "of two axes": [SCORES],
    "of two axes, turned": [[0.0]] * 60,
    "unsorted": SCORES[::-1],
    "the first too high": [1.0] + [0.0] * 59,
    "NaN": [*SCORES, float("nan")],
    "too large for float32": [*SCORES, 1e39],
    "far too large for float32": [*SCORES, 1e300],
    "too large for float64": [*SCORES, 10**400],
    "words": ["high"] * 60,
    "a number": 1.0,
    "null": None,
}


def test_wrong_held_out_scores_are_refused_even_with_the_right_checksum(fitted, copied):
    for scores in BAD_SCORES.values():
        refused(
            fitted,
            copied,
            lambda content, scores=scores: content["calibration"].update(scores=scores),
        )


@pytest.mark.parametrize("name", ["center", "spread"])
def test_a_wrong_scaling_is_refused(fitted, copied, name):
    if fitted.name == "columns":
        values = [None, torch.ones(3), torch.ones(5, 1), torch.full((5,), float("nan"))]
    else:
        values = [torch.ones(fitted.train.shape[1])]  # images have none
    for value in values:

        def change(tensors, value=value):
            tensors.pop(f"kind.{name}", None)
            if value is not None:
                tensors[f"kind.{name}"] = value

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
        st.sampled_from(["whole", "crops", "columns", 8, 8.0, 16, [8, 8, 1], [5], [True, 8, 8]]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
PLACES = [
    *((name,) for name in ("companions", "config", "kind", "source", "calibration", "new")),
    *(("kind", name) for name in ("kind", "input_shape", "side", "any_size", "scales", "center")),
    *(("config", name) for name in ("width", "hidden", "n_epochs", "seed", "device", "preset")),
    *(("config", name) for name in ("detector_start", "false_positive_rate", "image_size")),
    *(("calibration", name) for name in ("source", "scores")),
    *(("source", "n"), ("calibration", "source"), ("calibration", "scores")),
    *(("constants",), ("constants", "neighbours"), ("feature_names",)),
]


@pytest.fixture(scope="module")
def expected(fitted):
    return fitted.model.anomaly_score(fitted.normal[:2])


@on_disk
@given(place=st.sampled_from(PLACES), value=values, remove=st.booleans())
@example(place=("kind", "side"), value=9, remove=False)
@example(place=("kind", "side"), value=8.0, remove=False)
@example(place=("kind", "scales"), value=1, remove=False)
@example(place=("kind", "kind"), value="sound", remove=False)
@example(place=("kind", "kind"), value="whole", remove=False)
@example(place=("kind", "any_size"), value="no", remove=False)
@example(place=("config", "preset"), value="quick", remove=False)
def test_a_changed_json_is_refused_or_gives_the_same_scores(
    fitted, copied, expected, place, value, remove
):
    shutil.copy(fitted.run / JSON, copied / JSON)

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
    # In the shape that it was fitted on.
    assert (loaded.anomaly_score(fitted.normal[:2]) == expected).all()
