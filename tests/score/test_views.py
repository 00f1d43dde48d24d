import itertools

import numpy as np
import pytest
import torch
from historyad.kinds.preprocessing import Preprocessing

from historyad.config import Config
from historyad.method.batches import Batches
from historyad.method.detector import Detector
from historyad.method.networks import Critic, initialise
from historyad.score.companions import ImageCompanions, samples_to_fit
from historyad.score.gaussian import room_for
from historyad.score.views import Views, bounded_score, fit_views, total_of


def fitted(samples, shape):
    """Return views with an untrained D_TV, and samples on which their scale was set."""
    critic = Critic(shape, 4, 16)
    initialise(critic, torch.Generator().manual_seed(0))
    batches = Batches(samples, prepare=Preprocessing.fit(samples, 0), seed=0)
    views = fit_views(Detector([critic]), batches)
    x = batches.at(0, len(samples))
    with torch.no_grad():
        views.fit_scale(views.raw(x).T.numpy())
    return views, x


@pytest.fixture(scope="module")
def of_images(digits):
    images, labels = digits
    return fitted(images[labels == 3], (1, 8, 8))


@pytest.fixture(scope="module")
def of_vectors():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    return fitted(x.numpy(), (4,))


@pytest.fixture(params=["of_images", "of_vectors"])
def problem(request):
    return request.getfixturevalue(request.param)


@torch.no_grad()
def test_the_scale_is_that_of_normal_samples(problem):
    views, x = problem
    standardised = views.standardised(views.raw(x))
    assert standardised.shape == (len(views.names), len(x))
    assert standardised.median(dim=1).values.abs().max() < 1e-4
    rare = (standardised > 1).float().mean(dim=1)
    assert (rare <= 0.05 + 1 / len(x)).all()  # the quantile lies between two samples


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
        moved = Views(views.detector, views.companions)
        moved.load_state_dict(views.state_dict())
        moved.center -= shift * moved.spread
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
    z = dict(zip(views.names, views.standardised(views.raw(x)), strict=True))
    near = {"history", "pattern", "neighbours", "blocks", "edges", "features"}
    assert set(z) == near | {"gaussian", "simplicity"}
    total = z["history"] / 2 + z["pattern"] + 10 * z["neighbours"] + 12 * z["blocks"]
    total += 16 * z["edges"] + 4 * z["features"]
    total += 10 * z["gaussian"].clamp(min=1) + 20 * (z["simplicity"] - 0.25).clamp(min=0) ** 2
    expected = bounded_score((total - views.total_center) / views.total_spread)
    torch.testing.assert_close(views(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_on_vectors_the_history_only_raises_suspicion(of_vectors):
    views, x = of_vectors
    assert views.names == ("history", "neighbours", "gaussian")
    raw = views.raw(x)
    typical = raw.clone()
    typical[0] = views.center[0]
    unsuspicious = raw[0] < views.center[0] + views.spread[0]
    scores = views.score(raw)
    assert torch.equal(views.score(typical)[unsuspicious], scores[unsuspicious])
    assert (views.score(typical)[~unsuspicious] < scores[~unsuspicious]).all()


@torch.no_grad()
def test_an_image_has_its_neighbours_in_the_layers_of_the_detector(of_images):
    views, x = of_images
    companions = views.companions
    _, features, hidden = views.detector.scores_and_features(x)
    _, pattern, neighbours, blocks, edges, *_ = views.raw(x)
    torch.testing.assert_close(pattern, companions.pattern(features))
    places = companions.pattern.place(features)
    candidates = companions.pattern.candidates(places)
    torch.testing.assert_close(neighbours, companions.neighbours.among(hidden, candidates))
    nearest = torch.cdist(places, companions.pattern.bank).topk(16, largest=False).indices
    for found, expected in zip((blocks, edges), companions.blocks(x, nearest), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_gaussians_of_an_image_are_compared_with_those_of_its_neighbours(of_images):
    views, x = of_images
    companions = views.companions
    _, features, _ = views.detector.scores_and_features(x)
    places = companions.pattern.place(features)
    nearest = torch.cdist(places, companions.pattern.bank).topk(5, largest=False).indices
    *_, gaussian, simplicity, of_features = views.raw(x)
    own, coarse = companions.gaussian(x)
    torch.testing.assert_close(simplicity, -coarse.log())
    expected = own - 2 * own[nearest].mean(1)
    torch.testing.assert_close(gaussian, expected, rtol=1e-4, atol=1e-3)
    own = companions.features(features)
    expected = own - own[nearest].mean(1)
    torch.testing.assert_close(of_features, expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_an_image_plainer_than_any_normal_one_is_anomalous(of_images):
    views, x = of_images
    plain = views.companions.gaussian.mean.reshape(x[:1].shape)  # at no distance from itself
    raw = views.raw(torch.cat([plain, x]))
    by_name = dict(zip(views.names, raw, strict=True))
    assert by_name["gaussian"][0] < by_name["gaussian"][1:].min()
    assert views.score(raw)[0] > max(0.9, views.score(raw)[1:].quantile(0.99))
    silent = dict(zip(views.names, views.standardised(raw), strict=True))["simplicity"] < 0.25
    lower = raw - (torch.tensor([name == "simplicity" for name in views.names]) * 1e-3)[:, None]
    assert torch.equal(views.score(lower)[silent], views.score(raw)[silent])


@torch.no_grad()
def test_the_history_view_is_the_detector(problem):
    views, x = problem
    torch.testing.assert_close(views.raw(x)[0], views.detector(x))


def test_the_total_of_a_score_is_found_again_and_finite_for_the_highest():
    total = torch.tensor([-3.0, 0.0, 1.0, 1.5, 40.0])
    scores = bounded_score(total).numpy().astype(float)
    np.testing.assert_allclose(total_of(scores), total, rtol=1e-4, atol=1e-6)
    assert total_of(float(scores[1])) == total_of(scores)[1]
    assert total_of(1.0) == total_of(1 - 2**-24) == total_of(np.ones(1))[0] > 1e6
    assert total_of(-1.0) == total_of(-1 + 2**-24)


def test_large_images_are_fewer():
    assert samples_to_fit((1, 32, 32)) == 32_768
    assert samples_to_fit((3, 128, 128)) == 1000


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 64, 128])
def test_a_saved_detector_of_any_images_takes_less_than_40_mb(channels, side):
    shape, config = (channels, side, side), Config()
    bank = samples_to_fit(shape)
    components = min(side**2, bank - 1, room_for(shape))
    with torch.device("meta"):
        critic = Critic(shape, config.width, config.hidden)
        companions = ImageCompanions.build(
            critic, shape, bank=bank, components=components, feature_components=192
        )
        tensors = Views(Detector([critic]), companions).state_dict().values()
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 40e6
