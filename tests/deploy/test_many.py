"""Parts by hand and on a real Ray cluster of two workers, which one test robs of a worker.

Each pytest process that gets one of the tests with `ray_cluster` starts a cluster of its own.
"""

import fcntl
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet
import pytest
from archives import png, write_shard
from buckets import bucket
from PIL import Image
from serving import encoded
from storing import too_deep
from tiny import save_table, tiny_config

from historyad.cli import main
from historyad.data.datasets import open_source
from historyad.deploy import many, parts
from historyad.deploy import ray_cluster as cluster
from historyad.deploy.many import ScoreParts, score_dataset
from historyad.deploy.objects import score_objects
from historyad.deploy.parts import Job, open_for_parts, score_shard
from historyad.errors import InputError, RunError
from historyad.files import load_json, read_rows, save_json
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.names import without_keys
from historyad.research.benchmark import run_benchmark

# Of Ray itself: its own settings, and files and processes that it leaves to the interpreter.
pytestmark = [
    pytest.mark.filterwarnings(
        r"ignore:`use_(push_based_shuffle|polars|arrow_tensor_v2)` is deprecated:DeprecationWarning"
    ),
    pytest.mark.filterwarnings(r"ignore:unclosed file .*[/\\]ray[/\\]:ResourceWarning"),
    pytest.mark.filterwarnings(r"ignore:subprocess \d+ is still running:ResourceWarning"),
    pytest.mark.xdist_group("ray"),  # one cluster for all where --dist loadgroup is given
]
N = 180


@pytest.fixture(scope="module")
def ray_cluster():
    import ray

    # Ray's workers give way to all others, and on a busy machine they would never come to work.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    fit_model(open_source("digits:train"), tiny_config(), RunDirectory(path))
    return path


@pytest.fixture(scope="module")
def images(digits):
    return digits[0][:N]


@pytest.fixture
def folder(images, tmp_path):
    """A folder of images, two of which cannot be scored."""
    path = tmp_path / "images"
    for i, image in enumerate(images):
        (path / f"{i // 50}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(path / f"{i // 50}" / f"{i:04d}.png")
    (path / "0" / "0007.png").write_bytes(b"\x89PNG and no more")
    Image.new("L", (9, 8)).save(path / "2" / "0120.png")
    return path


@pytest.fixture
def array(images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    return tmp_path / "x.npy"


def rows(out):
    """Return {path: score} of all part files; a path that is there twice is a mistake."""
    tables = [pyarrow.parquet.read_table(path).to_pylist() for path in out.glob("part-*.parquet")]
    found = [(row["path"], row["anomaly_score"]) for table in tables for row in table]
    assert len(found) == len(dict(found))
    return dict(found)


def row(part, samples=None, job=None):
    """Return the batch of one row that names a part."""
    item = {"part": part} if job is None else many._item(job, samples, part)
    return {key: np.array([value]) for key, value in item.items()}


def expected(run, images, but=()):
    scores = Model.load(run).anomaly_score(images)
    return {
        f"{i // 50}/{i:04d}.png": pytest.approx(float(score), abs=1e-6)
        for i, score in enumerate(scores)
        if i not in but
    }


# --- shards


def test_shards_hold_what_one_process_scores_each_row_once(run, folder, images, tmp_path):
    job = Job(run, str(folder), tmp_path / "out", 3)
    parts = [score_shard(job, i) for i in range(3)]
    assert rows(job.out) == expected(run, images, but=(7, 120))
    assert [part.scored for part in parts] == [59, 60, 59]
    assert [name for part in parts for name, _ in part.unreadable] == ["0/0007.png", "2/0120.png"]
    assert "8 x 9 x 1" in parts[2].unreadable[0][1]
    table = pyarrow.parquet.read_table(job.path(1))
    assert table.column_names == ["path", "anomaly_score", "p_value", "is_anomalous"]
    assert [str(field.type) for field in table.schema] == ["string", "float", "double", "bool"]
    # What a reader of folders takes for parts is those alone.
    assert pyarrow.parquet.read_table(job.out).num_rows == N - 2


def test_a_part_that_is_there_is_not_scored_again(run, array, tmp_path):
    job = Job(run, str(array), tmp_path / "out", 4)
    first = score_shard(job, 2)
    written = job.path(2).stat().st_mtime_ns
    assert score_shard(job, 2) == first
    assert job.path(2).stat().st_mtime_ns == written


def test_a_part_without_samples_has_columns(run, images, tmp_path):
    np.save(tmp_path / "few.npy", images[:2])
    job = Job(run, str(tmp_path / "few.npy"), tmp_path / "out", 3, view_scores=True)
    assert [score_shard(job, i).scored for i in range(3)] == [0, 1, 1]
    schemas = {str(pyarrow.parquet.read_schema(job.path(i))) for i in range(3)}
    assert len(schemas) == 1
    assert "smoothness" in schemas.pop()


@pytest.fixture
def shard(images, tmp_path):
    """A tar file of nine images, one damaged and one of another size."""
    members = [(f"{i}.png", encoded(image)) for i, image in enumerate(images[:9])]
    members[2] = ("2.png", b"\x89PNG and no more")
    members[7] = ("7.png", png(1))
    return write_shard(tmp_path / "x.tar", members)


def expected_of_shard(run, images):
    scores = Model.load(run).anomaly_score(images[:9])
    return {
        f"x.tar/{i}.png": pytest.approx(float(score), abs=1e-6)
        for i, score in enumerate(scores)
        if i not in (2, 7)
    }


def test_parts_of_a_tar_file_leave_out_what_cannot_be_scored(run, shard, images, tmp_path):
    job = Job(run, str(shard), tmp_path / "out", 3)
    parts = [score_shard(job, i) for i in range(3)]
    assert rows(job.out) == expected_of_shard(run, images)
    left_out = [[name for name, _ in part.unreadable] for part in parts]
    assert left_out == [["x.tar/2.png"], [], ["x.tar/7.png"]]
    actor = ScoreParts(replace(job, out=tmp_path / "actor"), 1, "cpu")
    (tmp_path / "actor").mkdir()
    for part in range(3):
        assert actor(row(part)) == {"part": part, "error": ""}
    assert rows(tmp_path / "actor") == rows(job.out)
    assert main(["score", str(run), str(shard), "--out", str(tmp_path / "one.jsonl")]) == 0
    lines = map(json.loads, (tmp_path / "one.jsonl").read_text().splitlines())
    assert {row["path"]: pytest.approx(row["anomaly_score"]) for row in lines} == rows(job.out)


def test_a_damaged_tar_file_is_told_once(run, shard, images, tmp_path):
    write_shard(tmp_path / "y.tar", [(f"{i}.png", encoded(images[i])) for i in range(9)])
    shard.write_bytes(shard.read_bytes()[:1600])
    job = Job(run, str(tmp_path / "*.tar"), tmp_path / "out", 12)
    parts = [score_shard(job, i) for i in range(12)]
    assert [name for part in parts for name, _ in part.unreadable] == ["x.tar"]
    assert sum(part.scored for part in parts) == 10


def test_another_tar_file_does_not_continue_a_folder(run, shard, images, tmp_path):
    job = Job(run, str(shard), tmp_path / "out", 3)
    score_shard(job, 0)
    write_shard(shard, [(f"{i}.png", encoded(images[i])) for i in range(20, 29)])
    with pytest.raises(RunError, match="fingerprint = "):
        score_shard(job, 1)


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_names_that_are_not_utf8_are_escaped(run, folder, tmp_path, file_format):
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.png")).symlink_to(folder / "0" / "0001.png")
    job = Job(run, str(folder), tmp_path / "out", 1, file_format=file_format)
    (tmp_path / "out").mkdir()
    samples = open_for_parts(job, Model.load(run))
    assert ScoreParts(job, 1, "cpu")(row(0, samples, job))["error"] == ""
    if file_format == "parquet":
        assert "caf\\udce9.png" in rows(job.out)
    else:
        assert "caf\\udce9.png" in job.path(0).read_text().replace("\\\\", "\\")


def test_the_first_part_tells_of_a_folder_that_cannot_be_entered(run, folder, tmp_path):
    closed = too_deep(folder / "deep")
    job = Job(run, str(folder), tmp_path / "out", 2)
    (tmp_path / "out").mkdir()
    actor = ScoreParts(job, 1, "cpu")
    samples = open_for_parts(job, Model.load(run))
    for part in range(2):
        assert actor(row(part, samples, job))["error"] == ""
    names = [[name for name, _ in parts.load_part(job, part).unreadable] for part in range(2)]
    assert closed in names[0]
    assert closed not in names[1]


def test_a_full_disk_leaves_no_part(run, array, disk):
    job = Job(run, str(array), disk.path / "out", 2)
    assert score_shard(job, 0).scored == N // 2
    disk.fill()
    with pytest.raises(RunError, match=r"cannot write .*part-00001.*No space left"):
        score_shard(job, 1)
    disk.free()
    assert not job.path(1).exists()
    assert score_shard(job, 1).scored == N // 2


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"parts": 5}, "parts = 4, not 5"),
        ({"view_scores": True}, "columns = "),
        ({"file_format": "csv"}, "format = 'parquet', not 'csv'"),
        ({"source": "digits:test:0"}, f"samples = {N}, not 59"),
    ],
)
def test_a_process_that_disagrees_is_refused(run, array, tmp_path, change, difference):
    job = Job(run, str(array), tmp_path / "out", 4)
    score_shard(job, 0)
    with pytest.raises(RunError, match=difference):
        score_shard(replace(job, **change), 1)
    assert sorted(job.out.glob("part-*")) == [job.path(0)]


def test_another_model_and_other_files_are_refused(run, folder, tmp_path):
    job = Job(run, str(folder), tmp_path / "out", 2)
    score_shard(job, 0)
    fit_model(open_source("digits:train"), tiny_config(seed=1), RunDirectory(tmp_path / "new"))
    with pytest.raises(RunError, match="model = "):
        score_shard(replace(job, run=tmp_path / "new"), 1)
    (folder / "0" / "0001.png").rename(folder / "0" / "0001b.png")
    with pytest.raises(RunError, match="fingerprint = "):
        score_shard(job, 1)


def test_the_one_who_comes_first_says_what_is_scored(tmp_path):
    path = tmp_path / "_parts.json"
    parts._create(path, {"parts": 1})
    parts._create(path, {"parts": 2})
    assert load_json(path) == {"parts": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_summary_that_was_altered_is_named(run, array, tmp_path):
    job = Job(run, str(array), tmp_path / "out", 2)
    score_shard(job, 0)
    save_json(job.summary_path(0), {"number": 0})
    with pytest.raises(RunError, match=r"_part-00000-of-00002.json was altered: delete it"):
        score_shard(job, 0)


def test_a_source_of_another_shape_is_refused_before_anything_is_written(run, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 5, 5), np.uint8))
    job = Job(run, str(tmp_path / "x.npy"), tmp_path / "out", 1)
    with pytest.raises(InputError, match="8 x 8 x 1"):
        score_shard(job, 0)
    assert not job.out.exists()


@pytest.mark.parametrize(("n", "expected"), [(1, 1), (50_000, 25), (10**10, 10_000)])
def test_parts_are_neither_too_small_nor_too_many(tmp_path, n, expected):
    assert many.number_of_parts(tmp_path, n) == expected
    save_json(tmp_path / "_parts.json", {"parts": 7})
    assert many.number_of_parts(tmp_path, n) == 7


def test_a_job_means_the_same_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job(Path("run"), "x.npz:images", Path("out"), 1)
    absolute = many._absolute(job)
    assert (absolute.run, absolute.out) == (tmp_path / "run", tmp_path / "out")
    assert absolute.source == f"{tmp_path}/x.npz:images"
    assert many._absolute(replace(job, source="digits:test:0")).source == "digits:test:0"


def test_a_part_that_kills_its_workers_is_given_up(tmp_path):
    attempts = tmp_path / ".attempts-00004"
    for _ in range(3):
        many._count_attempt(attempts, 4)
    with pytest.raises(RunError, match=r"part 4 ended its worker 3 times.*fewer --actors"):
        many._count_attempt(attempts, 4)


def test_an_actor_loads_the_model_and_the_source_once(run, array, tmp_path):
    job = Job(run, str(array), tmp_path / "out", 2)
    job.out.mkdir()
    scorer = ScoreParts(job, 1, "cpu")
    for part in range(2):
        assert scorer(row(part)) == {"part": part, "error": ""}
    (model, samples) = (scorer._model, scorer._samples)
    assert scorer._model is model
    assert scorer._samples is samples
    assert isinstance(samples.samples, np.memmap)  # never read as a whole
    assert not list(job.out.glob(".attempts*"))


# --- the command line


def test_the_command_scores_a_shard(run, folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["score", str(run), str(folder), "--out", str(out), "--format", "jsonl"]
    assert main([*command, "--shard", "0/2", "--strict"]) == 2
    captured = capsys.readouterr()
    assert "historyad: skipped 0/0007.png: " in captured.err
    assert re.search(rf"89 scored, \d+ anomalous, 1 could not be read; in {out}\n", captured.err)
    assert main([*command, "--shard", "1/2"]) == 0
    parts = [(out / f"part-0000{i}-of-00002.jsonl").read_text() for i in range(2)]
    assert main(["score", str(run), str(folder / "1"), "--out", str(tmp_path / "one.jsonl")]) == 0
    whole = (tmp_path / "one.jsonl").read_text().splitlines()
    assert {line.replace('"1/', '"') for line in "".join(parts).splitlines()} >= set(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "2/2"], "there is no shard 2/2: they are 0/2 to 1/2"),
        (["--shard", "1"], "'1' is no shard: write 0/10"),
        (["--shard", "0/0"], "'0/0' is no shard"),
        (["--shard", "0/2", "--fdr", "0.1"], "--fdr takes all scores at once"),
        (["--shard", "0/2", "--maps", "maps"], "--maps draws in one process"),
        (["--engine", "ray", "--intervals", "i.csv"], "--intervals are found in one process"),
        (["--shard", "0/2", "--engine", "ray"], "leave out one of them"),
        (["--shard", "0/2", "--actors", "2"], "--actors are processes of an engine"),
        (["--shard", "0/2", "--address", "a:1"], "--address is that of an engine"),
        (["--format", "csv"], "--format is that of part files"),
        (["--actors", "2"], "--actors are processes of an engine"),
        (["--address", "a:1"], "--address is that of an engine"),
        (["--engine", "ray", "--address", "nowhere"], "'nowhere' is no address"),
    ],
)
def test_mistakes_are_told_in_one_line(run, array, tmp_path, capsys, options, message):
    command = ["score", str(run), str(array), "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_part_files_need_a_folder(run, array, tmp_path, capsys):
    assert main(["score", str(run), str(array), "--shard", "0/2"]) == 2
    assert "say which with --out" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["score", str(run), str(array), "--shard", "0/2", "--out", f"{tmp_path}/file"]) == 2
    assert "is a file: give a folder" in capsys.readouterr().err


def test_what_is_not_installed_is_named(run, array, tmp_path, monkeypatch):
    for package in ("ray", "pyarrow"):
        monkeypatch.setitem(sys.modules, package, None)
    job = Job(run, str(array), tmp_path / "out", 2)
    with pytest.raises(InputError, match=r"pyarrow: install historyad\[ray\], or .*--format"):
        score_shard(job, 0)
    with pytest.raises(InputError, match=r"ray needs ray: install historyad\[ray\]"):
        score_dataset(replace(job, file_format="csv"))


# --- the cluster


def test_a_cluster_behind_a_closed_port_is_refused_at_once(run, array, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    command = ["score", str(run), str(array), "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert main([*command, "--address", address]) == 2
    message = capsys.readouterr().err
    assert f"cannot reach a Ray cluster at {address}: Connection refused" in message


def test_a_cluster_of_no_known_name_is_refused():
    with pytest.raises(RunError, match=r"at nowhere.invalid:6379: \w+"):
        cluster.reach("nowhere.invalid:6379")


def test_a_cluster_that_no_route_leads_to_is_given_up(monkeypatch):
    given_up = threading.Event()

    def connect(*_):  # as to an address behind which packets are lost
        given_up.wait()
        raise TimeoutError

    monkeypatch.setattr(cluster.socket, "create_connection", connect)
    with pytest.raises(RunError, match=r"at 127.0.0.1:6379: no answer within 0.1 s"):
        cluster.reach("127.0.0.1:6379", seconds=0.1)
    given_up.set()


def test_what_is_not_ray_is_told_from_it():
    told = pytest.raises(RunError, match="what listens there is no Ray")
    with socket.create_server(("127.0.0.1", 0)) as silent, told:
        cluster.reach(f"127.0.0.1:{silent.getsockname()[1]}", seconds=0.5)
    web = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=web.handle_request).start()
    with web, told:
        cluster.reach(f"127.0.0.1:{web.server_port}")


def test_a_cluster_that_is_there_answers(ray_cluster):
    import ray

    cluster.reach(ray.get_runtime_context().gcs_address)


def test_a_killed_actor_loses_nothing_and_doubles_nothing(
    ray_cluster, run, folder, images, tmp_path
):
    job = Job(run, str(folder), tmp_path / "out", 6)
    # An image that is leased out: whoever comes to part 3 waits there, and is killed.
    lease = os.open(folder / "2" / "0100.png", os.O_RDONLY)
    fcntl.fcntl(lease, fcntl.F_SETSIG, signal.SIGURG)  # which nobody minds
    fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    killed = []

    def kill():
        while not (job.attempts_path(3).exists() and job.attempts_path(3).read_text()):
            time.sleep(0.01)
        killed.append(int(job.attempts_path(3).read_text()))
        os.kill(killed[0], signal.SIGKILL)
        os.close(lease)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    told = []
    parts = score_dataset(job, actors=2, on_part=told.append)
    killer.join()
    assert killed
    assert killed[0] != parts[3].process
    assert sorted(part.number for part in told) == list(range(6))
    assert rows(job.out) == expected(run, images, but=(7, 120))
    assert [name for part in parts for name, _ in part.unreadable] == ["0/0007.png", "2/0120.png"]

    job.path(4).unlink()  # as if the whole cluster had been switched off before it was written
    written = {path: path.stat().st_mtime_ns for path in job.out.glob("part-*")}
    again = []
    score_dataset(replace(job, parts=0), on_part=again.append)
    assert [part.number for part in again] == [4]
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert rows(job.out) == expected(run, images, but=(7, 120))
    assert score_dataset(job, on_part=pytest.fail)[4].scored == 29


def test_ray_and_shards_write_the_same_files(ray_cluster, run, array, tmp_path, capsys):
    out = tmp_path / "ray"
    by_hand = Job(run, str(array), tmp_path / "by hand", 1)
    score_shard(by_hand, 0)
    assert main(["score", str(run), str(array), "--engine", "ray", "--out", str(out)]) == 0
    assert f"{N} scored" in capsys.readouterr().err
    name = by_hand.path(0).name
    assert (out / name).read_bytes() == by_hand.path(0).read_bytes()


def test_an_error_in_an_actor_is_told_as_it_is_here(ray_cluster, run, tmp_path):
    job = Job(tmp_path / "gone", "digits:test", tmp_path, 1)
    with pytest.raises(RunError, match=r"gone/detector.json is missing: restore it"):
        list(many._scored(job, open_source("digits:test"), [0], 1, "cpu"))


def test_fits_of_a_benchmark_are_tasks(ray_cluster, tmp_path):
    tables = save_table(tmp_path)
    bad = "digits:train|digits:test|./nowhere"
    ask = {"methods": ["pca-residual"], "seeds": [0], "out": tmp_path / "out", "data_root": tables}
    with pytest.raises(
        RunError, match=r"1 of 2 fits.*\n.*pca-residual on digits.*nowhere does not"
    ):
        run_benchmark(splits=[bad, "vectors-blob"], engine="ray", **ask)
    (row,) = read_rows(tmp_path / "out" / "rows.jsonl")
    assert row["split"] == "vectors-blob"
    assert row["threads"] == 1
    assert run_benchmark(splits=["vectors-blob"], engine="ray", on_row=pytest.fail, **ask) == [row]


# --- addresses


def read_back(out):
    """Return the rows of a folder of Parquet files by path."""
    found = pyarrow.parquet.read_table(out).to_pylist()
    assert len({row["path"] for row in found}) == len(found)
    return {row["path"]: row for row in found}


@pytest.mark.parametrize("store", ["file", "s3"])
def test_what_an_address_names_is_scored_by_the_engine(
    ray_cluster, run, folder, images, tmp_path, capsys, store
):
    out = tmp_path / "out"
    with bucket(folder) as address:
        source = address if store == "s3" else folder.as_uri()
        command = ["score", str(run), source, "--engine", "ray", "--out", str(out)]
        assert main(command) == 0
        assert f"{N - 2} scored" in capsys.readouterr().err
        found = read_back(out)
        scores = {path: row["anomaly_score"] for path, row in found.items() if not row["error"]}
        assert scores == expected(run, images, but=(7, 120))
        assert "8 x 9 x 1" in found["2/0120.png"]["error"]
        assert found["0/0007.png"]["is_anomalous"] is None
        assert main([*command[:-1], str(out)]) == 2
        assert "holds something: name another --out" in capsys.readouterr().err


def test_keys_in_an_address_are_not_shown():
    assert without_keys("s3://key:secret@bucket/a@b?c=d") == "s3://bucket/a@b?c=d"
    assert without_keys("file:///a@b") == "file:///a@b"


def test_rows_of_a_store_keep_their_columns(ray_cluster, tmp_path):
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=[*"abc"])
    frame.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows").mkdir()
    for i in range(2):
        frame[150 * i : 150 * (i + 1)].to_parquet(tmp_path / "rows" / f"{i}.parquet")
    source = open_source(tmp_path / "rows.parquet")
    model = fit_model(source, tiny_config(), RunDirectory(tmp_path / "run"))
    job = Job(tmp_path / "run", (tmp_path / "rows").as_uri(), tmp_path, 0)
    counts = score_objects(job, str(tmp_path / "out"))
    assert counts["scored"] == 300
    found = pyarrow.parquet.read_table(tmp_path / "out").to_pandas().sort_values("a")
    assert [*found] == [*"abc", "anomaly_score", "p_value", "is_anomalous"]
    order = frame["a"].argsort()
    np.testing.assert_array_equal(found["c"], frame["c"][order])
    scores = model(source.samples[order])
    np.testing.assert_allclose(found["anomaly_score"], scores.anomaly_score, atol=1e-6)

    frame[["a", "b"]].to_parquet(tmp_path / "few.parquet")
    job = replace(job, source=(tmp_path / "few.parquet").as_uri())
    with pytest.raises(InputError, match="column"):
        score_objects(job, str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "is an address, and an engine reads it: give --engine ray"),
        (["--engine", "ray", "--format", "csv"], "writes Parquet: leave out --format"),
        (["--engine", "ray"], "holds no file that the model takes"),
    ],
)
def test_mistakes_with_addresses_are_told(run, tmp_path, capsys, options, message):
    (tmp_path / "text.txt").write_text("no image")
    command = ["score", str(run), tmp_path.as_uri(), "--out", str(tmp_path / "out"), *options]
    assert main(command) == 2
    assert message in capsys.readouterr().err
