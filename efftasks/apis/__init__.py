"""The use cases as functions, for commands and Python users: build, train, predict, evaluate, export, compress,
benchmark.

One file per use case. They combine configs, models, data and runtimes, and print nothing; `cli/` parses a command line,
calls one of them and prints the result. May import everything but `cli`. Functions for exported files alone import no
PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efftasks.apis.benchmarking import benchmark
    from efftasks.apis.building import Model, build, describe, fold, fuse, input_size, load, set_input_size, strip
    from efftasks.apis.comparing import Compared, CompareSettings, compare
    from efftasks.apis.compressing import compress
    from efftasks.apis.compression_report import CompressionReport
    from efftasks.apis.converting import read_published, write_published
    from efftasks.apis.evaluating import Evaluation, draw_comparison, evaluate, test_images
    from efftasks.apis.exits import set_exit_threshold
    from efftasks.apis.export_settings import ExportSettings
    from efftasks.apis.exporting import Exported, export, export_model
    from efftasks.apis.predicting import infer, predict, stream
    from efftasks.apis.reporting import write_report
    from efftasks.apis.training import train
    from efftasks.apis.zoo import published_artifact, published_checkpoint
    from efftasks.bench.rows import BenchmarkSettings
    from efftasks.config import config_folder, config_path, load_config, shipped_configs

# Name -> module. Imported on first access, since some of them work without PyTorch.
_MODULES = {
    "BenchmarkSettings": "bench.rows",
    "CompareSettings": "apis.comparing",
    "Compared": "apis.comparing",
    "CompressionReport": "apis.compression_report",
    "Evaluation": "apis.evaluating",
    "ExportSettings": "apis.export_settings",
    "Exported": "apis.exporting",
    "Model": "apis.building",
    "benchmark": "apis.benchmarking",
    "build": "apis.building",
    "compare": "apis.comparing",
    "compress": "apis.compressing",
    "config_folder": "config",
    "config_path": "config",
    "describe": "apis.building",
    "draw_comparison": "apis.evaluating",
    "evaluate": "apis.evaluating",
    "export": "apis.exporting",
    "export_model": "apis.exporting",
    "fold": "apis.building",
    "fuse": "apis.building",
    "infer": "apis.predicting",
    "input_size": "apis.building",
    "load": "apis.building",
    "load_config": "config",
    "predict": "apis.predicting",
    "published_artifact": "apis.zoo",
    "published_checkpoint": "apis.zoo",
    "read_published": "apis.converting",
    "set_exit_threshold": "apis.exits",
    "set_input_size": "apis.building",
    "shipped_configs": "config",
    "stream": "apis.predicting",
    "strip": "apis.building",
    "test_images": "apis.evaluating",
    "train": "apis.training",
    "write_published": "apis.converting",
    "write_report": "apis.reporting",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'efftasks.apis' has no attribute {name!r}")
    return getattr(importlib.import_module(f"efftasks.{_MODULES[name]}"), name)
