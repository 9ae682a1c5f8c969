"""A small network through the real exporter, read back by ONNX Runtime."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from efftasks import Predictor, apis
from efftasks.export.exporters.onnx import export_onnx
from efftasks.models.detectors import Detector
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


@pytest.fixture(scope="module")
def model() -> Detector:
    torch.manual_seed(0)
    cfg = apis.load_config(CONFIG, {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)})
    apis.set_input_size(cfg, (128, 160))
    model = apis.build(cfg)
    for module in model.modules():
        if (
            isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None
        ):  # statistics unlike the fresh ones, so that folding shows
            torch.nn.init.normal_(module.running_mean, 0.0, 0.02)
            module.running_var = 0.4 * torch.rand_like(module.running_mean) + 0.8
    for scores, sides in zip(model.head.one_to_one.classes, model.head.one_to_one.boxes):
        torch.nn.init.normal_(scores[-1].weight, 0.0, 0.3)  # fresh scores all tie; these spread
        torch.nn.init.normal_(sides[-1].weight, 0.0, 1e-3)  # boxes of some strides, as a trained model has them
    model.cfg = cfg
    model.dataset_meta = dict(classes=tuple(cfg.classes), category_ids=(1, 2, 3, 4, 5, 6))
    return model.eval()


def describe(model: Detector, **facts: Any) -> ArtifactSpec:
    spec = apis.describe(model)
    return replace(spec, input=replace(spec.input, **facts))


def check_equal(model: Detector, path: Path, shape: tuple[int, int, int, int]) -> None:
    images = torch.rand(*shape, generator=torch.Generator().manual_seed(1))
    outputs = Predictor(path, size=(shape[2], shape[3])).session.run(images.numpy())
    with torch.no_grad():
        boxes, scores, labels, *_ = model.infer(images)
    np.testing.assert_allclose(outputs["scores"], scores.numpy(), atol=1e-5)
    np.testing.assert_allclose(outputs["boxes"], boxes.numpy(), atol=5e-3)
    assert np.array_equal(outputs["labels"], labels.numpy())


def test_dynamic_batch(model, tmp_path):
    path = export_onnx(apis.fuse(model), describe(model), tmp_path / "model.onnx")
    for batch in (1, 2, 5):
        check_equal(model, path, (batch, 3, 128, 160))
    stored = onnx.load(str(path))
    assert {entry.domain: entry.version for entry in stored.opset_import}[""] == 18
    assert Predictor(path).spec == describe(model)
    assert not any("BatchNormalization" in node.op_type for node in stored.graph.node)
    assert not list(tmp_path.glob("*.data"))
    assert str(Path(apis.__file__).parents[2]).encode() not in path.read_bytes()  # a folder of this disk
    assert not any(node.metadata_props for node in stored.graph.node)


@pytest.mark.slow
def test_dynamic_size(model, tmp_path):
    path = export_onnx(apis.fuse(model), describe(model, dynamic_size=True), tmp_path / "model.onnx")
    for size in ((128, 160), (256, 192), (160, 320)):
        check_equal(model, path, (2, 3, *size))


@pytest.mark.slow
def test_fixed_batch_and_a_newer_opset(model, tmp_path):
    path = export_onnx(apis.fuse(model), describe(model, dynamic_batch=False), tmp_path / "model.onnx", opset=20)
    check_equal(model, path, (1, 3, 128, 160))
    assert {entry.domain: entry.version for entry in onnx.load(str(path)).opset_import}[""] == 20


def test_an_old_opset_and_a_foreign_model_are_refused(model, tmp_path):
    with pytest.raises(UserError, match="--opset: got 17"):
        export_onnx(model, describe(model), tmp_path / "model.onnx", opset=17)
    with pytest.raises(UserError, match="has no method infer"):
        export_onnx(torch.nn.Identity(), describe(model), tmp_path / "model.onnx")
