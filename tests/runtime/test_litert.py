"""Files of LiteRT as the runtime loads them; the convolution is written by hand, by the schema of the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efftasks import Predictor
from efftasks.runtime.backends.litert import BACKEND
from efftasks.structures.errors import UserError

pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")

HEIGHT, WIDTH = 5, 7
WEIGHTS = np.array([[1, 10, 100], [-1, 0.001, 0]], np.float32)
BIASES = np.array([0.5, 0.25], np.float32)


def write(
    folder: Path, last: tuple[str, int] = ("LOGISTIC", 1), inputs: Sequence[tuple[str, int]] = (("images", 0),)
) -> Path:
    """A 1x1 convolution of 3 to 2 channels with biases, and its sigmoid, which is the first output of the file.

    Args:
        folder: for it.
        last: another kind of operator instead of the sigmoid, and its version.
        inputs: names and tensors.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT() for _ in range(3)]
    for place, values in ((1, WEIGHTS), (2, BIASES)):
        model.buffers[place].data = np.frombuffer(values.tobytes(), np.uint8)
    graph: Any = schema.SubGraphT()
    image = [1, HEIGHT, WIDTH]
    for name, shape, buffer in (
        ("serving_images", [*image, 3], 0),
        ("weights", [2, 1, 1, 3], 1),
        ("biases", [2], 2),
        ("conv;1", [*image, 2], 0),
        ("sigmoid;2", [*image, 2], 0),
    ):
        tensor: Any = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer, tensor.type = name, shape, buffer, schema.TensorType.FLOAT32
        graph.tensors = [*(graph.tensors or []), tensor]
    conv, options = schema.OperatorT(), schema.Conv2DOptionsT()
    options.strideH = options.strideW = 1
    conv.opcodeIndex, conv.inputs, conv.outputs = 0, [0, 1, 2], [3]
    conv.builtinOptionsType, conv.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    sigmoid = schema.OperatorT()
    sigmoid.opcodeIndex, sigmoid.inputs, sigmoid.outputs = 1, [3], [4]
    graph.operators, graph.outputs = [conv, sigmoid], [4, 3]
    graph.inputs = [place for _, place in inputs]
    for name, version in (("CONV_2D", 1), last):
        kind: Any = schema.OperatorCodeT()
        kind.builtinCode = kind.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        kind.version = version
        model.operatorCodes = [*(model.operatorCodes or []), kind]
    signature: Any = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = (
        [_named(schema, name, place) for name, place in pairs] for pairs in (inputs, [("chances", 4), ("sums", 3)])
    )
    model.subgraphs, model.signatureDefs = [graph], [signature]
    builder: Any = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = folder / "model.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def _named(schema: Any, name: str, place: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, place
    return entry


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_outputs_by_the_names_of_the_signature_in_32_bits(threads, tmp_path):
    session = BACKEND.open(write(tmp_path), threads)
    assert session.inputs == ("images",) and set(session.outputs) == {"sums", "chances"} and session.metadata is None
    images = np.random.default_rng(0).random((3, HEIGHT, WIDTH, 3), dtype=np.float32)
    expected = np.einsum("oc,nhwc->nhwo", WEIGHTS.astype(np.float64), images) + BIASES
    outputs = session.run(images)  # three images, one by one
    np.testing.assert_allclose(outputs["sums"], expected, rtol=1e-6)  # numbers of 16 bits are 5e-4 off
    np.testing.assert_allclose(outputs["chances"], 1 / (1 + np.exp(-expected)), atol=1e-6)
    again = session.run(images[:1] + 1)
    np.testing.assert_allclose(outputs["sums"], expected, rtol=1e-6)  # what it gave stays
    assert not np.allclose(again["sums"], expected[:1])


@pytest.mark.parametrize("size", [9, 500])
def test_a_broken_file_is_named(size, tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"model\.tflite: corrupt, or not a file that LiteRT reads \("):
        BACKEND.open(path)


def test_an_operator_that_it_lacks_and_a_second_input_are_named(tmp_path):
    with pytest.raises(UserError, match=r"LiteRT cannot load this network \(.*HARD_SWISH.* version '99'"):
        BACKEND.open(write(tmp_path, last=("HARD_SWISH", 99)))
    with pytest.raises(UserError, match=r"model\.tflite: got a network with the inputs images, more, expected one"):
        BACKEND.open(write(tmp_path, inputs=[("images", 0), ("more", 3)]))


def test_a_file_without_description_is_named(tmp_path):
    path = write(tmp_path)
    with pytest.raises(UserError, match=r"model\.tflite: neither metadata 'efftasks' inside nor model\.json beside it"):
        Predictor(path)
