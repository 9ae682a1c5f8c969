"""PyTorch model -> one ONNX file with named, split outputs and its description inside."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.export.branches import move_constants_into_branches
from efftasks.export.byte_input import take_bytes
from efftasks.export.exporters.base import Exits, Exporter, Half, Quantization, Quantizer
from efftasks.export.half.converting import round_like_half
from efftasks.export.half.network import half_network
from efftasks.export.quantization.channels import pad_input_channels
from efftasks.export.quantization.layers import SCOPES, drop_scopes
from efftasks.export.quantization.qdq import METHODS, QdqQuantizer
from efftasks.export.quantization.recipe import CalibrationImages
from efftasks.export.quantization.split import SplitQuantizer, carried_images
from efftasks.structures.errors import UserError, WorkError, first_line
from efftasks.structures.spec import EXIT_SCORE, EXIT_THRESHOLD, METADATA_KEY, ArtifactSpec, InputSpec, QuantizationSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "EXPORTER",
    "export_onnx",
    "prepare_qdq",
    "round_half",
    "write_graph",
    "write_half",
    "write_metadata",
    "write_model",
    "write_rest",
]

OLDEST_OPSET = 18


def export_onnx(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """Write a model as one ONNX file.

    Args:
        model: fused, in evaluation mode, on the CPU; satisfies ``Exportable``, or ``EndsEarly`` for files that end
            before their decoder.
        spec: what the file is; its input gives size and dynamic axes, its outputs the names. It goes into the file's
            metadata under ``efftasks``.
        path: where to.
        opset: ONNX opset, at least 18: what PyTorch's exporter writes; ONNX has no way down from there.

    Returns:
        The path.

    Raises:
        UserError: the opset is too old.
        WorkError: the exporter failed, or the file does not pass ONNX's checker.
    """
    import onnx

    path = write_model(model, spec, path, opset)
    network = onnx.load(str(path))
    drop_scopes(network)
    if spec.quantization is not None:  # the graph of a model that was trained with fake quantization
        pad_input_channels(network)
    onnx.save(network, str(path))
    write_metadata(path, spec)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def write_model(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """As :func:`export_onnx`, without the description inside: for what is made of the file next."""
    import onnx
    import torch

    from efftasks.export.graph import graph_of

    if opset < OLDEST_OPSET:
        raise UserError(f"--opset: got {opset}, allowed are {OLDEST_OPSET} and newer")
    for field, expected in (("layout", "NCHW"), ("dtype", "float32")):
        if getattr(spec.input, field) != expected:
            raise UserError(
                f"input.{field}: got {getattr(spec.input, field)!r}, an .onnx file is written with {expected}"
            )
    graph = graph_of(model, spec.decode, spec.early_exit)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image_input = spec.input
    # Two images: a batch of one would be taken for a constant.
    images = torch.zeros(2 if image_input.dynamic_batch else 1, 3, image_input.height, image_input.width)
    inputs, dynamic = {image_input.name: images}, [_dynamic_axes(spec)]
    if spec.early_exit is not None and spec.early_exit.form == "if":
        inputs[EXIT_THRESHOLD] = torch.zeros(1)
        dynamic.append({})
    names = [output.name for output in spec.file_outputs]
    written = _write_program(graph, inputs, path, opset, names, dynamic)
    if EXIT_THRESHOLD in inputs:
        network = onnx.load(str(written))
        move_constants_into_branches(network)
        onnx.save(network, str(written))
    return written


def write_rest(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """Write the network behind an exit, without a description: see :class:`efftasks.export.exporters.base.Exits`.

    Its nodes state the names of their modules.
    """
    import torch

    from efftasks.export.exit_graphs import blank_tensors
    from efftasks.export.graph import rest_of

    assert spec.early_exit is not None
    carried, is_dynamic = spec.early_exit.carried, spec.input.dynamic_batch
    tensors = blank_tensors(carried, 2 if is_dynamic else 1)
    inputs = {output.name: tensor for output, tensor in zip(carried, tensors)}
    names = [output.name for output in spec.outputs if output.name != EXIT_SCORE]
    batch = torch.export.Dim("batch", min=1)
    axes: Any = tuple({0: batch} if is_dynamic else {} for _ in carried)  # of the only parameter, *carried
    return _write_program(rest_of(model), inputs, Path(path), opset, names, [axes])


def _export_rest(model: nn.Module, spec: ArtifactSpec, path: Path, *, opset: int) -> Path:
    """As :func:`write_rest`, ready to run."""
    import onnx

    network = onnx.load(str(write_rest(model, spec, path, opset)))
    drop_scopes(network)
    onnx.save(network, str(path))
    onnx.checker.check_model(str(path), full_check=True)
    return path


def prepare_qdq(
    model: nn.Module,
    spec: ArtifactSpec,
    folder: Path,
    images: CalibrationImages,
    float_parts: Iterable[str],
    *,
    opset: int,
) -> Quantizer:
    """Export in float, to be quantized: see :class:`efftasks.export.exporters.base.PrepareQuantizer`."""
    parts = tuple(float_parts)
    first = QdqQuantizer(write_model(model, spec, Path(folder, "float.onnx"), opset), parts, images)
    if spec.early_exit is None:
        return first
    carried = carried_images(images, model, spec.early_exit)
    rest = QdqQuantizer(write_rest(model, spec, Path(folder, "float-rest.onnx"), opset), parts, carried)
    return SplitQuantizer(first, rest, spec.early_exit)


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
    import onnx

    written = write_model(model, spec, path, opset)
    network, float_layers = half_network(onnx.load(str(written)), float_parts, images)
    onnx.save(network, str(path))
    onnx.checker.check_model(str(path), full_check=True)
    return QuantizationSpec(
        weights="float16",
        activations="float16",
        calibration_images=len(images),
        calibration_sha256=images.digest,
        float_layers=float_layers,
    )


def round_half(source: str | Path, path: str | Path) -> None:
    """As :class:`efftasks.export.exporters.base.Half` has it."""
    import onnx

    onnx.save(round_like_half(onnx.load(str(source))), str(path))


def write_graph(
    module: nn.Module,
    images: Tensor,
    path: str | Path,
    opset: int = 18,
    input_name: str = "images",
    output_names: Sequence[str] | None = None,
    dynamic: dict[int, Any] | None = None,
) -> Path:
    """Write what a module does with images (B, 3, H, W) as ONNX, without a description.

    Its nodes state the names of their modules, which quantizers read.

    Raises:
        WorkError: the exporter failed.
    """
    return _write_program(module, {input_name: images}, Path(path), opset, output_names, [dynamic or {}])


def _write_program(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    path: Path,
    opset: int,
    output_names: Sequence[str] | None,
    dynamic: Sequence[Any],
) -> Path:
    """As :func:`write_graph`, of any inputs, with the dynamic axes of each parameter of ``forward``."""
    import torch

    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=output_names,
                dynamic_shapes=tuple(dynamic),
                verbose=False,
            )
            assert program is not None
            program.optimize()
            _drop_traces(program.model)
            program.save(str(path), external_data=False)
    except Exception as error:
        raise WorkError(f"{path}: the export failed ({type(error).__name__}: {first_line(error)})") from error
    return path


def _drop_traces(model: Any) -> None:
    """Drop what PyTorch notes in a network but the names of modules: lines of source, with their paths on this disk."""
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[SCOPES] = scopes
    for part in (model, model.graph, *model.graph.inputs, *model.graph.outputs):
        part.metadata_props.clear()


def _dynamic_axes(spec: ArtifactSpec) -> dict[int, Any]:
    import torch

    image_input = spec.input
    axes: dict[int, Any] = {}
    if image_input.dynamic_batch:
        axes[0] = torch.export.Dim("batch", min=1)
    if image_input.dynamic_size:
        axes[2] = image_input.divisor * torch.export.Dim("rows", min=4)
        axes[3] = image_input.divisor * torch.export.Dim("columns", min=4)
    return axes


def write_metadata(path: str | Path, spec: ArtifactSpec) -> None:
    """Put the description into the file's metadata, in place of the one there.

    It goes there without ``files``: a file cannot hold its own digest.
    """
    import onnx

    model = onnx.load(str(path))
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != METADATA_KEY}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {**kept, METADATA_KEY: replace(spec, files=()).to_json()})
    onnx.save(model, str(path))


def _take_bytes(path: str | Path, image_input: InputSpec) -> None:
    """As :class:`efftasks.export.exporters.base.Exporter` has it."""
    import onnx

    model = onnx.load(str(path))
    take_bytes(model, image_input)
    onnx.save(model, str(path))
    onnx.checker.check_model(str(path), full_check=True)


@contextlib.contextmanager
def _quiet():
    """The exporter prints its progress and warns of its own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


EXPORTER = Exporter(
    name="onnx",
    backend="onnxruntime",
    precisions=("fp32", "fp16", "int8"),
    export=export_onnx,
    write_graph=write_graph,
    write_metadata=write_metadata,
    take_bytes=_take_bytes,
    modules=("onnx", "onnxscript"),
    extra="export",
    branches=True,
    quantization=Quantization(prepare_qdq, METHODS, weights="int8", activations="uint8", packages=("onnxruntime",)),
    half=Half(write_half, round_half),
    exits=Exits(
        {"fp32": ("if", "split"), "int8": ("split",)},
        _export_rest,
        {("if", "int8"): "ONNX Runtime's quantizer leaves branches in float"},
    ),
)
