"""Models by backends by precisions: what is timed, and what has a reason instead."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.apis import runtime_table as module
from efftasks.apis.runtime_table import RuntimeTableSettings, runtime_table
from efftasks.bench.table import Footnotes
from efftasks.cli.main import main
from efftasks.export.exporters.table import EXPORTERS
from efftasks.structures.errors import UserError, WorkError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    cv2.imwrite(str(folder / "a.png"), np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    return folder


def test_a_file_that_passes_is_timed_and_one_that_is_refused_says_why(photos, tmp_path, monkeypatch, capsys):
    refusing = replace(EXPORTERS["onnx"], name="refusing", refuses={"o2o": "it is a toy"})
    monkeypatch.setitem(EXPORTERS, "refusing", refusing)
    words = ["runtimes", "o2o", "--images", str(photos), "--size", "64", "64", "--backend", "onnx", "refusing"]
    stem = tmp_path / "report" / "table"
    assert main([*words, "--precision", "fp32", "--runs", "3", "--warmup", "0", "--out", str(stem)]) == 0
    good, bad = json.loads(Path(f"{stem}.json").read_text())
    assert (good["backend"], good["precision"], good["result"]) == ("onnx", "fp32", "verified in onnxruntime")
    assert 0 < good["network ms"] < good["start ms"] and 0 < good["p50 ms"] <= good["p90 ms"]
    assert 8 < good["MB"] < 9.5 < good["peak RSS MB"]  # 2.1 M parameters of 4 bytes
    assert bad["result"] == "refused" and bad["reason"].endswith(
        "cannot write models for detection with O2OHead: it is a toy"
    )
    assert "p50 ms" not in bad and bad["environment"]["cores"] == good["environment"]["cores"]
    text = Path(f"{stem}.md").read_text()
    assert "| o2o | refusing | fp32 | refused (1) | - |" in text and f"\n1. {bad['reason']}\n" in text
    assert text.split("\n\nMeasured on")[0] in capsys.readouterr().out


def test_one_that_does_not_agree_is_not_timed(photos, monkeypatch):
    def fails(model: object, out: Path, settings: object) -> None:
        raise WorkError(f"{out}/model.onnx.unverified: does not agree")

    monkeypatch.setattr(module, "export_model", fails)
    settings = RuntimeTableSettings(("onnx",), ("fp32",), (64, 64), photos)
    table = runtime_table(["o2o", "o2oseg"], settings)
    assert [row["result"] for row in table.rows] == ["failed", "failed"]
    assert table.rows[0]["reason"] == "model.onnx.unverified: does not agree"
    assert "failed (1)" in table.to_markdown() and "(2)" not in table.to_markdown()  # the same reason is there once


def test_files_that_are_kept_are_timed_again_and_not_exported_again(photos, tmp_path, monkeypatch):
    settings = RuntimeTableSettings(("onnx",), ("fp32",), (64, 64), photos, runs=2, warmup=0, keep=tmp_path)
    first = runtime_table(["o2o"], settings).rows[0]
    assert (tmp_path / "o2o" / "onnx-fp32" / "model.onnx").is_file()

    def refuses(*arguments: object) -> None:
        raise UserError("exported again")

    monkeypatch.setattr(module, "export_model", refuses)
    again = runtime_table(["o2o"], settings).rows[0]
    assert again["result"] == first["result"] == "verified in onnxruntime" and again["MB"] == first["MB"]
    assert again["p50 ms"] > 0
    other = runtime_table(["o2o"], replace(settings, num_images=1)).rows[0]
    assert (other["result"], other["reason"]) == ("refused", "exported again")


@pytest.mark.parametrize(
    ("models", "fields", "message"),
    [
        (["o2o"], {}, "--images: missing, o2o has random weights and no data"),
        (["o2p"], {}, "o2p: no such config file"),
        (["o2o"], {"images": "nowhere"}, "nowhere"),
        (["gone.pth"], {}, "gone.pth: no such file"),
    ],
)
def test_a_wrong_model_or_folder_is_no_refusal_of_every_backend(models, fields, message):
    with pytest.raises(UserError, match=message):
        runtime_table(models, RuntimeTableSettings(**fields))


@pytest.mark.parametrize(("fields", "name"), [({"backends": ("abacus",)}, "--backend"), ({"runs": 0}, "--runs")])
def test_wrong_settings(fields, name):
    with pytest.raises(UserError, match=f"^{name}: got "):
        RuntimeTableSettings(**fields)


def test_a_reason_has_one_number():
    notes = Footnotes()
    assert [notes.mark(*cell) for cell in (("no", "a"), ("yes", None), ("no", "b"), ("never", "a"))] == [
        "no (1)",
        "yes",
        "no (2)",
        "never (1)",
    ]
    assert str(notes) == "1. a\n2. b"
