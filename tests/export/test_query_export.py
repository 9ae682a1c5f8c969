"""A small query detector through the real exporter: with each way of sampling, whole and truncated, of any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from efftasks import Predictor, apis
from efftasks.export.exporters.onnx import export_onnx

CONFIG = "deimv2-atto_hgnetv2-atto_8xb16-500e_coco-320"
SMALL = {
    "classes": ("cat", "dog", "bird"),
    "image_size": (96, 128),
    "model.backbone.width": 0.5,
    "model.head.channels": 32,
    "model.neck.channels": 32,
    "model.head.selection.num_queries": 20,
}


def build(**decoder: Any) -> Any:
    options = SMALL | {f"model.head.decoder.{key}": value for key, value in decoder.items()}
    cfg = apis.load_config(CONFIG, options)
    torch.manual_seed(0)
    model = apis.build(cfg)
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if parameter.dim() > 1 and ("head" in name.split(".")[-3] or not bool(parameter.any())):
                parameter.normal_(std=0.1)
    model.cfg = cfg
    model.dataset_meta = dict(classes=SMALL["classes"], category_ids=(1, 2, 3))
    return model.eval()


def compare(model: Any, path: Path, batch: int) -> None:
    images = torch.rand(batch, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    outputs = Predictor(path).session.run(images.numpy())
    with torch.no_grad():
        boxes, scores, *_ = model.infer(images)
    np.testing.assert_allclose(outputs["scores"], scores.numpy(), atol=1e-5)
    np.testing.assert_allclose(outputs["boxes"], boxes.numpy(), atol=5e-3)


def export(model: Any, path: Path) -> Path:
    return export_onnx(apis.fuse(model), apis.describe(model), path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The model as the config has it, and its file."""
    model = build(sampling="grid_sample")
    return model, export(model, tmp_path_factory.mktemp("whole") / "model.onnx")


@pytest.mark.parametrize("sampling", ["grid_sample", pytest.param("discrete", marks=pytest.mark.slow)])
def test_file_equals_model(sampling: str, whole: tuple[Any, Path], tmp_path: Path) -> None:
    model, path = whole
    if sampling != "grid_sample":
        model = build(sampling=sampling)
        path = export(model, tmp_path / "model.onnx")
    for batch in (1, 3):
        compare(model, path, batch)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert "GridSample" not in operators
    assert apis.describe(model).outputs[0].shape == ("N", 60, 4)  # 20 queries with 3 classes each


@pytest.mark.slow
def test_fewer_layers_give_a_smaller_file(whole: tuple[Any, Path], tmp_path: Path) -> None:
    model, path = whole
    short = build(sampling="grid_sample", eval_layers=1)
    short.load_state_dict(model.state_dict())
    shorter = export(short, tmp_path / "short.onnx")
    compare(short, shorter, 2)
    assert len(onnx.load(shorter).graph.node) < 0.75 * len(onnx.load(path).graph.node)


@pytest.mark.slow
def test_other_sizes_give_what_the_model_gives(whole: tuple[Any, Path], tmp_path: Path) -> None:
    model, _ = whole
    spec = apis.describe(model)
    path = export_onnx(
        apis.fuse(model), replace(spec, input=replace(spec.input, dynamic_size=True)), tmp_path / "m.onnx"
    )
    session = Predictor(path).session
    for size in ((128, 160), (192, 128)):
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
        outputs = session.run(images.numpy())
        with torch.no_grad():
            boxes, scores, *_ = model.infer(images)
        np.testing.assert_allclose(outputs["scores"], scores.numpy(), atol=1e-5)
        np.testing.assert_allclose(outputs["boxes"], boxes.numpy(), atol=5e-3)


def test_a_fixed_batch_of_one(whole: tuple[Any, Path], tmp_path: Path) -> None:
    model, _ = whole
    spec = apis.describe(model)
    path = export_onnx(
        apis.fuse(model), replace(spec, input=replace(spec.input, dynamic_batch=False)), tmp_path / "m.onnx"
    )
    compare(model, path, 1)
    assert "Range" not in {node.op_type for node in onnx.load(path).graph.node}  # what depends on it is a constant
