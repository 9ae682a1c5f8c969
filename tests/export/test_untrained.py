"""The file of a network that has not learned anything yet: it is verified, and a wrong one is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from efftasks import apis
from efftasks.apis.verifying import verify
from efftasks.export.exporters.onnx import export_onnx

CONFIG = "o2oseg-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
OUTPUTS = ("boxes", "scores", "labels", "masks")


def fresh() -> Any:
    torch.manual_seed(0)
    cfg = apis.load_config(CONFIG, {"classes": CLASSES, "model.backbone.width": 0.5})
    model = apis.build(cfg)
    model.cfg = cfg
    model.dataset_meta = dict(classes=CLASSES, category_ids=(1, 2, 3, 4, 5, 6))
    return model.eval()


def photos(folder: Path) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    paths = [str(folder / f"{i}.png") for i in range(2)]
    for path in paths:
        cv2.imwrite(path, random.integers(0, 256, (100, 120, 3), dtype=np.uint8))
    return [dict(img_path=path, img_id=0) for path in paths]


def changed(path: Path, part: str, factor: float) -> Path:
    """A copy of a file in which the weights of this part are larger."""
    model = onnx.load(path)
    weights = [entry for entry in model.graph.initializer if part in entry.name and len(entry.dims) == 4]
    assert weights
    for weight in weights:
        values = onnx.numpy_helper.to_array(weight) * np.float32(factor)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    out = path.with_name("changed.onnx")
    onnx.save(model, out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True], ids=["fresh", "all scores equal"])
def test_a_file_of_an_untrained_network(tied, tmp_path):
    model = fresh()
    if tied:
        for level in model.head.one_to_one.classes:
            torch.nn.init.zeros_(level[-1].weight)
            torch.nn.init.constant_(level[-1].bias, -5)
    spec = apis.describe(model)
    path = export_onnx(apis.fuse(model), spec, tmp_path / "model.onnx")
    entries = photos(tmp_path)
    report = verify(model, path, spec, entries)
    assert report.passed and report.to_dict()["rows"] == 200, str(report)
    for part in ("stages.3", "one_to_one.boxes"):
        wrong = verify(model, changed(path, part, 1.01), spec, entries)
        assert not wrong.passed, part
        assert "FAILED" in str(wrong)
