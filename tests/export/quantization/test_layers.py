"""Which nodes of a small network, made by hand, are quantized."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from efftasks.export.quantization.layers import Layers, float_parts_of
from efftasks.structures.errors import UserError

KERNEL = np.ones((2, 2, 1, 1))


@pytest.fixture(scope="module")
def model(networks) -> Any:
    """Two layers that meet in a sum, a pooled and a hard gate, and two last layers."""
    return networks.network(
        [
            networks.node("Conv", ["images", "w1"], "a", "stem.conv"),
            networks.node("Relu", ["a"], "b"),
            networks.node("MaxPool", ["b"], "c", kernel_shape=[1, 1]),
            networks.node("Conv", ["c", "w2"], "d", "body.0"),
            networks.node("Add", ["c", "d"], "e"),
            networks.node("HardSigmoid", ["e"], "f"),
            networks.node("MaxPool", ["d"], "aside", kernel_shape=[1, 1]),  # of which only floats read
            networks.node("HardSigmoid", ["aside"], "further"),
            networks.node("Conv", ["e", "w3"], "g", "body.1"),
            networks.node("Mul", ["f", "g"], "h"),  # one side is float
            networks.node("Conv", ["h", "w4"], "i", "tower.0"),
            networks.node("Relu", ["i"], "j"),
            networks.node("Conv", ["j", "w5"], "k", "tower.1"),  # the last with weights before both outputs
            networks.node("Sigmoid", ["k"], "scores"),
            networks.node("Concat", ["k", "k"], "boxes", axis=1),
        ],
        ["scores", "boxes"],
        w1=KERNEL,
        w2=KERNEL,
        w3=KERNEL,
        w4=KERNEL,
        w5=KERNEL,
    )


def test_last_layers_stay_in_float_and_integers_pass_between_layers(model):
    layers = Layers(model)
    assert layers.names == ("stem.conv", "body.0", "body.1", "tower.0") and layers.kept == ("tower.1",)
    chosen = layers.choose()
    assert chosen.nodes == {f"n_{name}" for name in "abcdegij"}
    assert set(chosen.boundary) == {"d", "e", "g", "j"}  # what float nodes read


def test_declared_parts_and_named_layers_stay_in_float(model):
    assert Layers(model, ("body",)).names == ("stem.conv", "tower.0")
    layers = Layers(model)
    chosen = layers.choose(("tower.*", "stem"))
    assert chosen.layers == ("body.0", "body.1")
    assert chosen.nodes == {"n_d", "n_g"}  # what is before body.0 is float, and so is the sum with it
    assert layers.choose(only=("body.0",)).layers == ("body.0",)
    assert layers.cost("stem.conv") == 4


def test_what_matches_nothing_is_named(model):
    layers = Layers(model)
    with pytest.raises(
        UserError, match=r"float_layers: got 'bodi\.0', which matches no .* such as stem\.conv, body\.0"
    ):
        layers.choose(("bodi.0",))
    with pytest.raises(UserError, match="no layer is left"):
        layers.choose(("*",))
    layers.choose(("tower.1",))  # in float already


def test_a_kernel_that_is_computed_is_no_layer(networks):
    model = networks.network(
        [
            networks.node("Conv", ["images", "w1"], "a", "stem"),
            networks.node("Conv", ["images", "a"], "b", "dynamic"),
            networks.node("Conv", ["b", "w1"], "out", "last"),
        ],
        ["out"],
        w1=KERNEL,
    )
    assert Layers(model).names == ("stem",) and Layers(model).kept == ("last",)


def test_a_module_that_runs_twice_is_one_layer(networks):
    model = networks.network(
        [
            networks.node("Conv", ["images", "w1"], "a", "shared"),
            networks.node("Conv", ["a", "w1"], "b", "shared"),
            networks.node("Conv", ["b", "w2"], "out", "last"),
        ],
        ["out"],
        w1=KERNEL,
        w2=KERNEL,
    )
    assert Layers(model).choose().layers == ("shared",) and len(Layers(model).choose().nodes) == 2


def test_heads_declare_their_decoders(families):
    assert float_parts_of(families.build_family("dfine")) == ("head.selection", "head.decoder")
    assert float_parts_of(families.build_family("o2o")) == ()
