"""Ranks, means and spreads of a benchmark's rows, and what is written of them."""

import importlib
import sys
from itertools import combinations

import pytest
from tiny import row_of

from historyad.errors import InputError
from historyad.research import chart, standings
from historyad.research.markdown import table
from historyad.research.peers import PEERS
from historyad.research.peers.pyod import PyOD
from historyad.research.peers.training import NetworkPeer


def test_ranks_are_means_over_splits_and_ties_share_them():
    rows = [
        row_of("vae", "a", 0.9),
        row_of("memae", "a", 0.8),
        row_of("neighbours", "a", 0.8),
    ]
    rows += [
        row_of("vae", "b", 0.5),
        row_of("memae", "b", 0.6),
        row_of("neighbours", "b", 0.7),
    ]
    ranks = standings.mean_ranks(standings.frame_of(rows), ["a", "b"]).to_dict()
    assert ranks == {"vae": (1 + 3) / 2, "memae": (2.5 + 2) / 2, "neighbours": (2.5 + 1) / 2}


def test_who_was_not_measured_on_every_split_has_no_rank_and_takes_none():
    rows = [
        row_of("vae", "a", 0.9),
        row_of("memae", "a", 0.8),
        row_of("memae", "b", 0.6),
    ]
    frame = standings.frame_of(rows)
    assert standings.mean_ranks(frame, ["a", "b"]).to_dict() == {"memae": 1.0}
    assert standings.mean_ranks(frame, ["a"]).to_dict() == {"vae": 1.0, "memae": 2.0}
    assert standings.mean_ranks(frame, ["a", "c"]).to_dict() == {}


def test_a_rank_is_that_of_the_mean_over_seeds():
    rows = [
        row_of("vae", "a", 0.9, seed=1),
        row_of("vae", "a", 0.5, seed=2),
        row_of("memae", "a", 0.8),
    ]
    assert standings.mean_ranks(standings.frame_of(rows), ["a"]).to_dict() == {
        "memae": 1.0,
        "vae": 2.0,
    }


def test_the_spread_is_that_of_the_mean_over_splits():
    rows = [row_of("vae", "a", 0.6, seed=1), row_of("vae", "a", 0.8, seed=2)]
    rows += [
        row_of("vae", "b", 0.8, seed=1),
        row_of("vae", "b", 0.6, seed=2),
        row_of("vae", "b", 0.7, 3),
    ]
    frame = standings.frame_of(rows)
    assert standings.means(frame, ["a", "b"], "auroc")["vae"] == pytest.approx(0.7)
    assert standings.spreads(frame, ["a", "b"], "auroc")["vae"] == pytest.approx(0)
    assert standings.spreads(frame, ["b"], "auroc")["vae"] == pytest.approx(0.1)
    assert standings.means(frame, ["a", "c"], "auroc").empty
    assert standings.spreads(frame, ["a", "c"], "auroc").empty


def test_a_mean_over_splits_is_of_the_seeds_that_all_have():
    rows = [
        row_of("vae", "a", 0.6, seed=1),
        row_of("vae", "a", 0.8, seed=2),
        row_of("vae", "b", 0.4, seed=2),
    ]
    frame = standings.frame_of(rows)
    assert standings.means(frame, ["a", "b"], "auroc")["vae"] == pytest.approx(0.6)
    apart = standings.frame_of([rows[0], rows[2]])
    assert standings.means(apart, ["a", "b"], "auroc")["vae"] == pytest.approx(0.5)


def test_the_chart_is_drawn_for_methods_with_gaps(tmp_path):
    means = {"far": {"historyad": 0.99, "vae": 0.9}, "near": {"vae": 0.3}, "none": {}}
    chart.draw(means, ["historyad"], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size < 150_000


def test_every_panel_has_one_axis_and_the_methods_that_were_measured_there():
    means = {"near": {"vae": 0.3}, "far": {"vae": 0.9, "mahalanobis": 0.95, "historyad": 0.99}}
    near, far = chart.draw_standings(means, ["historyad"]).axes
    assert [label.get_text() for label in near.get_yticklabels()] == ["vae"]
    names = [label.get_text() for label in far.get_yticklabels()]
    assert names == ["historyad", "mahalanobis", "vae"]
    assert near.get_xlim() == far.get_xlim() == (0, 1)
    heights = [axes.get_position().height for axes in (near, far)]
    assert heights[1] == pytest.approx(3 * heights[0])
    assert len({text.get_color() for text in far.texts}) == 3  # ours, and two kinds of peers


def test_no_two_panels_overlap_and_all_are_within_the_picture():
    panels = {f"a|b|{i}": dict.fromkeys(list(PEERS)[: i + 1], 0.9) for i in range(14)}
    boxes = [axes.get_position() for axes in chart.draw_standings(panels, []).axes]
    assert len(boxes) == 14
    assert all(0 < box.x0 < box.x1 < 1 and 0 < box.y0 < box.y1 < 1 for box in boxes)
    for one, other in combinations(boxes, 2):
        assert one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0


def test_the_peers_without_a_network_are_those_that_train_none():
    for name, make in PEERS.items():
        trains = isinstance(make(0), (NetworkPeer, PyOD))
        assert (name in chart.WITHOUT_NETWORK) != trains, name


def test_of_several_rows_for_one_seed_the_last_of_all_samples_counts():
    rows = [
        row_of("vae", "a", 0.9),
        row_of("vae", "a", 0.8),
        row_of("vae", "a", 0.1, most=2),
    ]
    frame = standings.frame_of(rows)
    assert frame["auroc"].tolist() == [0.8]


def test_the_overview_is_in_the_order_of_ranks_and_leaves_out_who_lacks_a_split():
    rows = [
        row_of("vae", "a", 0.7),
        row_of("vae", "a", 0.9, seed=2),
        row_of("vae", "b", 0.9, fit_seconds=3),
    ]
    rows += [
        row_of("memae", "a", 0.9),
        row_of("memae", "b", 0.95),
        row_of("neighbours", "a", 1.0),
    ]
    shown = standings.overview(standings.frame_of(rows))
    assert [*shown][:3] == ["seeds", "mean rank", "AUROC"]
    assert [*shown.itertuples(name=None)] == [
        ("memae", "1", "1.0", "0.9250", "0.4625", "1.0", "5,000", "300"),
        ("vae", "1", "2.0", "0.8000", "0.4000", "1.0", "5,000", "300"),
    ]


def test_a_table_is_markdown_and_may_have_its_columns_below_each_other():
    head, rows = ["method", "a"], [["vae", "0.9000"]]
    assert table(head, rows) == "| method | a |\n| --- | --- |\n| vae | 0.9000 |\n"
    aligned = "| method | a      |\n| ------ | ------ |\n| vae    | 0.9000 |\n"
    assert table(head, rows, below_each_other=True) == aligned
    assert table(["a|b"], [], below_each_other=True) == "| a\\|b |\n| ---- |\n"


def test_standings_are_a_page_and_a_chart(tmp_path):
    rows = [
        row_of("vae", "a", 0.7),
        row_of("vae", "a", 0.9, seed=2),
        row_of("historyad", "b", 0.9),
    ]
    page, chart = standings.write_standings(standings.frame_of(rows), tmp_path)
    assert "| vae       | 0.8000 ± 0.1414 | –      |" in page.read_text()
    assert chart.stat().st_size > 1000


def test_without_matplotlib_there_is_no_chart(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    frame = standings.frame_of([row_of("vae", "a", 0.7)])
    assert standings.write_standings(frame, tmp_path) == [tmp_path / "standings.md"]


def test_without_pandas_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "historyad.research.standings")
    with pytest.raises(InputError, match=r"needs pandas: install historyad\[peers\]"):
        importlib.import_module("historyad.research.standings")
