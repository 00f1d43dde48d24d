import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from tiny import on_disk, tiny_config
from torch import nn

from historyad import storage
from historyad.datasets import open_source
from historyad.errors import RunError
from historyad.fitting import fit_model
from historyad.gan import make_adam
from historyad.networks import Critic
from historyad.storage import (
    Checkpoint,
    RunDirectory,
    append_rows,
    load_json,
    load_tensors,
    read_rows,
    save_json,
    save_rows,
    save_tensors,
    write_atomic,
)

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor(3),
    "c": torch.randn(4, generator=torch.Generator().manual_seed(0)).half(),
}
MODEL = ("detector.safetensors", "detector.json")


@st.composite
def damages(draw):
    """Return a function that damages bytes: cuts, flips, inserts or replaces some of them."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "replace"]))
    place = draw(st.floats(0, 1, exclude_max=True))
    new = draw(st.binary(min_size=1, max_size=12))

    def damage(data):
        i = int(place * len(data))
        return {
            "cut": data[:i],
            "flip": data[:i] + bytes([data[i] ^ new[0]]) + data[i + 1 :],
            "insert": data[:i] + new + data[i:],
            "replace": new + data[:i],
        }[kind]

    return damage


# --- atomic writes


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "folder" / "file"
    for data in (b"one", b"", b"three"):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


WRITE_FOREVER = """
import sys
from pathlib import Path
from historyad.storage import write_atomic
for i in range(10**9):
    write_atomic(Path(sys.argv[1]), bytes([i % 256]) * 2_000_000)
"""


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_the_file_is_whole_while_it_is_written_and_after_the_writer_is_killed(tmp_path, delay):
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(path)]) as writer:
        wait_for(path.exists)
        end = time.monotonic() + delay
        while time.monotonic() < end:
            assert_whole(path)
        wait_for(lambda: list(tmp_path.glob("file.*.tmp")))
        writer.send_signal(signal.SIGKILL)
    assert_whole(path)


def test_writers_of_one_file_do_not_tear_it(tmp_path):
    path = tmp_path / "file"
    command = [sys.executable, "-c", WRITE_FOREVER, str(path)]
    with subprocess.Popen(command) as one, subprocess.Popen(command) as other:
        wait_for(path.exists)
        wait_for(lambda: len(list(tmp_path.glob("file.*.tmp"))) == 2)
        for _ in range(100):
            assert_whole(path)
        assert (one.poll(), other.poll()) == (None, None)
        one.kill()
        other.kill()
    assert_whole(path)


def assert_whole(path):
    data = path.read_bytes()
    assert len(data) == 2_000_000
    assert len(set(data)) == 1


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0002)


# --- JSON and tensors


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, True], "é": "ü"}
    save_json(tmp_path / "x.json", value)
    assert load_json(tmp_path / "x.json") == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_json(tmp_path / "x.json", float("nan"))
    assert load_json(tmp_path / "x.json") == value


def test_tensors_round_trip(tmp_path):
    tensors = {**TENSORS, "transposed": TENSORS["a"].T}
    sha256 = save_tensors(tmp_path / "x", tensors, note="ü")
    assert sha256 == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    loaded, note = load_tensors(tmp_path / "x", sha256)
    assert note == "ü"
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_equal_tensors_make_equal_files(tmp_path):
    save_tensors(tmp_path / "x", TENSORS)
    save_tensors(tmp_path / "y", dict(reversed(TENSORS.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A file of tensors."""
    path = tmp_path_factory.mktemp("intact") / "x.safetensors"
    save_tensors(path, TENSORS, "note")
    return path


@on_disk
@given(damage=damages())
def test_damaged_tensors_are_refused_by_their_checksum(intact, damage):
    data = intact.read_bytes()
    damaged = intact.with_name("damaged")
    damaged.write_bytes(damage(data))
    if damaged.read_bytes() != data:
        with pytest.raises(RunError, match=r"damaged was altered \(its checksum differs"):
            load_tensors(damaged, hashlib.sha256(data).hexdigest())


@on_disk
@given(damage=damages())
def test_damaged_tensors_without_checksum_load_or_are_refused(intact, damage):
    damaged = intact.with_name("damaged")
    damaged.write_bytes(damage(intact.read_bytes()))
    try:
        load_tensors(damaged)
    except RunError as error:
        assert "damaged" in str(error)  # noqa: PT017 (not always raised)


@on_disk
@given(damage=damages())
def test_damaged_json_loads_or_is_refused(intact, damage):
    damaged = intact.with_name("damaged.json")
    damaged.write_bytes(damage(json.dumps({"a": [1, 2.5, {"b": "c"}]}).encode()))
    try:
        load_json(damaged)
    except RunError as error:
        assert "damaged.json is damaged" in str(error)  # noqa: PT017 (not always raised)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 100_000,
        b"1" * 10_000,
        b"\xff\xfe",
        b'{"a": 1',
    ],
)
def test_hostile_json_is_refused(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(RunError, match="not JSON"):
        load_json(tmp_path / "x.json")


def tensors_with_header(header, content=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        b"\x80\x04N.",  # a pickle
        tensors_with_header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        tensors_with_header(
            {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"0000"
        ),
        tensors_with_header({"a": {"dtype": "XXX", "shape": [1], "data_offsets": [0, 4]}}, b"0000"),
        tensors_with_header([1]),
        tensors_with_header({"__metadata__": {"note": 1}}),
    ],
)
def test_hostile_tensors_are_refused(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(RunError, match="is damaged"):
        load_tensors(tmp_path / "x")


def test_a_file_without_a_note_has_an_empty_one(tmp_path):
    (tmp_path / "x").write_bytes(save(TENSORS))
    assert load_tensors(tmp_path / "x")[1] == ""


@pytest.mark.parametrize("load", [load_json, load_tensors])
def test_files_that_cannot_be_read(tmp_path, load):
    with pytest.raises(RunError, match=r"x is missing: .* a finished run"):
        load(tmp_path / "x")
    with pytest.raises(RunError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be read: Not a directory"):
        load(tmp_path / "file" / "x")


@pytest.mark.parametrize(
    ("save", "value"), [(save_json, ["a" * 30]), (save_tensors, {"a": torch.zeros(300)})]
)
def test_what_would_not_be_read_is_not_written(tmp_path, monkeypatch, save, value):
    monkeypatch.setattr(storage, "_MAX_JSON_BYTES", 30)
    monkeypatch.setattr(storage, "_MAX_TENSOR_BYTES", 1200)
    with pytest.raises(
        RunError, match=r"x would have .* bytes, more than the .* lower|record less"
    ):
        save(tmp_path / "x", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("load", [load_json, load_tensors])
def test_files_larger_than_a_run_can_have_are_not_read(tmp_path, load):
    with (tmp_path / "x").open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no space
    with pytest.raises(RunError, match="has 1,099,511,627,776 bytes, more than the"):
        load(tmp_path / "x")


# --- checkpoints


@pytest.fixture
def trained():
    """A network and its optimiser after two steps."""
    return after_steps(2)


def after_steps(n, seed=0):
    network = Critic((3,), width=4, hidden=8)
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=random)
    optimizer = make_adam(network, 0.1)
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
        checkpoint.restore({"net": Critic((4,), width=4, hidden=8)}, {})
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

RECORD = {"config": {"width": 4, "seed": 0}, "source": {"fingerprint": "f"}, "command": "c"}


@pytest.fixture
def run(tmp_path):
    """A run directory that is being held and has been claimed."""
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        run.claim(RECORD)
        yield run


def test_a_run_is_claimed_again_by_the_same_config_and_source(run):
    run.claim({**RECORD, "command": "another spelling", "versions": {}})
    assert load_json(run.config) == RECORD


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("config", "width", 8, "width = 4, not 8"),
        ("config", "new", 1, "new = None, not 1"),
        ("source", "fingerprint", "g", "fingerprint = 'f', not 'g'"),
    ],
)
def test_a_run_of_another_config_or_source_is_refused(run, part, key, value, words):
    other = {**RECORD, part: {**RECORD[part], key: value}}
    with pytest.raises(RunError, match=f"already holds a run with {words}: choose another --out"):
        run.claim(other)
    assert load_json(run.config) == RECORD


@pytest.mark.parametrize("content", [[], 1, {}, {"config": []}, {"config": {}, "source": None}])
def test_an_altered_config_file_is_refused(run, content):
    save_json(run.config, content)
    with pytest.raises(RunError, match=r"config.json was altered|already holds a run"):
        run.claim(RECORD)


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "photo.png").touch()
    run = RunDirectory(tmp_path)
    with pytest.raises(RunError, match="holds other files and no run: choose another"), run.lock():
        run.claim(RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_what_a_crash_before_the_first_file_leaves_is_not_foreign(tmp_path):
    for name in ("lock", "config.json.12345678.tmp"):
        (tmp_path / name).touch()
    run = RunDirectory(tmp_path)
    with run.lock():
        run.claim(RECORD)
    assert load_json(run.config) == RECORD


def test_what_a_killed_writer_left_is_removed_by_who_holds_the_run_next(tmp_path):
    run = RunDirectory(tmp_path)
    with run.lock():
        run.claim(RECORD)
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
    source = {**RECORD["source"], "description": "elsewhere/", "unreadable": 1}
    run.claim({**RECORD, "source": source})
    assert load_json(run.config) == RECORD


def test_one_process_holds_a_run_and_a_dead_one_holds_nothing(tmp_path):
    hold = f"""
import time
from historyad.storage import RunDirectory
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
        run.claim(RECORD)


def test_two_locks_in_one_process_exclude_each_other(run):
    with pytest.raises(RunError, match="another process"), RunDirectory(run.path).lock():
        pass


def test_rows_are_added_after_a_last_one_that_was_cut_short(tmp_path):
    table = tmp_path / "new" / "rows.jsonl"
    assert read_rows(table) == []
    rows = [{"auroc": 0.1 + 0.2, "name": "é"}, {"auroc": 1.0, "name": "\u2028"}]
    append_rows(table, rows)
    whole = table.read_bytes()
    for cut in range(1, len(whole)):
        table.write_bytes(whole[:cut])
        kept = read_rows(table)
        assert kept == rows[: len(kept)]
        append_rows(table, [{"n": cut}])
        assert read_rows(table) == [*kept, {"n": cut}]
        assert len(kept) == whole[: cut + 1].count(b"\n")  # a row without its newline is whole


def test_damage_within_rows_is_told_with_its_line(tmp_path):
    table = tmp_path / "rows.jsonl"
    for damaged in ('{"n": 1}\n{"n\n{"n": 3}\n', '{"n": 1}\n{"n\n'):
        table.write_text(damaged)
        with pytest.raises(RunError, match=r"rows\.jsonl, line 2 is damaged"):
            read_rows(table)


def test_rows_that_json_cannot_hold_are_refused(tmp_path):
    table = tmp_path / "rows.jsonl"
    append_rows(table, [{"n": 1}])
    for write in (append_rows, save_rows):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(table, [{"n": 2}, {"n": float("nan")}])
    assert read_rows(table) == [{"n": 1}]


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


class Disk:
    """A small disk. Root gets a real one, others a limit on file sizes and a mode."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.is_real = self._mount("-t", "tmpfs", "-o", "size=8m", "tmpfs")

    def _mount(self, *arguments: str) -> bool:
        command = ["mount", *arguments, str(self.path)]
        return os.getuid() == 0 and subprocess.run(command, check=False).returncode == 0

    def fill(self) -> None:
        if not self.is_real:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            return
        with (self.path / ".filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017

    def free(self) -> None:
        if self.is_real:
            (self.path / ".filler").unlink()
        else:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def write_protect(self, on: bool) -> None:
        if self.is_real:
            assert self._mount("-o", f"remount,{'ro' if on else 'rw'}")
        else:
            for folder in [self.path, *filter(Path.is_dir, self.path.rglob("*"))]:
                folder.chmod(0o555 if on else 0o755)

    def close(self) -> None:
        if self.is_real:
            subprocess.run(["umount", str(self.path)], check=True)
        else:
            self.free()
            self.write_protect(False)


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def table():
    """A source of vectors and a config that fits them in a moment."""
    source = open_source(np.random.default_rng(0).normal(size=(200, 3)))
    return source, tiny_config(hidden=64)


def files_of(run):
    paths = [*sorted(run.history.glob("*.safetensors")), *(run.path / name for name in MODEL)]
    return {path.relative_to(run.path).as_posix(): path.read_bytes() for path in paths}


def test_rows_that_a_full_disk_cuts_short_can_be_written_again(disk):
    table, row = disk.path / "rows.jsonl", {"text": "x" * 10_000}
    append_rows(table, [{"n": 1}])
    disk.fill()
    with pytest.raises(RunError, match=r"cannot write .*rows\.jsonl"):
        append_rows(table, [row])
    assert read_rows(table) == [{"n": 1}]
    disk.free()
    append_rows(table, [row])
    assert read_rows(table) == [{"n": 1}, row]


def test_a_full_disk_is_an_error_and_the_old_file_stays(disk):
    path = disk.path / "file"
    write_atomic(path, b"old")
    disk.fill()
    with pytest.raises(RunError, match=r"cannot write .*file: .*What was written before is intact"):
        write_atomic(path, bytes(100_000))
    assert path.read_bytes() == b"old"
    assert not list(disk.path.glob("file.*"))
    disk.free()
    write_atomic(path, bytes(100_000))


def test_a_write_protected_disk_is_an_error_and_the_old_file_stays(disk):
    run = RunDirectory(disk.path / "run")
    with run.lock():
        run.claim(RECORD)
        run.append_log({"step": "gan"})
    disk.write_protect(True)
    for write in (
        lambda: write_atomic(run.config, b"new"),
        lambda: run.lock().__enter__() if disk.is_real else write_atomic(run.config, b"new"),
        lambda: RunDirectory(disk.path / "other").lock().__enter__(),
    ):
        with pytest.raises(RunError, match=r"cannot write .*make the directory writable"):
            write()
    assert load_json(run.config) == RECORD
    disk.write_protect(False)
    with run.lock():
        run.claim(RECORD)


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
