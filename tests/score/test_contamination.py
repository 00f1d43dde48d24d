"""Anomalies among the samples of a fit: views that a few like ones do not blind."""

import numpy as np
import pytest
import torch
from tiny import auroc_of, tiny_config

from historyad.kinds.choose import choose_kind
from historyad.method.networks import initialise
from historyad.score.score import Score


def views_of(train, held_out) -> Score:
    """Return the score with an untrained D_TV."""
    config = tiny_config()
    kind = choose_kind(train, config)
    critic = kind.networks(config).critic()
    initialise(critic, torch.Generator().manual_seed(0))
    batches = kind.batches(train, config)
    views = kind.fit_score(critic, batches, train, np.arange(len(train)), config)
    views.fit_scale(held_out, np.arange(len(held_out)))
    return views


class Scored:
    def __init__(self, views):
        self.anomaly_score = lambda x: views.of(x).anomaly_score


@pytest.mark.parametrize("digit", [2, 6])
def test_a_few_like_images_among_those_of_a_fit_do_not_make_others_normal(digits, digit):
    images, labels = digits
    random = np.random.default_rng(digit)
    normal = images[labels != digit][random.permutation((labels != digit).sum())]
    anomalous = images[labels == digit][random.permutation((labels == digit).sum())]
    found = {}
    for n in (0, 7, 35):
        views = views_of(np.concatenate([normal[:700], anomalous[:n]]), normal[700:800])
        found[n] = auroc_of(Scored(views), normal[800:1100], anomalous[40:])
        raw=np.concatenate([views.raw_of(normal[800:1100]),views.raw_of(anomalous[40:])]); y=np.r_[np.zeros(300),np.ones(len(anomalous[40:]))]
        from historyad.judge.metrics import auroc
        print(digit, n, found[n], [f"{k} {auroc(y,raw[:,i]):.3f}" for i,k in enumerate(views.names)])
    assert found[7] > found[0] - 0.01
