"""PyTorch model -> OpenVINO's own form (.xml and .bin), by way of ONNX, with its description inside."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.export.byte_input_openvino import with_bytes
from efftasks.export.exporters import onnx
from efftasks.export.exporters.base import Exits, Exporter, Quantization, Quantizer
from efftasks.export.quantization.layers import Layers
from efftasks.export.quantization.recipe import CalibrationImages, Recipe
from efftasks.export.quantization.split import SplitQuantizer, carried_images
from efftasks.structures.errors import WorkError
from efftasks.structures.spec import METADATA_KEY, ArtifactSpec, InputSpec, QuantizationSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["EXPORTER", "NncfQuantizer", "export_openvino", "prepare_nncf", "write_graph", "write_metadata"]


def export_openvino(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """Write a model as OpenVINO's files, in float32 as the model has it, or with weights of 16 bits.

    Constants of which most do not fit into float16 stay in float32: OpenVINO looks at each.

    Args:
        model: fused, in evaluation mode, on the CPU; satisfies ``Exportable``.
        spec: what the file is. It goes into the file under ``rt_info``, ``efftasks``. Weights are stored in 16 bits
            where its precision is ``fp16``; the runtime here computes in 32 bits as well.
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
    return _save(network, path, spec, halved=spec.precision == "fp16")


def export_rest(model: nn.Module, spec: ArtifactSpec, path: Path, *, opset: int = 18) -> Path:
    """Write the network behind an exit: see :class:`efftasks.export.exporters.base.Exits`."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        network = _converted(onnx.write_rest(model, spec, Path(folder, f"graph{_GRAPH}"), opset), path)
    return _save(network, path, halved=spec.precision == "fp16")


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

    network = openvino.Core().read_model(str(path))
    network.set_rt_info(replace(spec, files=()).to_json(), METADATA_KEY)
    _save_in_place(network, Path(path))


def take_bytes(path: str | Path, image_input: InputSpec) -> None:
    """As :class:`efftasks.export.exporters.base.Exporter` has it."""
    import openvino

    network = openvino.Core().read_model(str(path))
    _save_in_place(with_bytes(network, image_input), Path(path))


class NncfQuantizer:
    """Quantizes a network with NNCF, the layers that an ONNX file would have quantized.

    Args:
        graph: the ONNX file in float; its nodes name their modules.
        float_parts: patterns of names of modules that stay in float.
        images: for calibration.
    """

    def __init__(self, graph: Path, float_parts: Iterable[str], images: CalibrationImages) -> None:
        import onnx as library

        model = library.load(str(graph))
        self._layers = Layers(model, float_parts)
        self._network = _converted(graph, graph)
        self._input = model.graph.input[0].name
        self._has_attention = any(node.op_type == "Softmax" for node in model.graph.node)
        self._images = images

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that can be quantized, in the order of the network."""
        return self._layers.names

    def write(self, path: Path, recipe: Recipe) -> tuple[str, ...]:
        """As :class:`efftasks.export.exporters.base.Quantizer` has it."""
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges
        from tqdm import tqdm

        chosen = self._layers.choose(recipe.float_layers)
        nncf.set_log_level(logging.ERROR)
        ranges = {"minmax": Ranges.MINMAX, "mean-minmax": Ranges.MEAN_MINMAX, "percentile": Ranges.MEAN_QUANTILE}
        with contextlib.redirect_stdout(io.StringIO()):  # bars of its own
            quantized = nncf.quantize(
                self._network.clone(),
                nncf.Dataset(
                    tqdm(range(len(self._images)), desc=f"calibrate {recipe.method}", disable=None, leave=False),
                    lambda i: self._images.feed(i, self._input),
                ),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(self._images),
                model_type=nncf.ModelType.TRANSFORMER if self._has_attention else None,
                ignored_scope=nncf.IgnoredScope(names=self._ignored(chosen.nodes), validate=False),
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.ENABLE if recipe.weight_bits == 7 else OverflowFix.DISABLE,
                    activations_range_estimator_params=ranges[recipe.method],
                ),
            )
        _save(quantized, path)
        return tuple(name for name in (*self._layers.kept, *self.names) if name not in chosen.layers)

    def _ignored(self, nodes: Collection[str]) -> list[str]:
        """Names of the operations that no chosen node became. They have its name, and perhaps a suffix."""
        names = (
            op.get_friendly_name()
            for op in self._network.get_ordered_ops()
            if op.get_type_name() not in ("Parameter", "Constant", "Result")
        )
        return [name for name in names if name.split("/")[0] not in nodes]


def prepare_nncf(
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
    first = NncfQuantizer(onnx.write_model(model, spec, Path(folder, f"float{_GRAPH}"), opset), parts, images)
    if spec.early_exit is None:
        return first
    carried = carried_images(images, model, spec.early_exit)
    rest = NncfQuantizer(onnx.write_rest(model, spec, Path(folder, f"float-rest{_GRAPH}"), opset), parts, carried)
    return SplitQuantizer(first, rest, spec.early_exit)


def _converted(graph: Path, path: Path) -> Any:
    """An ONNX file as a network of OpenVINO."""
    import openvino

    try:
        return openvino.convert_model(str(graph))
    except Exception as error:  # of several libraries
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WorkError(f"{path}: OpenVINO cannot convert the network ({lines[-1] if lines else error!r})") from error


def _save(network: Any, path: Path, spec: ArtifactSpec | None = None, halved: bool = False) -> Path:
    """Write a network, with a description where there is one; OpenVINO's default would be weights of 16 bits."""
    import openvino

    if spec is not None:
        network.set_rt_info(replace(spec, files=()).to_json(), METADATA_KEY)
    openvino.save_model(network, str(path), compress_to_fp16=halved)
    return path


def _save_in_place(network: Any, path: Path) -> None:
    """Write a network where it was read: its weights are still mapped."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = _save(network, Path(folder, path.name))
        for suffix in (".bin", ".xml"):
            draft.with_suffix(suffix).replace(path.with_suffix(suffix))


_GRAPH = ".onnx"

EXPORTER = Exporter(
    name="openvino",
    backend="openvino",
    precisions=("fp32", "fp16", "int8"),
    export=export_openvino,
    write_graph=write_graph,
    write_metadata=write_metadata,
    take_bytes=take_bytes,
    modules=("onnx", "onnxscript", "openvino"),
    extra="openvino",
    branches=True,
    quantization=Quantization(
        prepare_nncf,
        ("minmax", "mean-minmax", "percentile"),
        weights="int8",
        activations="uint8",
        packages=("nncf", "openvino"),
        modules=("nncf",),
    ),
    exits=Exits(
        {"fp32": ("if", "split"), "fp16": ("if", "split"), "int8": ("split",)},
        export_rest,
        {("if", "int8"): "ranges would have to be measured in both branches"},
    ),
    storage={"fp16": QuantizationSpec(weights="float16", activations="float32")},
)
