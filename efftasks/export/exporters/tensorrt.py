"""PyTorch model -> an ONNX file that TensorRT builds an engine of, and the command that builds it.

TensorRT is not needed: the file is checked against TensorRT's rules, and verified in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.export.exporters import onnx
from efftasks.export.exporters.base import Half, Quantization
from efftasks.export.quantization.qdq import METHODS, QdqQuantizer
from efftasks.export.quantization.recipe import CalibrationImages, Recipe
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, QuantizationSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["EXPORTER", "build_command", "check_rules", "export_tensorrt", "prepare_symmetric", "write_half"]

OLDEST_OPSET = 17  # LayerNormalization as one node: decomposed, its sums overflow in float16
_MOST_IMAGES = 8  # of a batch, in the command


def export_tensorrt(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """As :func:`efftasks.export.exporters.onnx.export_onnx`.

    Raises:
        UserError: TensorRT does not take the network, too.
    """
    written = onnx.export_onnx(model, spec, path, opset)
    _check(written)
    return written


def write_half(
    model: nn.Module,
    spec: ArtifactSpec,
    path: Path,
    images: CalibrationImages,
    float_parts: Iterable[str],
    *,
    opset: int,
) -> QuantizationSpec:
    """Write a model in float16: see :class:`efftasks.export.exporters.base.WriteHalf`."""
    stated = onnx.write_half(model, spec, path, images, float_parts, opset=opset)
    _check(path)
    return stated


class _SymmetricQuantizer(QdqQuantizer):
    """Signed activations around zero, and biases in float: what TensorRT's convolutions of integers take."""

    symmetric = True

    def write(self, path: Path, recipe: Recipe) -> tuple[str, ...]:
        """As :class:`efftasks.export.exporters.base.Quantizer` has it."""
        kept = super().write(path, recipe)
        _check(path)
        return kept


def prepare_symmetric(
    model: nn.Module,
    spec: ArtifactSpec,
    folder: Path,
    images: CalibrationImages,
    float_parts: Iterable[str],
    *,
    opset: int,
) -> QdqQuantizer:
    """Export in float, to be quantized: see :class:`efftasks.export.exporters.base.PrepareQuantizer`."""
    graph = onnx.write_model(model, spec, Path(folder, "float.onnx"), opset)
    return _SymmetricQuantizer(graph, tuple(float_parts), images)


def check_rules(model: Any, path: str | Path) -> None:
    """Whether a network keeps what TensorRT asks, as far as that can be seen in the file.

    Types are explicit in ONNX, which its checker sees to: a network that passes it is strongly typed.

    Args:
        model: the network (ModelProto).
        path: of the file, for messages.

    Raises:
        UserError: it does not.
    """
    import numpy as np
    from onnx import numpy_helper

    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    if opset < OLDEST_OPSET:
        raise UserError(f"{path}: got opset {opset}, TensorRT needs {OLDEST_OPSET} or newer here; give --opset")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "GridSample":
            raise UserError(
                f"{path}: got {node.op_type} ({node.name}), which TensorRT 10.14 and newer may compute wrongly without "
                "a word; export a model that samples without it"
            )
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants.get(node.input[2]) if len(node.input) > 2 else None
            values = np.zeros(1, np.int8) if zero is None else numpy_helper.to_array(zero)
            if values.dtype != np.int8 or values.any():
                raise UserError(
                    f"{path}: {node.name} has zero points of {values.dtype} up to {np.abs(values.astype(int)).max()}, "
                    "expected int8 and 0: TensorRT takes symmetric integers alone, which a checkpoint that was trained "
                    "with fake quantization has not; export the float checkpoint that it started from"
                )


def build_command(path: Path, spec: ArtifactSpec) -> str:
    """The command that builds the engine, of TensorRT 10.12 or newer, where the GPU is."""
    parts = ["trtexec", f"--onnx={path}", f"--saveEngine={path.with_suffix('.engine')}", "--stronglyTyped"]
    if spec.precision == "fp32":
        parts.append("--noTF32")
    image_input = spec.input
    if image_input.dynamic_batch or image_input.dynamic_size:
        size = (image_input.height, image_input.width)
        least = tuple(4 * image_input.divisor for _ in size) if image_input.dynamic_size else size
        most = _MOST_IMAGES if image_input.dynamic_batch else 1
        for name, batch, (height, width) in (("min", 1, least), ("opt", 1, size), ("max", most, size)):
            parts.append(f"--{name}Shapes={image_input.name}:{batch}x3x{height}x{width}")
    return " ".join(parts)


def _check(path: str | Path) -> None:
    import onnx as library

    library.checker.check_model(str(path), full_check=True)
    check_rules(library.load(str(path)), path)


EXPORTER = replace(
    onnx.EXPORTER,
    name="tensorrt",
    branches=False,
    precisions=("fp16", "fp32", "int8"),
    export=export_tensorrt,
    take_bytes=None,
    exits=None,  # no engine with a branch has been verified
    quantization=Quantization(
        prepare_symmetric, METHODS, weights="int8", activations="int8", packages=("onnxruntime",)
    ),
    half=Half(write_half, onnx.round_half),
    stem="model.tensorrt",
    next_step=build_command,
)
