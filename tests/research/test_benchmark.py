import json
import multiprocessing
import os
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


def test_a_part_of_the_test_samples_has_a_row_of_its_own(tables, tmp_path):
    ask = {"splits": ["vectors-blob"], "methods": ["neighbours"], "seeds": [0, 1], "out": tmp_path}
    whole = run_benchmark(**ask, data_root=tables)
    part = run_benchmark(**ask, data_root=tables, most=8)
    assert [(row["n_normal"], row["n_anomalous"], row["most"]) for row in part] == [(8, 8, 8)] * 2
    assert all(row["n_normal"] > 8 and "most" not in row for row in whole)
    assert read_rows(tmp_path / "rows.jsonl") == whole + part
    assert run_benchmark(**ask, data_root=tables, most=8, on_row=pytest.fail) == part


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


def test_fits_of_another_command_in_the_same_folder_stay(tables, tmp_path):
    ask = {"splits": ["vectors-blob"], "methods": ["pca-residual"], "out": tmp_path / "out"}
    running = tmp_path / "out" / "runs" / "historyad-0"
    running.mkdir(parents=True)
    run_benchmark(**ask, seeds=[0], data_root=tables)
    assert running.is_dir()
    running.rmdir()
    run_benchmark(**ask, seeds=[1], data_root=tables)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["rows.jsonl"]


def test_a_row_that_was_cut_short_is_measured_again(tables, tmp_path):
    ask = {"splits": ["vectors-blob"], "methods": ["pca-residual"], "seeds": [0, 1]}
    first, second = run_benchmark(**ask, out=tmp_path, data_root=tables)
    table = tmp_path / "rows.jsonl"
    table.write_bytes(table.read_bytes()[:-40])
    seen = []
    again = run_benchmark(**ask, out=tmp_path, data_root=tables, on_row=seen.append)
    assert [row["seed"] for row in seen] == [1]
    assert read_rows(table) == again == [first, *seen]
    assert seen[0]["auroc"] == second["auroc"]
    table.write_bytes(b"{" + table.read_bytes())
    with pytest.raises(RunError, match=r"rows\.jsonl, line 1 is damaged"):
        run_benchmark(**ask, out=tmp_path, data_root=tables)


def test_fits_run_side_by_side_and_share_the_threads(tables, tmp_path):
    rows = run_benchmark(["vectors-*"], ["neighbours*"], [0], tmp_path, jobs=2, data_root=tables)
    assert [row["method"] for row in rows] == ["neighbours", "neighbours-pca-cosine"]
    assert {row["threads"] for row in rows} == {max(1, torch.get_num_threads() // 2)}


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

    ask = {"splits": ["vectors-blob"], "methods": ["neighbours", "pca-residual"], "seeds": [0]}
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(**ask, out=tmp_path, jobs=2, data_root=tables, on_row=interrupt)
    assert len(read_rows(tmp_path / "rows.jsonl")) == 1
    for process in multiprocessing.active_children():
        process.join(timeout=10)
    assert not multiprocessing.active_children()
    assert len(run_benchmark(**ask, out=tmp_path, data_root=tables)) == 2


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
