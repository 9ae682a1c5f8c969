"""A query detector that decides how many queries it decodes, through the real exporters: each way equals PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from efftasks import Predictor, apis
from efftasks.apis.exporting import ExportSettings, export_model
from efftasks.apis.ways import check_branches, verify_ways
from efftasks.export.exporters.onnx import export_onnx
from efftasks.export.exporters.table import EXPORTERS
from efftasks.structures.errors import UserError

CONFIG = "deimv2-atto_hgnetv2-atto_8xb16-500e_coco-320"
FEW, ALL = 5, 20
SMALL = {
    "classes": ("cat", "dog", "bird"),
    "image_size": (96, 128),
    "model.backbone.width": 0.5,
    "model.head.channels": 32,
    "model.neck.channels": 32,
    "model.head.selection.num_queries": ALL,
    "model.head.selection.few_queries": FEW,
}


def build(**options: Any) -> Any:
    cfg = apis.load_config(CONFIG, SMALL | options)
    torch.manual_seed(0)
    model = apis.build(cfg)
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if parameter.dim() > 1 and ("head" in name.split(".")[-3] or not bool(parameter.any())):
                parameter.normal_(std=0.1)
    model.cfg = cfg
    model.dataset_meta = dict(classes=SMALL["classes"], category_ids=(1, 2, 3))
    return model.eval()


def decoded(scores: np.ndarray) -> int:
    """How many queries have scores; each has three classes."""
    return int((scores > 0).sum()) // 3


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_one_file_takes_either_way_as_the_model_does(backend: str, tmp_path: Path) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    model = build()
    batches = [torch.rand(count, 3, 96, 128, generator=torch.Generator().manual_seed(count)) for count in (1, 2, 3, 4)]
    scores = []
    model.head.selection.register_forward_hook(
        lambda module, maps, selected: scores.append(float(selected.logits[:, FEW].amax(-1).sigmoid().max()))
    )
    with torch.no_grad():
        for batch in batches:
            model.infer(batch)
    model.head.selection.few_below = float(np.median(scores))  # some batches take each way
    path = export_onnx(apis.fuse(model), apis.describe(model), tmp_path / "model.onnx")
    assert [node.op_type for node in onnx.load(path).graph.node].count("If") == 1
    predictor = Predictor(path, backend=backend)
    taken = []
    for batch in batches:
        with torch.no_grad():
            expected = model.infer(batch)
        outputs = predictor.session.run(batch.numpy())
        np.testing.assert_allclose(outputs["scores"], expected.scores.numpy(), atol=1e-5)
        np.testing.assert_allclose(outputs["boxes"], expected.boxes.numpy(), atol=5e-3)
        taken.append(decoded(outputs["scores"][0]))
    assert set(taken) == {FEW, ALL}


@pytest.mark.slow
def test_the_export_verifies_each_way(tmp_path: Path) -> None:
    for i in range(2):
        noise = np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{i}.png"), noise)
    exported = export_model(build(), tmp_path / "out", ExportSettings(images=tmp_path))
    reports = exported.spec.verify
    assert all(reports[part]["passed"] for part in ("artifact", "few queries", "all queries"))
    assert "few queries: verify passed" in str(exported.report)


@pytest.mark.parametrize(
    ("backend", "precision", "words"),
    [
        ("ncnn", "fp32", "--backend ncnn: the network decides between few queries and all queries for each image"),
        ("tensorrt", "fp32", "expected one of onnx, openvino"),
        ("web", "fp32", "model.head.selection.few_queries=None"),
        ("onnx", "int8", "--precision: got 'int8', expected 'fp32'"),
        ("openvino", "fp16", "--precision: got 'fp16'"),
    ],
)
def test_files_that_cannot_decide(backend: str, precision: str, words: str) -> None:
    model = build()
    with pytest.raises(UserError, match=words):
        check_branches(model, EXPORTERS[backend], precision)
    plain = build(**{"model.head.selection.few_queries": None})
    check_branches(plain, EXPORTERS[backend], precision)  # that has one way only


def test_each_way_is_written_and_verified_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[float] = []
    verified: list[tuple[float, int]] = []

    def write(model: Any, spec: Any, path: Path, *, opset: int) -> Path:
        written.append(model.head.selection.few_below)
        return path

    def verify(model: Any, path: Path, spec: Any, entries: Any, backend: str) -> str:
        verified.append((model.head.selection.few_below, len(entries)))
        return path.name

    monkeypatch.setattr("efftasks.apis.ways.verify", verify)
    model = build()
    exporter = replace(EXPORTERS["onnx"], export=write)
    entries = [{"img_path": str(i)} for i in range(9)]
    reports = verify_ways(model, apis.describe(model), tmp_path, exporter, entries, 18)
    assert reports == {"few queries": "way0.onnx", "all queries": "way1.onnx"}
    assert written == [2.0, 0.0] and verified == [(2.0, 4), (0.0, 4)]
    assert model.head.selection.few_below == 0.05  # the model stays as it is
