"""Files that compute in float16: how large their numbers become, and their verification with all roundings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from efftasks.apis.calibrating import entry_name, network_input
from efftasks.apis.verifying import verify
from efftasks.export.exporters.base import Exporter
from efftasks.export.quantization.layers import float_parts_of
from efftasks.export.quantization.recipe import CalibrationImages
from efftasks.export.verify import JointReport, Report
from efftasks.structures.spec import ArtifactSpec

__all__ = ["ARTIFACT", "forms_of", "is_half", "verify_forms", "write_half"]

ARTIFACT, ROUNDED = "artifact", "rounded"


def is_half(exporter: Exporter, spec: ArtifactSpec) -> bool:
    """Whether the file computes in float16."""
    return spec.precision == "fp16" and exporter.half is not None


def write_half(
    model: Any, spec: ArtifactSpec, path: Path, exporter: Exporter, entries: Sequence[dict[str, Any]], opset: int
) -> ArtifactSpec:
    """Write the file of a model in float16.

    Args:
        model: fused, in evaluation mode, on the CPU.
        spec: description of the file.
        path: of the file.
        exporter: with ``half``.
        entries: images on which it is seen how large the numbers become.
        opset: of ONNX.

    Returns:
        The description, with what stays in float32.

    Raises:
        UserError: no layer's numbers fit into float16.
    """
    assert exporter.half is not None
    names = [entry_name(entry) for entry in entries]
    images = CalibrationImages(names, lambda i: network_input(entries[i], spec.input))
    stated = exporter.half.write(model, spec, path, images, float_parts_of(model), opset=opset)
    spec = replace(spec, quantization=stated)
    exporter.write_metadata(path, spec)
    return spec


def forms_of(path: Path, spec: ArtifactSpec, exporter: Exporter) -> dict[str, Path]:
    """What is held against the model: the file, and where it computes in float16 one with the numbers of a GPU.

    Args:
        path: the file, with its sidecar.
        spec: its description.
        exporter: that wrote it.
    """
    forms = {ARTIFACT: path}
    if is_half(exporter, spec):
        assert exporter.half is not None
        forms[ROUNDED] = path.with_name(f"{ROUNDED}{path.suffix}")
        exporter.half.round(path, forms[ROUNDED])
        spec.save(forms[ROUNDED].with_suffix(".json"))
    return forms


def verify_forms(
    model: Any, forms: Mapping[str, Path], spec: ArtifactSpec, entries: Sequence[dict[str, Any]], backend: str
) -> Report:
    """The report of a file, or of all its forms as one: see :func:`efftasks.apis.verifying.verify`."""
    reports = {name: verify(model, form, spec, entries, backend) for name, form in forms.items()}
    return reports[ARTIFACT] if len(reports) == 1 else JointReport(reports)
