"""Every command on a detector of every kind of input: it works, or refuses as the guide says."""

import asyncio
import csv
import json
import re
import shutil
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from serving import encoded, form

from historyad import HistoryAD, Model, fit_model, open_source
from historyad.cli import main
from historyad.config import make_config
from historyad.deploy.service.app import create_app
from historyad.files import load_json
from historyad.judge.metrics import auroc
from historyad.model.examples import Examples
from historyad.model.run import RunDirectory

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
KINDS = {
    "whole": "whole images",
    "crops": "crops",
    "features": "features",
    "columns": "vectors",
}
MODEL = ("detector.safetensors", "detector.json")


@pytest.fixture(scope="module")
def table():
    """What the guide says of each command and kind: a cell is "yes" or a sentence."""
    text = GUIDE.read_text().partition("## What works for which input")[2]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip(" `") for cell in row] for row in rows]
    assert head[1:] == list(KINDS.values())
    return {row[0]: dict(zip(KINDS, row[1:], strict=True)) for row in rows if "---" not in row[0]}


@pytest.fixture
def cell(table, fitted, capsys):
    """Run a command on a kind; return whether it worked, which the guide must say, too."""

    def run(name, *arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        error = capsys.readouterr().err
        said = table[name][fitted.name]
        if said == "yes":
            assert status == 0, error
            return True
        assert status == 2, error
        assert error == f"historyad: {said}\n"
        return False

    return run


def test_the_guide_speaks_of_every_command_once(table):
    commands = {"fit", "score", "evaluate", "inspect", "probe", "report", "calibrate", "drift"}
    assert set(table) == commands | {"export", "serve", "score --maps", "score --shard", "Python"}


def test_fit_is_over_at_once_when_it_is_there(fitted, cell):
    before = {path: path.stat().st_mtime_ns for path in fitted.run.rglob("*.*")}
    assert cell("fit", "fit", fitted.source, "--out", fitted.run, *fitted.options)
    assert {path: path.stat().st_mtime_ns for path in fitted.run.rglob("*.*")} == before
    steps = {record["step"] for record in RunDirectory(fitted.run).read_log()}
    assert steps == {"gan", "detector"}
    assert len(list((fitted.run / "history").glob("*.safetensors"))) >= 5


def test_fit_continues_what_was_interrupted(fitted, tmp_path, cell):
    def stop(record):
        if record.get("step") == "detector":
            raise KeyboardInterrupt

    out = RunDirectory(tmp_path / "run")
    source = open_source(fitted.source, any_size=fitted.name in ("crops", "features"))
    with pytest.raises(KeyboardInterrupt):
        fit_model(source, make_config(**fitted.settings), out, on_progress=stop)
    assert not out.is_finished
    assert cell("fit", "fit", fitted.source, "--out", out.path, *fitted.options)
    for name in MODEL:
        assert (out.path / name).read_bytes() == (fitted.run / name).read_bytes()


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_rows(rows, fitted, samples, *, views=True):
    """Check that rows say of samples what Python does."""
    columns = fitted.model(samples, views=views).columns()
    assert list(rows[0]) == ["path", *columns]
    for name, column in columns.items():
        np.testing.assert_allclose([row[name] for row in rows], column, atol=1e-6)


def test_score(fitted, tmp_path, cell):
    for part in ("normal", "anomalous"):
        out = tmp_path / f"{part}.jsonl"
        source = fitted.source_of(part)
        assert cell("score", "score", fitted.run, source, "--view-scores", "--out", out)
        assert_rows(rows_of(out), fitted, getattr(fitted, part))
    shares = [
        np.mean([row["is_anomalous"] for row in rows_of(tmp_path / f"{part}.jsonl")])
        for part in ("normal", "anomalous")
    ]
    assert shares[0] < 0.4 < shares[1]


def test_score_with_maps(fitted, tmp_path, cell):
    few = fitted.source_of("anomalous") + "/0" * (fitted.name == "whole")
    out = tmp_path / "scores.csv"
    command = ["score", fitted.run, few, "--out", out, "--maps", tmp_path / "maps"]
    if not cell("score --maps", *command):
        assert not (tmp_path / "maps").exists()
        assert not out.exists()
        return
    rows = list(csv.DictReader(out.read_text().splitlines()))
    height, width = fitted.train.shape[1:3]
    for row in rows:
        with Image.open(tmp_path / "maps" / row["path"]) as shown:
            assert shown.size == (2 * width + 4, height)


def test_score_in_shards(fitted, tmp_path, cell):
    command = ["score", fitted.run, fitted.source_of("normal"), "--format", "jsonl"]
    for shard in ("0/2", "1/2"):
        assert cell("score --shard", *command, "--out", tmp_path, "--shard", shard)
    rows = [row for part in sorted(tmp_path.glob("part-*.jsonl")) for row in rows_of(part)]
    assert_rows(rows, fitted, fitted.normal, views=False)


def test_evaluate(fitted, tmp_path, cell):
    sources = [fitted.source_of(part) for part in ("normal", "anomalous")]
    out = tmp_path / "figures.json"
    options = ["--normal", sources[0], "--anomalous", sources[1], "--json", out]
    assert cell("evaluate", "evaluate", fitted.run, *options)
    scores = [fitted.model.anomaly_score(s) for s in (fitted.normal, fitted.anomalous)]
    y = np.repeat([0, 1], [*map(len, scores)])
    figures = load_json(out)
    assert figures["auroc"] == pytest.approx(auroc(y, np.concatenate(scores)), abs=1e-9)
    assert figures["auroc"] > 0.9
    assert (figures["n_normal"], figures["n_anomalous"]) == (len(scores[0]), len(scores[1]))


def test_inspect(fitted, cell, capsys):
    assert cell("inspect", "inspect", fitted.run)
    assert main(["inspect", str(fitted.run)]) == 0
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    said = {name: str(value) for name, value in fitted.model.kind.describe().items() if value}
    assert said.items() <= rows.items()
    assert rows["checks"] == "format, version and checksums are right"


def test_probe(fitted, tmp_path, cell):
    options = ["--limit", 10, "--out", tmp_path]
    assert cell("probe", "probe", fitted.run, fitted.source_of("normal"), *options)
    found = load_json(tmp_path / "probe.json")
    damages = fitted.model.kind.damages(fitted.train.shape[1:])
    assert [curve["name"] for curve in found["corruptions"]] == [d.name for d in damages]
    # Of a network whose weights are random, and which takes brightness out, little is to be hoped.
    seen = max(curve["rate"][-1] for curve in found["corruptions"])
    assert seen > (0.1 if fitted.name == "features" else 0.8)
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")


def test_report(fitted, tmp_path, cell):
    normal, anomalous = map(fitted.source_of, ("normal", "anomalous"))
    sources = ["--source", fitted.source, "--normal", normal, "--anomalous", anomalous]
    pages = []
    for options in ([], sources):
        out = tmp_path / "report.html"
        assert cell("report", "report", fitted.run, "--out", out, *options)
        pages.append(out.read_text())
    for title in ("How it decides", "What it learned against", "Training", "Settings"):
        assert all(f"<h2>{title}" in page for page in pages)
    more = ("How well it finds anomalies", "What it can see", "Training samples that look most")
    assert all((f"<h2>{title}" in pages[1], f"<h2>{title}" in pages[0]) == (1, 0) for title in more)
    # Samples beside their maps, and the three normal ones that each is compared with.
    pictures = 0 if fitted.name == "columns" else (2 + 3) * (24 + 3 * 6)
    assert pages[1].count("<img ") == pictures + (fitted.name in ("whole", "crops"))


def test_calibrate(fitted, tmp_path, cell):
    run = tmp_path / "model"
    run.mkdir()
    for name in MODEL:
        shutil.copy(fitted.run / name, run)
    options = ["--false-positive-rate", 0.2]
    assert cell("calibrate", "calibrate", run, fitted.source_of("normal"), *options)
    found = Model.load(run)
    scores = np.sort(found.anomaly_score(fitted.normal))
    np.testing.assert_allclose(found.calibration.scores, scores, atol=1e-6)
    assert found.calibration.false_positive_rate == 0.2


def test_drift(fitted, tmp_path, cell):
    for part, drifts in (("normal", False), ("anomalous", fitted.name != "crops")):
        out = tmp_path / f"{part}.json"
        assert cell("drift", "drift", fitted.run, fitted.source_of(part), "--json", out)
        found = load_json(out)
        assert found["n"] == len(getattr(fitted, part))
        assert (found["alarm"] is not None) == drifts


def test_export(fitted, tmp_path, cell):
    path = tmp_path / "model.onnx"
    if not cell("export", "export", fitted.run, path):
        assert not path.exists()
        return
    graph = onnxruntime.InferenceSession(path)
    samples = np.concatenate([fitted.normal, fitted.anomalous])
    # One graph may return a map, too.
    score, p_value, is_anomalous, *_ = graph.run(None, {graph.get_inputs()[0].name: samples})
    expected = fitted.model(samples)
    np.testing.assert_allclose(score, expected.anomaly_score, atol=1e-4)
    np.testing.assert_array_equal(p_value, fitted.model.calibration.p_value(score))
    assert (is_anomalous == expected.is_anomalous).mean() > 0.99


def test_serve(fitted, table):
    assert table["serve"][fitted.name] == "yes"
    samples = np.concatenate([fitted.normal[:3], fitted.anomalous[:3]])
    if fitted.name == "columns":
        body = {"json": {"vectors": samples.tolist()}}
    else:
        body = {"files": form([(f"{i}.png", encoded(image)) for i, image in enumerate(samples)])}

    async def ask():
        app = create_app(fitted.model, examples=Examples.load(fitted.run))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            return [
                (await client.post("/score", **body)).json(),
                (await client.post("/score?map=1", **body)).json(),
                (await client.get("/model")).json(),
            ]

    answer, with_maps, described = asyncio.run(ask())
    columns = fitted.model(samples).columns()
    for result, *values in zip(answer["results"], *columns.values(), strict=True):
        found = [result[name] for name in columns]
        np.testing.assert_allclose(found, [float(value) for value in values], atol=1e-5)
    shown = ["map" in result for result in with_maps["results"]]
    assert shown == [fitted.name != "columns"] * 6
    assert [len(one.get("near", "")) for one in with_maps["results"]] == [3 * one for one in shown]
    assert described["input"] == " x ".join(map(str, fitted.train.shape[1:]))


def test_python(fitted, table, tmp_path):
    assert table["Python"][fitted.name] == "yes"
    detector = HistoryAD.load(fitted.run)
    detector.save(tmp_path / "model")
    again = HistoryAD.load(tmp_path / "model")
    for part in ("normal", "anomalous"):
        scores = detector.anomaly_score(getattr(fitted, part))
        np.testing.assert_array_equal(again.anomaly_score(getattr(fitted, part)), scores)
        np.testing.assert_array_equal(again.anomaly_score(fitted.source_of(part)), scores)
        np.testing.assert_array_equal(
            again.predict(getattr(fitted, part)), np.where(scores > again.threshold_, -1, 1)
        )
