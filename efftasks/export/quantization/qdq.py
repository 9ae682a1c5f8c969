"""An ONNX network in float -> the same with QuantizeLinear and DequantizeLinear, by ONNX Runtime's quantizer.

Only what ONNX Runtime 1.23, the last one for Python 3.10, has.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from efftasks.export.quantization.channels import pad_input_channels
from efftasks.export.quantization.layers import PASSING, Chosen, Layers, drop_scopes
from efftasks.export.quantization.recipe import CalibrationImages, Recipe

__all__ = ["METHODS", "QdqQuantizer"]

METHODS = ("minmax", "percentile", "entropy")
_IR_VERSION = 10  # onnx writes newer ones, which older runtimes refuse
_LEAST_OPSET = 13  # a scale for each channel
_CHUNK = 4  # images whose activations are in memory at a time


class QdqQuantizer:
    """Quantizes an ONNX network; ranges are measured once for each method.

    Args:
        graph: file of the network in float, as the exporter of ONNX wrote it: its nodes name their modules.
        float_parts: patterns of names of modules that stay in float.
        images: for calibration.
    """

    symmetric = False  # activations are signed and around zero, biases float, as GPUs have it; else unsigned

    def __init__(self, graph: Path, float_parts: Sequence[str], images: CalibrationImages) -> None:
        import onnx

        self.model = onnx.shape_inference.infer_shapes(onnx.load(str(graph)))
        self.layers = Layers(self.model, float_parts)
        self._images = images
        self._ranges: dict[str, Any] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that can be quantized, in the order of the network."""
        return self.layers.names

    def write(self, path: Path, recipe: Recipe) -> tuple[str, ...]:
        """Write the quantized network.

        Returns:
            Names of the convolutions that stayed in float.

        Raises:
            UserError: a pattern of ``float_layers`` matches nothing, or no layer is left.
        """
        import onnx

        chosen = self.layers.choose(recipe.float_layers)
        onnx.save(self.quantized(self.model, chosen, recipe), str(path))
        return tuple(name for name in (*self.layers.kept, *self.layers.names) if name not in chosen.layers)

    def quantized(self, model: Any, chosen: Chosen, recipe: Recipe) -> Any:
        """A network with the nodes and tensors of this one, quantized: a ModelProto."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        ranges = self._ranges.get(recipe.method)
        if ranges is None:
            ranges = self._ranges[recipe.method] = self._calibrate(recipe.method)
        with _quiet():
            quantizer = QDQQuantizer(
                copy.deepcopy(model),
                True,  # a scale for each channel of the weights
                recipe.weight_bits == 7,
                QuantType.QInt8,
                QuantType.QInt8 if self.symmetric else QuantType.QUInt8,
                ranges,
                sorted(chosen.nodes),
                [],
                [*PASSING, "Conv", "ConvTranspose"],
                {
                    "ActivationSymmetric": self.symmetric,
                    "WeightSymmetric": True,
                    "QuantizeBias": not self.symmetric,
                },
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        result = quantizer.model.model
        _read_floats(model, result, chosen.nodes)
        _clip_integers(model, result, chosen.nodes)
        drop_scopes(result)
        if not self.symmetric:
            pad_input_channels(result)
        result.ir_version = min(result.ir_version, _IR_VERSION)
        return result

    def _calibrate(self, method: str) -> Any:
        """Ranges of the tensors that may be quantized, from all images; of the image itself, all that it can have."""
        import numpy as np
        import onnx
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import TensorData, create_calibrator
        from tqdm import tqdm

        kinds = {
            "minmax": CalibrationMethod.MinMax,
            "percentile": CalibrationMethod.Percentile,
            "entropy": CalibrationMethod.Entropy,
        }
        chosen = self.layers.choose()
        with tempfile.TemporaryDirectory() as folder, _quiet():
            source = Path(folder, "source")
            onnx.save(_only(self.model, chosen), str(source))
            calibrator = create_calibrator(
                source, [*PASSING, "Conv", "ConvTranspose"], str(Path(folder, "augmented")), kinds[method]
            )
            name = self.model.graph.input[0].name
            progress = tqdm(range(0, len(self._images), _CHUNK), desc=f"calibrate {method}", disable=None, leave=False)
            for start in progress:
                indices = range(start, min(start + _CHUNK, len(self._images)))
                calibrator.collect_data(_Reader(name, self._images, indices))
            ranges = calibrator.compute_data()
        if self._images.value_range is not None:  # every byte keeps a value of its own, whatever the images had
            lowest, highest = (np.array(value, np.float32) for value in self._images.value_range)
            ranges.data[name] = TensorData(lowest=lowest, highest=highest)
        return ranges


class _Reader:
    """Network inputs one by one, as ONNX Runtime's calibrators ask for them."""

    def __init__(self, name: str, images: CalibrationImages, indices: Collection[int]) -> None:
        self._inputs: Iterator[dict[str, Any]] = (images.feed(i, name) for i in indices)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)


def _only(model: Any, chosen: Chosen) -> Any:
    """The part of a network up to what its quantized part gives to the rest."""
    return cut(model, chosen.boundary)


def cut(model: Any, outputs: Sequence[str]) -> Any:
    """A copy of a network that ends at some tensors."""
    import onnx

    part = copy.deepcopy(model)
    producers = {name: node for node in part.graph.node for name in node.output}
    needed: set[str] = set()
    pending = list(outputs)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending.extend(producers[name].input if name in producers else ())
    nodes = [node for node in part.graph.node if any(name in needed for name in node.output)]
    constants = [tensor for tensor in part.graph.initializer if tensor.name in needed]
    values = {value.name: value for value in (*part.graph.value_info, *part.graph.output)}
    for kept, field in ((nodes, part.graph.node), (constants, part.graph.initializer)):
        del field[:]
        field.extend(kept)
    del part.graph.output[:]
    kind = onnx.TensorProto.FLOAT
    part.graph.output.extend(values.get(name, onnx.helper.make_tensor_value_info(name, kind, None)) for name in outputs)
    return part


def _read_floats(model: Any, quantized: Any, nodes: Collection[str]) -> None:
    """Let float nodes read the float value of a tensor that is quantized for other readers alone.

    The quantizer gives the rounded values to all readers: a convolution beside it would round a residual stream.
    """
    floats = {name for node in model.graph.node if node.name not in nodes for name in node.output}
    floats |= {value.name for value in model.graph.input}
    producers = {name: node for node in quantized.graph.node for name in node.output}
    rounded = {}
    for node in quantized.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in producers:
            origin = producers[node.input[0]].input[0]
            if origin in floats:
                rounded[node.output[0]] = origin
    for node in quantized.graph.node:
        if node.name not in nodes:
            for i, name in enumerate(node.input):
                node.input[i] = rounded.get(name, name)


def _clip_integers(model: Any, quantized: Any, nodes: Collection[str]) -> None:
    """Put back, in integers, what a range cannot do: a Clip with a lower bound above zero.

    A range always has zero in it, so that values between zero and the bound would pass.
    """
    import numpy as np
    import onnx

    constants = {
        t.name: onnx.numpy_helper.to_array(t) for t in (*model.graph.initializer, *quantized.graph.initializer)
    }
    bounds = {
        node.output[0]: float(constants[node.input[1]])
        for node in model.graph.node
        if node.name in nodes and node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in constants
    }
    present = {node.name for node in quantized.graph.node}
    removed = {node.output[0] for node in model.graph.node if node.op_type == "Clip" and node.name not in present}
    for i, node in reversed(list(enumerate(quantized.graph.node))):
        if node.op_type != "QuantizeLinear":
            continue
        tensor = node.input[0].removesuffix("_QuantizeLinear_Input")
        if tensor not in removed or bounds.get(tensor, 0.0) <= 0:
            continue
        scale, zero = float(constants[node.input[1]]), constants[node.input[2]]
        bound = np.array(min(round(bounds[tensor] / scale) + int(zero), np.iinfo(zero.dtype).max), zero.dtype)
        name = f"{tensor}_least"
        quantized.graph.initializer.append(onnx.numpy_helper.from_array(bound, name))
        clip = onnx.helper.make_node("Clip", [f"{node.output[0]}_free", name], [node.output[0]], f"{node.name}_clip")
        node.output[0] = f"{node.output[0]}_free"
        quantized.graph.node.insert(i + 1, clip)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer prints and logs advice that has been followed."""
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
