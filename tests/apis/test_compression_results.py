"""Rows of the report: what they state of a file is what the file states."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from efftasks.apis import compression_results
from efftasks.apis.compression_results import step_rows
from efftasks.apis.compression_steps import CompressionStep
from efftasks.apis.export_settings import ExportSettings
from efftasks.bench.complexity import Complexity
from efftasks.linking.linked import LinkedConfig


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_precision_is_that_of_the_file_whatever_was_asked_for(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was trained for integers is exported in integers by default."""
    (row,) = rows_of(precision, tmp_path, monkeypatch, ExportSettings())
    assert (row["file"], row["precision"]) == (f"onnx {precision}", precision)
    assert (row["input"], row["file MB"], row["metric on"]) == ("32x64", 0.001, {"onnxruntime": 0.4})


def test_files_that_differ_in_their_input_have_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of("int8", tmp_path, monkeypatch, *(ExportSettings(input=x) for x in ("float32", "uint8")))
    assert [row["file"] for row in rows] == ["onnx int8", "onnx int8 uint8"]
    assert [Path(row["path"]).parent.name for row in rows] == ["onnx", "onnx_uint8"]


def rows_of(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *exports: ExportSettings) -> list[Any]:
    """Rows of a step whose files have this precision."""

    def export(config: Any, checkpoint: Path, target: Path, settings: Any) -> Any:
        target.mkdir(parents=True)
        (target / "model.onnx").write_bytes(b"0" * 1000)
        spec = SimpleNamespace(precision=precision, input=SimpleNamespace(height=32, width=64), policy=None)
        metrics = {"pytorch": {"AP": 0.5}, "artifact": {"AP": 0.4}}
        return SimpleNamespace(spec=spec, path=target / "model.onnx", metrics=metrics)

    monkeypatch.setattr(compression_results, "export", export)
    monkeypatch.setattr(compression_results, "_complexity", lambda *rest: Complexity(2.0, 1.0, 1.0))
    step = CompressionStep(1, "tune", LinkedConfig(), False, "best", exports)
    return list(step_rows(step, step.config, tmp_path / "best.pth", "digest", ["none"]))
