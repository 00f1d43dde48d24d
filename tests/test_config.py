import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from historyad.config import PRESETS, Config, as_dict, make_config, settings, validate
from historyad.errors import ConfigError, HistoryADError

NUMBERS = {n: s for n, s in settings().items() if not isinstance(s.default, str)}
TEXTS = {n: s for n, s in settings().items() if isinstance(s.default, str)}


def changed(name, value):
    return dataclasses.replace(Config(), **{name: value})


def refusal(name, value):
    """Return what is said of a value, which is refused."""
    try:
        validate(changed(name, value))
    except ConfigError as error:
        return str(error)
    return pytest.fail(f"{name} = {value!r} is not refused")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset):
    config = make_config(preset)
    assert as_dict(config) == {**as_dict(Config()), **PRESETS[preset]}


def test_every_setting_has_help_and_a_type_that_json_keeps():
    for name, setting in settings().items():
        assert setting.metadata["help"].endswith("."), name
        assert type(setting.default) in (int, float, str), name


def test_given_values_win_over_the_preset():
    config = make_config("quick", width=8, detector_epochs=2)
    assert (config.width, config.detector_epochs, config.hidden) == (8, 2, 256)


def test_unknown_names_lead_to_the_nearest():
    with pytest.raises(ConfigError, match="unknown preset 'papr': did you mean 'paper'"):
        make_config("papr")
    with pytest.raises(
        ConfigError, match="unknown preset 'zzz': known are instant, quick, default, paper"
    ):
        make_config("zzz")
    with pytest.raises(ConfigError, match="unknown setting 'widht': did you mean 'width'"):
        make_config(widht=3)
    with pytest.raises(ConfigError, match="unknown setting '###': known are image_size, "):
        make_config(**{"###": 3})


def test_config_error_is_a_value_error_that_a_user_can_mend():
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, HistoryADError)


def limits():
    """Yield (name, limit, a value just beyond it, what the error says) for every limit."""
    for name, setting in NUMBERS.items():
        for key, words, direction in (("low", "at least", -1), ("high", "at most", 1)):
            limit = setting.metadata[key]
            if limit is None:
                continue
            whole = isinstance(setting.default, int)
            beyond = limit + direction if whole else math.nextafter(limit, direction * math.inf)
            yield name, limit, beyond, f"{words} {limit:g}"


def test_limits_are_allowed_and_what_is_beyond_is_refused():
    # Some settings limit each other: the other one is moved out of the way.
    rooms = {
        "n_epochs": {"skip_epochs": 0.0},
        "skip_epochs": {"n_epochs": 1000.0},
        "scales": {"patch": 32},
        "backbone_side": {"backbone": "lite0"},
        "resize": {"backbone": "lite0"},
        "stride": {"window": 100_000},
    }
    assert len(list(limits())) > 40
    for name, limit, beyond, words in limits():
        said = refusal(name, beyond)
        assert re.match(f"{name} is .*: it must be .*{re.escape(words)}", said), said
        validate(dataclasses.replace(Config(), **{name: limit, **rooms.get(name, {})}))


def test_only_finite_numbers_are_numbers():
    for name in NUMBERS:
        for value in (math.nan, math.inf, -math.inf, True, "5", None, [1], 1j):
            assert refusal(name, value).startswith(f"{name} is ")


def test_whole_numbers_are_whole():
    for name, setting in NUMBERS.items():
        if isinstance(setting.default, int):
            assert refusal(name, 8.0).startswith(f"{name} is 8.0: it must be of type int")


def test_numbers_of_numpy_are_numbers_and_saved_as_pythons():
    config = make_config(width=np.int64(16), n_epochs=np.float32(4), decay=np.int32(2))
    values = [as_dict(config)[name] for name in ("width", "n_epochs", "decay")]
    assert values == [16, 4, 2]
    assert [type(value) for value in values] == [int, float, int]
    for value in (np.float64(16), np.bool_(True)):
        with pytest.raises(ConfigError, match=r"width is .*: it must be of type int"):
            make_config(width=value)


def test_texts_are_texts():
    for name in TEXTS:
        for value in (None, 1, b"cpu"):
            assert refusal(name, value) == f"{name} is {value!r}: it must be of type str"


def test_choices():
    for name, setting in TEXTS.items():
        if not (choices := setting.metadata["choices"]):
            continue
        for choice in choices:
            validate(dataclasses.replace(Config(), skip_epochs=0.5, patch=32, **{name: choice}))
        listed = ", ".join(choice or "''" for choice in choices)
        assert refusal(name, "other") == f"{name} is 'other': choose one of {listed}"


def test_sides_of_the_grid():
    sides = "0, 8, 16, 32, 64 or 128"
    for side in (0, 8, 16, 32, 64, 128):
        validate(changed("image_size", side))
    for side in (1, 7, 12, 100):
        assert refusal("image_size", side) == f"image_size is {side}: take {sides}"


def test_backbones():
    for name in ("none", "auto", "lite0", "own.onnx", "some/where/own.pt2"):
        assert make_config(backbone=name).backbone == name
    for name in ("", "lite1", "own.pth"):
        said = refusal("backbone", name)
        assert said.startswith(f"backbone is '{name}': take none, auto, lite0, wavelets")
    assert refusal("backbone_side", 224).startswith("backbone_side is for a backbone: set backbone")
    assert refusal("resize", 0).startswith("resize is for a backbone: set backbone")
    for name in ("backbone_side", "resize"):
        with pytest.raises(ConfigError, match=f"{name} is 16: take 32 to 1024, or 0"):
            make_config(backbone="lite0", **{name: 16})
    with pytest.raises(ConfigError, match=r"resize is 448 and backbone_side 224: .* leave out"):
        make_config(backbone="lite0", resize=448, backbone_side=224)
    make_config(backbone="lite0", resize=0, backbone_side=224)
    for other in ({"patch": 32}, {"image_size": 64}, {"augment": "flip"}):
        (name,) = other
        with pytest.raises(
            ConfigError, match=f"backbone is 'auto' and {name} .*: leave out {name}"
        ):
            make_config(backbone="auto", **other)


def test_with_a_backbone_a_preset_has_another_history():
    plain, of_cells = make_config(), make_config(backbone="lite0")
    assert (plain.hidden, of_cells.hidden) == (256, 64)
    assert make_config("quick", backbone="lite0").epoch_images == of_cells.epoch_images // 2
    assert make_config(backbone="lite0", batch_size=32).batch_size == 32
    assert make_config(backbone="none") == plain


def test_a_history_without_length_is_refused():
    with pytest.raises(ConfigError, match=r"skip_epochs \(0.75\) leaves nothing"):
        make_config(n_epochs=0.75)


@given(
    name=st.sampled_from(sorted(settings())),
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
    ),
)
def test_any_value_is_taken_or_refused_with_the_name_of_its_setting(name, value):
    try:
        config = make_config(**{name: value})
    except ConfigError as error:
        assert name in str(error) or "skip_epochs" in str(error)  # noqa: PT017 (not always raised)
    else:
        assert getattr(config, name) == value


def test_a_number_that_no_float_holds_is_refused():
    for name in ("n_epochs", "epoch_images"):
        with pytest.raises(ConfigError, match=name):
            make_config(**{name: 10**400})
