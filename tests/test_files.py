import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from safetensors.torch import save
from storing import damages
from tiny import on_disk

from historyad.errors import RunError
from historyad.files import (
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
from historyad.files import write_atomic
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
    ("save", "value", "limit"),
    [(save_json, ["a" * 30], 30), (save_tensors, {"a": torch.zeros(300)}, 1200)],
)
def test_what_would_not_be_read_is_not_written(tmp_path, save, value, limit):
    with pytest.raises(
        RunError, match=r"x would have .* bytes, more than the .* lower|record less"
    ):
        save(tmp_path / "x", value, limit=limit)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("load", [load_json, load_tensors, read_rows])
def test_files_without_an_end_are_not_read(tmp_path, load):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(RunError, match=rf"{name} cannot be read: it is no regular file"):
            load(tmp_path / name)


@pytest.mark.parametrize("load", [load_json, load_tensors])
def test_files_larger_than_a_run_can_have_are_not_read(tmp_path, load):
    with (tmp_path / "x").open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no space
    with pytest.raises(RunError, match="has 1,099,511,627,776 bytes, more than the"):
        load(tmp_path / "x")


# --- rows


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


# --- a full disk


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
