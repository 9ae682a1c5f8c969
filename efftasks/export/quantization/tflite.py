"""A ``.tflite`` network in float -> the same in 8-bit integers, by Google's ai-edge-quantizer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.export.quantization.layers import Chosen, Layers
from efftasks.export.quantization.recipe import CalibrationImages, Recipe
from efftasks.export.quantization.tflite_graph import Operator, as_onnx, read_network
from efftasks.export.quiet import quiet

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

__all__ = ["METHODS", "TfliteQuantizer"]

METHODS = ("minmax", "mean-minmax")


class TfliteQuantizer:
    """Quantizes a network of LiteRT, the layers that an ONNX file would have quantized.

    Args:
        graph: file of the network in float.
        model: that was exported; its layers give those of the file their names.
        float_parts: patterns of names of modules that stay in float.
        images: for calibration.
    """

    def __init__(self, graph: Path, model: nn.Module, float_parts: Iterable[str], images: CalibrationImages) -> None:
        self._path = graph
        self._network = read_network(graph)
        self._layers = Layers(as_onnx(self._network, model), float_parts)
        self._images = images
        self._ranges: list[dict[str, tuple[float, float]]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that can be quantized, in the order of the network."""
        return self._layers.names

    def write(self, path: Path, recipe: Recipe) -> tuple[str, ...]:
        """As :class:`efftasks.export.exporters.base.Quantizer` has it; weights have 8 bits always."""
        from ai_edge_quantizer import qtyping
        from ai_edge_quantizer.quantizer import Quantizer

        chosen = self._layers.choose(recipe.float_layers)
        operators = self._operators(chosen)
        quantizer = Quantizer(str(self._path))
        for operator in operators:
            quantizer.add_static_config(
                regex=f"^{re.escape(operator.scope)}$",
                operation_name=qtyping.TFLOperationName(operator.quantizers_name),
                activation_num_bits=8,
                weight_num_bits=8,
            )
        tensors = {name for operator in operators for name in operator.activations}
        ranges = self._summary(recipe.method, tensors)
        with quiet():  # it has bars of its own
            made = quantizer.quantize(ranges, enable_progress_report=False)
        assert made.quantized_model is not None  # it is, of a quantizer that has quantized
        path.write_bytes(made.quantized_model)
        return tuple(name for name in (*self._layers.kept, *self.names) if name not in chosen.layers)

    def _operators(self, chosen: Chosen) -> list[Operator]:
        """The chosen operators, and paddings of the image for them alone: its integers are then those of its bytes."""
        operators = self._network.operators
        places = {int(name) for name in chosen.nodes}
        for i, operator in enumerate(operators):
            if operator.kind == "PAD" and operator.inputs[0] in self._network.inputs:
                readers = {j for j, reader in enumerate(operators) if operator.outputs[0] in reader.inputs}
                if readers and readers <= places:
                    places.add(i)
        return [operators[i] for i in sorted(places)]

    def _summary(self, method: str, tensors: Collection[str]) -> dict[str, dict[str, np.ndarray]]:
        """The ranges of some tensors, as the quantizer takes them."""
        import numpy as np

        if not self._ranges:
            chosen = self._operators(self._layers.choose())
            self._ranges = self._measure({name for operator in chosen for name in operator.activations})
        summary = {}
        for name in tensors:
            ends = np.array([ranges[name] for ranges in self._ranges], np.float32)
            joined = ends.mean(0) if method == "mean-minmax" else (ends[:, 0].min(), ends[:, 1].max())
            summary[name] = _range(*joined)
        value_range = self._images.value_range
        if value_range is not None:  # every byte keeps a value of its own, whatever the images had
            summary.update((name, _range(*value_range)) for name in self._network.inputs & set(summary))
        return summary

    def _measure(self, tensors: Collection[str]) -> list[dict[str, tuple[float, float]]]:
        """The least and the largest value of tensors on each image."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
        from tqdm import tqdm

        interpreter: Any = Interpreter(
            model_path=str(self._path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
        places: Mapping[str, int] = {
            detail["name"]: detail["index"] for detail in interpreter.get_tensor_details() if detail["name"] in tensors
        }
        (image_input,) = interpreter.get_input_details()
        ranges = []
        for image in tqdm(self._images, desc="calibrate", disable=None, leave=False):
            interpreter.set_tensor(image_input["index"], image)
            interpreter.invoke()
            values = {name: interpreter.get_tensor(index) for name, index in places.items()}
            ranges.append({name: (float(value.min()), float(value.max())) for name, value in values.items()})
        return ranges


def _range(low: float, high: float) -> dict[str, np.ndarray]:
    import numpy as np

    return {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
