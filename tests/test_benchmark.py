import json

import numpy as np
import pytest
from tiny import TINY

from historyad import benchmark
from historyad.benchmark import load_split, read_rows, run_benchmark
from historyad.errors import InputError


@pytest.fixture
def tables(tmp_path):
    """A data root with one table: 60 normal rows and 10 anomalous ones, far away."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(size=(60, 3)), random.normal(9, 1, size=(10, 3))])
    folder = tmp_path / "vectors" / "made"
    folder.mkdir(parents=True)
    np.savez(folder / "blob.npz", X=x.astype(np.float32), y=np.repeat([0, 1], [60, 10]))
    return tmp_path


def test_a_table_is_halved_by_the_seed(tables):
    first, again, other = (load_split("vectors-blob", seed, tables) for seed in (0, 0, 1))
    assert (len(first.train), len(first.normal), len(first.anomalous)) == (30, 30, 10)
    assert first.train.names == again.train.names
    assert first.train.names != other.train.names
    assert not set(first.train.names) & set(first.normal.names)
    assert first.train.samples.max() < 6  # no anomaly among them


def test_a_row_says_what_was_measured_and_is_not_measured_twice(tables, tmp_path):
    out = tmp_path / "out"
    ask = {"splits": ["vectors-blob"], "methods": ["pca-residual", "neighbours"], "seeds": [0]}
    seen = []
    rows = run_benchmark(
        **ask, out=out, data_root=tables, command="historyad benchmark", on_row=seen.append
    )
    assert len(seen) == len(rows) == 2
    assert read_rows(out / "rows.jsonl") == seen
    assert {row["command"] for row in rows} == {"historyad benchmark"}
    neighbours = [row for row in rows if row["method"] == "neighbours"]
    assert all(row["auroc"] == 1.0 for row in neighbours)
    wanted = {"auprc", "prevalence", "fit_seconds", "score_seconds", "peak_memory_mb", "n_train"}
    assert all(wanted <= row.keys() for row in rows)
    assert run_benchmark(**ask, out=out, data_root=tables, on_row=pytest.fail) == rows


def test_ours_is_fitted_once_for_splits_with_one_training_set(monkeypatch, tmp_path):
    monkeypatch.setitem(benchmark.PRESETS, "quick", TINY)
    monkeypatch.setitem(
        benchmark._SETS, "digits-again", ("digits:train:!0", "digits:test:!0", "digits:train:0")
    )
    splits = ["digits-without-0", "digits-again"]
    assert benchmark._by_training_set(splits) == [splits]
    rows = benchmark.measure(splits, "historyad-quick", 0, tmp_path, None)
    assert [row["split"] for row in rows] == splits
    assert len({row["fit_seconds"] for row in rows}) == 1
    assert all(0 <= row["false_positive_rate"] <= 1 and row["run_mb"] > 0 for row in rows)
    json.dumps(rows)


@pytest.mark.parametrize("split", ["mnist-without-x", "vectors-nothing", "cats-vs-dogs"])
def test_an_unknown_split_is_named(split, tmp_path):
    with pytest.raises(InputError, match=r"split|table"):
        load_split(split, 0, tmp_path)


def test_an_unknown_method_is_named(tables, tmp_path):
    with pytest.raises(InputError, match=r"unknown method 'magic'.*pca-residual"):
        run_benchmark(["vectors-blob"], ["magic"], [0], tmp_path / "out", data_root=tables)


def test_real_splits_have_the_sizes_of_their_descriptions(data_root):
    split = load_split("svhn-vs-celeba", 0, data_root)
    assert (len(split.train), len(split.normal), len(split.anomalous)) == (7000, 3000, 3000)
    split = load_split("mnist-without-3", 0, data_root)
    assert (len(split.train), len(split.normal), len(split.anomalous)) == (53869, 8990, 7141)
    split = load_split("vectors-cardio", 0, data_root)
    assert split.train.kind == "vector"
