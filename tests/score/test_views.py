import copy
import itertools
import math

import numpy as np
import pytest
import torch
from tiny import tiny_config

from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.kinds.choose import choose_kind
from historyad.method.networks import ImageNetworks, initialise
from historyad.score.blocks import Blocks
from historyad.score.bounded import bounded_score, total_of
from historyad.score.companions import ImageCompanions, mean_gradient, samples_to_fit
from historyad.score.gaussian import Gaussian, ImageGaussian, room_for
from historyad.score.views import Views


def unfitted(samples):
    """Return views with an untrained D_TV, their scale not set, and the samples as floats."""
    config = tiny_config()
    kind = choose_kind(samples, config)
    critic = kind.networks(config).critic()
    initialise(critic, torch.Generator().manual_seed(0))
    batches = kind.batches(samples, config)
    views = kind.fit_score(critic, batches, config)
    return views, batches.at(0, len(samples))


def fitted(samples):
    """Return views with an untrained D_TV, and the samples on which their scale was set."""
    views, x = unfitted(samples)
    views.fit_scale(samples, np.arange(len(samples)))
    return views, x


@pytest.fixture(scope="module")
def of_images(digits):
    images, labels = digits
    return fitted(images[labels == 3])


@pytest.fixture(scope="module")
def of_vectors():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    return fitted(x.numpy())


@pytest.fixture(params=["of_images", "of_vectors"])
def problem(request):
    return request.getfixturevalue(request.param)


@torch.no_grad()
def test_the_scale_is_that_of_normal_samples(problem):
    views, x = problem
    standardised = views.scale(views.raw(x))
    assert standardised.shape == (len(views.names), len(x))
    assert standardised.median(dim=1).values.abs().max() < 1e-4
    rare = (standardised > 1).float().mean(dim=1)
    assert (rare <= 0.05 + 1 / len(x)).all()  # the quantile lies between two samples


def test_the_samples_of_the_scale_come_with_their_scores(digits):
    vectors = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)).numpy()
    for samples in (digits[0][:300], vectors):
        views, _ = unfitted(samples)
        rows = np.arange(0, 300, 2)
        scores = views.fit_scale(samples, rows)
        np.testing.assert_array_equal(scores, views.of(samples[rows]).anomaly_score)
        assert len(np.unique(scores)) > 100


def distances(views, samples, q):
    """Return for each view by name how far its quantile ``q`` is from its median."""
    raw = torch.from_numpy(views.raw_of(samples))
    found = raw.quantile(q, dim=0) - raw.median(dim=0).values
    return dict(zip(views.names, found.tolist(), strict=True))


def spreads(views):
    return dict(zip(views.names, views.scale.spread.tolist(), strict=True))


def test_some_normal_images_may_be_much_plainer_than_others(digits):
    """The view that counts by its square has a wider scale where one in a hundred asks for it."""
    images, labels = digits
    threes = images[labels == 3]
    plain = threes.mean(0, keepdims=True).round().astype(np.uint8).repeat(6, 0)
    views, _ = unfitted(threes)
    samples = np.concatenate([threes, plain])
    views.fit_scale(samples, np.arange(len(samples)))
    near, far = (distances(views, samples, q) for q in (0.95, 0.99))
    assert far["simplicity"] > 4 * near["simplicity"]
    plainer = {name: max(near[name], far[name] / 2) for name in ("simplicity", "smoothness")}
    assert spreads(views) == pytest.approx({**near, **plainer}, rel=1e-4)
    assert len(near) == 6


def test_a_detector_that_hardly_varies_gets_no_scale_of_its_own(digits):
    vectors = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)).numpy()
    for samples in (digits[0][:200], vectors):
        views, _ = unfitted(samples)
        with torch.no_grad():
            views.d_tv.head[-1].weight *= 1e-6
        views.fit_scale(samples, np.arange(200))
        expected = {**distances(views, samples, 0.95), "history": CONSTANTS.smallest_history_spread}
        assert spreads(views) == pytest.approx(expected, rel=1e-4)


def test_the_scale_is_set_by_the_rows_that_are_given(digits):
    rows = np.arange(0, 300, 7)
    views, _ = unfitted(digits[0][:300])
    views.fit_scale(digits[0][:300], rows)
    median = np.median(views.raw_of(digits[0][rows]), axis=0)
    np.testing.assert_allclose(views.scale.center, median, rtol=1e-5)


@torch.no_grad()
def test_the_score_has_a_meaning(problem):
    views, x = problem
    score = views(x)
    assert float(score.median()) == pytest.approx(-0.8, abs=0.01)
    assert float((score > 0).float().mean()) == pytest.approx(0.01, abs=0.005)
    assert (score.abs() < 1).all()


@torch.no_grad()
def test_the_score_grows_with_every_view(problem):
    views, x = problem
    scores = []
    for shift in (0.0, 2.0, 20.0, 200.0):
        moved = copy.deepcopy(views)
        moved.scale.center -= shift * moved.scale.spread
        scores.append(moved(x))
    for lower, higher in itertools.pairwise(scores):
        assert (lower < higher).all()


@torch.no_grad()
def test_far_away_is_anomalous_whatever_the_network_says(of_vectors):
    views, x = of_vectors
    far = views(torch.nn.functional.normalize(x) * 1e3)
    assert (far > 0.9).all()


@torch.no_grad()
def test_the_score_of_an_image_adds_up_its_views(of_images):
    views, x = of_images
    z = dict(zip(views.names, views.scale(views.raw(x)), strict=True))
    assert set(z) == {"history", "blocks", "edges", "gaussian", "simplicity", "smoothness"}
    total = z["history"].clamp(min=0) + z["blocks"] + z["edges"] + (z["gaussian"] - 1).clamp(min=0)
    total += (z["simplicity"] - 0.25).clamp(min=0) ** 2 + (z["smoothness"] - 0.25).clamp(min=0) ** 2
    expected = bounded_score((total - views.total_scale.center) / views.total_scale.spread)
    torch.testing.assert_close(views(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_on_vectors_the_history_only_raises_suspicion(of_vectors):
    views, x = of_vectors
    assert views.names == ("history", "neighbours", "gaussian")
    raw = views.raw(x)
    typical = raw.clone()
    typical[0] = views.scale.center[0]
    unsuspicious = raw[0] < views.scale.center[0] + views.scale.spread[0]
    scores = views.score(raw)
    assert torch.equal(views.score(typical)[unsuspicious], scores[unsuspicious])
    assert (views.score(typical)[~unsuspicious] < scores[~unsuspicious]).all()


@torch.no_grad()
def test_an_image_is_compared_with_those_near_in_the_features_of_the_detector(of_images):
    views, x = of_images
    companions = views.companions
    places = companions.near.place(views.d_tv.with_features(x)[0])
    nearest = torch.cdist(places, companions.near.bank).topk(16, largest=False).indices
    by_name = dict(zip(views.names, views.raw(x), strict=True))
    blocks = dict(zip(("blocks", "edges"), companions.blocks(x, nearest), strict=True))
    for name, expected in blocks.items():
        torch.testing.assert_close(by_name[name], expected, rtol=1e-4, atol=1e-5)
    own, coarse = companions.gaussian(x)
    torch.testing.assert_close(by_name["simplicity"], -coarse.log())
    expected = own - 2 * own[nearest[:, :5]].mean(1)
    torch.testing.assert_close(by_name["gaussian"], expected, rtol=1e-4, atol=1e-3)


def test_the_mean_gradient_is_that_of_grey_levels(digits):
    images = digits[0][:20].astype(np.float64)
    down, across = (np.abs(np.diff(images, axis=axis)).mean((1, 2, 3)) for axis in (1, 2))
    x = torch.from_numpy(images / 127.5 - 1).permute(0, 3, 1, 2)
    np.testing.assert_allclose(mean_gradient(x), (down + across) / 2, rtol=1e-6)


@torch.no_grad()
def test_the_smoothest_image_counts_most_and_an_even_one_has_a_number(of_images):
    views, x = of_images
    smoothness = views.names.index("smoothness")
    found = views.raw(torch.cat([x * 0 + 0.3, x / 2, x]))[smoothness].view(3, -1)
    assert found.isfinite().all()
    assert (found[0] > found[1]).all()
    assert (found[1] > found[2]).all()


@torch.no_grad()
def test_an_image_plainer_than_any_normal_one_is_anomalous(of_images):
    views, x = of_images
    gaussian = views.companions.gaussian
    mean = gaussian.gaussians[0].mean * gaussian.axes[0]  # at no distance from itself
    plain = mean.reshape(x[:1].shape)
    raw = views.raw(torch.cat([plain, x]))
    by_name = dict(zip(views.names, raw, strict=True))
    assert by_name["gaussian"][0] < by_name["gaussian"][1:].min()
    assert views.score(raw)[0] > max(0.9, views.score(raw)[1:].quantile(0.99))
    z = dict(zip(views.names, views.scale(raw), strict=True))
    for name in ("simplicity", "smoothness"):
        silent = z[name] < 0.25
        lower = raw - (torch.tensor([other == name for other in views.names]) * 1e-3)[:, None]
        assert torch.equal(views.score(lower)[silent], views.score(raw)[silent])
        assert not torch.equal(views.score(lower), views.score(raw))


@torch.no_grad()
def test_the_history_view_is_the_detector(problem):
    views, x = problem
    torch.testing.assert_close(views.raw(x)[views.names.index("history")], views.d_tv(x))


def test_the_total_of_a_score_is_found_again_and_finite_for_the_highest():
    total = torch.tensor([-3.0, 0.0, 1.0, 1.5, 40.0])
    scores = bounded_score(total).numpy().astype(float)
    np.testing.assert_allclose(total_of(scores), total, rtol=1e-4, atol=1e-6)
    assert total_of(float(scores[1])) == total_of(scores)[1]
    assert total_of(1.0) == total_of(1 - 2**-24) == total_of(np.ones(1))[0] > 1e6
    assert total_of(-1.0) == total_of(-1 + 2**-24)


def test_large_images_are_fewer():
    assert samples_to_fit(32 * 32) == 32_768
    assert samples_to_fit(3 * 128 * 128) == 1000


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 64, 128])
def test_a_saved_detector_of_any_images_takes_less_than_40_mb(channels, side):
    shape, config = (channels, side, side), Config()
    bank = samples_to_fit(math.prod(shape))
    components = min(side**2, bank - 1, room_for(shape))
    with torch.device("meta"):
        critic = ImageNetworks.of(shape, config).critic()
        companions = ImageCompanions.build(critic, shape, bank=bank, components=components)
        tensors = Views(None, critic, companions).state_dict().values()
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 40e6


@pytest.mark.parametrize("of", ["images", "vectors"])
def test_what_does_not_depend_on_d_tv_is_fitted_once(of, digits, monkeypatch):
    vectors = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).numpy()
    samples = digits[0][:200] if of == "images" else vectors
    config = tiny_config()
    kind = choose_kind(samples, config)
    batches, critics = kind.batches(samples, config), [kind.networks(config).critic() for _ in "ab"]
    for seed, critic in enumerate(critics):
        initialise(critic, torch.Generator().manual_seed(seed))
    first, anew = (kind.fit_score(critic, batches, config) for critic in critics)
    for fitted_once in (Gaussian, ImageGaussian, Blocks):
        monkeypatch.setattr(fitted_once, "fit", None)
    again = kind.fit_score(critics[1], batches, config, first)
    assert again.state_dict().keys() == anew.state_dict().keys()
    for name, value in again.state_dict().items():
        expected = first if ".blocks." in name else anew
        assert torch.equal(value, expected.state_dict()[name]), name


def test_an_image_alone_is_not_compared_by_blocks_with_what_fills_its_batch_up(digits, monkeypatch):
    views, _ = fitted(digits[0][:100])
    together, sizes = views.of(digits[0][:100], views=True), []
    distances = Blocks.distances
    monkeypatch.setattr(
        Blocks, "distances", lambda self, x, c: sizes.append(len(x)) or distances(self, x, c)
    )
    alone = [views.of(digits[0][i : i + 1], views=True) for i in range(5)]
    assert sizes == [1] * 5
    for name, found in together.views.items():
        np.testing.assert_array_equal([one.views[name][0] for one in alone], found[:5])
    assert len(views.of(digits[0][:0]).anomaly_score) == 0
