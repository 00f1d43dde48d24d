import numpy as np
import pytest
import torch
from tiny import normal_samples

from historyad.score import gaussian as module
from historyad.score.gaussian import Gaussian, ImageGaussian, principal_components

RIDGE = 0.1


def mahalanobis(x, mean, covariance):
    z = x.double() - mean
    return (z @ torch.linalg.inv(covariance) * z).sum(1).sqrt().float()


def test_the_gaussian_is_the_mahalanobis_distance_with_a_ridge():
    x = normal_samples()
    ridge = RIDGE * x.numpy().var(axis=0).mean() * torch.eye(6)
    expected = mahalanobis(x, x.double().mean(0), torch.cov(x.double().T) + ridge)
    torch.testing.assert_close(Gaussian.fit(x, ridge=RIDGE)(x), expected, rtol=1e-4, atol=1e-4)


def test_samples_that_vary_little_about_a_large_mean_keep_their_distances():
    x = 0.02 * normal_samples(20_000) + 0.84  # grey values of images of little contrast
    ridge = 1e-3 * x.double().var(0).mean() * torch.eye(6)
    expected = mahalanobis(x, x.double().mean(0), torch.cov(x.double().T) + ridge)
    torch.testing.assert_close(Gaussian.fit(x, ridge=1e-3)(x), expected, rtol=1e-3, atol=1e-3)


def test_what_the_components_leave_has_one_variance(constants):
    x = normal_samples()
    constants(module, gaussian_values=2 * 6, fewest_components=2)
    gaussian = Gaussian.fit(x, ridge=RIDGE)
    assert gaussian.components.shape == (2, 6)
    values, directions = torch.linalg.eigh(torch.cov(x.double().T))
    values[:4] = values[:4].mean()
    ridge = RIDGE * x.numpy().var(axis=0).mean()
    covariance = directions @ torch.diag(values + ridge) @ directions.T
    expected = mahalanobis(x, x.double().mean(0), covariance)
    torch.testing.assert_close(gaussian(x), expected, rtol=1e-3, atol=1e-3)


def test_the_gaussian_of_constant_samples_is_finite():
    x = torch.ones(10, 64)
    distance = Gaussian.fit(x, ridge=RIDGE)(torch.cat([x, -x]))
    assert distance.isfinite().all()
    assert (distance[10:] > distance[:10]).all()


def test_the_first_principal_components_are_the_same_however_many_are_kept():
    x = normal_samples()
    few, all_ = principal_components(x, 2), principal_components(x)
    np.testing.assert_allclose(few.components_, all_.components_[:2], rtol=1e-4, atol=1e-5)
    assert len(all_.components_) == 6


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_few_samples_are_enough(n):
    x = normal_samples(n)
    assert Gaussian.fit(x, ridge=RIDGE)(x).isfinite().all()
    images = colour_images(n)
    for distance in ImageGaussian.fit(images, ridge=RIDGE, coarse_ridge=RIDGE)(images):
        assert distance.isfinite().all()


def colour_images(n=400, seed=0):
    """Images of 3 colours, 2 x 4, whose brightness varies more than its colours do."""
    random = torch.Generator().manual_seed(seed)
    white, *tints = torch.linalg.qr(torch.tensor([[1.0, 1, 0], [1, 0, 1], [1, 0, 0]]))[0].T
    axes = torch.stack([2 * white, tints[0], 0.3 * tints[1]])
    pixels = torch.randn(n, 3, 8, generator=random) * torch.linspace(0.5, 2, 8)
    return torch.einsum("nap,ac->ncp", pixels, axes).reshape(n, 3, 2, 4) + 1


def axes_of(x):
    """The images' own axes, (3, N, 8), with the variances and components of each."""
    colours = x.double().transpose(0, 1).flatten(1)
    turn = torch.linalg.eigh(colours.cov())[1]
    turned = torch.einsum("ncp,ca->anp", x.double().flatten(2), turn)
    turned = turned - turned.mean(1, keepdim=True)
    variances, components = zip(*(torch.linalg.eigh(axis.T.cov()) for axis in turned), strict=True)
    return turned, torch.stack(variances), torch.stack(components)


def distances(turned, variances, components):
    return ((turned @ components).square() / variances[:, None]).sum((0, 2)).sqrt().float()


def test_each_axis_of_the_colours_has_a_gaussian():
    x = colour_images()
    turned, variances, components = axes_of(x)
    mean = x.numpy().var(axis=0).mean()
    found = ImageGaussian.fit(x, ridge=RIDGE, coarse_ridge=3 * RIDGE)(x)
    for distance, share in zip(found, (RIDGE, 3 * RIDGE), strict=True):
        expected = distances(turned, variances + share * mean, components)
        torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-4)


def test_of_grey_images_it_is_the_plain_gaussian():
    x = colour_images()[:, :1]
    expected = Gaussian.fit(x.flatten(1), ridge=RIDGE)(x.flatten(1))
    for distance in ImageGaussian.fit(x, ridge=RIDGE, coarse_ridge=RIDGE)(x):
        torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-5)


def test_it_does_not_matter_how_colours_are_mixed():
    x, new = colour_images(), colour_images(50, seed=1)
    mixing = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    plain, mixed = (
        ImageGaussian.fit(mix(x), ridge=RIDGE, coarse_ridge=RIDGE)(mix(new))
        for mix in (lambda x: x, lambda x: torch.einsum("nchw,cd->ndhw", x, mixing))
    )
    for distance, expected in zip(mixed, plain, strict=True):
        torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kept", [8, 5])
def test_in_the_coarse_distance_small_variances_share_their_mean(kept, constants):
    # Six components keep their variance.
    constants(module, fewest_components=6, gaussian_values=0, image_gaussian_values=kept * 24)
    x = colour_images()
    gaussian = ImageGaussian.fit(x, ridge=RIDGE, coarse_ridge=RIDGE)
    assert [g.components.shape for g in gaussian.gaussians] == [(kept, 8)] * 3
    assert gaussian.n_components == kept
    turned, variances, components = axes_of(x)
    small = variances < variances.flatten().topk(6).values[-1]
    ridge = RIDGE * x.numpy().var(axis=0).mean()
    few = torch.where(small, variances[small].mean(), variances)
    expected = distances(turned, few + ridge, components)
    torch.testing.assert_close(gaussian(x)[1], expected, rtol=1e-4, atol=1e-4)
    if kept < 8:  # what the components of an axis leave has one variance in the fine one, too
        rest = torch.arange(8) < 8 - kept
        own = torch.where(rest, variances[:, : 8 - kept].mean(1, keepdim=True), variances)
        expected = distances(turned, own + ridge, components)
        torch.testing.assert_close(gaussian(x)[0], expected, rtol=1e-4, atol=1e-4)


def test_the_distances_of_equal_images_are_finite():
    x = torch.ones(10, 3, 8, 8)
    for distance in ImageGaussian.fit(x, ridge=RIDGE, coarse_ridge=RIDGE)(torch.cat([x, -x])):
        assert distance.isfinite().all()
        assert (distance[10:] > distance[:10]).all()
