"""Every registered backbone keeps what a backbone promises, and grows and shrinks as its arguments say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import onnxruntime
import pytest
import torch
from mmengine.registry import DefaultScope

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.base import Backbone, build_backbone
from efftasks.registry import MODELS

# Small, for tests; what each can be asked to change.
CONFIGS: dict[str, dict[str, Any]] = {
    "HGNetV2": dict(variant="b0", width=0.5),
    "MobileNetV4": dict(variant="conv-s", width=0.5),
    "RegNet": dict(variant="y_002", width=0.5),
    "RepViT": dict(variant="m0_9", width=0.5),
    "ResNetVD": dict(depth=18),
    "SCTNet": dict(variant="s", width=0.5),
    "SeaFormer": dict(variant="tiny", width=0.5),
    "StarNet": dict(variant="s1", width=0.5),
}
ELASTIC = sorted(set(CONFIGS) - {"ResNetVD"})
FOREIGN = {"ProbedBackbone", "TimmBackbone"}  # these wrap others; see test_timm_families.py and test_base.py


def registered() -> set[str]:
    with DefaultScope.overwrite_default_scope("efftasks"):
        MODELS.import_from_location()
    return {name for name, kind in MODELS.module_dict.items() if inspect.isclass(kind) and issubclass(kind, Backbone)}


def make(name: str, **changes: Any) -> Backbone:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("efftasks"):
        return build_backbone(dict(type=name, **{**CONFIGS[name], **changes}))


def trained(net: Backbone) -> Backbone:
    net.train()
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = 1.0
                part.weight.uniform_(0.5, 1.5)  # none at zero, which would hide what lies before it
        net(torch.rand(4, 3, 96, 96))
    return net.eval()


def cost(net: Backbone) -> int:
    return sum(p.numel() for p in net.parameters())


def test_every_backbone_is_here() -> None:
    assert registered() == set(CONFIGS) | FOREIGN


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_maps_gradients_and_norms(name: str) -> None:
    net = make(name).train()
    x = torch.rand(2, 3, 101, 67)  # neither a multiple of anything
    maps = net(x)
    for m, spec in zip(maps, net.specs, strict=True):
        assert m.shape[:2] == (2, spec.channels)
        # Each halving rounds up, and a stem that pads by hand may round down once.
        assert all(abs(found - side / spec.stride) <= 1 for found, side in zip(m.shape[2:], (101, 67)))
    sum((m * torch.rand_like(m)).sum() for m in maps).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []

    (first, *_) = [key for key, _ in net.named_children()]
    net.freeze([first, "norms"])
    before = {key: value.clone() for key, value in net.state_dict().items() if "running" in key}
    net.zero_grad(set_to_none=True)
    net.train()
    sum(m.sum() for m in net(x)).backward()
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())
    kinds = {key: p.grad is None for key, p in net.named_parameters()}
    assert all(none for key, none in kinds.items() if key.startswith(f"{first}.")) and not all(kinds.values())


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_fused_and_exported_it_is_the_same(name: str, tmp_path: Path) -> None:
    net = trained(make(name))
    original, x = net.double(), torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        merged = inference_model(original)
        assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in merged.modules())
        exact = merged(x.double())
        for want, got, again in zip(original(x.double()), exact, inference_model(merged)(x.double()), strict=True):
            torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-9)
            assert torch.equal(got, again)
        fused = merged.float()
        eager = fused(x)
        batch = {0: torch.export.Dim("batch", min=1)}
        torch.onnx.export(
            fused,
            (x,),
            str(tmp_path / "net.onnx"),
            dynamo=True,
            opset_version=18,
            dynamic_shapes=(batch,),
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for count in (2, 1):
        found = session.run(None, {session.get_inputs()[0].name: x[:count].numpy()})
        for want, rounded, value in zip(exact, eager, found, strict=True):
            # Rounding grows with depth, in PyTorch as in the file: the file may be off by what PyTorch itself is.
            scale = want.abs().max()
            usual = float((rounded - want).abs().max() / scale)
            wrong = float((torch.tensor(value) - want[:count]).abs().max() / scale)
            assert usual < 2e-5 and wrong < 3 * usual + 1e-6, (wrong, usual)


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("fused", [False, True])
def test_exports_as_a_program_with_a_dynamic_batch(name: str, fused: bool) -> None:
    net = trained(make(name))
    module = inference_model(net) if fused else net
    dynamic = {"x": {0: torch.export.Dim("batch", min=1, max=8)}}
    program = torch.export.export(module, (torch.randn(2, 3, 64, 96),), dynamic_shapes=dynamic).module()
    x = torch.randn(3, 3, 64, 96)
    for expected, got in zip(module(x), program(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ELASTIC)
def test_width_depth_and_kernel_are_free(name: str) -> None:
    base = make(name)
    for change, grows in ((dict(width=1.0), True), (dict(depth=2.0), True), (dict(depth=0.4), False)):
        other = make(name, **change)
        assert (cost(other) > cost(base)) == grows and cost(other) != cost(base), change
        assert [spec.stride for spec in other.specs] == [spec.stride for spec in base.specs]
        maps = other.eval()(torch.rand(1, 3, 64, 64))
        assert [m.shape[1] for m in maps] == [spec.channels for spec in other.specs]
    assert cost(make(name, kernel_size=3)) < cost(make(name, kernel_size=9))
    for wrong, message in (
        (dict(width=0.0), "width: got 0.0"),
        (dict(depth=-1.0), r"depth: got -1\.0"),
        (dict(kernel_size=4), "kernel_size: got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            make(name, **wrong)


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("head", ["o2o", "dfine", "fpnlite"])
def test_any_head_takes_it_by_one_line(swapped: Callable[[str, dict], tuple], name: str, head: str) -> None:
    found = swapped(head, dict(type=name, out_strides=(8, 16, 32), **CONFIGS[name]))
    if head == "fpnlite":
        assert found[0].shape == (1, 128, 192)
        return
    boxes, scores, labels = found[:3]
    assert boxes.shape == (1, scores.shape[1], 4) and scores.shape == labels.shape
