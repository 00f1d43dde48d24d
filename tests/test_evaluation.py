import numpy as np
import pytest
from tiny import tiny_config

from historyad.datasets import open_source
from historyad.errors import InputError
from historyad.evaluation import evaluate_model, judge, table_of
from historyad.fitting import fit_model
from historyad.metrics import auprc, auroc, fpr_at_tpr
from historyad.storage import RunDirectory


@pytest.fixture(scope="module")
def sources():
    """Normal vectors to fit and to test on, and anomalous ones."""
    random = np.random.default_rng(0)
    return [
        open_source(random.normal(shift, 1, (n, 3))) for shift, n in ((0, 200), (0, 90), (4, 30))
    ]


@pytest.fixture(scope="module")
def model(sources, tmp_path_factory):
    return fit_model(sources[0], tiny_config(), RunDirectory(tmp_path_factory.mktemp("run")))


def test_figures_are_those_of_the_scores_with_anomalous_as_the_positive_class():
    normal, anomalous = np.array([0.0, 1, 2, 3]), np.array([2.5, 4])
    figures = judge(normal, anomalous)
    y, score = [0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 2.5, 4]
    assert figures["auroc"] == auroc(y, score) == 7 / 8
    assert figures["auprc"] == auprc(y, score)
    assert figures["fpr_at_95_tpr"] == fpr_at_tpr(y, score)
    assert figures["prevalence"] == 1 / 3
    assert (figures["n_normal"], figures["n_anomalous"]) == (4, 2)
    for name in ("auroc", "auprc"):
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]


def test_rates_are_those_at_the_models_own_threshold(model, sources):
    _, normal, anomalous = sources
    figures = evaluate_model(model, normal, anomalous)
    threshold = model.calibration.threshold
    scores = [model.anomaly_score(source.samples) for source in (normal, anomalous)]
    assert figures["threshold"] == threshold
    assert figures["false_positive_rate"] == (scores[0] > threshold).mean()
    assert figures["detection_rate"] == (scores[1] > threshold).mean()
    assert figures["requested_false_positive_rate"] == 0.05
    assert figures["auroc"] == auroc(np.repeat([0, 1], [90, 30]), np.concatenate(scores))
    assert figures["images_per_second"] == pytest.approx(120 / figures["seconds"])


def test_the_same_evaluation_gives_the_same_figures(model, sources):
    first, second = (evaluate_model(model, *sources[1:]) for _ in range(2))
    timed = {"seconds", "images_per_second"}
    assert all(first[name] == second[name] for name in first.keys() - timed)


def test_sources_that_the_model_does_not_know_are_refused(model, sources):
    with pytest.raises(InputError, match="shape 2, the detector was fitted on 3"):
        evaluate_model(model, sources[1], open_source(np.zeros((5, 2))))


def test_the_table_puts_auprc_beside_its_prevalence(model, sources):
    figures = evaluate_model(model, *sources[1:])
    rows = dict(table_of(figures))
    assert rows["AUPRC"].startswith(f"{figures['auprc']:.4f}  (")
    assert rows["AUPRC"].endswith("prevalence 0.250")
    assert rows["samples"] == "90 normal, 30 anomalous"
    assert "0.05 was asked for" in rows["false positives"]
