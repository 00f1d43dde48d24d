import json
import math
import time

import numpy as np
import pytest
import torch
from tiny import TINY, tiny_config

from historyad import HistoryAD, Model
from historyad.cli import main
from historyad.config import make_config
from historyad.data.datasets import open_source
from historyad.errors import ConfigError
from historyad.kinds.columns import Columns
from historyad.kinds.crops import Crops
from historyad.kinds.features import Features
from historyad.kinds.whole import Whole
from historyad.method.loop import Loop, OutOfTimeError, Session
from historyad.model import fit as fitting
from historyad.model import making, plan
from historyad.model.criterion import damages_seen, share_seen, some_of
from historyad.model.fit import fit_model
from historyad.model.plan import plan_fit
from historyad.model.run import RunDirectory

AUTO = {**TINY, "views": "auto"}
FEW = 100  # images that are trained on here


@pytest.fixture(autouse=True)
def _few_are_trained_on(constants):
    constants(plan, fewest_to_train=FEW)


@pytest.fixture(scope="module")
def source(digits):
    return open_source(np.random.default_rng(0).permutation(digits[0])[:300])


def stop_at(step):
    def stop(record):
        if record.get("step") == step:
            raise KeyboardInterrupt

    return stop


def test_few_images_train_nothing_unless_it_is_asked_for(digits):
    some = lambda n: open_source(digits[0][:n])  # noqa: E731
    assert plan_fit(some(FEW), make_config(**AUTO)).config.views == "auto"
    assert plan_fit(some(FEW - 1), make_config(**AUTO)).config.views == "companions"
    assert plan_fit(some(FEW - 1), tiny_config()).config.views == "all"
    crops = make_config(**AUTO, patch=8)
    assert plan_fit(some(FEW - 1), crops).config.views == "auto"


# --- a detector before any training


@pytest.mark.parametrize("step", ["gan", "detector"])
def test_an_interrupted_fit_leaves_a_detector_and_ends_as_one_that_was_not(source, tmp_path, step):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        fit_model(source, tiny_config(), run, on_progress=stop_at(step))
    assert run.has_model
    assert not run.is_finished
    first = Model.load(run.path)
    assert first.config.views == "companions"
    assert "history" not in first.view_names
    alone = tiny_config(views="companions")
    instant = fit_model(source, alone, RunDirectory(tmp_path / "instant"))
    images = source.samples[:20]
    np.testing.assert_array_equal(first.anomaly_score(images), instant.anomaly_score(images))
    assert first.calibration.threshold == instant.calibration.threshold
    fit_model(source, tiny_config(), run)
    assert run.is_finished
    fit_model(source, tiny_config(), RunDirectory(tmp_path / "whole"))
    for name in ("detector.json", "detector.safetensors"):
        assert (run.path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_without_companions_there_is_no_detector_before_its_training(source, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        fit_model(source, tiny_config(views="history"), run, on_progress=stop_at("gan"))
    assert not run.has_model
    with pytest.raises(ConfigError, match=r"views is 'history', .* leave out the time"):
        fit_model(source, tiny_config(views="history"), run, seconds=1)


def test_networks_are_trained_where_they_were_measured_to_help():
    for kind, trains in ((Whole, True), (Crops, True), (Features, False), (Columns, False)):
        assert kind.trains(make_config()) == trains
        assert kind.trains(make_config(views="all"))
        assert kind.trains(make_config(views="history"))
        assert not kind.trains(make_config(views="companions"))


# --- a bound on the time


def test_a_fit_that_is_out_of_time_keeps_the_first_detector_and_continues(source, tmp_path):
    run = RunDirectory(tmp_path / "run")
    model = fit_model(source, tiny_config(), run, seconds=1e-3)
    assert model.config.views == "companions"
    assert not run.is_finished
    assert (run.checkpoints / "gan.safetensors").exists()
    model = fit_model(source, tiny_config(), run, seconds=math.inf)
    assert "history" in model.view_names
    assert run.is_finished
    in_python = HistoryAD(**TINY, device="cpu").fit(source.samples, seconds=1e-3)
    assert in_python.model_.config.views == "companions"


def test_a_loop_stops_at_its_time_with_its_state_kept(tmp_path):
    network = torch.nn.Linear(2, 1)
    config = tiny_config()

    def loop(end):
        session = Session(tmp_path, None, 1e9, end)
        return Loop(3, config, session, {"detector": network}, {})

    def run_to(loop, end):
        for _ in loop.until(end):
            loop.count(torch.tensor(1.0))

    late = loop(time.monotonic() - 1)
    with pytest.raises(OutOfTimeError):
        run_to(late, 640)
    assert late.images_seen == 64  # a batch at least: each call gets somewhere
    early = loop(time.monotonic() + 100)
    assert early.images_seen == 64
    assert [*map(int, early.until(64))] == []


def test_the_command_says_what_is_kept_and_what_training_brought(
    source, tmp_path, capsys, monkeypatch
):
    np.save(tmp_path / "x.npy", source.samples)
    run = tmp_path / "run"
    options = [f"--{k.replace('_', '-')}={v}" for k, v in AUTO.items()]
    command = ["fit", str(tmp_path / "x.npy"), "--out", str(run), *options]
    assert main([*command, "--time", "0.001"]) == 0
    *_, said, following = capsys.readouterr().out.splitlines()
    assert said.startswith("training had not ended after 0.001 s: the detector that trains no")
    assert following == f"next: historyad score {run} SOURCE"
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "train_detector", lambda *_: stop_at("x")({"step": "x"}))
        assert main(command) == 130
    said = capsys.readouterr()
    assert said.out.endswith(
        f"{run}: the detector that trains no network is kept, and can be used\n"
    )
    assert said.err.endswith("interrupted; the same command continues\n")
    assert main(command) == 0
    *_, said, _ = capsys.readouterr().out.splitlines()
    model = Model.load(run)
    seen = [model.source[f"seen_{which}"] for which in ("untrained", "trained")]
    assert f"{seen[1]:.3f} with it and {seen[0]:.3f} without" in said
    assert (model.config.views == "companions") == (seen[1] < seen[0] - 0.01)
    assert said.endswith("is kept") == (seen[1] < seen[0] - 0.01)
    assert main([*command, "--time", "0"]) == 2


# --- which of the two


def test_damage_that_is_seen_better_counts(whole, tmp_path):
    """By a score that is right, and the same with its sign changed."""
    score, samples = whole.model.score, whole.normal[:60]
    seen = damages_seen(score, samples, 0)
    kind = whole.model.kind
    assert [*seen] == [damage.name for damage in kind.damages(samples.shape[1:])]
    assert {len(found) for found in seen.values()} == {2}
    assert share_seen(score, samples, 0) == pytest.approx(np.mean([*seen.values()]))
    assert share_seen(score, samples, 0) > 0.6
    assert 0.5 < seen["noise"][0] < seen["noise"][1]  # and more of it is seen better
    assert damages_seen(score, samples, 0) == seen
    assert damages_seen(score, samples, 1) != seen
    assert len(some_of(whole.normal, np.arange(60))) == 60


@pytest.mark.parametrize(
    ("before", "after", "trained_is_better"),
    [(0.7, 0.8, True), (0.7, 0.695, True), (0.7, 0.6, False)],
)
def test_what_was_trained_is_kept_unless_it_sees_less(
    source, tmp_path, monkeypatch, before, after, trained_is_better
):
    found = iter([before, after])
    monkeypatch.setattr(making, "share_seen", lambda *_: next(found))
    run = RunDirectory(tmp_path / "run")
    model = fit_model(source, make_config(**AUTO), run)
    assert ("history" in model.view_names) == trained_is_better
    assert (model.config.views == "auto") == trained_is_better
    assert sorted(found) == []
    assert run.is_finished
    asked = json.loads(run.config.read_text())["config"]["views"]
    assert asked == "auto"
    again = fit_model(source, make_config(**AUTO), run)  # which is finished
    assert again.view_names == model.view_names
