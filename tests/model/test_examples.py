"""Normal samples that a run keeps, and those that are nearest to another one."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from historyad import fit_model, open_source
from historyad.config import make_config
from historyad.errors import RunError
from historyad.files import load_tensors, save_tensors
from historyad.judge.objections import as_line, nearest, nearest_pictures, objections
from historyad.judge.report.beside import rows_beside, window_beside
from historyad.model import examples as module
from historyad.model.examples import FILE, Examples
from historyad.model.run import RunDirectory

KINDS = ["whole", "crops", "features", "columns"]


@pytest.fixture(params=KINDS)
def fitted(request):
    return request.getfixturevalue(request.param)


def test_a_run_keeps_normal_samples_and_finds_each_the_nearest_to_itself(fitted):
    kept = Examples.load(fitted.run)
    source = open_source(fitted.source)
    rows = {name: row for row, name in enumerate(source.names)}
    assert set(kept.names) <= set(rows)
    assert len(set(kept.names)) > 10
    for place, name in list(enumerate(kept.names))[::10]:
        first, *others = nearest(fitted.model, kept, source.samples[rows[name]])
        assert first == place
        assert len(others) == 2
        assert place not in nearest(fitted.model, kept, source.samples[rows[name]], name)


def test_pictures_are_those_of_the_samples(whole):
    kept, source = Examples.load(whole.run), open_source(whole.source)
    first, *_ = nearest_pictures(
        whole.model, kept, source.samples[[*source.names].index(kept.names[5])]
    )
    assert first["name"] == kept.names[5]
    data = base64.b64decode(first["picture"].partition("data:image/png;base64,")[2])
    shown = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(
        shown, source.samples[[*source.names].index(first["name"])][..., 0]
    )


def test_a_large_picture_is_kept_small():
    large = np.random.default_rng(0).integers(0, 256, (300, 600, 3), np.uint8)
    data = module._picture(large)
    assert Image.open(io.BytesIO(data)).size == (128, 64)
    assert module.url_of(data).startswith("data:image/jpeg;base64,")


def test_what_is_kept_is_bounded(columns, whole, crops, monkeypatch):
    assert module.number_of(columns.model.kind, 10**9) == 2**22 // (4 * 5)
    assert module.number_of(whole.model.kind, 10**9) == 400
    assert module.number_of(crops.model.kind, 7) == 7
    monkeypatch.setattr(module, "_MOST_PIXELS", 50 * 40 * 9)
    assert module.number_of(crops.model.kind, 100) == 9


def test_a_detector_of_the_history_alone_compares_with_none(digits, tmp_path):
    config = make_config("quick", views="history", epoch_images=256, n_epochs=1, mass_tolerance=0)
    model = fit_model(open_source(digits[0][:200]), config, RunDirectory(tmp_path / "run"))
    assert Examples.load(tmp_path / "run") is None
    assert nearest(model, None, digits[0][0]) == []


@pytest.mark.parametrize("harm", ["names", "places", "cut", "ends"])
def test_a_damaged_file_is_refused_by_name(whole, tmp_path, harm):
    path = tmp_path / FILE
    tensors, note = load_tensors(whole.run / FILE)
    if harm == "names":
        note = "[1, 2]"
    elif harm == "places":
        tensors["places"][0, 0] = float("nan")
    elif harm == "ends":
        tensors["ends"] = tensors["ends"][:-1].clone()
    save_tensors(path, tensors, note)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RunError, match=rf"{FILE} is damaged"):
        Examples.load(tmp_path)


def test_views_that_object_are_said_in_words(columns):
    odd, usual = columns.anomalous[0], np.median(columns.train, 0)
    found = objections(columns.model, odd)
    assert found
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)
    assert "far from the nearest normal ones (" in as_line(found)
    assert objections(columns.model, usual) == []
    assert as_line([]) == ""


def test_a_row_stands_beside_normal_rows_with_what_speaks_against_it_first(columns):
    row = np.median(columns.train, 0)
    row[3] += 50 * np.ptp(columns.train[:, 3])
    kept = Examples.load(columns.run)
    (found,) = rows_beside(columns.model, kept, [(0.9, "odd", row)])
    title, values = found["columns"][0]
    assert title == "column 3"
    assert values[0] == row[3]
    normal = {tuple(one) for one in columns.train.astype(np.float32)}
    for place in nearest(columns.model, kept, row):
        assert tuple(kept.values[place]) in normal
        assert kept.values[place][3] in values[1:]
    assert len(values) == 4
    (alone,) = rows_beside(columns.model, None, [(0.9, "odd", row)])
    assert [len(values) for _, values in alone["columns"]] == [1] * len(row)


def test_a_window_is_drawn_over_the_nearest_normal_ones(tmp_path):
    steps = np.sin(np.arange(800) / 5)[:, None].astype(np.float32)
    config = make_config("instant", window=20, false_positive_rate=0.05)
    model = fit_model(open_source(steps), config, RunDirectory(tmp_path / "run"))
    new = steps.copy()
    new[400:405] += 3
    source = model.takes(open_source(new))
    drawn = window_beside(model, Examples.load(tmp_path / "run"), source, 402, "x")
    assert "this window" in drawn["chart"].svg
    assert drawn["against"]
    assert drawn["step"] == "402"
    assert window_beside(model, None, source, 402, "x") is None
