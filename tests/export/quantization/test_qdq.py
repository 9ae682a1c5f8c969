"""Small networks, quantized and run by ONNX Runtime: what they give, and what is in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from efftasks.export.quantization.layers import Chosen, Layers
from efftasks.export.quantization.qdq import METHODS, QdqQuantizer, cut
from efftasks.export.quantization.recipe import CalibrationImages, Recipe
from efftasks.export.quantization.sensitivity import layers_to_keep, sweep

RANDOM = np.random.default_rng(0)
IMAGES = [RANDOM.random((1, 2, 8, 8), dtype=np.float32) for _ in range(6)]


def images(values: list[np.ndarray] = IMAGES) -> CalibrationImages:
    return CalibrationImages([str(i) for i in range(len(values))], lambda i: values[i])


def quantizer(model: Any, folder: Path, values: list[np.ndarray] = IMAGES) -> QdqQuantizer:
    onnx.save(model, str(folder / "float.onnx"))
    return QdqQuantizer(folder / "float.onnx", (), images(values))


def run(model: Any, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": image})[0]


def weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def chain(networks: ModuleType, low: float) -> Any:
    """A convolution, a clip and two convolutions, of which the last stays in float."""
    return networks.network(
        [
            networks.node("Conv", ["images", "w1"], "a", "first"),
            networks.node("Clip", ["a", "low"], "b"),
            networks.node("Conv", ["b", "w2"], "c", "second"),
            networks.node("Conv", ["c", "w3"], "out", "last"),
        ],
        ["out"],
        w1=weights(1, 3, 2, 3, 3),
        w2=weights(2, 4, 3, 1, 1),
        w3=weights(3, 2, 4, 1, 1),
        low=np.array(low),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits, most", [(7, 64), (8, 127)])
def test_it_gives_nearly_what_the_float_network_gives(method, bits, most, networks, tmp_path):
    model = chain(networks, 0.0)
    made = quantizer(model, tmp_path)
    assert made.write(tmp_path / "int8.onnx", Recipe(method, bits)) == ("last",)
    stored = onnx.load(str(tmp_path / "int8.onnx"))
    onnx.checker.check_model(stored, full_check=True)
    errors = [np.abs(run(model, image) - run(stored, image)).max() for image in IMAGES]
    assert max(errors) < 0.06 * np.abs(run(model, IMAGES[0])).max()
    kernels = [
        numpy_helper.to_array(tensor)
        for tensor in stored.graph.initializer
        if tensor.name.startswith("w") and tensor.name.endswith("_quantized")
    ]
    assert len(kernels) == 2 and all(kernel.dtype == np.int8 for kernel in kernels)
    assert max(np.abs(kernel.astype(int)).max() for kernel in kernels) == most
    scales = [t for t in stored.graph.initializer if t.name.startswith("w") and t.name.endswith("_scale")]
    assert sorted(tensor.dims[0] for tensor in scales) == [3, 4]  # one for each channel
    zeros = [numpy_helper.to_array(t).dtype for t in stored.graph.initializer if t.name.endswith("b_zero_point")]
    assert zeros == [np.uint8]
    assert stored.ir_version <= 10
    assert Counter(node.op_type for node in stored.graph.node)["Clip"] == 0  # the range does it


def test_a_lower_bound_above_zero_still_holds(networks, tmp_path):
    """A range has zero in it: without more, values between zero and the bound would pass."""
    model = chain(networks, 0.7)
    stored = quantizer(model, tmp_path).quantized(
        onnx.load(str(tmp_path / "float.onnx")), _all(model), Recipe("minmax")
    )
    onnx.checker.check_model(stored, full_check=True)
    (clip,) = [node for node in stored.graph.node if node.op_type == "Clip"]
    error = max(np.abs(run(model, image) - run(stored, image)).max() for image in IMAGES)
    assert error < 0.06 * np.abs(run(model, IMAGES[0])).max()
    (without,) = [node for node in stored.graph.node if node.output[0] == clip.input[0]]
    without.output[0] = clip.output[0]
    stored.graph.node.remove(clip)
    assert max(np.abs(run(model, image) - run(stored, image)).max() for image in IMAGES) > 3 * error


def _all(model: Any) -> Chosen:
    return Layers(model).choose()


def test_equal_weights_of_two_layers_get_scales_of_their_own(networks, tmp_path):
    """The exporter stores equal biases once; an integer bias has the scale of its layer's input."""
    model = networks.network(
        [
            networks.node("Conv", ["images", "w1", "bias"], "a", "first"),
            networks.node("Conv", ["a", "w2", "bias"], "b", "second"),
            networks.node("Conv", ["b", "w3"], "out", "last"),
        ],
        ["out"],
        w1=20 * weights(1, 2, 2, 1, 1),
        w2=weights(2, 2, 2, 1, 1),
        w3=weights(3, 2, 2, 1, 1),
        bias=np.array([3.0, -2.0]),
    )
    made = quantizer(model, tmp_path)
    made.write(tmp_path / "int8.onnx", Recipe("minmax"))
    stored = onnx.load(str(tmp_path / "int8.onnx"))
    assert np.abs(run(model, IMAGES[0]) - run(stored, IMAGES[0])).max() < 0.03 * np.abs(run(model, IMAGES[0])).max()


def test_ranges_come_from_all_images_once(networks, tmp_path):
    model = chain(networks, 0.0)
    loaded: list[int] = []

    def load(i: int) -> np.ndarray:
        loaded.append(i)
        return IMAGES[i]

    onnx.save(model, str(tmp_path / "float.onnx"))
    made = QdqQuantizer(tmp_path / "float.onnx", (), CalibrationImages([*"abcdef"], load))
    for bits in (7, 8):
        made.write(tmp_path / "int8.onnx", Recipe("minmax", bits))
    assert loaded == [0, 1, 2, 3, 4, 5]
    stored = onnx.load(str(tmp_path / "int8.onnx"))
    scale = next(numpy_helper.to_array(t) for t in stored.graph.initializer if t.name == "images_scale")
    assert scale == pytest.approx(max(image.max() for image in IMAGES) / 255, rel=1e-6)


def test_a_sweep_finds_the_layer_whose_numbers_do_not_fit_one_scale(networks, tmp_path):
    """A map with one channel a thousand times larger than the others has no room for them."""
    w1 = weights(1, 3, 2, 3, 3)
    w1[0] *= 1000
    w2 = weights(2, 4, 3, 1, 1)
    w2[:, 0] /= 1000
    model = networks.network(
        [
            networks.node("Conv", ["images", "w0"], "z", "calm"),
            networks.node("Conv", ["z", "w1"], "a", "wild"),
            networks.node("Conv", ["a", "w2"], "b", "after"),
            networks.node("Conv", ["b", "w3"], "out", "last"),
        ],
        ["out"],
        w0=weights(0, 2, 2, 1, 1),
        w1=w1,
        w2=w2,
        w3=weights(3, 2, 4, 1, 1),
    )
    made = quantizer(model, tmp_path)
    rows = sweep(made, Recipe("minmax"), images())
    assert [row.name for row in rows][-1] == "calm" and {row.name for row in rows[:2]} == {"wild", "after"}
    assert rows[0].noise > 100 * rows[-1].noise and sum(row.share for row in rows) == pytest.approx(1)
    assert set(layers_to_keep(rows)) == {"wild", "after"}
    assert [row.weights for row in rows if row.name == "wild"] == [54]
    # The error of a layer alone is that of the file in which nothing else is quantized.
    alone = quantizer(model, tmp_path)
    alone.write(tmp_path / "wild.onnx", Recipe("minmax", 7, ("calm", "after")))
    probe = cut(onnx.load(str(tmp_path / "wild.onnx")), ["b"])
    expected = [run(cut(model, ["b"]), image) for image in IMAGES]
    error = sum(np.square(a - run(probe, image)).sum() for a, image in zip(expected, IMAGES))
    noise = error / sum(np.square(a).sum() for a in expected)
    assert [row.noise for row in rows if row.name == "wild"] == [pytest.approx(noise, rel=1e-3)]


def test_a_float_reader_gets_the_float_value(networks, tmp_path):
    """Of a tensor that a float node made and a quantized layer reads, too: a residual stream is not rounded."""
    model = networks.network(
        [
            networks.node("HardSigmoid", ["images"], "stream"),
            networks.node("Conv", ["stream", "w1"], "a", "branch"),
            networks.node("Softmax", ["stream"], "side", axis=1),
            networks.node("Mul", ["side", "a"], "mixed"),
            networks.node("Conv", ["mixed", "w2"], "out", "last"),
        ],
        ["out"],
        w1=weights(1, 2, 2, 1, 1),
        w2=weights(2, 2, 2, 1, 1),
    )
    made = quantizer(model, tmp_path)
    made.write(tmp_path / "int8.onnx", Recipe("minmax"))
    stored = onnx.load(str(tmp_path / "int8.onnx"))
    reads = {node.name: list(node.input) for node in stored.graph.node}
    assert reads["n_side"] == ["stream"] and reads["n_a"][0] == "stream_DequantizeLinear_Output"
    assert reads["n_mixed"] == ["side", "a_DequantizeLinear_Output"]


def test_names_of_modules_do_not_go_into_the_file(networks, tmp_path):
    model = networks.network(
        [networks.node("Conv", ["images", "w1"], "a", "first"), networks.node("Conv", ["a", "w2"], "out", "last")],
        ["out"],
        w1=weights(1, 2, 2, 1, 1),
        w2=weights(2, 2, 2, 1, 1),
    )
    made = quantizer(model, tmp_path)
    made.write(tmp_path / "int8.onnx", Recipe("minmax"))
    assert made.layers.names == ("first",)
    assert not any(node.metadata_props for node in onnx.load(str(tmp_path / "int8.onnx")).graph.node)
