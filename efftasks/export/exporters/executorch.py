"""PyTorch model -> ExecuTorch's own form (.pte), computed by XNNPACK where it can, with its description inside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.export.exporters.base import Exporter, Quantization, Quantizer
from efftasks.export.one_image import check_one_image
from efftasks.export.quantization.recipe import CalibrationImages
from efftasks.export.quiet import quiet
from efftasks.structures.errors import UserError, WorkError, first_line
from efftasks.structures.spec import METADATA_KEY, ArtifactSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["EXPORTER", "export_executorch", "prepare_xnnpack", "write_graph", "write_metadata"]


def export_executorch(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """Write a model as one file of ExecuTorch.

    Args:
        model: fused, in evaluation mode, on the CPU; satisfies ``Exportable``, or ``EndsEarly`` for files that end
            before their decoder.
        spec: what the file is: one image of one size. It goes into the file as the method ``efftasks``, which returns
            its JSON.
        path: where to.
        opset: of no consequence, there is no ONNX on the way.

    Returns:
        The path.

    Raises:
        UserError: the model or the description cannot be exported.
        WorkError: the export failed, or the network has operators that ExecuTorch lacks.
    """
    if spec.quantization is not None:
        raise UserError(
            f"--backend {EXPORTER.name}: the checkpoint was trained with fake quantization, which this exporter cannot "
            "convert; export the float checkpoint that it started from with --precision int8"
        )
    return _lower(_exported(model, spec, Path(path)), Path(path), spec)


def prepare_xnnpack(
    model: nn.Module,
    spec: ArtifactSpec,
    folder: Path,
    images: CalibrationImages,
    float_parts: Iterable[str],
    *,
    opset: int,
) -> Quantizer:
    """Export in float, to be quantized: see :class:`efftasks.export.exporters.base.PrepareQuantizer`.

    The files have the description of the float network, which names their inputs and outputs.
    """
    with quiet():
        from efftasks.export.quantization.pt2e import Pt2eQuantizer

    def save(graph: nn.Module, path: Path) -> None:
        _lower(_program(graph, _blank(spec), path), path, spec)

    return Pt2eQuantizer(_exported(model, spec, Path(folder)), float_parts, images, save)


def write_graph(module: nn.Module, images: Tensor, path: str | Path) -> Path:
    """Write what a module does with images (1, 3, H, W), without a description.

    Raises:
        WorkError: the export failed, or the network has operators that ExecuTorch lacks.
    """
    return _lower(_program(module, images, Path(path)), Path(path))


def write_metadata(path: str | Path, spec: ArtifactSpec) -> None:
    """Put the description into the file, in place of the one there.

    It goes there without ``files``: a file cannot hold its own digest.
    """
    with quiet():
        from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

    stored = deserialize_pte_binary(Path(path).read_bytes())
    (plan,) = (plan for plan in stored.program.execution_plan if plan.name == METADATA_KEY)
    (value,) = plan.values
    value.val.string_val = _text(spec)
    _write(Path(path), bytes(serialize_pte_binary(stored, extract_delegate_segments=True)))


def _exported(model: nn.Module, spec: ArtifactSpec, path: Path) -> Any:
    """The graph of a model as PyTorch exports it.

    Raises:
        UserError: the model or the description cannot be exported.
        WorkError: the export failed.
    """
    from efftasks.export.graph import graph_of

    check_one_image(spec.input, ".pte")
    return _program(graph_of(model, spec.decode), _blank(spec), path)


def _blank(spec: ArtifactSpec) -> Tensor:
    """An image (1, 3, H, W)."""
    import torch

    return torch.zeros(1, 3, spec.input.height, spec.input.width)


def _program(module: nn.Module, images: Tensor, path: Path) -> Any:
    import torch

    try:
        with torch.no_grad(), quiet():
            return torch.export.export(module, (images,))
    except Exception as error:
        raise WorkError(
            f"{path}: the network cannot be exported ({type(error).__name__}: {first_line(error)})"
        ) from error


def _lower(program: Any, path: Path, spec: ArtifactSpec | None = None) -> Path:
    """Write an exported graph: what XNNPACK can compute is given to it, ExecuTorch's own operators do the rest."""
    import torch

    try:
        with torch.no_grad(), quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            lowered = to_edge_transform_and_lower(
                _with_constants(program),
                partitioner=[XnnpackPartitioner()],
                constant_methods=None if spec is None else {METADATA_KEY: _text(spec)},
            ).to_executorch()
    except Exception as error:
        raise WorkError(
            f"{path}: ExecuTorch cannot convert the network ({type(error).__name__}: {first_line(error)})"
        ) from error
    return _write(path, lowered.buffer)


def _with_constants(program: Any) -> Any:
    """An exported graph in which what depends on no image is computed, but for weights that are integers.

    Else weights that are parts of a parameter are left to ExecuTorch's own operators, which are slow, and positions are
    computed for every image. Each constant gets memory of its own: of a part of a tensor, XNNPACK's writer would take
    the first numbers of the whole, those of the queries for the keys and values of an attention.
    """
    import torch
    from executorch.exir.operator.util import _QUANT_PRIMITIVES
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    program = constant_prop_pass(program, set(_QUANT_PRIMITIVES))
    for tensors in (program.constants, program.state_dict):
        for name, value in tensors.items():
            if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() != value.nbytes:
                copy = value.detach().clone(memory_format=torch.contiguous_format)
                tensors[name] = torch.nn.Parameter(copy, False) if isinstance(value, torch.nn.Parameter) else copy
    return program


def _text(spec: ArtifactSpec) -> str:
    return replace(spec, files=()).to_json()


def _write(path: Path, content: bytes) -> Path:
    """Write a file in place of one that may be mapped into memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(content)
    draft.replace(path)
    return path


EXPORTER = Exporter(
    name="executorch",
    backend="executorch",
    precisions=("fp32", "int8"),
    export=export_executorch,
    write_graph=write_graph,
    write_metadata=write_metadata,
    take_bytes=None,
    modules=("executorch",),
    extra="executorch",
    fixed_size=True,
    quantization=Quantization(
        prepare_xnnpack,
        ("minmax",),
        weights="int8",
        activations="int8",
        packages=("executorch", "torchao"),
        modules=("torchao",),
        extra="executorch",
    ),
)
