import hashlib

import pytest
import torch

from historyad.backbones import lite0
from historyad.backbones.backbone import open_backbone, read_backbone
from historyad.backbones.wavelets import Wavelets
from historyad.errors import InputError


def test_the_weights_are_those_of_the_pinned_file_and_no_other_is_read(monkeypatch):
    monkeypatch.setattr(lite0, "_SHA256", hashlib.sha256(b"another").hexdigest())
    with pytest.raises(InputError, match=r"is not the file of lite0's weights: install its"):
        lite0.load_weights()
    monkeypatch.setattr(lite0, "_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"install historyad\[backbone\]"):
        lite0.load_weights()


def test_folded_norms_change_nothing():
    """The same block, with its norms, by torch."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for convolution, norm, shape in (
        ("_conv_stem", "_bn0", (32, 3, 3, 3)),
        ("_blocks.0._depthwise_conv", "_blocks.0._bn1", (32, 1, 3, 3)),
        ("_blocks.0._project_conv", "_blocks.0._bn2", (16, 32, 1, 1)),
    ):
        state[f"{convolution}.weight"] = torch.randn(shape, generator=random)
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{name}"] = torch.rand(shape[0], generator=random) + 0.5
    found = lite0.folded(_With(state))
    x = torch.randn(1, 3, 9, 9, generator=random)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))  # of an odd side, both sides get one
    plain = torch.conv2d(padded, state["_conv_stem.weight"], stride=2)
    stem = lite0.SameConv2d(3, 32, 3, 2)
    stem.load_state_dict({n: found[f"stem.{n}"] for n in ("weight", "bias")})
    normed = torch.nn.functional.batch_norm(
        plain,
        *(state[f"_bn0.{n}"] for n in ("running_mean", "running_var", "weight", "bias")),
        eps=1e-3,
    )
    torch.testing.assert_close(stem(x), normed, atol=1e-4, rtol=1e-4)


class _With(dict):
    """The weights of some layers; ones for all others."""

    def __missing__(self, name):
        return torch.ones(1, 1, 1, 1) if "conv" in name else torch.ones(1)


def test_an_odd_pixel_of_padding_goes_to_the_right_and_the_bottom():
    convolution = lite0.SameConv2d(1, 1, 3, 2)
    torch.nn.init.ones_(convolution.weight)
    torch.nn.init.zeros_(convolution.bias)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    found = convolution(x)[0, 0]
    assert found.tolist() == [
        [x[0, 0, :3, :3].sum(), x[0, 0, :3, 2:].sum()],
        [x[0, 0, 2:, :3].sum(), x[0, 0, 2:, 2:].sum()],
    ]


def test_maps_have_strides_16_and_32_and_are_those_of_imagenet():
    backbone = open_backbone("lite0", 64)
    assert (backbone.side, backbone.grid) == (64, (4, 4))
    assert [part.n_features for part in backbone.parts] == [384, 241]
    assert [part.n_components for part in backbone.parts] == [48, 16]
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image = torch.stack([127 + 90 * torch.sin(y / 5), 2 * x, 255 - 2 * y])[None]
    with torch.no_grad():
        early, fine, coarse, wavelets = backbone(image)
    assert early.shape == (1, 80, 4, 4)
    torch.testing.assert_close(wavelets, Wavelets()(image))
    assert (fine.shape, coarse.shape) == ((1, 112, 4, 4), (1, 192, 2, 2))
    # As the published network, with its norms beside its convolutions, gave them once.
    found = [float(v) for v in (fine.mean(), fine.std(), coarse.mean(), coarse.std())]
    assert found == pytest.approx(EXPECTED, rel=1e-3)


EXPECTED = [0.15524, 5.26419, 0.86872, 7.56729]


def test_what_is_saved_is_read_again():
    backbone = open_backbone("lite0", 32)
    again = read_backbone(backbone.to_json(), backbone.tensors())
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        for one, other in zip(backbone(image), again(image), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert sum(tensor.nbytes for tensor in backbone.tensors().values()) < 10e6
    with pytest.raises(ValueError, match="squares of 16"):
        read_backbone({**backbone.to_json(), "side": 16}, backbone.tensors())
    with pytest.raises(RuntimeError, match="Missing key"):
        read_backbone(backbone.to_json(), {})
