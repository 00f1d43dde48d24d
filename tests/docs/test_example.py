"""What decodes without this package decodes as it does."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import encoded, every_kind, turned
from PIL import Image
from tiny import on_disk

from historyad.data.decoding import decode_image
from historyad.errors import InputError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "score_with_onnxruntime.py"


@pytest.fixture(scope="module")
def pixels_of():
    spec = spec_from_file_location("example", EXAMPLE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pixels_of


def ours(path):
    """Return the pixels, or that there are none."""
    try:
        return decode_image(path)
    except InputError:
        return None


def theirs(pixels_of, path):
    try:
        return pixels_of(path)
    except (SystemExit, OSError):
        return None


RARE = {"16 bits with a transparent value"}  # which the example does not claim to read


def test_the_example_decodes_every_kind_of_file_as_the_commands_do(pixels_of, tmp_path):
    refused = set()
    for name, data in every_kind().items():
        (tmp_path / "image").write_bytes(data)
        expected, found = ours(tmp_path / "image"), theirs(pixels_of, tmp_path / "image")
        if found is None:
            refused.add(name)
            continue
        assert found.dtype == np.uint8, name
        np.testing.assert_array_equal(found, expected, err_msg=name)
    also = {name for name in refused if re.search("outside|negative|NaN|large|frames|no pic", name)}
    assert refused == also | RARE
    assert len(also) == 10


@on_disk
@given(
    st.one_of(
        arrays(np.uint16, (3, 4)),
        arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)),
        arrays(np.uint8, (3, 4, 4)),
    ),
    st.integers(1, 8),
)
def test_it_decodes_all_values_alike(pixels_of, tmp_path_factory, values, orientation):
    path = tmp_path_factory.mktemp("images") / "x.tif"
    path.write_bytes(encoded(Image.fromarray(values), "TIFF", exif=turned(orientation)))
    np.testing.assert_array_equal(pixels_of(path), decode_image(path))


def test_the_guide_quotes_the_function():
    code = EXAMPLE.read_text()
    function = code[code.index("FORMATS =") : code.index("\n\nif __name__")].rstrip()
    assert function.count("\n") < 30
    assert function in (ROOT / "docs" / "guide.md").read_text()
