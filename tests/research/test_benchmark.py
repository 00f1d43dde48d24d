import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from tiny import TINY, save_table

from historyad.errors import InputError, RunError
from historyad.files import read_rows
from historyad.research import benchmark
from historyad.research.benchmark import Fit, measure, run_benchmark
from historyad.research.peers import PEERS
from historyad.research.peers.memae import MemAE


@pytest.fixture
def tables(tmp_path):
    return save_table(tmp_path)


ASK = {"splits": ["vectors-blob"], "methods": ["pca-residual", "neighbours"], "seeds": [0]}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folders of the data and of a benchmark, and its rows as they came: a process for each."""
    folder = tmp_path_factory.mktemp("measured")
    tables, seen = save_table(folder), []
    more = {"data_root": tables, "command": "historyad benchmark", "on_row": seen.append}
    rows = run_benchmark(**ASK, out=folder / "out", jobs=2, **more)
    assert sorted(rows, key=_method) == sorted(seen, key=_method)
    return tables, folder / "out", seen


def _method(row):
    return row["method"]


@pytest.fixture
def out(measured, tmp_path):
    """A copy of the folder of the benchmark."""
    return shutil.copytree(measured[1], tmp_path / "out")


def test_a_row_says_what_was_measured_and_is_not_measured_twice(measured, out):
    tables, _, rows = measured
    assert len(rows) == 2
    assert read_rows(out / "rows.jsonl") == rows
    assert {row["command"] for row in rows} == {"historyad benchmark"}
    assert {row["threads"] for row in rows} == {max(1, torch.get_num_threads() // 2)}
    neighbours = [row for row in rows if row["method"] == "neighbours"]
    assert all(row["auroc"] == 1.0 for row in neighbours)
    wanted = {"auprc", "prevalence", "fit_seconds", "score_seconds", "peak_memory_mb", "n_train"}
    assert all(wanted <= row.keys() for row in rows)
    again = run_benchmark(**ASK, out=out, data_root=tables, on_row=pytest.fail)
    assert sorted(again, key=_method) == sorted(rows, key=_method)


def test_a_part_of_the_test_samples_has_a_row_of_its_own(measured, out):
    tables, _, whole = measured
    ask = {**ASK, "methods": ["neighbours"], "out": out, "data_root": tables, "most": 8}
    (part,) = run_benchmark(**ask)
    assert (part["n_normal"], part["n_anomalous"], part["most"]) == (8, 8, 8)
    assert all(row["n_normal"] > 8 and "most" not in row for row in whole)
    assert read_rows(out / "rows.jsonl") == [*whole, part]
    assert run_benchmark(**ask, on_row=pytest.fail) == [part]


def test_ours_is_fitted_once_for_splits_with_one_training_set(monkeypatch, tmp_path):
    monkeypatch.setitem(benchmark.PRESETS, "quick", TINY)
    splits = ["digits-without-0", "digits:train:!0|digits:test:!0|digits:train:0"]
    (fit,) = benchmark._missing_fits(splits, ["historyad-quick"], [0], None, set())
    assert fit.splits == tuple(splits)
    rows = list(measure(fit, tmp_path, None))
    assert [row["split"] for row in rows] == splits
    assert len({row["fit_seconds"] for row in rows}) == 1
    assert all(0 <= row["false_positive_rate"] <= 1 and row["run_mb"] > 0 for row in rows)
    assert all(row["parameters"] > 0 for row in rows)
    assert not any(tmp_path.iterdir())
    json.dumps(rows)


def test_the_parameters_of_a_peer_with_networks_are_counted(monkeypatch, tmp_path):
    monkeypatch.setitem(
        PEERS, "memae", lambda seed: MemAE(n_images=64, width=4, hidden=8, latent_dim=4)
    )
    (row,) = measure(Fit("memae", ("digits-without-0",), 0), tmp_path, None)
    assert row["parameters"] > 100 * 4  # the memory and more
    (row,) = measure(Fit("pca-residual", ("digits-without-0",), 0), tmp_path, None)
    assert "parameters" not in row


def test_fits_of_another_command_in_the_same_folder_stay(measured, out):
    tables, folder, _ = measured
    assert [file.name for file in folder.iterdir()] == ["rows.jsonl"]  # nothing else is left
    running = out / "runs" / "historyad-0"
    running.mkdir(parents=True)
    run_benchmark(["vectors-*"], ["neighbours"], [1], out, data_root=tables)
    assert running.is_dir()


def test_a_row_that_was_cut_short_is_measured_again(measured, out):
    tables, _, (first, second) = measured
    table = out / "rows.jsonl"
    table.write_bytes(table.read_bytes()[:-40])
    seen = []
    run_benchmark(**ASK, out=out, data_root=tables, on_row=seen.append)
    assert read_rows(table) == [first, *seen]
    assert [(row["method"], row["auroc"]) for row in seen] == [(second["method"], second["auroc"])]
    table.write_bytes(b"{" + table.read_bytes())
    with pytest.raises(RunError, match=r"rows\.jsonl, line 1 is damaged"):
        run_benchmark(**ASK, out=out, data_root=tables)


def test_a_fit_that_fails_does_not_lose_the_others(tables, tmp_path):
    bad = "digits:train|digits:test|./nowhere"
    ask = {"splits": [bad, "vectors-blob"], "methods": ["pca-residual"], "seeds": [0]}
    with pytest.raises(
        RunError, match=r"1 of 2 fits.*\n.*pca-residual on digits.*nowhere does not"
    ):
        run_benchmark(**ask, out=tmp_path, data_root=tables)
    assert [row["split"] for row in read_rows(tmp_path / "rows.jsonl")] == ["vectors-blob"]


def test_a_process_that_is_killed_is_reported(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_measure_in_child", _dies)
    with pytest.raises(
        RunError, match=r"neighbours on vectors-blob, seed 0: its process ended.*-9"
    ):
        run_benchmark(["vectors-blob"], ["neighbours"], [0], tmp_path, data_root=tables)


def _dies(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_exception_is_told_by_name_and_the_rows_before_it_are_kept(monkeypatch, tmp_path):
    def rows_then_error(*_):
        yield {"split": "first"}
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(benchmark, "measure", rows_then_error)
    results, sender = multiprocessing.Pipe(duplex=False)
    handler = signal.getsignal(signal.SIGINT)
    threads = torch.get_num_threads()
    try:
        benchmark._measure_in_child(sender, Fit("magic", ("first",), 0), tmp_path, None, threads)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert results.recv() == {"split": "first"}
    assert results.recv() == "ZeroDivisionError: by zero"


def test_an_interruption_ends_the_processes_and_keeps_the_rows(tables, tmp_path):
    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(**ASK, out=tmp_path, jobs=2, data_root=tables, on_row=interrupt)
    assert len(read_rows(tmp_path / "rows.jsonl")) == 1
    for process in multiprocessing.active_children():
        process.join(timeout=10)
    assert not multiprocessing.active_children()


def test_a_child_does_not_outlive_its_parent():
    context = multiprocessing.get_context("spawn")
    alive, sender = context.Pipe(duplex=False)
    parent = context.Process(target=_has_a_child, args=(sender,))
    parent.start()
    sender.close()
    alive.recv()
    parent.kill()
    assert alive.poll(30)  # well before the child would end by itself
    with pytest.raises(EOFError):  # nobody is left who could send
        alive.recv()
    parent.join()


def _has_a_child(sender):
    multiprocessing.get_context("spawn").Process(target=_waits, args=(sender,)).start()
    time.sleep(60)


def _waits(sender):
    benchmark.measure = _first_row_then_nothing  # in this process alone
    benchmark._measure_in_child(sender, Fit("magic", ("first",), 0), Path(), None, 1)


def _first_row_then_nothing(*_):
    yield {"split": "first"}
    time.sleep(120)


def test_an_unknown_method_is_named(tables, tmp_path):
    with pytest.raises(InputError, match=r"unknown method 'magic'.*pca-residual"):
        run_benchmark(["vectors-blob"], ["magic"], [0], tmp_path / "out", data_root=tables)
