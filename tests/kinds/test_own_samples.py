"""A sample that a detector was fitted on never looks stranger to it than a fresh normal one."""

import numpy as np
import pytest
import torch
from fitted import textures
from tiny import auroc_of, tiny_config

from historyad.kinds.choose import choose_kind
from historyad.method.networks import initialise

FRESH = 120  # half of them set the scale, and half are compared


def normal_rows(n):
    random = np.random.default_rng(3)
    return (random.normal(size=(n, 20)) @ random.normal(size=(20, 20))).astype(np.float32)


def photos(n, side):
    """Return images in colour, of a few smooth spots, with noise: no two share a direction."""
    images = np.concatenate([textures(n, side, side, seed=seed) for seed in (1, 2, 3)], 3)
    noise = np.random.default_rng(4).integers(0, 12, images.shape, np.uint8)
    return images // 2 + noise


# Of each: what it is called, settings, samples, and the numbers that are fitted on.
KINDS = {
    "whole, grey": ({}, lambda n: textures(n, 32, 32), (30, 100)),
    "whole, colour": ({}, lambda n: photos(n, 16), (30, 100, 660)),
    "whole, large": ({}, lambda n: photos(n, 64), (30,)),
    "crops": ({"patch": 8}, lambda n: textures(n, 12, 12), (30, 100, 660)),
    "columns": ({}, normal_rows, (30, 100, 660)),
}


class Fitted:
    """The score of an untrained D_TV and its companions, with the scale of fresh samples."""

    def __init__(self, samples, fresh, settings):
        config = tiny_config(**settings)
        kind = choose_kind(samples, config)
        critic = kind.networks(config).critic()
        initialise(critic, torch.Generator().manual_seed(0))
        critic.requires_grad_(False).eval()
        batches = kind.batches(samples, config)
        self.score = kind.fit_score(critic, batches, config).eval()
        self.score.fit_scale(fresh, np.arange(len(fresh)))

    def anomaly_score(self, samples):
        return self.score.of(samples).anomaly_score


def shown_stranger(settings, samples, n):
    """Return how often a fitted sample scores above a fresh one, and shares above a high score."""
    own, scale, fresh = np.split(samples, [n, n + FRESH // 2])
    fitted = Fitted(own, scale, settings)
    high = np.quantile(fitted.anomaly_score(fresh), 0.9)
    above = (fitted.anomaly_score(own) > high).mean()
    return auroc_of(fitted, fresh, own), above


@pytest.mark.parametrize("name", KINDS)
def test_samples_that_were_fitted_on_look_no_stranger_than_fresh_ones(name):
    settings, made, sizes = KINDS[name]
    for n in sizes:
        wins, above = shown_stranger(settings, made(n + FRESH), n)
        noise = np.sqrt((1 / n + 2 / FRESH) / 12)
        assert wins < 0.5 + 2 * noise, (n, wins)
        assert above < 0.1 + 3 * np.sqrt(0.09 / n), (n, above)


def test_digits_that_were_fitted_on_look_no_stranger_than_fresh_ones(digits):
    images = np.random.default_rng(0).permutation(digits[0])
    for n in (30, 100, 660):
        wins, above = shown_stranger({}, images[: n + FRESH], n)
        assert wins < 0.6, (n, wins)
        assert above < 0.1 + 3 * np.sqrt(0.09 / n), (n, above)
