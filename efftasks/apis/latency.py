"""The time of a model in a runtime, for compression that has a target in milliseconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch
from torch import nn

from efftasks.apis.formats import exporter_for, suffix_of
from efftasks.apis.forms import exported_graph
from efftasks.bench.engines import file_call
from efftasks.bench.latency import measure
from efftasks.compression.folding import inference_model

__all__ = ["exported_latency"]

WARMUP, RUNS = 5, 50


def exported_latency(size: tuple[int, int]) -> Callable[[nn.Module, str], float]:
    """The ``latency`` of a :class:`~efftasks.compression.transform.DecideContext`.

    Args:
        size: (height, width) of the network input in pixels.

    Returns:
        (model, backend) -> the least milliseconds of 50 calls of the exported file with one image and one thread, which
        other programs on the machine disturb least. The model stays as it is. It raises a UserError for a backend that
        cannot be exported here.
    """

    def latency(model: nn.Module, backend: str) -> float:
        exporter = exporter_for(backend)
        network: Any = inference_model(model).cpu()
        graph = exported_graph(network, exporter, size)
        with tempfile.TemporaryDirectory(prefix="efftasks-latency-") as folder:
            path = exporter.write_graph(graph, torch.zeros(1, 3, *size), Path(folder) / f"model{suffix_of(exporter)}")
            return measure({"model": file_call(backend, path, size, 1)}, WARMUP, RUNS)["model"].minimum

    return latency
