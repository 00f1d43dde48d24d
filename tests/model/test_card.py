"""The card of a model: in its run, in a notebook, and after a probe or a calibration."""

import shutil

import numpy as np
import pytest

from historyad.cli import main
from historyad.model.card import WORDS

KINDS = ["whole", "crops", "features", "columns"]


@pytest.fixture
def run(columns, tmp_path):
    return shutil.copytree(columns.run, tmp_path / "run")


@pytest.mark.parametrize("name", KINDS)
def test_every_run_has_a_card_that_says_what_it_is(request, name):
    fitted = request.getfixturevalue(name)
    card = (fitted.run / "card.md").read_text()
    assert card == fitted.model.card("run")
    described = fitted.model.describe()
    for said in (
        f"{len(fitted.train):,} samples of `{fitted.source}`",
        f"{fitted.model.calibration.threshold:+.4f}, was set on ",
        f"at most {100 * described['at_most_with_95_%']:.3g} % (95 % sure)",
        described["source"]["fingerprint"],
        "Not asked yet: `historyad probe run ",
    ):
        assert said in card
    for view in fitted.model.view_names:
        assert f"* {WORDS[view]}\n" in card


def test_a_probe_is_kept_in_the_card_until_the_threshold_changes(run, columns, tmp_path, capsys):
    assert main(["probe", str(run), columns.source_of("normal"), "--limit", "20"]) == 0
    card = (run / "card.md").read_text()
    assert "20 normal samples were damaged" in card
    assert "| damage | seen from | unit |" in card
    random = np.random.default_rng(9)
    np.save(tmp_path / "new.npy", columns.normal + 0.01 * random.normal(size=columns.normal.shape))
    rate = ["--false-positive-rate", "0.2"]
    assert main(["calibrate", str(run), str(tmp_path / "new.npy"), *rate]) == 0
    card = (run / "card.md").read_text()
    assert "Of normal samples, at most 20 % are called anomalous" in card
    assert "was set on " + f"{len(columns.normal)} samples of `{tmp_path / 'new.npy'}`" in card
    assert "Not asked yet" in card


def test_a_model_without_a_card_gets_none(run, columns, capsys):
    (run / "card.md").unlink()
    assert main(["probe", str(run), columns.source_of("normal"), "--limit", "20"]) == 0
    assert not (run / "card.md").exists()


def test_names_in_a_card_are_no_markup(columns):
    card = columns.model.card("`<b>|\n# x")
    assert card.startswith("# Model card: '&lt;b>/\\n# x\n")


def test_a_notebook_shows_where_the_threshold_lies_among_held_out_scores(columns):
    page = columns.model._repr_html_()
    assert page.startswith("<table>")
    assert page.count("<rect") == 48
    assert 'aria-label="scores of held-out normal samples; the line is the threshold"' in page
