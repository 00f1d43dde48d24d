"""Tables as people have them: categories, booleans and missing values, from file to verdict."""

import json
import re

import numpy as np
import pandas
import polars
import pyarrow
import pytest

from historyad import HistoryAD, open_source
from historyad.cli import main
from historyad.errors import InputError
from historyad.judge.explain import reasons

N = 600


def orders(n=N, seed=0):
    """Orders: a price that goes with the size of the shirt, forty towns, a flag, and a remark.

    The weight is missing in a tenth of the rows, and the height never.
    """
    random = np.random.default_rng(seed)
    size = random.choice(["S", "M", "L"], n, p=[0.3, 0.6, 0.1])
    price = np.select([size == "S", size == "M"], [10.0, 20.0], 30.0) + random.normal(0, 0.5, n)
    weight = random.normal(100, 10, n)
    weight[random.random(n) < 0.1] = np.nan
    return pandas.DataFrame(
        {
            "size": size,
            "price": price,
            "town": [f"T{i}" for i in random.integers(0, 40, n)],
            "paid": random.random(n) < 0.98,
            "weight": weight,
            "height": random.normal(170, 8, n),
        }
    )


@pytest.fixture(scope="module")
def detector():
    return HistoryAD(preset="instant").fit(orders())


def changed(**values):
    """One order like the others in all but these."""
    usual = {"size": "M", "price": 20.0, "town": "T7", "paid": True, "weight": 100.0}
    return pandas.DataFrame([{**usual, "height": 170.0, **values}])


def excess(detector, frame):
    return detector.model_.excess(detector.anomaly_score(frame))[0]


def test_what_was_never_seen_is_the_plainest_anomaly(detector):
    assert not detector.predict(changed())[0] < 0
    for never in ({"size": "XXL"}, {"town": "T99"}, {"town": None}, {"height": None}):
        assert excess(detector, changed(**never)) > 3, never
        (first, *_) = reasons(detector.model_, opened(detector, changed(**never)))
        assert first.column == next(iter(never))


def test_what_is_missing_where_it_often_is_is_no_anomaly(detector):
    assert excess(detector, changed(weight=None)) < 1
    assert excess(detector, changed(weight=None)) > excess(detector, changed())


def test_rare_values_are_rarer_than_others(detector):
    assert excess(detector, changed(paid=False)) > excess(detector, changed()) + 0.2
    large = excess(detector, changed(size="L", price=30.0))
    assert excess(detector, changed()) < large < excess(detector, changed(size="XXL"))


def test_a_category_that_does_not_go_with_the_rest_is_odd(detector):
    assert excess(detector, changed(size="S", price=30.0)) > excess(detector, changed()) + 0.5


def test_an_outlier_of_one_number_is_not_drowned_by_forty_towns(detector):
    """It counts as much as it does beside a column of numbers in their place."""
    number = np.random.default_rng(5).normal(size=N)
    beside = HistoryAD(preset="instant").fit(orders().assign(town=number))
    for height in (260.0, 80.0, 1000.0):
        far = changed(height=height)
        assert detector.predict(far)[0] == -1
        assert excess(detector, far) > 0.9 * excess(beside, far.assign(town=0.3))


def opened(detector, frame):
    return detector.model_.takes(open_source(frame)).samples[0]


def test_reasons_say_what_was_read(detector):
    for values, expected in (
        ({"size": "XXL"}, "size something else, usually M"),
        ({"height": None}, "height missing, usually "),
    ):
        (first, *_) = reasons(detector.model_, opened(detector, changed(**values)))
        assert str(first).startswith(expected)
    falls = detector.explain(changed(town="T99"))
    assert falls.shape == (1, 6)
    assert falls[0].argmax() == 2


def test_frames_of_all_kinds_and_files_have_the_same_scores(detector, tmp_path):
    fresh = orders(50, seed=1)
    expected = detector.anomaly_score(fresh)
    plain = {
        name: [None if value != value else value for value in column]  # noqa: PLR0124
        for name, column in fresh.items()
    }
    fresh.to_csv(tmp_path / "x.csv", index=False)
    fresh[fresh.columns[::-1]].to_csv(tmp_path / "y.csv", index=False, sep=";", decimal=",")
    fresh.to_parquet(tmp_path / "x.parquet")
    for source in (
        polars.DataFrame(plain),
        pyarrow.table(plain),
        fresh.astype({"size": "category", "town": "category"}),
        fresh[["height", "paid", "size", "town", "weight", "price"]],
        tmp_path / "x.csv",
        tmp_path / "y.csv",
        tmp_path / "x.parquet",
    ):
        np.testing.assert_allclose(detector.anomaly_score(source), expected, atol=1e-6)


def test_it_is_saved_without_a_loss_and_can_be_looked_at(detector, tmp_path, capsys):
    detector.save(tmp_path / "model")
    loaded = HistoryAD.load(tmp_path / "model")
    fresh = orders(50, seed=1)
    np.testing.assert_array_equal(loaded.anomaly_score(fresh), detector.anomaly_score(fresh))
    content = json.loads((tmp_path / "model" / "detector.json").read_text())
    assert content["kind"]["levels"][0] == list(dict.fromkeys(orders()["size"]))
    assert main(["inspect", str(tmp_path / "model")]) == 0
    assert "texts.size" in capsys.readouterr().out


def test_a_report_says_what_was_read(tmp_path):
    orders().to_csv(tmp_path / "orders.csv", index=False)
    odd = pandas.concat([changed(size="XXL"), changed(height=None)], ignore_index=True)
    odd.to_csv(tmp_path / "odd.csv", index=False)
    run, page = tmp_path / "run", tmp_path / "page.html"
    command = ["fit", tmp_path / "orders.csv", "--preset", "instant", "--out", run, "--quiet"]
    assert main([*map(str, command)]) == 0
    command = ["report", run, "--normal", tmp_path / "orders.csv", "--out", page]
    assert main([*map(str, command), "--anomalous", str(tmp_path / "odd.csv")]) == 0
    text = page.read_text()
    assert "something else" in text
    assert re.search(r"<th>height</th>\s*<td><b>missing</b>", text)


def test_codes_that_look_like_numbers_are_texts_where_the_fit_had_texts(tmp_path):
    frame = orders()
    frame["town"] = frame["town"].str[1:].astype("category")  # 7 for T7
    detector = HistoryAD(preset="instant").fit(frame)
    fresh = frame[:30].astype({"town": str})
    fresh.to_csv(tmp_path / "x.csv", index=False)
    expected = detector.anomaly_score(frame[:30])
    for source in (tmp_path / "x.csv", fresh.astype({"town": int}), fresh):
        np.testing.assert_allclose(detector.anomaly_score(source), expected, atol=1e-6)


def test_texts_in_place_of_numbers_are_refused(detector):
    with pytest.raises(InputError, match="column 'price' holds text, such as 'cheap', and the det"):
        detector.anomaly_score(changed(price="cheap"))


def test_numbers_in_an_array_are_those_of_texts(detector):
    """As a graph takes them: in the order in which they came in the fit."""
    frame = orders()
    samples = detector.model_.takes(open_source(frame[:9].fillna({"weight": 100.0}))).samples
    with_weights = detector.anomaly_score(frame[:9].fillna({"weight": 100.0}))
    np.testing.assert_array_equal(detector.model_.anomaly_score(samples), with_weights)


def test_what_the_history_says_is_of_dummies_too():
    detector = HistoryAD(
        "quick", views="all", epoch_images=500, hidden=16, calibration_share=0.3
    ).fit(orders())
    assert np.isfinite(detector.anomaly_score(orders(50, seed=1))).all()


def test_folds_and_suspects_learn_of_their_own_rows():
    frame = orders(150)
    frame.loc[0, "size"] = "once"
    detector = HistoryAD("instant", contamination=0.02).fit(frame)
    assert 0 in [suspect[0] for suspect in detector.suspects_]


def test_a_series_of_texts_or_with_holes_is_refused():
    frame = orders()
    with pytest.raises(InputError, match=r"column size holds text, such as .*, and a series is of"):
        HistoryAD(window=20).fit(frame)
    with pytest.raises(InputError, match=r"of column weight the value at .* is missing, .* in all"):
        HistoryAD(window=20).fit(frame[["price", "weight"]])
