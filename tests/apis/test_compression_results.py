"""Rows of the report: what they state of a file is what the file states."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from efftasks.apis import compression_results
from efftasks.apis.compression_results import step_rows
from efftasks.apis.compression_steps import CompressionStep
from efftasks.apis.exporting import ExportSettings
from efftasks.bench.complexity import Complexity
from efftasks.linking.linked import LinkedConfig


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_precision_is_that_of_the_file_whatever_was_asked_for(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was trained for integers is exported in integers by default."""

    def export(config: Any, checkpoint: Path, target: Path, settings: Any) -> Any:
        target.mkdir(parents=True)
        (target / "model.onnx").write_bytes(b"0" * 1000)
        spec = SimpleNamespace(precision=precision, input=SimpleNamespace(height=32, width=64), policy=None)
        metrics = {"pytorch": {"AP": 0.5}, "artifact": {"AP": 0.4}}
        return SimpleNamespace(spec=spec, path=target / "model.onnx", metrics=metrics)

    monkeypatch.setattr(compression_results, "export", export)
    monkeypatch.setattr(compression_results, "_complexity", lambda *rest: Complexity(2.0, 1.0, 1.0))
    step = CompressionStep(1, "tune", LinkedConfig(), False, "best", (ExportSettings(),))
    (row,) = step_rows(step, step.config, tmp_path / "best.pth", "digest", ["none"])
    assert (row["file"], row["precision"]) == (f"onnx {precision}", precision)
    assert (row["input"], row["file MB"], row["metric on"]) == ("32x64", 0.001, {"onnxruntime": 0.4})
