"""All exporters: commands, the benchmark and messages know them from here alone."""

from __future__ import annotations

from efftasks.export.exporters import aotinductor, executorch, litert, ncnn, onnx, openvino, tensorrt, web
from efftasks.export.exporters.base import Exporter

__all__ = ["EXPORTERS"]

# In the order of help; the first one is the default.
EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        onnx.EXPORTER,
        openvino.EXPORTER,
        ncnn.EXPORTER,
        executorch.EXPORTER,
        litert.EXPORTER,
        web.EXPORTER,
        tensorrt.EXPORTER,
        aotinductor.EXPORTER,
    )
}
