import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from storing import damages
from tiny import on_disk, tiny_config
from torch import nn

from historyad.checkpoints import Checkpoint
from historyad.config import as_dict
from historyad.data.datasets import open_source
from historyad.errors import RunError
from historyad.files import load_json, save_json, write_atomic
from historyad.method.gan import make_adam
from historyad.method.networks import VectorNetworks
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory

MODEL = ("detector.safetensors", "detector.json")


# --- checkpoints


@pytest.fixture
def trained():
    """A network and its optimiser after two steps."""
    return after_steps(2)


def critic_of(n_features):
    return VectorNetworks((n_features,), hidden=8, latent_dim=2).critic()


def after_steps(n, seed=0):
    network = critic_of(3)
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=random)
    optimizer = make_adam(network, 0.1, (0.5, 0.9))
    for _ in range(n):
        step(network, optimizer)
    return network, optimizer


def step(network, optimizer):
    optimizer.zero_grad()
    network(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()


def test_a_restored_run_continues_with_the_same_bits(tmp_path, trained):
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    network, optimizer = trained
    checkpoint.save({"net": network}, {"net_adam": optimizer}, {"images_seen": 7})
    other, other_optimizer = after_steps(1, seed=5)
    assert checkpoint.restore({"net": other}, {"net_adam": other_optimizer}) == {"images_seen": 7}
    assert_same_state(optimizer, other_optimizer)
    for _ in range(3):
        step(network, optimizer)
        step(other, other_optimizer)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert_same_state(optimizer, other_optimizer)


def assert_same_state(one, two):
    states = [optimizer.state_dict()["state"] for optimizer in (one, two)]
    assert states[0].keys() == states[1].keys() != set()
    for index, moments in states[0].items():
        assert moments.keys() == states[1][index].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in moments.items():
            assert value.dtype == states[1][index][name].dtype
            assert torch.equal(value, states[1][index][name])


def test_an_optimiser_that_has_not_stepped_is_restored_as_such(tmp_path):
    network, optimizer = after_steps(0)
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    checkpoint.save({"net": network}, {"net_adam": optimizer}, {})
    other, other_optimizer = after_steps(2)
    checkpoint.restore({"net": other}, {"net_adam": other_optimizer})
    assert other_optimizer.state_dict()["state"] == {}


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path, trained):
    network, _ = trained
    before = [parameter.clone() for parameter in network.parameters()]
    assert Checkpoint(tmp_path / "none").restore({"net": network}, {}) is None
    assert all(map(torch.equal, network.parameters(), before))


def test_a_checkpoint_of_another_network_is_refused(tmp_path, trained):
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    checkpoint.save({"net": trained[0]}, {}, {})
    with pytest.raises(
        RunError, match=r"checkpoint is damaged \((.|\n)*size mismatch(.|\n)*delete"
    ):
        checkpoint.restore({"net": critic_of(4)}, {})
    with pytest.raises(RunError, match=r"Missing key"):
        checkpoint.restore({"other": trained[0]}, {})


@on_disk
@given(damage=damages())
def test_a_damaged_checkpoint_is_refused_or_means_the_same(tmp_path, trained, damage):
    network, optimizer = trained
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    checkpoint.save({"net": network}, {"net_adam": optimizer}, {"images_seen": 7})
    checkpoint.path.write_bytes(damage(checkpoint.path.read_bytes()))
    other, other_optimizer = after_steps(0)
    try:
        state = checkpoint.restore({"net": other}, {"net_adam": other_optimizer})
    except RunError as error:
        assert "is damaged" in str(error)  # noqa: PT017 (not always raised)
    else:
        assert state == {"images_seen": 7}
        assert all(map(torch.equal, network.parameters(), other.parameters()))
        assert_same_state(optimizer, other_optimizer)


# --- the run directory

CONFIG = tiny_config(width=4, decay=3.0)
SOURCE = {"description": "here/", "fingerprint": "0" * 64, "n": 100, "n_train": 80, "unreadable": 0}


def claimed(run):
    """Return what the run holds, but for the versions."""
    return {name: value for name, value in load_json(run.config).items() if name != "versions"}


RECORD = {"config": as_dict(CONFIG), "source": SOURCE, "command": "c"}


@pytest.fixture
def run(tmp_path):
    """A run directory that is being held and has been claimed."""
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        run.claim(CONFIG, SOURCE, "c")
        yield run


def test_a_run_is_claimed_again_by_the_same_config_and_source(run):
    run.claim(CONFIG, SOURCE, "another spelling")
    assert claimed(run) == RECORD


@pytest.mark.parametrize(
    ("config", "source", "words"),
    [
        ({"width": 8}, {}, "width = 4, not 8"),
        ({"decay": 2.0}, {}, "decay = 3.0, not 2.0"),
        ({}, {"fingerprint": "1" * 64}, "description = 'here/', not other samples, 'here/'"),
        (
            {},
            {"fingerprint": "1" * 64, "description": "there/"},
            "description = 'here/', not 'there/'",
        ),
        ({}, {"n": 99}, "n = 100, not 99"),
        ({}, {"n_train": 79}, "n_train = 80, not 79"),
    ],
)
def test_a_run_of_another_config_or_source_is_refused(run, config, source, words):
    with pytest.raises(RunError, match=f"already holds a run with {words}: choose another --out"):
        run.claim(replace(CONFIG, **config), {**SOURCE, **source})
    assert claimed(run) == RECORD


def test_a_setting_that_an_earlier_program_did_not_know_is_another_config(run):
    config = {name: value for name, value in as_dict(CONFIG).items() if name != "width"}
    save_json(run.config, {**RECORD, "config": config})
    with pytest.raises(RunError, match="already holds a run with width = None, not 4"):
        run.claim(CONFIG, SOURCE)


@pytest.mark.parametrize("content", [[], 1, {}, {"config": []}, {"config": {}, "source": None}])
def test_an_altered_config_file_is_refused(run, content):
    save_json(run.config, content)
    with pytest.raises(RunError, match=r"config.json was altered|already holds a run"):
        run.claim(CONFIG, SOURCE, "c")


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "photo.png").touch()
    run = RunDirectory(tmp_path)
    with pytest.raises(RunError, match="holds other files and no run: choose another"), run.lock():
        run.claim(CONFIG, SOURCE, "c")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_what_a_crash_before_the_first_file_leaves_is_not_foreign(tmp_path):
    for name in ("lock", "suspects.csv", "config.json.12345678.tmp"):
        (tmp_path / name).touch()
    run = RunDirectory(tmp_path)
    with run.lock():
        run.claim(CONFIG, SOURCE, "c")
    assert claimed(run) == RECORD


def test_what_a_killed_writer_left_is_removed_by_who_holds_the_run_next(tmp_path):
    run = RunDirectory(tmp_path)
    with run.lock():
        run.claim(CONFIG, SOURCE, "c")
        run.history.mkdir()
        left = [tmp_path / "detector.json.1.tmp", run.history / "1.safetensors.2.tmp"]
        for path in (*left, tmp_path / "table.csv.tmp"):
            path.touch()
        with pytest.raises(RunError, match="another process"), RunDirectory(tmp_path).lock():
            pass
        assert all(path.exists() for path in left)  # they may be of who holds the run
    with run.lock():
        assert not any(path.exists() for path in left)
    assert (tmp_path / "table.csv.tmp").exists()


def test_the_folder_of_a_model_is_held_without_its_run(tmp_path):
    folder = RunDirectory(tmp_path / "model")
    with pytest.raises(RunError, match=r"detector.json is missing"), folder.lock_finished():
        pass
    assert not folder.path.exists()
    folder.path.mkdir()
    save_json(folder.path / "detector.json", {})
    with (
        folder.lock_finished(),
        pytest.raises(RunError, match="another process"),
        folder.lock_finished(),
    ):
        pass
    with pytest.raises(RunError, match="holds other files and no run"), folder.lock():
        pass


def test_a_run_is_known_by_its_data_and_not_by_what_else_describes_them(run):
    run.claim(CONFIG, {**SOURCE, "description": "elsewhere/", "unreadable": 1})
    assert claimed(run) == RECORD


def test_one_process_holds_a_run_and_a_dead_one_holds_nothing(tmp_path):
    hold = f"""
import time
from historyad.model.run import RunDirectory
with RunDirectory({str(tmp_path / "run")!r}).lock():
    print("held", flush=True)
    time.sleep(600)
"""
    run = RunDirectory(tmp_path / "run")
    command = [sys.executable, "-c", hold]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match=r"another process is writing to .*run: wait"),
            run.lock(),
        ):
            pass
        holder.kill()
    with run.lock():
        run.claim(CONFIG, SOURCE, "c")


def test_two_locks_in_one_process_exclude_each_other(run):
    with pytest.raises(RunError, match="another process"), RunDirectory(run.path).lock():
        pass


def test_log_lines_that_a_crash_cut_short_are_dropped(run):
    records = [{"step": "gan", "images_seen": n} for n in range(3)]
    for record in records:
        run.append_log(record)
    assert run.read_log() == records
    with run.log.open("a") as file:
        file.write('{"step": "ga')
    assert run.read_log() == records
    run.mend_log()
    run.append_log(records[0])
    assert run.read_log() == [*records, records[0]]
    before = run.log.read_bytes()
    run.mend_log()
    assert run.log.read_bytes() == before


def test_without_a_log_there_are_no_records(run):
    run.mend_log()
    assert run.read_log() == []


# --- disks that are full or read-only


@pytest.fixture(scope="module")
def table():
    """A source of vectors and a config that fits them in a moment."""
    source = open_source(np.random.default_rng(0).normal(size=(200, 3)))
    return source, tiny_config(hidden=64)


def files_of(run):
    paths = [*sorted(run.history.glob("*.safetensors")), *(run.path / name for name in MODEL)]
    return {path.relative_to(run.path).as_posix(): path.read_bytes() for path in paths}


def test_a_write_protected_disk_is_an_error_and_the_old_file_stays(disk):
    run = RunDirectory(disk.path / "run")
    with run.lock():
        run.claim(CONFIG, SOURCE, "c")
        run.append_log({"step": "gan"})
    disk.write_protect(True)
    for write in (
        lambda: write_atomic(run.config, b"new"),
        lambda: run.lock().__enter__() if disk.is_real else write_atomic(run.config, b"new"),
        lambda: RunDirectory(disk.path / "other").lock().__enter__(),
    ):
        with pytest.raises(RunError, match=r"cannot write .*make the directory writable"):
            write()
    assert claimed(run) == RECORD
    disk.write_protect(False)
    with run.lock():
        run.claim(CONFIG, SOURCE, "c")


def test_a_directory_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    run = RunDirectory(tmp_path / "file" / "run")
    with pytest.raises(RunError, match=r"cannot write .*run: Not a directory"), run.lock():
        pass
    with pytest.raises(RunError, match=r"cannot write .*x: (Not a directory|File exists)"):
        write_atomic(tmp_path / "file" / "x", b"")


@pytest.mark.parametrize("at_record", [0, 5, 12, 20])
def test_a_fit_that_fills_the_disk_continues_when_there_is_room(disk, tmp_path, table, at_record):
    source, config = table
    undisturbed = RunDirectory(tmp_path / "undisturbed")
    fit_model(source, config, undisturbed)

    run, records = RunDirectory(disk.path / "run"), []

    def fill_disk(record):
        records.append(record)
        if len(records) == at_record:
            disk.fill()

    if at_record == 0:
        disk.fill()
    with pytest.raises(RunError, match="free space"):
        fit_model(source, config, run, on_progress=fill_disk)
    assert not run.is_finished
    recorded = {path.name: path.read_bytes() for path in run.history.glob("*.safetensors")}
    disk.free()
    fit_model(source, config, run)
    assert files_of(run) == files_of(undisturbed)
    assert {f"history/{name}": data for name, data in recorded.items()}.items() <= files_of(
        run
    ).items()
    keys = [(record["step"], record["images_seen"]) for record in run.read_log()]
    assert keys == [(r["step"], r["images_seen"]) for r in undisturbed.read_log()]
    shutil.rmtree(run.path)
