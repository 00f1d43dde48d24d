import json

import numpy as np
import pytest

from historyad.research.reproduce.toy import _largest_difference, reproduce_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    out = tmp_path_factory.mktemp("toy") / "new"
    return out, reproduce_toy(out, size="quick")


def test_the_figure_and_one_row_are_written(toy):
    out, row = toy
    assert (out / "toy.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "toy.svg").read_text()
    (line,) = (out / "toy.jsonl").read_text().splitlines()
    assert json.loads(line) == row
    assert {"seed", "size", "seconds", "versions"} <= set(row)


def test_estimates_come_near_the_closed_forms_and_do_not_beat_them(toy):
    _, row = toy
    assert 0.1 < row["total_variation"] < 0.6
    assert row["total_variation_estimate"] == pytest.approx(row["total_variation"], abs=0.06)
    assert row["total_variation_estimate"] < row["total_variation"] + 0.02
    assert row["detector_loss"] > row["minimum_loss"] - 0.04
    # Not smaller: where the densities are nearly equal, the loss does not decide the score.
    assert row["detector_difference"] < 0.4


def test_the_average_of_the_critics_is_a_v_and_the_averaged_critic_is_near_it(toy):
    _, row = toy
    assert min(row["rises_to_the_left"], row["rises_to_the_right"]) > 1 / 3
    # A line that does not rise is 1 away from one that does.
    assert row["averages_difference"] < 0.3
    assert 1 < row["effective_snapshots"] < row["snapshots"]


def test_two_rising_lines_are_not_equal():
    x = np.linspace(-7, 7, 141)
    assert _largest_difference(x, x) == 0
    assert _largest_difference(1.5 * x, x) == pytest.approx(0.5)
    assert _largest_difference(-x, x) == pytest.approx(2)
