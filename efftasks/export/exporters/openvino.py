"""PyTorch model -> OpenVINO's own form (.xml and .bin), by way of ONNX, with its description inside."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.export.exporters import onnx
from efftasks.export.exporters.base import Exporter
from efftasks.structures.errors import WorkError
from efftasks.structures.spec import METADATA_KEY, ArtifactSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["EXPORTER", "export_openvino", "write_graph", "write_metadata"]


def export_openvino(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """Write a model as OpenVINO's files, in float32 as the model has it.

    Args:
        model: fused, in evaluation mode, on the CPU; satisfies ``Exportable``.
        spec: what the file is. It goes into the file under ``rt_info``, ``efftasks``.
        path: of the ``.xml``; its weights go beside it.
        opset: of the ONNX graph that is converted.

    Returns:
        The path.

    Raises:
        UserError: the model or the description cannot be exported.
        WorkError: the export or the conversion failed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        network = _converted(onnx.write_model(model, spec, Path(folder, f"graph{_GRAPH}"), opset), path)
    return _save(network, path, spec)


def write_graph(module: nn.Module, images: Tensor, path: str | Path) -> Path:
    """Write what a module does with images (B, 3, H, W), without a description.

    Raises:
        WorkError: the export or the conversion failed.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        network = _converted(onnx.write_graph(module, images, Path(folder, f"graph{_GRAPH}")), path)
    return _save(network, path)


def write_metadata(path: str | Path, spec: ArtifactSpec) -> None:
    """Put the description into the file, in place of the one there.

    It goes there without ``files``: a file cannot hold its own digest.
    """
    import openvino

    path = Path(path)
    network = openvino.Core().read_model(str(path))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # the weights that were read are still mapped
        draft = _save(network, Path(folder, path.name), spec)
        del network
        for suffix in (".bin", ".xml"):
            draft.with_suffix(suffix).replace(path.with_suffix(suffix))


def _converted(graph: Path, path: Path) -> Any:
    """An ONNX file as a network of OpenVINO."""
    import openvino

    try:
        return openvino.convert_model(str(graph))
    except Exception as error:  # of several libraries
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WorkError(f"{path}: OpenVINO cannot convert the network ({lines[-1] if lines else error!r})") from error


def _save(network: Any, path: Path, spec: ArtifactSpec | None = None) -> Path:
    """Write a network, with a description where there is one; its default would be weights of 16 bits."""
    import openvino

    if spec is not None:
        network.set_rt_info(replace(spec, files=()).to_json(), METADATA_KEY)
    openvino.save_model(network, str(path), compress_to_fp16=False)
    return path


_GRAPH = ".onnx"

EXPORTER = Exporter(
    name="openvino",
    backend="openvino",
    precisions=("fp32",),
    export=export_openvino,
    write_graph=write_graph,
    write_metadata=write_metadata,
    modules=("onnx", "onnxscript", "openvino"),
    extra="openvino",
)
