"""OpenVINO's own files: what they hold, and that they give what the model gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from efftasks import Predictor, apis
from efftasks.export.exporters.openvino import export_openvino, write_metadata
from efftasks.runtime.backends.openvino import BACKEND
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model(families):
    """A detector whose boxes and scores spread."""
    model = families.build_family("o2o")
    for scores, sides in zip(model.head.one_to_one.classes, model.head.one_to_one.boxes):
        torch.nn.init.normal_(scores[-1].weight, 0.0, 0.01)
        torch.nn.init.normal_(sides[-1].weight, 0.0, 1e-3)
    config = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
    model.cfg = apis.load_config(config, {"image_size": 96, "classes": ("a", "b", "c")})
    model.dataset_meta = dict(classes=("a", "b", "c"), category_ids=(1, 2, 3))
    return model.eval()


@pytest.fixture(scope="module")
def path(model, tmp_path_factory) -> Path:
    return export_openvino(apis.fuse(model), apis.describe(model), tmp_path_factory.mktemp("ir") / "model.xml")


def test_any_batch_gives_what_the_model_gives(model, path):
    for batch in (1, 3):
        images = torch.rand(batch, 3, 96, 96)
        outputs = Predictor(path).session.run(images.numpy())
        with torch.no_grad():
            boxes, scores, labels, *_ = model.infer(images)
        np.testing.assert_allclose(outputs["scores"], scores.numpy(), atol=1e-5)
        np.testing.assert_allclose(outputs["boxes"], boxes.numpy(), atol=5e-3)
        assert np.array_equal(outputs["labels"], labels.numpy())


def test_its_files_are_two_and_hold_32_bits(model, path):
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.bin", "model.xml"]
    constants = [op for op in openvino.Core().read_model(path).get_ops() if op.get_type_name() == "Constant"]
    kinds = {op.get_element_type().get_type_name() for op in constants}
    assert "f32" in kinds and "f16" not in kinds
    folded = sum(p.numel() for name, p in apis.fuse(model).named_parameters())
    assert path.with_suffix(".bin").stat().st_size > 4 * folded * 0.99


@pytest.fixture(scope="module")
def half(model, tmp_path_factory) -> Path:
    spec = replace(apis.describe(model), precision="fp16")
    return export_openvino(apis.fuse(model), spec, tmp_path_factory.mktemp("half") / "model.xml")


def test_weights_of_16_bits_take_half_of_the_room_and_stay_so(model, path, half):
    sizes = [file.with_suffix(".bin").stat().st_size for file in (path, half)]
    assert 0.5 <= sizes[1] / sizes[0] < 0.52
    weights = half.with_suffix(".bin").read_bytes()
    write_metadata(half, replace(apis.describe(model), precision="fp16").with_verify({"passed": True}))
    assert half.with_suffix(".bin").read_bytes() == weights
    assert Predictor(half).spec.verify == {"passed": True}


def test_weights_of_16_bits_are_the_models_rounded_and_computed_in_32(model, half):
    rounded: Any = apis.fuse(model)
    for weight in rounded.parameters():
        weight.data = weight.data.half().float()
    images = torch.rand(2, 3, 96, 96)
    outputs = Predictor(half).session.run(images.numpy())
    with torch.no_grad():
        boxes, scores, *_ = rounded.infer(images)
        exact = model.infer(images)[1]
    np.testing.assert_allclose(outputs["scores"], scores.numpy(), atol=1e-5)
    np.testing.assert_allclose(outputs["boxes"], boxes.numpy(), atol=5e-3)
    assert np.abs(outputs["scores"] - exact.numpy()).max() > 1e-5


def test_what_does_not_fit_into_16_bits_is_not_cut(tmp_path):
    """A factor of 1e6 between two layers would be 65504, one of 1e-9 zero."""

    class Scaled(torch.nn.Module):
        def infer(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            return ((images * 1e6).relu() * 1e-9,)

    image_input = InputSpec("images", 8, 8, mean=(0, 0, 0), std=(255, 255, 255))
    outputs = (OutputSpec("boxes", ("N", 3, 8, 8), "float32", ""),)
    spec = ArtifactSpec("detection", ("a",), (1,), image_input, outputs, precision="fp16")
    path = export_openvino(Scaled(), spec, tmp_path / "model.xml")
    images = np.full((1, 3, 8, 8), 0.5, np.float32)
    np.testing.assert_allclose(BACKEND.open(path).run(images)["boxes"], images * 1e-3, rtol=1e-3)


def test_the_description_is_inside_and_can_be_replaced(model, path):
    spec = apis.describe(model)
    assert Predictor(path).spec == spec
    weights = path.with_suffix(".bin").read_bytes()
    write_metadata(path, spec.with_verify({"passed": True}))
    write_metadata(path, spec.with_verify({"passed": True, "images": 2}))
    assert Predictor(path).spec.verify == {"passed": True, "images": 2}
    assert path.with_suffix(".bin").read_bytes() == weights
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.bin", "model.xml"]


def test_what_cannot_be_exported_is_refused(model, tmp_path):
    spec = apis.describe(model)
    with pytest.raises(UserError, match="--opset: got 11"):
        export_openvino(model, spec, tmp_path / "model.xml", opset=11)
    with pytest.raises(UserError, match=r"input\.layout: got 'NHWC'"):
        export_openvino(model, replace(spec, input=replace(spec.input, layout="NHWC")), tmp_path / "model.xml")
    assert not list(tmp_path.iterdir())
