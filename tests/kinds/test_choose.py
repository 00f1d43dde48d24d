import numpy as np
import pytest
from tiny import tiny_config

from historyad.errors import InputError
from historyad.kinds.choose import choose_kind, hint, read_kind, write_kind
from historyad.kinds.columns import Columns
from historyad.kinds.crops import Crops
from historyad.kinds.whole import Whole

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
VECTORS = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)


def test_the_kind_follows_from_the_samples_and_the_settings():
    whole, chosen = (
        choose_kind(IMAGES, tiny_config()),
        choose_kind(IMAGES, tiny_config(image_size=8)),
    )
    assert (type(whole), whole.side, whole.any_size) == (Whole, 64, False)
    assert (type(chosen), chosen.side, chosen.any_size) == (Whole, 8, True)
    crops = choose_kind(IMAGES, tiny_config(patch=8, scales=3, contrast="local"))
    assert (type(crops), crops.side, crops.scales, crops.contrast) == (Crops, 8, 3, "local")
    columns = choose_kind(VECTORS, tiny_config())
    assert (type(columns), columns.input_shape) == (Columns, (4,))
    with pytest.raises(InputError, match="patch is for images, and these are vectors: leave it 0"):
        choose_kind(VECTORS, tiny_config(patch=8))


def test_samples_that_no_file_of_a_model_may_describe_are_refused_before_a_fit():
    for shape in ((2**14, 2**14, 1), (8, 8, 1025), (2**27 + 1,)):
        samples = np.broadcast_to(np.zeros(1, np.uint8), (2, *shape))
        words = " x ".join(map(str, shape))
        with pytest.raises(InputError, match=rf"samples of {words} values are too large: give sm"):
            choose_kind(samples, tiny_config())
    large = np.broadcast_to(np.zeros(1, np.uint8), (2, 6000, 6000, 3))
    kind = choose_kind(large, tiny_config(patch=8))
    assert read_kind(write_kind(kind), kind.tensors()).input_shape == (6000, 6000, 3)


@pytest.mark.parametrize(
    ("samples", "values", "said"),
    [
        (IMAGES, {"patch": 8}, {"kind": "image", "crops": "8 x 8, scales 1", "contrast": None}),
        (IMAGES, {}, {"kind": "image", "grid": 64}),
        (VECTORS, {}, {"kind": "vector"}),
    ],
)
def test_a_kind_is_described_written_and_read(samples, values, said):
    kind = choose_kind(samples, tiny_config(**values))
    assert kind.describe() == {"input": " x ".join(map(str, samples.shape[1:])), **said}
    again = read_kind(write_kind(kind), kind.tensors())
    assert type(again) is type(kind)
    assert again.to_json() == kind.to_json()


def test_a_kind_that_there_is_not_is_refused():
    written = write_kind(choose_kind(IMAGES, tiny_config()))
    with pytest.raises(ValueError, match="kind 'sound'"):
        read_kind({**written, "kind": "sound"}, {})
    with pytest.raises(KeyError):
        read_kind({name: value for name, value in written.items() if name != "kind"}, {})


def test_every_kind_makes_examples_of_what_a_source_holds():
    for samples, values in ((IMAGES, {}), (IMAGES, {"patch": 8}), (VECTORS, {})):
        kind = choose_kind(samples, tiny_config(**values))
        found = kind.example(5, np.random.default_rng(0))
        assert (found.dtype, found.shape) == (samples.dtype, (5, *samples.shape[1:]))
        kind.check_samples(found)
        assert not (found[0] == found[1]).all()


def test_who_sees_large_images_whole_is_told_of_crops():
    large = np.zeros((1, 160, 90, 1), np.uint8)
    assert hint(large, tiny_config()).startswith("images of 90 x 160 pixels are reduced to 64 x 64")
    for samples, values in ((large, {"patch": 8}), (IMAGES, {}), (VECTORS, {})):
        assert hint(samples, tiny_config(**values)) == ""
