"""PyTorch model -> LiteRT's form (.tflite), by litert-torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from efftasks.export.exporters.base import Exporter, Quantization
from efftasks.export.one_image import check_one_image
from efftasks.export.quantization.recipe import CalibrationImages
from efftasks.export.quantization.tflite import METHODS, TfliteQuantizer
from efftasks.export.quiet import quiet
from efftasks.structures.errors import UserError, WorkError, first_line
from efftasks.structures.spec import ArtifactSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["EXPORTER", "export_litert", "prepare_litert", "write_graph"]

_LAYOUT = "NHWC"


def export_litert(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """Write a model as a ``.tflite`` file, in float32. Its description must lie beside it.

    Args:
        model: fused, in evaluation mode, on the CPU; satisfies ``Exportable``, or ``EndsEarly`` for files that end
            before their decoder.
        spec: what the file is: one image of one size, channels last.
        path: where to.
        opset: of no consequence, there is no ONNX on the way.

    Returns:
        The path.

    Raises:
        UserError: the model or the description cannot be exported.
        WorkError: the conversion failed.
    """
    import torch

    from efftasks.export.graph import graph_of
    from efftasks.export.graph_litert import NamedChannelsLast

    if spec.quantization is not None:
        raise UserError(
            "--backend litert: the checkpoint was trained with fake quantization, expected one of a float model, which "
            "--precision int8 quantizes after training"
        )
    image_input = spec.input
    check_one_image(image_input, ".tflite", _LAYOUT)
    images = torch.zeros(1, image_input.height, image_input.width, 3)
    graph = NamedChannelsLast(graph_of(model, spec.decode), [output.name for output in spec.outputs])
    return _convert(graph, Path(path), **{image_input.name: images})


def write_graph(module: nn.Module, images: Tensor, path: str | Path) -> Path:
    """Write what a module does with images (1, 3, H, W), without a description.

    Raises:
        WorkError: the conversion failed.
    """
    return _convert(module, Path(path), images)


def prepare_litert(
    model: nn.Module,
    spec: ArtifactSpec,
    folder: Path,
    images: CalibrationImages,
    float_parts: Iterable[str],
    *,
    opset: int,
) -> TfliteQuantizer:
    """Export in float, to be quantized: see :class:`efftasks.export.exporters.base.PrepareQuantizer`."""
    return TfliteQuantizer(export_litert(model, spec, Path(folder, "float.tflite")), model, float_parts, images)


def write_metadata(path: str | Path, spec: ArtifactSpec) -> None:
    """Nothing: the description is beside the file."""


def _convert(module: nn.Module, path: Path, *inputs: Tensor, **named: Tensor) -> Path:
    """Convert a module that takes these inputs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with quiet():
            import litert_torch
            import torch

            from efftasks.export.graph_litert import ConvertibleCalls

            with torch.no_grad(), ConvertibleCalls():
                network = litert_torch.convert(module.eval(), inputs, sample_kwargs=named or None)
            network.export(str(path))
    except Exception as error:  # of PyTorch's export, of jax and of MLIR
        raise WorkError(
            f"{path}: LiteRT cannot convert the network ({type(error).__name__}: {first_line(error)})"
        ) from error
    return path


EXPORTER = Exporter(
    name="litert",
    backend="litert",
    precisions=("fp32", "int8"),
    export=export_litert,
    write_graph=write_graph,
    write_metadata=write_metadata,
    take_bytes=None,
    modules=("litert_torch", "ai_edge_litert"),
    extra="litert-export",
    stem="model.litert",
    fixed_size=True,
    layout=_LAYOUT,
    indices="int32",
    quantization=Quantization(
        prepare_litert,
        METHODS,
        weights="int8",
        activations="int8",
        packages=("ai-edge-quantizer", "litert-torch"),
        modules=("ai_edge_quantizer", "onnx"),
        extra="litert-export",
        weight_bits=8,
    ),
)
