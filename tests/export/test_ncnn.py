"""ncnn's own files: what they hold, and that they give what the model gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efftasks import Predictor, apis
from efftasks.apis.forms import exported_graph, exported_spec
from efftasks.export.exporters.ncnn import EXPORTER, export_ncnn, write_graph
from efftasks.runtime.backends.ncnn import BACKEND
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactSpec

pytest.importorskip("ncnn", reason="the extra ncnn is not installed")
pytest.importorskip("pnnx", reason="the extra ncnn is not installed")

TASKS = {
    "detection": "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128",
    "masks, keypoints and a label map": "o2omulti-n_mobilenetv4-conv-s_1xb16-36e_shapes-128",
}


def detector(task: str) -> Any:
    """A detector as after some training: scores spread, and boxes are of some strides."""
    torch.manual_seed(0)
    narrow = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}
    cfg = apis.load_config(TASKS[task], {**narrow, "image_size": 96})
    model = apis.build(cfg)
    head: Any = model.head
    for scores, sides in zip(head.one_to_one.classes, head.one_to_one.boxes):
        nn.init.normal_(scores[-1].weight, 0.0, 0.5)
        nn.init.normal_(sides[-1].weight, 0.0, 1e-3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one batch gives the statistics
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 96, 96))
    meta = dict(classes=tuple(cfg.classes), category_ids=tuple(range(len(cfg.classes))))
    if "keypoints" in cfg:
        meta["keypoints"] = cfg.keypoints.to_dict()
    model.cfg, model.dataset_meta = cfg, meta
    return model.eval()


def description(model: Any, precision: str = "fp32") -> ArtifactSpec:
    """Of a file of one image."""
    spec = exported_spec(model, apis.describe(model), EXPORTER)
    return replace(spec, input=replace(spec.input, dynamic_batch=False), precision=precision)


def export(model: Any, spec: ArtifactSpec, folder: Path) -> Path:
    path = export_ncnn(apis.fuse(model), spec, folder / "model.ncnn.param")
    spec.save(path.with_suffix(".json"))
    return path


@pytest.mark.parametrize("task", TASKS)
def test_it_gives_what_the_model_gives(task, tmp_path):
    model = detector(task)
    predictor = Predictor(export(model, description(model), tmp_path), threads=1)
    images = torch.rand(1, 3, 96, 96)
    outputs = predictor.session.session.run(images.numpy())
    form = model.undecoded(96, 96)
    with torch.no_grad():
        expected = model.infer_undecoded(images)
    for output, value in zip(form.outputs, expected, strict=True):
        limit = 2e-4 * max(1.0, float(value.abs().max()))
        np.testing.assert_allclose(outputs[output.name], value.numpy(), rtol=0, atol=limit, err_msg=output.name)
    assert predictor.session.outputs >= {output.name for output in model.outputs(96, 96)}
    assert len(predictor(np.zeros((50, 70, 3), np.uint8))[0]) == model.head.count_detections(96, 96)


def test_its_files_are_two_and_hold_32_bits_or_16(tmp_path):
    model = detector("detection")
    weights = sum(p.numel() for p in apis.fuse(model).parameters() if p.ndim == 4)
    sizes = {}
    for precision in EXPORTER.precisions:
        path = export_ncnn(apis.fuse(model), description(model, precision), tmp_path / precision / "model.ncnn.param")
        assert sorted(file.name for file in path.parent.iterdir()) == ["model.ncnn.bin", "model.ncnn.param"]
        sizes[precision] = path.with_suffix(".bin").stat().st_size
    assert sizes["fp32"] > 4 * weights > 0.9 * sizes["fp32"]
    assert sizes["fp32"] - sizes["fp16"] > 0.95 * 2 * weights


def test_weights_of_16_bits_are_the_models_rounded(tmp_path):
    conv = nn.Conv2d(3, 8, 1)
    images = torch.rand(1, 3, 8, 8)
    model = _Plain(conv)
    spec = replace(description(detector("detection"), "fp16"), decode="inside", decoder=None)
    spec = replace(spec, outputs=spec.outputs[:1], input=replace(spec.input, height=8, width=8))
    path = export_ncnn(model, spec, tmp_path / "model.param")
    rounded = nn.Conv2d(3, 8, 1)
    rounded.weight.data, rounded.bias.data = conv.weight.data.half().float(), conv.bias.data  # type: ignore[union-attr]
    (values,) = BACKEND.open(path).run(images.numpy()).values()
    np.testing.assert_allclose(values, rounded(images).detach().numpy(), atol=1e-6)
    assert np.abs(values - conv(images).detach().numpy()).max() > 1e-5


class _Plain(nn.Module):
    """Its only output is that of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def infer(self, images: Tensor) -> tuple[Tensor]:
        return (self.layer(images),)


class _TopK(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).topk(5).values


class _Branches(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("cannot be run at all\nand more")


def test_operators_that_it_lacks_are_named(tmp_path):
    with pytest.raises(WorkError, match=r"model\.param: ncnn has no operator for torch\.topk; export to another"):
        write_graph(_TopK(), torch.zeros(1, 3, 8, 8), tmp_path / "model.param")
    with pytest.raises(WorkError, match=r"cannot be traced \(RuntimeError: cannot be run at all\)"):
        write_graph(_Branches(), torch.zeros(1, 3, 8, 8), tmp_path / "model.param")
    assert not list(tmp_path.iterdir())


def test_what_pnnx_says_is_in_the_message(tmp_path, monkeypatch):
    script = tmp_path / "pnnx"
    script.write_text("#!/bin/sh\necho first\necho no such shape >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr("pnnx.EXEC_PATH", str(script))
    with pytest.raises(WorkError, match=r"pnnx cannot convert the network \(exit code 3: no such shape; first\)"):
        write_graph(nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 8, 8), tmp_path / "out" / "model.param")
    assert not list((tmp_path / "out").iterdir())


def test_what_cannot_be_exported_is_refused(tmp_path):
    model = detector("detection")
    spec = description(model)
    for change in (dict(dynamic_batch=True), dict(dynamic_size=True), dict(layout="NHWC")):
        (name,) = change
        with pytest.raises(UserError, match=rf"input\.{name}: got .*, a \.param file is written with "):
            export_ncnn(model, replace(spec, input=replace(spec.input, **change)), tmp_path / "model.param")
    with pytest.raises(UserError, match="Conv2d has no method infer_undecoded"):
        export_ncnn(nn.Conv2d(3, 2, 1), spec, tmp_path / "model.param")
    assert not list(tmp_path.iterdir())


def test_forms_that_it_has_no_operators_for_are_refused_before_a_conversion(families):
    with pytest.raises(
        UserError,
        match="--backend ncnn: ncnn has no top-k, gather and argmax, and Detector needs top-k and gather in its net",
    ):
        exported_graph(families.build_family("rtdetrv2"), EXPORTER, (96, 96))
    with pytest.raises(UserError, match="Conv2d declares no end before its decoder"):
        exported_graph(nn.Conv2d(3, 2, 1), EXPORTER, (96, 96))


SEGMENTERS = "bisenetv2 ddrnet23_slim fastscnn fpnlite pidnet_s ppliteseg_t sctnet_s seaformer_s segformer_b0 stdc1"


@pytest.mark.slow
@pytest.mark.parametrize("family", SEGMENTERS.split())
def test_segmenters_are_converted(family, families, tmp_path):
    model = families.build_family(family).eval()
    fused: Any = apis.fuse(model)
    images = families.images(family, 1)
    path = write_graph(exported_graph(fused, EXPORTER, (96, 96)), images, tmp_path / "model.param")
    (values,) = BACKEND.open(path, 1).run(images.numpy()).values()
    with torch.no_grad():
        (expected,) = model.infer_undecoded(images)
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-3 * float(expected.abs().max()))
