import copy
import json

import pytest
import torch
from tiny import TinyBackbone
from torch import nn

from historyad.backbones.backbone import open_backbone, read_backbone
from historyad.backbones.graphs import write_backbone
from historyad.backbones.parts import Part
from historyad.errors import InputError


@pytest.fixture
def copied(tiny_backbone, tmp_path):
    for suffix in (".onnx", ".json"):
        source = tiny_backbone.with_suffix(suffix)
        (tmp_path / f"own{suffix}").write_bytes(source.read_bytes())
    return tmp_path / "own.onnx"


def normalised(x):
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    return (x / 255 - mean) / std


def test_a_module_of_the_user_s_is_a_backbone(tiny_backbone):
    backbone = open_backbone(str(tiny_backbone))
    assert (backbone.side, backbone.grid) == (32, (8, 8))
    assert backbone.parts == (Part(20, 64),)
    assert backbone.name == "tiny.onnx"
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = TinyBackbone()(normalised(x))
    for one, other in zip(backbone(x), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_program_of_torch_export_is_one(tiny_backbone, tmp_path):
    program = torch.export.export(TinyBackbone(), (torch.zeros(1, 3, 32, 32),))
    torch.export.save(program, tmp_path / "own.pt2")
    (tmp_path / "own.json").write_text('{"input_size": 32}')
    x = torch.full((1, 3, 32, 32), 50.0)
    x[:, :, 8:20, 9:] = 200
    found = open_backbone(str(tmp_path / "own.pt2"))(x)
    for one, other in zip(found, open_backbone(str(tiny_backbone))(x), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_json_says_which_outputs_and_what_scale(copied):
    whole = open_backbone(str(copied))
    content = json.loads(copied.with_suffix(".json").read_text())
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    content |= {"outputs": content["outputs"][1:], "mean": [0, 0, 0], "std": [1, 1, 1]}
    copied.with_suffix(".json").write_text(json.dumps(content))
    some = open_backbone(str(copied))
    assert (some.grid, some.parts[0].n_features) == ((4, 4), 12)
    assert not torch.allclose(some(x)[0], whole(x)[1])
    torch.testing.assert_close(some(255 * normalised(x))[0], whole(x)[1], atol=1e-4, rtol=1e-4)


def test_what_is_saved_is_read_again(tiny_backbone):
    backbone = open_backbone(str(tiny_backbone))
    content, tensors = backbone.to_json(), backbone.tensors()
    again = read_backbone(json.loads(json.dumps(content)), tensors)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    for one, other in zip(backbone(x), again(x), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert copy.deepcopy(again).grid == (8, 8)  # also once it has run
    cut = {"graph": tensors["graph"][:-100]}
    for damaged, graph in (
        ({**content, "outputs": ["none"]}, tensors),
        ({**content, "mean": [0, 0]}, tensors),
        ({**content, "std": [1, 1, None]}, tensors),
        ({**content, "name": "other"}, tensors),
        ({**content, "side": 31}, tensors),
        ({**content, "side": 64.0}, tensors),
        (content, cut),
    ):
        with pytest.raises((ValueError, TypeError)):
            read_backbone(damaged, graph)


def test_refusals_say_what_to_do(copied, tmp_path):
    def refused(words, path=copied):
        with pytest.raises(InputError, match=words):
            open_backbone(str(path))

    refused("the backbone .*no.onnx is missing|no.json is missing", tmp_path / "no.onnx")
    description = copied.with_suffix(".json")
    whole = description.read_text()
    description.unlink()
    refused(r'own.json is missing, .* write \{"input_size": 224')
    for text in ("[]", '{"input_size": "large"}', '{"input_size": 8}', '{"mean": [0, 0, 0]}'):
        description.write_text(text)
        refused("input_size .*: give the side of the images in pixels, 32 to 1024")
    for change in ({"outputs": ["other"]}, {"mean": [1]}):
        description.write_text(json.dumps({**json.loads(whole), **change}))
        refused("own.onnx cannot be used as a backbone with own.json")
    description.write_text(whole)
    copied.write_bytes(b"nothing")
    refused("own.onnx is no ONNX file .*export it again")
    copied.with_suffix(".pt2").write_bytes(b"nothing")
    refused("own.pt2 is no program of torch.export", copied.with_suffix(".pt2"))
    with pytest.raises(InputError, match=r"call the file NAME\.onnx"):
        write_backbone(TinyBackbone(), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"something else than maps \(N, c, h, w\)"):
        write_backbone(nn.Flatten(), tmp_path / "x.onnx", input_size=32)
