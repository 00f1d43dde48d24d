"""Every figure end to end, on a data root of made-up sets in the layout of the real ones."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny import TINY, write_idx

from benchmarks.results.paper import sections
from historyad.cli import main
from historyad.config import make_config
from historyad.errors import RunError
from historyad.files import read_rows
from historyad.model.run import RunDirectory
from historyad.research.reproduce import everything, fig7, fig9, histories, runs, table1
from historyad.research.reproduce.drawing import pack_images, unpack_images
from historyad.research.reproduce.everything import FIGURES, fit_for, reproduce
from historyad.research.reproduce.fig8 import interpolate
from historyad.research.reproduce.figure import EDGES, histogram, separation
from historyad.research.reproduce.pooled import PooledHistory
from historyad.research.reproduce.runs import Recipe, Runs
from historyad.research.reproduce.spread import fit_on_ray

# Rate and share are chosen by the number of samples, as they are by default.
SMALL = {**TINY, "epoch_images": 256, "detector_epochs": 0.5, "false_positive_rate": 0.0}
SMALL["calibration_share"] = 0.0
del SMALL["views"]  # each preset has its own


@pytest.fixture(scope="module")
def root(tmp_path_factory, digits_of_both_parts):
    """Digits of 7 x 7 pixels as MNIST, the same upside down as KMNIST, noise as everything else.

    The networks see them in a frame of 8 x 8, as they see MNIST's 28 x 28 pixels in 32 x 32.
    """
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for folder, change in (
        ("MNIST/raw", lambda x: x),
        ("KMNIST/raw", lambda x: x[:, ::-1]),
        ("FashionMNIST/raw", lambda x: random.integers(0, 256, x.shape, np.uint8)),
    ):
        (root / folder).mkdir(parents=True)
        for part, (images, labels) in digits_of_both_parts.items():
            write_idx(
                root / folder / f"{part}-images-idx3-ubyte", np.ascontiguousarray(change(images))
            )
            write_idx(root / folder / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))
    for name, sizes in {
        "svhn": {"train": 200, "test": 40},
        "cifar10": {"test": 60},
        "celeba": {"test": 60},
        "tiny_imagenet": {"test": 30},
    }.items():
        (root / name).mkdir()
        for split, size in sizes.items():
            images = random.integers(0, 128 if name == "svhn" else 256, (size, 8, 8, 3), np.uint8)
            np.savez(root / name / f"{split}.npz", images=images)
    return root


@pytest.fixture(scope="module")
def digits_of_both_parts():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, :7, :7]
    return {
        "train": (images[:600], bunch.target[:600]),
        "t10k": (images[600:800], bunch.target[600:800]),
    }


@pytest.fixture(scope="module")
def tiny_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(runs.SIZES, "quick", SMALL)
        yield


@pytest.fixture(scope="module")
def everything_once(root, tiny_size, tmp_path_factory):
    """All figures but the toy one, with one seed, and how often each detector was fitted."""
    out = tmp_path_factory.mktemp("out")
    fits = []
    real = runs.fit_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            runs, "fit_model", lambda *a, **k: fits.append(a[2].path.name) or real(*a, **k)
        )
        patch.setattr(fig7, "DIGITS", (3, 8))
        rows = {
            name: reproduce(
                name, out, seeds=[1], size="quick", data_root=root, command="historyad reproduce"
            )
            for name in FIGURES
        }
    return out, rows, fits


def test_figures_are_drawn_and_their_rows_say_whence_they_are(everything_once):
    out, rows, _ = everything_once
    for name in FIGURES:
        assert_is_drawn(name, out, rows)


def assert_is_drawn(name, out, rows):
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / f"{name}.svg").read_text()
    kept = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
    assert kept == rows[name]
    for row in kept:
        assert (row["what"], row["size"], row["seed"]) == (name, "quick", 1)
        assert row["command"] == "historyad reproduce"
        assert len(row["train"]["fingerprint"]) == 64
        assert row["seconds"] > 0
        assert set(row["detectors"].values()) <= row["fits"].keys()
        assert {"torch", "historyad"} <= row["versions"].keys()
    assert {"default"} <= {row["method"] for row in kept}


def test_progress_names_the_detector(root, tiny_size, tmp_path):
    told = []
    fits = Runs(tmp_path, root, on_progress=told.append)
    recipe = runs.paper("quick", "mnist-vs-kmnist", 4)
    fits.model(recipe)
    assert {record["label"] for record in told} == {"paper on mnist-vs-kmnist, seed 4"}
    assert {record.get("step") for record in told} == {"gan", "detector", None}
    assert str(runs.default("quick", "svhn-vs-celeba", 2)) == "default on svhn-vs-celeba, seed 2"


def test_the_page_of_results_has_a_table_for_every_figure(everything_once):
    out, rows, _ = everything_once
    page = "".join(sections(out))
    assert page.count("Not measured yet") == 1  # the toy example
    for name in FIGURES:
        assert f"pictures/paper-{name}.webp" in page
    assert f"{rows['fig6'][0]['mean_scores'][0]:+.2f}" in page
    assert "| svhn" not in page
    assert page.count("historyad reproduce\n") == len(FIGURES)


def test_no_detector_is_fitted_twice(everything_once):
    _, _, fits = everything_once
    assert len(fits) == len(set(fits))


def test_figures_share_their_detectors(everything_once):
    _, rows, _ = everything_once
    paper = {rows[name][0]["detectors"]["paper"] for name in ("fig5", "fig6", "fig8")}
    assert paper == {rows["fig9"][0]["detectors"]["paper, 50"]}
    assert paper == {rows["histories"][0]["detectors"]["single, 1"]}


def test_a_figure_drawn_again_measures_nothing_and_is_the_same(everything_once, root, monkeypatch):
    out, rows, _ = everything_once
    monkeypatch.setattr(runs, "fit_model", pytest.fail)
    monkeypatch.setattr(fig7, "DIGITS", (3, 8))
    for name in FIGURES:
        before = (out / f"{name}.svg").read_text()
        assert reproduce(name, out, seeds=[1], size="quick", data_root=root) == rows[name]
        assert (out / f"{name}.svg").read_text() == before


def test_no_density_of_figure_6_reaches_the_next_and_each_can_be_seen(everything_once):
    _, rows, _ = everything_once
    for ax in FIGURES["fig6"].draw(rows["fig6"]).axes[:2]:
        tops = [patch.get_data().values.max() for patch in ax.patches]
        assert len(tops) == len(rows["fig6"][0]["sigmas"])
        for baseline, top in enumerate(tops):
            assert 0.8 < top - baseline < 1
        # The circles, of the mean, are whole: none lies on the edge.
        assert ax.get_ylim()[0] < 0


def test_figure_8_says_whose_scores_it_shows(everything_once):
    _, rows, _ = everything_once
    assert FIGURES["fig8"].draw(rows["fig8"]).get_suptitle().startswith("The paper's detector")


def test_a_figure_of_other_settings_is_measured_anew(everything_once, root, monkeypatch):
    out, rows, _ = everything_once
    monkeypatch.setitem(runs.SIZES, "quick", {**SMALL, "detector_epochs": 0.25})
    again = reproduce("fig6", out, seeds=[1], size="quick", data_root=root)
    assert again[0]["detectors"] != rows["fig6"][0]["detectors"]
    assert len((out / "fig6.jsonl").read_text().splitlines()) == 4


def test_a_figure_goes_on_after_rows_that_were_cut_short(everything_once, root, tmp_path):
    out, rows, _ = everything_once
    shutil.copytree(out / "runs", tmp_path / "runs")
    table = tmp_path / "fig6.jsonl"
    table.write_bytes((out / "fig6.jsonl").read_bytes()[:100])
    again = reproduce("fig6", tmp_path, seeds=[1], size="quick", data_root=root)
    assert [row["mean_scores"] for row in again] == [row["mean_scores"] for row in rows["fig6"]]
    assert read_rows(table) == again


def test_an_interrupted_figure_keeps_the_detectors_it_has(root, tiny_size, tmp_path, monkeypatch):
    real, fits = runs.fit_model, []

    def failing(*arguments, **named):
        fits.append(arguments[2].path.name)
        if len(fits) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(runs, "fit_model", failing)
    with pytest.raises(KeyboardInterrupt):
        reproduce("fig6", tmp_path, seeds=[1], size="quick", data_root=root)
    reproduce("fig6", tmp_path, seeds=[1], size="quick", data_root=root)
    assert fits.count(fits[0]) == 1
    assert fits.count(fits[1]) == 2


def test_seconds_are_those_of_all_calls_that_a_detector_took(root, tiny_size, tmp_path):
    def stop(record):
        raise KeyboardInterrupt

    recipe = runs.paper("quick", "mnist-vs-kmnist", 4)
    (first,) = runs.first_steps(recipe)
    fits = Runs(tmp_path, root)
    fits.history(recipe)
    of_history = fits.seconds(first)
    with pytest.raises(KeyboardInterrupt):
        Runs(tmp_path, root, on_progress=stop).model(recipe)
    until_then = fits.seconds(recipe)
    fits.model(recipe)
    total = fits.seconds(recipe)
    for kind in ("fit_wall_seconds", "fit_cpu_seconds"):
        assert 0 < of_history[kind] < until_then[kind] < total[kind]
    each = fits.fits(recipe)
    assert set(each) == {fits.key(recipe), fits.key(first)}
    assert sum(spent["cpu"] for spent in each.values()) == pytest.approx(total["fit_cpu_seconds"])


def test_figure_7_has_three_detectors_of_one_history_and_leaves_none(everything_once):
    out, rows, fits = everything_once
    assert [row["digit"] for row in rows["fig7"]] == [3] * 4 + [8] * 4
    for row in rows["fig7"]:
        assert row["n_anomalous"] > row["n_normal"] * 0.3
        assert len(set(row["detectors"].values())) == 4
        assert row["auprc_at_official"] < row["auprc"]  # where anomalies are rarer
    keys = {key for row in rows["fig7"] for key in row["detectors"].values()}
    assert all((out / "runs" / key / "detector.json").exists() for key in keys)
    assert not any((out / "runs" / key / "history").exists() for key in keys)
    # Of each digit: two histories, the default's being another, and four detectors.
    assert sum(not (out / "runs" / key).exists() for key in fits) == 4


def test_only_the_hard_digits_are_measured_with_every_seed():
    units = fig7.FIGURE.units([5, 6])
    assert [unit["digit"] for unit in units if unit["seed"] == 5] == list(range(10))
    assert [unit["digit"] for unit in units if unit["seed"] == 6] == [1, 4, 7, 9]


def test_table_1_has_both_choices_of_the_positive_class(everything_once):
    _, rows, _ = everything_once
    assert {row["method"] for row in rows["table1"]} == {"paper", "default", "pca-residual"}
    assert {row["split"] for row in rows["table1"]} == set(table1.OF_PAPER)
    (row,) = (r for r in rows["table1"] if r["method"] == "pca-residual" and "tiny" in r["split"])
    assert (row["n_normal"], row["n_anomalous"]) == (40, 30)
    assert row["auprc"] != row["auprc_normal"]
    assert row["auroc"] > 0.9


def test_figure_9_thins_one_history(everything_once):
    _, rows, _ = everything_once
    thinned = [row for row in rows["fig9"] if row["method"] == "paper"]
    assert [row["saves_per_epoch"] for row in thinned] == list(fig9.SAVES)
    recorded = thinned[-1]["snapshots"]
    for row in thinned:
        assert row["snapshots"] == -(-recorded * row["saves_per_epoch"] // 100)
        assert 1 <= row["effective_snapshots"] <= row["snapshots"]


def test_more_histories_are_more_snapshots_of_equal_mass(everything_once):
    _, rows, _ = everything_once
    pooled = [row for row in rows["histories"] if row["method"] == "pooled"]
    one = pooled[0]["effective_snapshots"]
    for row in pooled:
        assert row["effective_snapshots"] == pytest.approx(row["histories"] * one)
    single = [
        r["auprc"] for r in rows["histories"] if r["histories"] == 1 and r["method"] != "default"
    ]
    assert len(set(single[::2])) == len(set(single[1::2])) == 1  # pooled and averaged are one thing
    assert {row["split"] for row in rows["histories"]} == set(histories.SPLITS)


def test_a_recipe_has_another_name_when_anything_in_it_differs(root):
    of = Runs(root / "unused", root).key
    config = make_config("paper", **SMALL)
    recipe = Recipe("mnist-vs-kmnist", config)
    others = [
        Recipe("svhn-vs-celeba", config),
        Recipe("mnist-vs-kmnist", make_config("paper", **{**SMALL, "seed": 1})),
        Recipe("mnist-vs-kmnist", config, every=2),
        Recipe("mnist-vs-kmnist", config, pooled=(1,)),
    ]
    assert of(recipe) == of(Recipe("mnist-vs-fashion", config))  # trained on the same
    assert len({of(recipe), *map(of, others)}) == 5


def test_pooled_histories_are_a_mixture_of_equal_parts(root, tiny_size, tmp_path):
    """The mean image of the pool is the mean of the histories' mean images."""
    at_hand = Runs(tmp_path, root)
    config = make_config("paper", **{**SMALL, "seed": 3})
    pooled = at_hand.history(Recipe("mnist-vs-kmnist", config, pooled=(4,)))
    parts = [
        at_hand.history(Recipe("mnist-vs-kmnist", make_config("paper", **{**SMALL, "seed": seed})))
        for seed in (3, 4)
    ]
    assert len(pooled) == 2 * len(parts[0])
    np.testing.assert_allclose(pooled.weights[: len(parts[0])], parts[0].weights / 2)
    means = [part.sample(10_000).mean(0) for part in parts]
    assert np.abs(means[0] - means[1]).max() > 10  # of 255: the parts differ
    np.testing.assert_allclose(pooled.sample(10_000).mean(0), np.mean(means, 0), atol=4)
    average, first = pooled.average_critic(), parts[0].average_critic()
    for name, tensor in average.state_dict().items():
        assert tensor.equal(first.state_dict()[name])


def test_histories_of_other_times_are_not_pooled(root, tiny_size, tmp_path):
    at_hand = Runs(tmp_path, root)
    whole = at_hand.history(Recipe("mnist-vs-kmnist", make_config("paper", **SMALL)))
    with pytest.raises(RunError, match="not recorded at the same times"):
        PooledHistory([whole, whole.thin(2)])


def test_interpolation_is_linear_and_keeps_the_ends():
    import torch

    z1, z2 = torch.zeros(2, 3), torch.ones(2, 3)
    between = interpolate(z1, z2, 5)
    assert between.shape == (2, 5, 3)
    torch.testing.assert_close(between[0, :, 0], torch.tensor([0, 0.25, 0.5, 0.75, 1]))


def test_histograms_hold_every_score():
    shares = histogram(np.array([-9.0, 0.01, 0.01, 9.0]))
    assert shares[0] == shares[-1] == 0.25
    assert shares[int(np.searchsorted(EDGES, 0.01)) - 1] == 0.5


def test_separation_names_the_prevalence():
    row = separation(np.array([0.0, 1.0, 2.0]), np.array([3.0]))
    assert (row["auprc"], row["auroc"], row["prevalence"]) == (1.0, 1.0, 0.25)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_samples_come_back_from_a_row(channels):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, channels), np.uint8)
    found = unpack_images(pack_images([images, images]))
    assert found.shape[:2] == (10, 19)
    np.testing.assert_array_equal(found[:4, 7:12].reshape(4, 5, channels), images[1])


def test_the_command_reproduces_one_figure_or_all(root, tiny_size, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(everything, "FIGURES", {"fig6": FIGURES["fig6"]})
    common = ["--out", str(tmp_path), "--data-root", str(root), "--size", "quick"]
    assert main(["reproduce", "fig6", *common, "--seeds", "2,"]) == 0
    assert main(["reproduce", "fig6", *common, "--seeds", "2"]) == 0
    seeds = [
        json.loads(line)["seed"] for line in (tmp_path / "fig6.jsonl").read_text().splitlines()
    ]
    assert seeds == [2, 2, 1, 1]  # "2," is that seed; "2" are the seeds 1 and 2
    shown = capsys.readouterr().out
    assert "fig6: method paper, seed 2" in shown or "seed 2, method paper" in shown
    assert "fig6.png" in shown
    for seeds in ("0", "x", "-1"):
        assert main(["reproduce", "fig6", *common, f"--seeds={seeds}"]) == 2


@pytest.fixture
def workers_as_others(monkeypatch):
    # Ray's workers give way to all others, and on a busy machine they would never come to work.
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.mark.usefixtures("workers_as_others")
def test_detectors_are_fitted_as_tasks_before_a_figure_is_drawn(
    root, tiny_size, tmp_path, monkeypatch
):
    fit_for(["toy", "fig5"], tmp_path, seeds=[1], size="quick", data_root=root)

    def not_again(*_, **__):
        raise AssertionError("a detector was fitted again")

    monkeypatch.setattr(runs, "fit_model", not_again)
    rows = reproduce("fig5", tmp_path, seeds=[1], size="quick", data_root=root)
    assert {row["method"] for row in rows} == {"paper", "default"}


@pytest.mark.usefixtures("workers_as_others")
def test_a_task_that_fails_is_named_and_the_others_are_kept(root, tiny_size, tmp_path):
    def recipes(size, unit):
        good = runs.default(size, "mnist-vs-kmnist", unit["seed"])
        few = replace(good.config, false_positive_rate=1e-5)  # needs more samples than there are
        return {"good": good, "bad": Recipe(good.split, few)}

    figure = replace(FIGURES["fig5"], recipes=recipes)
    found = Runs(tmp_path, root)
    with pytest.raises(RunError, match=r"1 of 2 fits failed.*\n.*seed 3: .*too few"):
        fit_on_ray([figure], found, seeds=[3], size="quick")
    kept = runs.first_steps(recipes("quick", {"seed": 3})["good"])[0]
    assert RunDirectory(tmp_path / found.key(kept)).is_finished
