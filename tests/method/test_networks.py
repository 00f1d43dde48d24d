import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import networks_for, tiny_config
from torch import nn
from torch.nn import functional

from historyad.config import make_config
from historyad.layers import FlattenPixels, ImageConvTranspose2d, PooledConv2d
from historyad.method.networks import (
    ImageNetworks,
    VectorNetworks,
    WideVectorNetworks,
    count_parameters,
    image_floats,
    initialise,
)

SHAPES = [(1,), (7,), *[(c, side, side) for c in (1, 3, 5) for side in (8, 16, 32, 64)]]


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


def networks_of(shape, **values):
    return networks_for(shape, tiny_config(**values))


def critic_of(shape, seed=0, **values):
    critic = networks_of(shape, **values).critic()
    initialise(critic, generator_of(seed))
    return critic


def convolve_and_pool(layer, x):
    return functional.avg_pool2d(functional.conv2d(x, layer.weight, layer.bias, padding=1), 2)


def derivatives(function, layer, x):
    """Return output, gradients, and the gradients of the norm of the gradient by x."""
    x = x.clone().requires_grad_()
    y = function(x)
    first = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()], create_graph=True)
    second = torch.autograd.grad(first[0].norm(), [x, *layer.parameters()])
    return [y, *first, *second]


@pytest.mark.parametrize(("n_in", "n_out", "side"), [(1, 4, 8), (3, 5, 16), (5, 2, 6)])
def test_pooled_convolution_is_a_convolution_followed_by_pooling(n_in, n_out, side):
    layer = PooledConv2d(n_in, n_out)
    initialise(layer, generator_of(0))
    nn.init.normal_(layer.bias, generator=generator_of(1))
    x = torch.randn(3, n_in, side, side, generator=generator_of(2))
    fast = derivatives(layer, layer, x)
    plain = derivatives(lambda x: convolve_and_pool(layer, x), layer, x)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n_in", "n_out", "side"), [(4, 1, 8), (5, 3, 4), (3, 5, 6)])
def test_the_shuffled_convolution_is_the_transposed_one(n_in, n_out, side):
    layer = ImageConvTranspose2d(n_in, n_out)
    initialise(layer, generator_of(0))
    nn.init.normal_(layer.bias, generator=generator_of(1))
    x = torch.randn(3, n_in, side, side, generator=generator_of(2))
    fast = derivatives(layer, layer, x)
    plain = derivatives(lambda x: nn.ConvTranspose2d.forward(layer, x), layer, x)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_flattening_channels_last_moves_nothing_in_memory():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    flat = FlattenPixels()(x)
    assert flat.shape == (2, 60)
    assert flat.data_ptr() == x.data_ptr()
    torch.testing.assert_close(flat[1, :3], x[1, :, 0, 0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_shapes(shape):
    networks = networks_of(shape, latent_dim=6)
    generator, critic = networks.generator(), networks.critic()
    initialise(generator, generator_of(0))
    samples = generator(torch.randn(3, 6, generator=generator_of(1)))
    assert samples.shape == (3, *shape)
    assert critic(samples).shape == (3,)
    if len(shape) == 3:
        assert samples.abs().max() <= 1


def test_networks_of_another_shape_keep_their_sizes():
    for shape, other in (((1, 8, 8), (3, 16, 16)), ((5,), (9,))):
        assert networks_of(shape).reshaped(other) == networks_of(other)


def test_another_coarsest_grid_takes_images_of_28_pixels():
    networks = ImageNetworks((1, 28, 28), 4, 8, 3, coarsest=7)
    assert networks.generator()(torch.zeros(2, 3)).shape == (2, 1, 28, 28)
    assert networks.critic()(torch.zeros(2, 1, 28, 28)).shape == (2,)


def test_the_paper_preset_has_about_5_million_parameters_in_each_network():
    networks = ImageNetworks.of((1, 32, 32), make_config("paper"))
    for network in (networks.generator(), networks.critic()):
        assert 4e6 < count_parameters(network) < 6e6


@pytest.mark.parametrize("shape", [(7,), (3, 16, 16)], ids=str)
def test_a_critics_score_does_not_depend_on_the_batch(shape):
    critic = critic_of(shape)
    x = torch.randn(12, *shape, generator=generator_of(1))
    whole = critic(x)
    torch.testing.assert_close(torch.cat([critic(row[None]) for row in x]), whole)
    torch.testing.assert_close(critic(x.flip(0)).flip(0), whole)
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in critic.modules())


def weights_of(seed, global_seed):
    torch.manual_seed(global_seed)
    networks, random = networks_of((1, 8, 8)), generator_of(seed)
    built = [networks.generator(), networks.critic()]
    for network in built:
        initialise(network, random)
    return [p for network in built for p in network.parameters()]


def test_weights_are_a_function_of_the_generator_alone():
    with torch.random.fork_rng():
        same = zip(weights_of(0, 1), weights_of(0, 2), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
        other = zip(weights_of(0, 1), weights_of(1, 1), strict=True)
        assert not all(torch.equal(a, b) for a, b in other)


def test_to_build_networks_draws_nothing_from_the_global_generator():
    before = torch.random.get_rng_state()
    for shape in ((1, 8, 8), (5,)):
        networks_of(shape).generator()
        networks_of(shape).critic()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_keep_the_scale_of_what_passes_through():
    critic = critic_of((256,), hidden=1024)
    x = torch.randn(64, 256, generator=generator_of(1))
    features = critic.features(x)
    assert 0.9 < features.square().mean() / x.square().mean() < 1.1
    assert all((p == 0).all() for name, p in critic.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (5,)])
@torch.no_grad()
def test_the_features_of_a_critic_come_with_its_score(shape):
    critic = critic_of(shape, hidden=16)
    x = torch.randn(6, *shape, generator=generator_of(1))
    features, scores = critic.with_features(x)
    assert features.shape == (6, critic.n_features)
    assert torch.equal(scores, critic(x))
    by_hand = features
    for layer in list(critic.head)[1:]:
        by_hand = layer(by_hand)
    torch.testing.assert_close(by_hand.squeeze(1), scores)


# --- samples at rest


def images_of(channels, side):
    return ImageNetworks((channels, side, side), 4, 8, 3)


@pytest.fixture
def patterned():
    """Images (23, 8, 8, 2) without any symmetry."""
    return np.random.default_rng(0).integers(0, 256, (23, 8, 8, 2), dtype=np.uint8)


def test_grey_values_survive_the_way_to_floats_and_back():
    values, networks = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), images_of(1, 16)
    floats = networks.floats(values)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (-1, 1)
    at_rest = networks.at_rest(floats)
    assert (at_rest == values).all()
    assert (at_rest.dtype, at_rest.shape) == (np.uint8, (1, 16, 16, 1))
    assert at_rest.flags.c_contiguous


@given(st.floats(-1.5, 1.5, width=32))
def test_a_generated_value_becomes_the_nearest_grey_value(value):
    grey = images_of(1, 8).at_rest(torch.full((1, 1, 1, 1), value)).item()
    exact = min(max((value + 1) * 127.5, 0), 255)
    assert abs(grey - exact) <= 0.5 + 1e-4


def test_channels_come_first_in_shape_and_last_in_memory(patterned):
    floats = image_floats(patterned)
    assert floats.shape == (23, 2, 8, 8)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert floats[3, 1, 5, 6].item() == pytest.approx(patterned[3, 5, 6, 1] / 127.5 - 1)
    assert torch.equal(images_of(2, 8).floats(patterned), floats)


def test_vectors_stay_as_they_are():
    networks = VectorNetworks((3,), 8, 3)
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for samples in (vectors, vectors[:, ::-1]):
        assert (networks.at_rest(networks.floats(samples)) == samples).all()


def test_what_is_read_only_is_copied_and_what_is_generated_left_alone(patterned):
    patterned.setflags(write=False)
    networks = images_of(2, 8)
    floats = networks.floats(patterned)
    before = floats.clone()
    networks.at_rest(floats)
    assert torch.equal(floats, before)


def test_there_is_room_for_samples_at_rest():
    images, vectors = images_of(2, 8).empty(3), VectorNetworks((5,), 8, 3).empty(4)
    assert (images.dtype, images.shape) == (np.uint8, (3, 8, 8, 2))
    assert (vectors.dtype, vectors.shape) == (np.float32, (4, 5))
    assert not images.any()
    assert not vectors.any()


def test_a_wide_generator_starts_as_a_gaussian_around_the_data():
    networks = WideVectorNetworks((5,), hidden=16, latent_dim=7)
    generator = networks.generator()
    initialise(generator, generator_of(0))
    z = torch.randn(20_000, 7, generator=generator_of(1))
    with torch.no_grad():
        y = generator(z)
    assert y.shape == (20_000, 5)
    off = torch.cov(y.T) - 1.5**2 * torch.eye(5)
    assert off.abs().max() < 0.6
    torch.testing.assert_close(
        torch.corrcoef(torch.cat([y.T, z.T]))[:5, 5:10].diagonal(), torch.ones(5), atol=0.05, rtol=0
    )
    assert networks.critic()(y).shape == (20_000,)
