"""Scales, roundings and gradients, against numbers by hand and a convolution of integers in numpy."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efftasks.compression.quantization.part import quantized_parts


def one(toys: ModuleType, weights: list[list[float]], biases: list[float]) -> Any:
    """A 1x1 convolution of three channels."""
    conv = nn.Conv2d(3, len(weights), 1)
    conv.weight.data = torch.tensor(weights)[:, :, None, None]
    conv.bias.data = torch.tensor(biases)  # type: ignore[union-attr]
    return toys.One(conv)


def images_between(low: float, high: float) -> Tensor:
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * (high - low) + low
    images[0, 0, 0, :2] = torch.tensor([low, high])
    return images


@pytest.mark.parametrize(("bits", "half_steps"), [(8, 127.5), (7, 63.5)])
def test_weights_have_a_scale_for_each_channel(toys: ModuleType, bits: int, half_steps: float) -> None:
    model = toys.calibrated(
        one(toys, [[0.5, -1.0, 0.25], [0.0, 0.1, 0.02]], [0.0, 0.0]), images_between(0, 1), weight_bits=bits
    )
    part = model.part
    (name,) = part._weights
    quantizer = part.graph.get_submodule(name)
    np.testing.assert_allclose(quantizer.scale, np.array([1.0, 0.1]) / half_steps, rtol=1e-6)
    assert quantizer.zero_point.tolist() == [0, 0]
    rounded = quantizer(part.graph.part.conv.weight) / quantizer.scale[:, None, None, None]
    assert (rounded - rounded.round()).abs().max() < 1e-4
    # -1.0 is -127.5 or -63.5 steps, half of one either way; 0.5 is half as many.
    assert rounded[0].flatten().tolist() == pytest.approx([half_steps / 2, -half_steps, half_steps / 4], abs=0.51)


def test_activations_are_unsigned_with_the_range_of_images(toys: ModuleType) -> None:
    model = toys.calibrated(one(toys, [[1.0, 0.0, 0.0]], [0.0]), images_between(-0.5, 2.0))
    first, last = model.part.activations()
    assert float(first.scale) == pytest.approx(2.5 / 255) and int(first.zero_point) == 51  # 0.5 / 2.5 * 255
    # After the ReLU there are no negative numbers: zero is the least integer, as runtimes need to drop the ReLU.
    assert int(last.zero_point) == 0 and float(last.scale) == pytest.approx(2.0 / 255, rel=1e-2)


def test_the_output_is_that_of_a_convolution_of_integers(toys: ModuleType) -> None:
    weights, biases = [[0.5, -1.0, 0.25], [0.3, 0.1, -0.2]], [0.1, -0.05]
    images = images_between(-0.5, 1.0)
    model = toys.calibrated(one(toys, weights, biases), images)
    first, last = ((float(q.scale), int(q.zero_point)) for q in model.part.activations())
    array = images.numpy().astype(np.float64)
    integers = np.clip(np.round(array / first[0]) + first[1], 0, 255) - first[1]
    steps = np.abs(weights).max(1) / 63.5
    rows = np.clip(np.round(np.array(weights) / steps[:, None]), -64, 63)
    sums = np.einsum("oc,bchw->bohw", rows, integers)
    real = sums * steps[None, :, None, None] * first[0] + np.array(biases)[None, :, None, None]
    expected = np.clip(np.round(np.maximum(real, 0) / last[0]) + last[1], 0, 255) - last[1]
    with torch.no_grad():
        result = model(images).numpy() / last[0]
    assert np.abs(result - expected).max() <= 1 + 1e-3  # of a step, where float32 rounds a tie the other way
    assert np.abs(result - expected).mean() < 0.02
    assert expected.max() > 200


def test_gradients_pass_rounding_and_stop_outside_of_the_range(toys: ModuleType) -> None:
    model = toys.calibrated(one(toys, [[1.0, 0.0, 0.0]], [0.0]), images_between(0.0, 1.0))
    images = torch.tensor([0.4, 0.7, 1.5, 2.0]).view(1, 1, 2, 2).repeat(1, 3, 1, 1).requires_grad_()
    model(images).sum().backward()
    gradients = images.grad[0, 0].flatten()  # type: ignore[index]
    assert gradients[:2].tolist() == pytest.approx([1.0, 1.0], abs=0.02)  # the weight 1.0, rounded
    assert gradients[2:].tolist() == [0.0, 0.0]
    assert model.part.graph.part.conv.weight.grad.abs().sum() > 0


def test_ranges_are_moving_averages_of_training_batches_alone(toys: ModuleType) -> None:
    model = toys.quantized(one(toys, [[1.0, 0.0, 0.0]], [0.0]), momentum=0.25).train()
    toys.set_phase(model, observe=True, quantize=False)
    low, high = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 4.0)
    model(low + 1.0)
    model(high)
    model.eval()
    model(high * 100)
    observer = model.part.activations()[0].activation_post_process
    assert float(observer.max_val) == pytest.approx(1.0 + 0.25 * 3.0)
    toys.set_phase(model.train(), observe=False, quantize=True)
    model(high * 100)
    assert float(observer.max_val) == pytest.approx(1.75)


def test_weights_that_change_change_their_scale_at_once(toys: ModuleType) -> None:
    model = toys.calibrated(one(toys, [[1.0, 0.0, 0.0]], [0.0]), images_between(0, 1))
    (name,) = model.part._weights
    quantizer = model.part.graph.get_submodule(name)
    assert float(quantizer.scale) == pytest.approx(1 / 63.5)
    for factor in (0.01, 1000.0):
        with torch.no_grad():
            model.part.graph.part.conv.weight.mul_(factor)
            model(torch.ones(1, 3, 1, 1))
        assert float(quantizer.scale) == pytest.approx(model.part.graph.part.conv.weight.max().item() / 63.5)


def test_what_parts_hand_over_is_rounded_once(toys: ModuleType) -> None:
    """No quantizer measures what the part before has rounded, and each joint has its own."""
    parts = quantized_parts(toys.quantized(toys.seeded(toys.Toy)))
    users = {
        name: {user.op for node in part.graph.graph.nodes if node.op == "placeholder" for user in node.users}
        for name, part in parts.items()
    }
    # The coarse map of the fusion comes from a SiLU, in float: it is rounded where it meets integers.
    assert users == {"maps": {"call_module"}, "fusion": {"call_function"}, "tower": {"call_function"}}
    # Images, stem, 3x3, sum, 3x3; the coarse map, both maps, 1x1, two halves; 3x3.
    assert {name: len(part.activations()) for name, part in parts.items()} == {"maps": 5, "fusion": 4, "tower": 1}


def test_a_selection_does_not_change_the_range_of_its_tensor(toys: ModuleType) -> None:
    """Halves of channels have smaller ranges than both, whose scale they share."""
    model = toys.quantized(toys.seeded(toys.Toy), momentum=0.5).train()
    toys.set_phase(model, observe=True, quantize=False)
    seen: list[Tensor] = []
    merged = next(
        node.target
        for node in model.fusion.graph.graph.nodes
        if node.op == "call_module" and any("chunk" in user.name for user in node.users)
    )
    quantizer = model.fusion.graph.get_submodule(merged)
    quantizer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model(torch.rand(2, 3, 16, 16))
    assert len(seen) == 3
    assert seen[1].max() != seen[2].max()
    assert float(quantizer.activation_post_process.max_val) == float(seen[0].max())
