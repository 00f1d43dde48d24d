import numpy as np
from fitted import striped, textures
from tiny import TINY, tiny_config

from historyad import HistoryAD
from historyad.cli import main
from historyad.config import make_config
from historyad.kinds.choose import choose_kind
from historyad.model.split import split_rows
from historyad.model.suspects import most_suspicious, suspicion


def judged(samples, share, **settings):
    config = tiny_config(**settings)
    return suspicion(choose_kind(samples, config), samples, config, share)


def found_among(samples, wrong, share, times=1, **settings):
    """Return which part of ``wrong`` rows is among so many of the most suspicious."""
    rows = most_suspicious(judged(samples, share, **settings), times * share)
    return np.isin(wrong, rows).mean()


def with_zeros(digits, n, seed=0):
    """Return 700 digits of which the last ``n`` are zeros, and the others none."""
    images, labels = digits
    random = np.random.default_rng(seed)
    others = random.permutation(np.flatnonzero(labels != 0))[: 700 - n]
    zeros = random.permutation(np.flatnonzero(labels == 0))[:n]
    return images[np.concatenate([others, zeros])], np.arange(700 - n, 700)


def test_a_few_zeros_among_other_digits_are_found(digits):
    for n in (7, 35):
        samples, wrong = with_zeros(digits, n)
        assert found_among(samples, wrong, n / 700, times=2) > 0.9


def test_rows_of_a_table_that_are_close_together_are_found():
    random = np.random.default_rng(0)
    rows = random.standard_normal((500, 6)).astype(np.float32)
    rows[-10:] = 4 + 0.01 * random.standard_normal((10, 6))
    found = judged(rows, 0.02)
    assert found[-10:].min() > 2 > np.quantile(found[:-10], 0.95)
    assert abs(np.median(found) - 1) < 0.01
    assert found_among(rows, np.arange(490, 500), 0.02) == 1


def test_images_with_a_stripe_are_found_by_their_crops():
    images = textures(60)
    images[-3:] = striped(images[-3:])[0]
    assert found_among(images, np.arange(57, 60), 0.05, patch=8, scales=2, width=16) > 0.6


def test_the_judgement_is_of_all_samples_however_many(constants):
    from historyad.model import suspects

    random = np.random.default_rng(0)
    rows = random.standard_normal((400, 4)).astype(np.float32)
    rows[::100] += 20
    constants(suspects, suspects_compared=150)
    found = judged(rows, 0.01)
    assert found.shape == (400,)
    assert set(np.argsort(-found)[:4]) == {0, 100, 200, 300}


def test_equal_samples_are_typical_and_few_are_judged():
    assert np.isfinite(judged(np.ones((40, 3), np.float32), 0.1)).all()
    assert judged(np.float32([[0, 1], [1, 0], [5, 5]]), 0.1).argmax() == 2
    assert judged(np.float32([[0, 1], [9, 9]]), 0.1).tolist() == [1, 1]


def spoilt(n=400, n_wrong=8):
    """Return rows of a table of which the first few are wrong, and of one kind."""
    rows = np.random.default_rng(1).standard_normal((n, 5)).astype(np.float32)
    rows[:n_wrong] = 6 + 0.1 * rows[:n_wrong]
    return rows


def test_what_is_suspicious_is_neither_trained_on_nor_held_out():
    rows = spoilt()
    fitted = HistoryAD(**TINY, contamination=0.02).fit(rows)
    assert {one.row for one in fitted.suspects_} == {*range(8)}
    assert all(one.name == str(one.row) and one.suspicion > 1.5 for one in fitted.suspects_)
    assert fitted.model_.source["set_aside"] == 8
    plain = HistoryAD(**TINY).fit(rows)
    assert plain.suspects_ == []
    assert "set_aside" not in plain.model_.source
    like = np.full((1, 5), 6, np.float32)
    assert fitted.predict(like) == -1
    assert fitted.p_value(like) < plain.p_value(like)
    known = {digest.tobytes() for digest in fitted.model_.trained_on}
    assert len(known) == fitted.model_.source["n_train"]
    n_held_out = len(fitted.model_.calibration.scores)
    assert n_held_out == round(0.2 * 392)
    assert len(known) == 392 - n_held_out


def test_the_command_says_which_are_set_aside_and_lists_them(tmp_path, capsys):
    np.save(tmp_path / "rows.npy", spoilt())
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    run = tmp_path / "run"
    command = ["fit", str(tmp_path / "rows.npy"), "--out", str(run), *options]
    assert main([*command, "--contamination", "0.02"]) == 0
    out = capsys.readouterr().out
    assert "8 look wrong and were set aside: " in out
    assert f"see {run / 'suspects.csv'}" in " ".join(out.split())
    lines = (run / "suspects.csv").read_text().splitlines()
    assert lines[0] == "row,name,suspicion"
    assert {line.partition(",")[0] for line in lines[1:]} == {*"01234567"}
    assert main([*command, "--contamination", "0.02"]) == 0
    assert "8 look wrong" in capsys.readouterr().out
    assert main([*command, "--contamination", "0.01"]) == 2
    assert "contamination = 0.02, not 0.01" in capsys.readouterr().err
    (run / "suspects.csv").write_text("row,name,suspicion\nx,0,1\n")
    assert main([*command, "--contamination", "0.02"]) == 2
    assert "suspects.csv was altered" in capsys.readouterr().err


def test_a_threshold_that_one_wrong_sample_sets_is_said_and_survives(tmp_path, capsys):
    rows = np.random.default_rng(2).standard_normal((600, 5)).astype(np.float32)
    settings = {**TINY, "false_positive_rate": 0.01}
    _, held_out = split_rows(600, make_config(**settings))
    rows[held_out[50]] = 9
    np.save(tmp_path / "rows.npy", rows)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    for share, is_said in (("0", True), ("0.01", False)):
        run = tmp_path / share
        command = ["fit", str(tmp_path / "rows.npy"), "--out", str(run), "--contamination", share]
        assert main([*command, *options]) == 0
        captured = capsys.readouterr()
        assert ("is that of one held-out sample" in captured.err) == is_said
        far = np.full((1, 5), 5, np.float32)
        assert bool(HistoryAD.load(run).predict(far)[0] == -1) != is_said
