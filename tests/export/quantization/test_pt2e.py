"""Integers for XNNPACK: which layers get them, and their scales by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efftasks.export.quantization.recipe import CalibrationImages, Recipe
from efftasks.structures.errors import UserError

pytest.importorskip("torchao", reason="the extra executorch is not installed")

from efftasks.export.quantization.pt2e import Pt2eQuantizer


class Network(nn.Module):
    """Two branches that are added and joined, and a tower with its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.tower, self.last = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.Conv2d(6, 2, 1)
        self.scale = nn.Parameter(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images).relu()
        total = (self.left(stem) + self.right(stem)).relu()
        tower = nn.functional.silu(self.tower(torch.cat([total, stem], 1)))
        return self.last(tower).sigmoid() * 100 + 1


class Root(nn.Module):
    """As ``Graph`` has it: the model is below ``model``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = Network()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.model(images),)


class Saved:
    """The graph that is written."""

    def __init__(self, float_parts: tuple[str, ...] = ()) -> None:
        self.root = Root().eval()
        generator = np.random.default_rng(0)
        self.inputs = [generator.random((1, 3, 8, 8), dtype=np.float32) * 0.5 for _ in range(3)]
        images = CalibrationImages([*"abc"], lambda i: self.inputs[i], (-0.25, 1.0))
        program = torch.export.export(self.root, (torch.zeros(1, 3, 8, 8),))
        self.graphs: list[Any] = []
        self.quantizer = Pt2eQuantizer(program, float_parts, images, lambda graph, path: self.graphs.append(graph))

    def write(self, **recipe: Any) -> tuple[tuple[str, ...], Any]:
        kept = self.quantizer.write(Path("x"), Recipe("minmax", **recipe))
        return kept, self.graphs[-1]


def count(graph: Any) -> Counter[str]:
    return Counter(
        str(node.target).split("::")[-1].split(".")[-2] for node in graph.graph.nodes if node.op[:4] == "call"
    )


def test_layers_are_those_of_the_model_but_for_the_last():
    saved = Saved()
    assert saved.quantizer.names == ("stem", "left", "right", "tower") and saved.quantizer.kept == ("last",)
    saved = Saved(("tow*",))
    assert saved.quantizer.names == ("stem", "left", "right") and saved.quantizer.kept == ("tower", "last")
    kept, graph = saved.write(float_layers=("left",))
    assert kept == ("tower", "last", "left")
    assert count(graph)["dequantize_per_channel"] == 2  # weights of stem and right
    with pytest.raises(UserError, match=r"quantization\.float_layers: got 'head', which matches no convolution"):
        saved.write(float_layers=("head",))
    with pytest.raises(UserError, match="no layer is left"):
        saved.write(float_layers=("*",))


@pytest.mark.parametrize("bits, limit", [(7, 63), (8, 127)])
def test_scales_are_those_by_hand(bits, limit):
    saved = Saved()
    _, graph = saved.write(weight_bits=bits)
    weights = [node for node in graph.graph.nodes if "dequantize_per_channel" in str(node.target)]
    for node, name in zip(weights, ("stem", "left", "right", "tower"), strict=True):
        integers, scales = (getattr(graph, str(part.target)) for part in node.args[:2])
        axis = node.args[3]
        values: Any = saved.root.state_dict()[f"model.{name}.weight"]
        assert axis == (1 if name == "tower" else 0)
        rest = [i for i in range(4) if i != axis]
        torch.testing.assert_close(scales, values.abs().amax(rest) / limit)
        assert integers.dtype == torch.int8 and int(integers.abs().max()) == limit
        shape = [-1 if i == axis else 1 for i in range(4)]
        torch.testing.assert_close(integers * scales.view(shape), values, rtol=0, atol=float(scales.max()) / 2 + 1e-7)
    first = next(node for node in graph.graph.nodes if "quantize_per_tensor" in str(node.target))
    assert first.args[0].op == "placeholder"
    assert first.args[1] == pytest.approx(1.25 / 255) and first.args[2:5] == (-128 + 51, -128, 127)  # of all images


def test_integers_stay_integers_between_layers_and_numbers_are_nearly_the_same():
    saved = Saved()
    _, graph = saved.write(weight_bits=8)
    found = count(graph)
    # image, stem, left, right, their sum, the concatenation, tower: one each, and silu and last are in float
    assert found["quantize_per_tensor"] == 7 and found["silu"] == 1 and found["dequantize_per_channel"] == 4
    joined = next(node for node in graph.graph.nodes if "cat" in str(node.target))
    scales = {part.args[1] for part in (*joined.args[0], *joined.users)}
    assert len(scales) == 1
    images = torch.from_numpy(saved.inputs[0])
    with torch.no_grad():
        (expected,), (values,) = saved.root(images), graph(images)
    assert 0 < float((values - expected).abs().mean()) < 0.02 * float(expected.max() - expected.min())
