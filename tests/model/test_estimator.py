import dataclasses

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks
from tiny import TINY

from historyad import HistoryAD
from historyad.config import as_dict, settings
from historyad.data.datasets import open_source
from historyad.errors import ConfigError, InputError, RunError
from historyad.files import load_json
from historyad.judge.metrics import auroc
from historyad.model.run import RunDirectory

SMALLEST = {"n_epochs": 1.5, "epoch_images": 64, "batch_size": 16, "saves_per_epoch": 4}
SMALLEST |= {"detector_epochs": 0.5, "calibration_share": 0.4, "false_positive_rate": 0.2}
ANOMALY = 0


@pytest.fixture(scope="module")
def split(digits):
    """Images: normal to fit on, normal and anomalous to test on; one digit is the anomaly."""
    images, labels = digits
    # The digits come sorted by writer: in that order, the test set is not drawn like the others.
    normal = np.random.default_rng(0).permutation(images[labels != ANOMALY])
    return normal[:1200], normal[1200:], images[labels == ANOMALY]


@pytest.fixture(scope="module")
def detectors(split):
    """Detectors of three seeds that learnt for a few seconds; the seed matters at this size."""
    learnt = {"width": 8, "hidden": 64, "epoch_images": 8192, "detector_epochs": 2.0}
    return [HistoryAD(**{**TINY, **learnt, "seed": seed}).fit(split[0]) for seed in range(3)]


@pytest.fixture(scope="module")
def detector(detectors):
    return detectors[0]


@pytest.fixture(scope="module")
def table():
    """Two clusters of normal vectors."""
    random = np.random.default_rng(0)
    return random.normal(random.choice([-3, 3], (600, 1)), 0.5, (600, 3))


@pytest.fixture(scope="module")
def of_vectors(table):
    learnt = {"hidden": 64, "epoch_images": 16_384, "detector_epochs": 2.0}
    return HistoryAD(**{**TINY, **learnt}).fit(table)


# They are right but for their last lines: ours is the share of the training samples to distrust,
# and the threshold is that of false_positive_rate.
OF_CONTAMINATION = dict.fromkeys(
    ("check_outliers_fit_predict", "check_outliers_train"),
    "scikit-learn's contamination is the share that predict calls anomalous",
)


@parametrize_with_checks(
    [HistoryAD(**{**TINY, **SMALLEST})], expected_failed_checks=lambda _: OF_CONTAMINATION
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_fit_predict_is_fit_and_predict(table):
    estimator = HistoryAD(**{**TINY, **SMALLEST})
    np.testing.assert_array_equal(estimator.fit_predict(table), estimator.predict(table))
    assert set(estimator.predict(table)) == {-1, 1}
    below = estimator.decision_function(table) < 0
    np.testing.assert_array_equal(estimator.predict(table) == -1, below)


# --- what it learns


def auroc_of(detector, normal, anomalous):
    """AUROC of the score."""
    score = detector.anomaly_score(np.concatenate([normal, anomalous]))
    return auroc(np.repeat([0, 1], [len(normal), len(anomalous)]), score)


def test_an_unseen_digit_is_found(detectors, split):
    for detector in detectors:
        assert auroc_of(detector, *split[1:]) > 0.98


def test_noise_scores_higher_than_digits(detectors, split):
    noise = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    for detector in detectors:
        assert auroc_of(detector, split[1], noise) > 0.95


def test_scores_are_diverse_and_on_the_scale_of_the_paper(detector, split):
    scores = detector.anomaly_score(split[1])
    assert len(np.unique(scores)) > 0.9 * len(scores)
    assert -1.5 < np.median(scores) < -0.5


def test_the_false_positive_rate_is_about_what_was_asked_for(detector, split):
    n_held_out, n_test, asked = 240, len(split[1]), 0.05
    noise = np.sqrt(asked * (1 - asked) * (1 / n_held_out + 1 / n_test))  # of both samples
    assert abs((detector.predict(split[1]) == -1).mean() - asked) < 4 * noise


def test_vectors(of_vectors, table):
    box = np.random.default_rng(1).uniform(-10, 10, (300, 3))
    assert auroc_of(of_vectors, table, box) > 0.8
    assert np.isfinite(of_vectors.anomaly_score([[1e30, -1e30, 0], [3e38, 3e38, 3e38]])).all()


def test_images_of_several_channels_and_any_shape(digits):
    colour = np.repeat(digits[0][:300], 3, axis=3)[:, :, :7]
    detector = HistoryAD(**TINY).fit(colour)
    assert detector.anomaly_score(colour).shape == (300,)
    with pytest.raises(InputError, match="the images have 1 channel, the detector was fitted on 3"):
        detector.anomaly_score(digits[0][:300, :, :7])
    with pytest.raises(InputError, match="shape 8 x 8 x 3, the detector was fitted on 8 x 7 x 3"):
        detector.anomaly_score(np.zeros((2, 8, 8, 3), np.uint8))


def test_a_chosen_image_size_accepts_images_of_any_size(digits, tmp_path):
    detector = HistoryAD(**TINY, image_size=8).fit(digits[0][:300])
    large = np.zeros((2, 20, 30, 1), np.uint8)
    assert detector.anomaly_score(large).shape == (2,)
    for i, size in enumerate(((8, 8), (20, 10))):
        Image.new("L", size).save(tmp_path / f"{i}.png")
    scores = detector.anomaly_score(tmp_path)
    assert scores[0] == scores[1]  # black remains black


# --- a score depends on its own image alone


@pytest.mark.parametrize("size", [1, 2, 7, 33, 300])
def test_a_score_does_not_depend_on_the_batch(detector, split, size):
    images = split[1][:300]
    together = detector.anomaly_score(images)
    parts = [detector.anomaly_score(images[i : i + size]) for i in range(0, 300, size)]
    assert (np.concatenate(parts) == together).all()


def test_a_score_does_not_depend_on_the_order(detector, split):
    order = np.random.default_rng(0).permutation(len(split[1]))
    assert (
        detector.anomaly_score(split[1][order]) == detector.anomaly_score(split[1])[order]
    ).all()


def test_a_score_does_not_depend_on_the_kind_of_source(detector, split, tmp_path):
    images = split[2][:20]
    np.save(tmp_path / "x.npy", images)
    np.savez(tmp_path / "x.npz", x=images)
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(images[..., 0]):
        Image.fromarray(image).save(tmp_path / "folder" / f"{i:02d}.png")
    expected = detector.anomaly_score(images)
    sources = [tmp_path / "x.npy", str(tmp_path / "x.npz"), tmp_path / "folder", images[..., 0]]
    sources += [open_source(images), torch.from_numpy(images), images.astype(np.float64) / 255]
    sources += [images.tolist(), [Image.fromarray(image) for image in images[..., 0]]]
    for source in sources:
        assert (detector.anomaly_score(source) == expected).all()


# --- scikit-learn's vocabulary


def test_signs_and_offsets_agree(detector, split):
    images = np.concatenate(split[1:])
    scores = detector.anomaly_score(images)
    assert (detector.score_samples(images) == -scores).all()
    assert (detector.decision_function(images) == detector.threshold_ - scores).all()
    assert detector.offset_ == -detector.threshold_
    anomalous = scores > detector.threshold_
    assert (detector.predict(images) == np.where(anomalous, -1, 1)).all()
    assert (anomalous == (detector.p_value(images) <= detector.false_positive_rate)).all()
    assert 0 < anomalous.mean() < 1


def test_a_frame_has_what_the_other_methods_say(detector, split, tmp_path):
    images = np.asarray(split[1][:5])
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(tmp_path / f"part-{i}.png")
    frame = detector.score_frame(tmp_path)
    assert [*frame.index] == [f"part-{i}.png" for i in range(5)]
    assert frame["anomaly_score"].tolist() == detector.anomaly_score(images).tolist()
    assert frame["p_value"].tolist() == detector.p_value(images).tolist()
    assert (np.where(frame["is_anomalous"], -1, 1) == detector.predict(images)).all()
    assert [*frame.columns[3:]] == [*detector.view_scores(images)]
    assert [*detector.score_frame(images).index] == [*range(5)]


def test_rows_of_a_frame_keep_their_names(of_vectors, table):
    named = pandas.DataFrame(table[:3], index=["a", "b", "c"])
    assert [*of_vectors.score_frame(named).index] == ["a", "b", "c"]


def test_who_wants_to_see_progress_does(table, capsys):
    tiny = {**TINY, "epoch_images": 128}
    HistoryAD(**tiny).fit(table)
    assert capsys.readouterr().err == ""
    HistoryAD(**tiny).fit(table, verbose=True)
    said = capsys.readouterr().err
    assert said.startswith("reading samples: 0%\nlearning what is normal: 5%")
    assert "training: telling them apart: " in said


def test_a_model_says_what_it_is_in_a_terminal_and_in_a_notebook(of_vectors):
    text, page = repr(of_vectors.model_), of_vectors.model_._repr_html_()
    for part in (f"{of_vectors.threshold_:+.4f}", "trained on", "neighbours, gaussian"):
        assert part in text
        assert part in page
    assert text.count("\n") < 10
    spoilt = dataclasses.replace(of_vectors.model_, source={"description": "<b>"})
    assert "&lt;b&gt;" in spoilt._repr_html_()


def test_p_values_fall_as_scores_rise(detector, split):
    images = np.concatenate(split[1:])
    order = np.argsort(detector.anomaly_score(images))
    p_values = detector.p_value(images)
    assert (np.diff(p_values[order]) <= 0).all()
    assert p_values.min() >= 1 / 241
    assert p_values.max() <= 1


def test_parameters_are_those_of_the_config(detector):
    assert set(HistoryAD().get_params()) == {"preset", *settings()}
    copy = clone(detector).set_params(width=6)
    assert copy.get_params() == {**detector.get_params(), "width": 6}
    assert not hasattr(copy, "model_")
    assert HistoryAD(**TINY).get_params() == {**HistoryAD().get_params(), **TINY}


@pytest.mark.parametrize("method", ["anomaly_score", "p_value", "predict", "decision_function"])
def test_nothing_is_scored_before_fit(method):
    with pytest.raises(NotFittedError):
        getattr(HistoryAD(), method)(np.zeros((2, 8, 8), np.uint8))


def test_save_needs_a_fit(tmp_path):
    with pytest.raises(NotFittedError):
        HistoryAD().save(tmp_path)


def test_save_and_load(detector, split, tmp_path):
    detector.save(tmp_path / "model")
    loaded = HistoryAD.load(tmp_path / "model")
    assert (loaded.anomaly_score(split[1]) == detector.anomaly_score(split[1])).all()
    assert loaded.threshold_ == detector.threshold_
    assert as_dict(loaded.model_.config) == as_dict(detector.model_.config)
    assert loaded.get_params() == {"preset": "default", **as_dict(detector.model_.config)}
    assert loaded.n_features_in_ == detector.n_features_in_ == 8
    with pytest.raises(RunError, match=r"detector.json is missing"):
        HistoryAD.load(tmp_path)


def test_names_of_columns_are_kept(table, tmp_path):
    frame = pandas.DataFrame(table, columns=["a", "b", "c"])
    HistoryAD(**{**TINY, **SMALLEST}).fit(frame, run=tmp_path / "run").save(tmp_path / "model")
    for folder in ("run", "model"):
        loaded = HistoryAD.load(tmp_path / folder)
        assert loaded.feature_names_in_.tolist() == ["a", "b", "c"]
        assert loaded.anomaly_score(frame[:5]).shape == (5,)
        again = loaded.anomaly_score(frame[["b", "a", "c"]][:5])  # by name, in any order
        np.testing.assert_array_equal(again, loaded.anomaly_score(frame[:5]))
        with pytest.raises(ValueError, match="lacks columns that the detector was fitted on: 'c'"):
            loaded.anomaly_score(frame[["b", "a"]])
    loaded.fit(open_source(table))
    assert not hasattr(loaded, "feature_names_in_")


def test_columns_that_are_no_texts_are_told_apart_by_name(table):
    detector = HistoryAD("instant")
    for names in ([("x", 1), ("x", 2), ("y", 1)], [10, 20, 30], ["a", 1, 2.5]):
        frame = pandas.DataFrame(table)
        frame.columns = pandas.Index(names, dtype=object)
        detector.fit(frame)
        assert detector.feature_names_in_.tolist() == [str(name) for name in names]
        again = detector.anomaly_score(frame.iloc[:, [1, 0, 2]])
        np.testing.assert_array_equal(again, detector.anomaly_score(frame))
    numbered = detector.fit(pandas.DataFrame(table))
    assert not hasattr(numbered, "feature_names_in_")
    twice = pandas.DataFrame(table, columns=["a", "b", "a"])
    with pytest.raises(InputError, match="two columns are called 'a'"):
        detector.fit(twice)


def test_a_column_of_a_frame_that_is_no_number_is_named(table):
    good = pandas.DataFrame(table, columns=["a", "b", "c"])
    times = pandas.date_range("2024", periods=len(good), freq="h")
    for values, message in (
        (times, "column 'd': .* is a date or a time"),
        (times.tz_localize("UTC"), "column 'd': .* is a date or a time"),
        (times - times[0], "column 'd': .* is a date or a time"),
        ([f"r{i}" for i in range(len(good))], "column 'd' holds .* different texts in .* --id"),
        (1j, "column 'd' holds values of type complex128"),
    ):
        with pytest.raises(InputError, match=message):
            HistoryAD("instant").fit(good.assign(d=values))


def test_numbers_of_numpy_are_settings(table, tmp_path):
    given = {**TINY, **SMALLEST, "hidden": np.int64(16), "false_positive_rate": np.float32(0.25)}
    HistoryAD(**given).fit(table).save(tmp_path)
    loaded = HistoryAD.load(tmp_path).get_params()
    assert (loaded["hidden"], type(loaded["hidden"])) == (16, int)
    assert loaded["false_positive_rate"] == 0.25


def test_the_same_seed_gives_the_same_scores(split):
    scores = [
        HistoryAD(**TINY, seed=seed).fit(split[0][:300]).anomaly_score(split[1])
        for seed in (0, 0, 1)
    ]
    assert (scores[0] == scores[1]).all()
    assert (scores[0] != scores[2]).any()


# --- fit


def test_fit_keeps_a_run_and_returns_a_finished_one_at_once(split, tmp_path):
    records = []
    first = HistoryAD(**TINY).fit(split[0], run=tmp_path, on_progress=records.append)
    assert [*dict.fromkeys(record["phase"] for record in records)] == [
        "reading samples",
        "learning what is normal",  # before any training, and after it
        "setting the threshold",
        "training: imitating samples",
        "training: telling them apart",
        "learning anew, with training",
        "setting the threshold anew",
        "keeping some examples",
        "done",
    ]
    done = [record["done"] for record in records]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 1)
    trained = [record for record in records if "step" in record]
    assert {record["step"] for record in trained} == {"gan", "detector"}
    logged = RunDirectory(tmp_path).read_log()
    assert [told | one | {"seconds": 0} for told, one in zip(trained, logged, strict=True)] == [
        told | {"seconds": 0} for told in trained
    ]
    records.clear()
    again = HistoryAD(**TINY).fit(split[0], run=tmp_path, on_progress=records.append)
    assert {record["phase"] for record in records} == {"reading samples", "done"}
    assert (again.anomaly_score(split[1]) == first.anomaly_score(split[1])).all()


def test_a_run_is_not_continued_with_other_data_or_settings(split, tmp_path):
    HistoryAD(**TINY).fit(split[0][:300], run=tmp_path)
    with pytest.raises(RunError, match=r"already holds a run with hidden = 16, not 17: choose"):
        HistoryAD(**{**TINY, "hidden": 17}).fit(split[0][:300], run=tmp_path)
    with pytest.raises(RunError, match=r"already holds a run with .* not other samples, 'array"):
        HistoryAD(**TINY).fit(split[0][1:301], run=tmp_path)


def test_a_fit_continues_after_an_exception(split, tmp_path):
    def stop(record):
        if record.get("step") == "detector":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HistoryAD(**TINY).fit(split[0][:300], run=tmp_path, on_progress=stop)
    steps = []
    continued = HistoryAD(**TINY).fit(
        split[0][:300], run=tmp_path, on_progress=lambda record: steps.append(record.get("step"))
    )
    assert set(steps) == {"detector", None}
    expected = HistoryAD(**TINY).fit(split[0][:300])
    assert (continued.anomaly_score(split[1]) == expected.anomaly_score(split[1])).all()


def test_the_run_directory_says_what_was_done(split, tmp_path):
    HistoryAD(**TINY).fit(split[0][:300], run=tmp_path)
    record = load_json(tmp_path / "config.json")
    assert record["config"]["epoch_images"] == 512
    assert record["source"]["n"] == 300
    assert record["source"]["n_train"] == 240
    assert {"torch", "historyad"} <= record["versions"].keys()


@pytest.mark.parametrize(
    "values", [{"augment": "mirror"}, {"device": "abacus"}, {"width": -1}, {"n_epochs": 0.5}]
)
def test_refused_settings_do_not_claim_the_directory(split, tmp_path, values):
    with pytest.raises(ConfigError):
        HistoryAD(**{**TINY, **values}).fit(split[0][:300], run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_y_is_ignored(table):
    for y in (None, np.zeros(600), ["a"] * 600):
        scores = HistoryAD(**{**TINY, **SMALLEST}).fit(table, y).anomaly_score(table[:5])
        assert scores == pytest.approx(
            HistoryAD(**{**TINY, **SMALLEST}).fit(table).anomaly_score(table[:5]), abs=0
        )


# --- data that cannot be used


@pytest.mark.parametrize(("n", "n_held_out", "needed"), [(1, 0, 101), (99, 20, 101), (94, 19, 101)])
def test_too_few_samples(table, n, n_held_out, needed):
    config = {**TINY, "false_positive_rate": 0.0476}  # 1 / 21.01: 21 held-out samples
    with pytest.raises(InputError) as caught:
        HistoryAD(**config).fit(table[:n])
    message = str(caught.value)
    assert message.startswith("1 sample is too few" if n == 1 else f"{n} samples are too few")
    assert (
        f"needs 21 held-out samples, and calibration_share = 0.2 holds out {n_held_out}" in message
    )
    assert "raise calibration_share or false_positive_rate" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_numbers_that_are_none_are_named(table, value):
    spoilt = table.copy()
    spoilt[7, 2] = value
    for source in (spoilt, spoilt.tolist()):
        with pytest.raises(InputError, match="row 7, column 2"):
            HistoryAD(**TINY).fit(source)
    named = pandas.DataFrame(spoilt, columns=[f"sensor {i}" for i in range(spoilt.shape[1])])
    if not np.isnan(value):  # which is a hole in a table
        with pytest.raises(InputError, match="row 7, column 'sensor 2' is"):
            HistoryAD(**TINY).fit(named)
    with pytest.raises(ValueError, match=r"NaN|inf|between 0 and 1|0\.\.1"):
        HistoryAD(**TINY).fit(np.full((100, 8, 8), value))


def test_masked_values_are_refused(of_vectors, table):
    masked = np.ma.masked_greater(table, 4)
    for use in (HistoryAD("instant").fit, of_vectors.anomaly_score, of_vectors.predict):
        with pytest.raises(InputError, match="values are masked"):
            use(masked)
    of_vectors.predict(np.ma.masked_array(table, mask=False))


def test_vectors_have_a_shape(of_vectors):
    with pytest.raises(ValueError, match="X has 4 features, but HistoryAD is expecting 3"):
        of_vectors.anomaly_score(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="1D array"):
        of_vectors.anomaly_score(np.zeros(3))
    with pytest.raises(InputError, match="shape 8 x 8 x 1, the detector was fitted on 3"):
        of_vectors.anomaly_score(np.zeros((2, 8, 8), np.uint8))


def test_a_source_that_is_not_there():
    with pytest.raises(InputError, match="does not exist"):
        HistoryAD(**TINY).fit("no/such/folder")
