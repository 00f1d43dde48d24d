import json

import numpy as np
import pytest

from historyad import Model
from historyad.cli import main
from historyad.data.datasets import open_source
from historyad.errors import InputError
from historyad.judge.probe import (
    draw_probe,
    missed_again,
    probe_model,
    seen_from,
    table_of,
    wilson_interval,
)
from historyad.kinds.damages import image_damages


@pytest.fixture(scope="module")
def model(trained):
    return Model.load(trained)


@pytest.fixture(scope="module")
def normal(digits):
    return digits[0][1000:]


@pytest.fixture(scope="module")
def result(model, normal):
    return probe_model(model, normal)


def curve_of(result, name):
    (curve,) = (curve for curve in result["corruptions"] if curve["name"] == name)
    return curve


# --- rates


def test_every_kind_is_tried_and_json_can_hold_the_result(result):
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["n_samples"] == 200
    assert [c["name"] for c in result["corruptions"]] == [k.name for k in image_damages(8, 8)]
    for curve in result["corruptions"]:
        assert len(curve["strengths"]) == len(curve["rate"]) == 9
        for low, rate, high in zip(curve["low"], curve["rate"], curve["high"], strict=True):
            assert 0 <= low <= rate <= high <= 1


def test_strength_0_is_the_false_positive_rate(model, normal):
    everything = probe_model(model, normal, limit=len(normal))
    expected = (model.anomaly_score(normal) > model.calibration.threshold).mean()
    assert everything["n_samples"] == len(normal)
    assert everything["false_positive_rate"]["rate"] == expected
    for curve in everything["corruptions"]:
        assert curve["strengths"][0] == 0
        assert curve["rate"][0] == expected


def test_a_trained_detector_sees_strong_damage(result):
    noise, brighter = curve_of(result, "noise"), curve_of(result, "brighter")
    for curve in (noise, brighter):
        assert curve["rate"][-1] > 0.5 > curve["rate"][1]


def test_the_same_seed_gives_the_same_result(model, normal, result):
    assert probe_model(model, normal) == result
    assert probe_model(model, normal, seed=1) != result


def test_the_order_of_memory_does_not_matter(model, normal, result, monkeypatch):
    # Damage is drawn for each chunk of samples, so that only what is not drawn must agree.
    monkeypatch.setattr("historyad.judge.probe._CHUNK_VALUES", 64 * 17)
    chunked = probe_model(model, normal)
    for name in ("blur", "brighter", "darker", "less contrast"):
        assert curve_of(chunked, name) == curve_of(result, name)


def test_vectors_are_damaged_in_units_of_their_spread(columns):
    result = probe_model(columns.model, columns.normal)
    names = [curve["name"] for curve in result["corruptions"]]
    assert names == ["noise", "one feature shifted", "features swapped"]
    assert curve_of(result, "features swapped")["strengths"] == [0, 1, 2]
    noise = curve_of(result, "noise")["rate"]
    assert noise[-1] > noise[0]


def test_refusals_say_what_to_do(model, normal):
    with pytest.raises(InputError, match="give it the same shape"):
        probe_model(model, normal[:, :4])
    with pytest.raises(InputError, match="look at one sample at least"):
        probe_model(model, normal, limit=0)


# --- what follows from rates


@pytest.mark.parametrize(
    ("rates", "seen", "missed"),
    [
        ([0.0, 0.9, 1.0], 15, None),
        ([0.0, 0.95, 1.0], 10, None),
        ([1.0, 1.0, 1.0], 0, None),
        ([0.0, 0.5, 0.94], None, None),
        ([0.0, 0.95, 0.2], None, 20),
        ([1.0, 0.9, 1.0], 15, 10),
        ([1.0, 0.2, 0.9], None, 10),
    ],
)
def test_damage_is_seen_from_where_on_none_is_missed(rates, seen, missed):
    strengths = [0.0, 10.0, 20.0]
    assert seen_from(strengths, rates) == (None if seen is None else pytest.approx(seen))
    assert missed_again(strengths, rates) == missed


def test_at_the_ends_of_an_interval_the_share_is_1_96_standard_deviations_away():
    counts = np.array([0, 1, 10, 199, 200])
    shares = counts / 200
    low, high = map(np.array, wilson_interval(counts, 200))
    assert (low <= shares).all()
    assert (shares <= high).all()
    for ends in (low, high):
        deviation = 1.959964 * np.sqrt(ends * (1 - ends) / 200)
        inside = (ends > 0) & (ends < 1)
        np.testing.assert_allclose(abs(ends - shares)[inside], deviation[inside], rtol=1e-6)
    assert (low[0], high[-1]) == (0, 1)
    assert min(high[0], 1 - low[-1]) > 0.01


def test_the_table_says_what_is_seen_and_what_is_not(result):
    rows = dict(table_of(result))
    assert "200 normal" in rows["samples"]
    assert "5.0% was asked for" in rows["undamaged"]
    for curve in result["corruptions"]:
        start = "not within the range: " if curve["seen_from"] is None else "seen from "
        assert rows[curve["name"]].startswith(start)
        assert curve["unit"] in rows[curve["name"]]
        again = curve["missed_again"]
        if again is None:
            assert "missed at" not in rows[curve["name"]]
        else:
            assert rows[curve["name"]].endswith(f"; missed at {again:g}, though less is seen")


# --- picture and command


@pytest.mark.parametrize("channels", [3, 5])
def test_a_picture_of_any_channels(model, result, normal, tmp_path, channels):
    path = tmp_path / "new" / "probe.png"
    draw_probe(result, model, np.repeat(normal[0], channels, -1), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_vectors(columns, tmp_path):
    vectors = np.zeros((10, 5), np.float32)
    result = probe_model(columns.model, vectors)
    draw_probe(result, columns.model, vectors[0], tmp_path / "probe.svg")
    assert "<svg" in (tmp_path / "probe.svg").read_text()


def test_of_several_sizes_the_most_frequent_is_looked_at_and_said(crops):
    images = [image[4 * (i in (0, 3)) :] for i, image in enumerate(crops.normal[:12])]
    source = open_source(images, any_size=True)
    result = probe_model(crops.model, source.samples)
    assert (result["n_samples"], result["n_other_sizes"]) == (10, 2)
    assert table_of(result)[0][1].startswith("10 normal of one size, without 2 of others, ")
    alone = probe_model(crops.model, crops.normal[[1, 2, *range(4, 12)]])
    assert table_of(alone)[0][1].startswith("10 normal, ")
    assert alone["corruptions"][0]["rate"][0] == result["corruptions"][0]["rate"][0]


def test_the_command(trained, tmp_path, capsys):
    out, file = tmp_path / "out", tmp_path / "probe.json"
    command = ["probe", str(trained), "digits:test", "--out", str(out), "--json", str(file)]
    assert main([*command, "--limit", "20"]) == 0
    assert "covered patch" in capsys.readouterr().out
    assert (out / "probe.png").exists()
    found = json.loads(file.read_text())
    assert found == json.loads((out / "probe.json").read_text())
    assert found["source"] == "digits:test"
    assert found["n_samples"] == 20
    assert main(["probe", str(trained), "digits:test", "--limit", "0"]) == 2
