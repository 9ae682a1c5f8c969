"""The settings of quantization: what a config may state, and the message for what it may not."""

from __future__ import annotations

import pytest

from efftasks.config import load_config
from efftasks.structures.errors import UserError
from efftasks.structures.quantization import QuantizationSettings

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


def test_a_config_states_some_and_the_rest_are_defaults():
    settings = QuantizationSettings.from_config({"images": 64, "float_layers": ["backbone.stem.*"]})
    assert (settings.images, settings.float_layers) == (64, ("backbone.stem.*",))
    assert settings.method == "auto" and settings.weight_bits == 7
    assert QuantizationSettings.from_config(None) == QuantizationSettings()
    assert QuantizationSettings(float_layers="neck.lateral").float_layers == ("neck.lateral",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value, message",
    [
        ({"imges": 64}, r"quantization\.imges: there is no such key; did you mean 'images'\?"),
        ({"qwertz": 64}, r"quantization\.qwertz: there is no such key, expected one of method, images"),
        ({"method": "max"}, r"quantization\.method: got 'max', expected one of auto, minmax"),
        ({"images": 0}, r"quantization\.images: got 0, expected an integer from 1"),
        ({"images": True}, r"quantization\.images: got True"),
        ({"subset": 1.5}, r"quantization\.subset: got 1\.5, expected an integer"),
        ({"weight_bits": 4}, r"quantization\.weight_bits: got 4, expected 7 or 8"),
        ({"float_layers": [3]}, r"quantization\.float_layers: got \[3\], expected a list of names"),
        ([1], r"quantization: got \[1\], expected a dict"),
    ],
)
def test_what_is_not_allowed_is_named(value, message):
    with pytest.raises(UserError, match=message):
        QuantizationSettings.from_config(value)


def test_a_config_is_checked_when_it_is_read():
    cfg = load_config(CONFIG, {"quantization.images": 32, "quantization.float_layers": ["backbone.stem.conv"]})
    assert QuantizationSettings.from_config(cfg.quantization).images == 32
    with pytest.raises(UserError, match=r"quantization\.metod: there is no such key; did you mean 'method'"):
        load_config(CONFIG, {"quantization.metod": "minmax"})
