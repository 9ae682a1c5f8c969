"""A ``.tflite`` file as a graph, and the same in ONNX's terms: so one rule chooses the layers of all formats."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.export.quantization.layers import SCOPES

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

__all__ = ["Network", "Operator", "as_onnx", "read_network"]

# Operators of LiteRT -> those of ONNX that Layers knows. Left out are those that its quantizer has no integers for.
_KINDS = {
    "CONV_2D": "Conv",
    "DEPTHWISE_CONV_2D": "Conv",
    "TRANSPOSE_CONV": "ConvTranspose",
    "FULLY_CONNECTED": "Gemm",
    "BATCH_MATMUL": "MatMul",
    "RELU": "Relu",
    "MAX_POOL_2D": "MaxPool",
    "AVERAGE_POOL_2D": "AveragePool",
    "MEAN": "GlobalAveragePool",
    "RESHAPE": "Reshape",
    "PAD": "Reshape",  # moves values, and zero is an integer
    "TRANSPOSE": "Transpose",
    "SLICE": "Slice",
    "STRIDED_SLICE": "Slice",
    "SPLIT": "Split",
    "RESIZE_NEAREST_NEIGHBOR": "Resize",
    "RESIZE_BILINEAR": "Resize",
    "CONCATENATION": "Concat",
    "ADD": "Add",
    "MUL": "Mul",
    "LOGISTIC": "Sigmoid",
}
_DATA = {"TRANSPOSE_CONV": (2, 1), "SPLIT": (1,)}  # where data and weights are, if not in the order of ONNX
# Weights (O, I, h, w), or (I, O, h, w) of a transposed convolution, in the order of the file.
_AXES = {"CONV_2D": (0, 2, 3, 1), "DEPTHWISE_CONV_2D": (1, 2, 3, 0), "TRANSPOSE_CONV": (1, 2, 3, 0)}
_QUANTIZERS_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}


@dataclass(frozen=True)
class Operator:
    """An operator of a network.

    Attributes:
        kind: LiteRT's name of it.
        inputs: names of tensors, the data first, weights second.
        outputs: names of tensors.
        activations: names of its inputs and outputs that are no constants, and are float.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    activations: tuple[str, ...]

    @property
    def scope(self) -> str:
        """The text that the quantizer's patterns are matched with."""
        return "".join(f"{name};" for name in self.outputs)

    @property
    def quantizers_name(self) -> str:
        """What the quantizer calls this kind of operator."""
        return _QUANTIZERS_NAMES.get(self.kind, self.kind)


@dataclass(frozen=True)
class Network:
    """A network, by the names of its tensors.

    Attributes:
        operators: in the order of computation.
        inputs: names.
        outputs: names.
        constants: name -> value.
    """

    operators: tuple[Operator, ...]
    inputs: frozenset[str]
    outputs: tuple[str, ...]
    constants: dict[str, np.ndarray]


def read_network(path: Path) -> Network:
    """Read a file of one graph."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    file = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    (graph,) = file.subgraphs
    names = [tensor.name.decode() for tensor in graph.tensors]
    floats = {name for name, tensor in zip(names, graph.tensors) if tensor.type == schema.TensorType.FLOAT32}
    constants = {}
    for name, tensor in zip(names, graph.tensors):
        data = file.buffers[tensor.buffer].data
        if data is not None and len(data):
            raw = np.asarray(data, np.uint8)
            constants[name] = raw.view(np.float32).reshape(tensor.shape) if name in floats else raw
    operators = []
    for part in graph.operators:
        kind = kinds[file.operatorCodes[part.opcodeIndex].builtinCode]
        places = [i for i in part.inputs if i >= 0]
        inputs = [names[i] for i in places]
        first = [inputs[i] for i in _DATA.get(kind, ())]
        inputs = [*first, *(name for name in inputs if name not in first)]
        outputs = [names[i] for i in part.outputs]
        activations = [name for name in (*inputs, *outputs) if name in floats and name not in constants]
        operators.append(Operator(kind, tuple(inputs), tuple(outputs), tuple(activations)))
    ends = [names[i] for i in graph.outputs]
    return Network(tuple(operators), frozenset(names[i] for i in graph.inputs), tuple(ends), constants)


def as_onnx(network: Network, model: nn.Module) -> Any:
    """The network in ONNX's operators: a ModelProto without values.

    The name of a node is the place of its operator. Convolutions state the module of the model that they come from: the
    one that has the same weights, as names in the file have gaps where a module is not called itself. Where the
    converter changed weights, the node has no module, and Layers names it by its place.

    Args:
        network: from :func:`read_network`.
        model: that it was converted from.
    """
    from onnx import TensorProto, helper

    layers = _Layers(model)
    nodes = []
    for i, operator in enumerate(network.operators):
        kind = _KINDS.get(operator.kind, operator.kind)
        node = helper.make_node(kind, operator.inputs, operator.outputs, str(i))
        if operator.kind in _AXES and operator.inputs[1] in network.constants:
            module = layers.find(network.constants[operator.inputs[1]], operator.kind)
            if module is not None:
                entry = node.metadata_props.add()
                entry.key, entry.value = SCOPES, repr([f"model.{module}"])
        nodes.append(node)
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [0], []) for name in network.constants]
    for tensor in constants:
        tensor.dims[:] = network.constants[tensor.name].shape
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in network.outputs]
    return helper.make_model(helper.make_graph(nodes, "network", [], outputs, constants))


class _Layers:
    """The convolutions of a model, by their weights."""

    def __init__(self, model: nn.Module) -> None:
        import numpy as np
        from torch import nn

        self._names: dict[bytes, list[str]] = defaultdict(list)
        self._uses: dict[bytes, int] = defaultdict(int)
        for name, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                weight = module.weight.detach().cpu().numpy()
                for kind, axes in _AXES.items():
                    key = _key(np.transpose(weight, axes), kind)
                    self._names[key].append(name)

    def find(self, weights: np.ndarray, kind: str) -> str | None:
        """The name of the module with these weights; of several equal ones one after the other."""
        key = _key(weights, kind)
        names = self._names.get(key)
        if names is None:
            return None
        use = self._uses[key]
        self._uses[key] += 1
        return names[min(use, len(names) - 1)]


def _key(weights: np.ndarray, kind: str) -> bytes:
    """The same for equal weights of one kind of layer alone."""
    import numpy as np

    return b"".join((kind.encode(), str(weights.shape).encode(), np.ascontiguousarray(weights, np.float32).tobytes()))
