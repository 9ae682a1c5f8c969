"""Networks of OpenVINO that take the pixels themselves: the same results, whatever the fourth channel has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from efftasks.structures.spec import InputSpec

openvino = pytest.importorskip("openvino")

from openvino import opset13 as ops  # noqa: E402

from efftasks.export.byte_input_openvino import with_bytes  # noqa: E402

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (2, 8, 6, 4), dtype=np.uint8)  # with a random fourth channel
UNIT = InputSpec("images", 8, 6, mean=(0, 0, 0), std=(255, 255, 255))
IMAGENET = InputSpec("images", 8, 6, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def number(*values: float) -> Any:
    return ops.constant(np.array(values, np.float32).reshape(1, -1, 1, 1))


def quantized(low: float, high: float, levels: int = 256, float_weights: bool = False, also: bool = False) -> Any:
    """Image -> FakeQuantize -> convolution of integer weights -> FakeQuantize, as NNCF writes it."""
    image = ops.parameter(openvino.PartialShape([-1, 3, 8, 6]), openvino.Type.f32)
    image.output(0).set_names({"images"})
    ends = [number(low), number(high)]
    rounded = ops.fake_quantize(image, *ends, *ends, levels)
    integers = ops.constant(RANDOM.integers(-64, 64, (5, 3, 3, 3)).astype(np.int8))
    scales = ops.constant(RANDOM.uniform(0.01, 0.02, (5, 1, 1, 1)).astype(np.float32))
    weights = ops.multiply(ops.convert(integers, "f32"), scales)
    weights = ops.constant(RANDOM.normal(size=(5, 3, 3, 3)).astype(np.float32)) if float_weights else weights
    maps = ops.convolution(rounded, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    maps = ops.add(maps, ops.reduce_max(image, ops.constant(np.array([1])), keep_dims=True)) if also else maps
    result = ops.result(maps)
    result.output(0).set_names({"out"})
    return openvino.Model([result], [image])


def run(model: Any, images: np.ndarray) -> np.ndarray:
    compiled = openvino.Core().compile_model(model.clone(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([images])[0].copy()


def kinds(model: Any) -> list[str]:
    return [op.get_type_name() for op in model.get_ordered_ops()]


@pytest.mark.parametrize(
    ("spec", "options", "in_integers"),
    [
        (UNIT, dict(low=0, high=1), True),
        (UNIT, dict(low=0, high=0.9), True),
        (IMAGENET, dict(low=-2.1179, high=2.64), True),
        (UNIT, dict(low=0, high=1, float_weights=True), False),
        (IMAGENET, dict(low=-2.1179, high=2.64, also=True), False),
    ],
    ids=["unit", "narrow", "imagenet", "float weights", "other readers"],
)
def test_results_are_the_same(spec, options, in_integers):
    model = quantized(**options)
    normalized = (PIXELS[..., :3] - np.array(spec.mean)) / np.array(spec.std)
    expected = run(model, np.ascontiguousarray(normalized.transpose(0, 3, 1, 2), np.float32))
    assert len(np.unique(expected)) > 100
    made = with_bytes(model, spec)
    assert ("Slice" in kinds(made)) is not in_integers
    (image,) = made.inputs
    assert image.get_names() == {"images"} and image.element_type == openvino.Type.u8
    assert [side.is_dynamic or side.get_length() for side in image.partial_shape] == [True, 8, 6, 4]
    other = PIXELS.copy()
    other[..., 3] = 255 - other[..., 3]
    results = [run(made, images) for images in (PIXELS, other)]
    np.testing.assert_array_equal(results[0], results[1])
    step = (options["high"] - options["low"]) / 255 * 64 * 0.02  # one integer of the image, where rounding decides
    np.testing.assert_allclose(results[0], expected, atol=1e-4 if spec is UNIT else 2 * step)
    assert np.isclose(results[0], expected, atol=1e-4).mean() > 0.95
