import pytest
import torch
from torch import nn
from torch.nn import functional

from historyad.config import make_config
from historyad.errors import ConfigError
from historyad.layers import FlattenPixels, ImageConvTranspose2d, PooledConv2d
from historyad.method.networks import (
    Critic,
    build_networks,
    choose_device,
    count_parameters,
    initialise,
)

SHAPES = [(1,), (7,), *[(c, side, side) for c in (1, 3, 5) for side in (8, 16, 32, 64)]]


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


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
    generator, critic = build_networks(shape, 4, 8, 6, generator_of(0))
    samples = generator(torch.randn(3, 6, generator=generator_of(1)))
    assert samples.shape == (3, *shape)
    assert critic(samples).shape == (3,)
    if len(shape) == 3:
        assert samples.abs().max() <= 1


def test_the_paper_preset_has_about_5_million_parameters_in_each_network():
    config = make_config("paper")
    networks = build_networks(
        (1, 32, 32), config.width, config.hidden, config.latent_dim, generator_of(0)
    )
    assert all(4e6 < count_parameters(network) < 6e6 for network in networks)


@pytest.mark.parametrize("shape", [(7,), (3, 16, 16)], ids=str)
def test_a_critics_score_does_not_depend_on_the_batch(shape):
    _, critic = build_networks(shape, 4, 16, 6, generator_of(0))
    x = torch.randn(12, *shape, generator=generator_of(1))
    whole = critic(x)
    torch.testing.assert_close(torch.cat([critic(row[None]) for row in x]), whole)
    torch.testing.assert_close(critic(x.flip(0)).flip(0), whole)
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in critic.modules())


def weights_of(seed, global_seed):
    torch.manual_seed(global_seed)
    networks = build_networks((1, 8, 8), 4, 8, 6, generator_of(seed))
    return [p for network in networks for p in network.parameters()]


def test_weights_are_a_function_of_the_generator_alone():
    with torch.random.fork_rng():
        same = zip(weights_of(0, 1), weights_of(0, 2), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
        other = zip(weights_of(0, 1), weights_of(1, 1), strict=True)
        assert not all(torch.equal(a, b) for a, b in other)


def test_weights_keep_the_scale_of_what_passes_through():
    critic = Critic((256,), 4, 1024)
    initialise(critic, generator_of(0))
    x = torch.randn(64, 256, generator=generator_of(1))
    features = critic.features(x)
    assert 0.9 < features.square().mean() / x.square().mean() < 1.1
    assert all((p == 0).all() for name, p in critic.named_parameters() if name.endswith("bias"))


def test_choose_device():
    assert choose_device("cpu") == torch.device("cpu")
    assert isinstance(choose_device("auto"), torch.device)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_a_config_error(name):
    with pytest.raises(ConfigError, match=f"device '{name}'.*take auto or cpu"):
        choose_device(name)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (5,)])
@torch.no_grad()
def test_the_layers_of_a_critic_end_in_its_score(shape):
    _, critic = build_networks(shape, 4, 16, 8, torch.Generator().manual_seed(0))
    x = torch.randn(6, *shape, generator=torch.Generator().manual_seed(1))
    features, hidden, scores = critic.layers_of(x)
    assert features.shape == (6, critic.n_features)
    assert hidden.shape == (6, 16)
    assert torch.equal(scores, critic(x))
