"""The families of timm that the field uses, as backbones: each keeps what a backbone promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import efftasks.compat  # noqa: F401

import numpy as np
import onnxruntime
import pytest
import torch

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.base import Backbone, build_backbone

FAMILIES = [
    "mobilenetv1_100",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_050",
    "mobilenetv4_hybrid_medium",
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnetv2_rw_t",
    "tinynet_e",
    "mnasnet_small",
    "lcnet_050",
    "semnasnet_075",
    "mixnet_s",
    "fbnetc_100",
    "hardcorenas_a",
    "rexnet_100",
    "ghostnet_100",
    "ghostnetv2_100",
    "ghostnetv3_100",
    "repghostnet_050",
    "regnetx_002",
    "regnety_002",
    "resnext26ts",
    "resnet10t",
    "repvgg_a0",
    "mobileone_s0",
    "fasternet_t0",
    "repvit_m0_9",
    "starnet_s1",
    "fastvit_t8",
    "efficientvit_b0",
    "efficientvit_m0",
    "shvit_s1",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "edgenext_xx_small",
    "swiftformer_xs",
    "convnextv2_atto",
    "hgnetv2_b0",
    "mambaout_femto",
    "inception_next_atto",
    "pvt_v2_b0",
    "ese_vovnet19b_dw",
    "tiny_vit_5m_224",
    "iformer_s",
]
COARSE = {"efficientvit_m0": (16, 32, 64), "shvit_s1": (16, 32, 64)}  # these begin at stride 16


@pytest.fixture(scope="module", autouse=True)
def timm() -> None:
    pytest.importorskip("timm", exc_type=ImportError)


def make(name: str) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(dict(type="TimmBackbone", name=name, out_strides=COARSE.get(name, (8, 16, 32))))


@pytest.mark.parametrize("name", FAMILIES)
def test_keeps_its_promises(name: str) -> None:
    net = make(name)
    x = torch.rand(2, 3, 3 * 64, 2 * 64)  # odd multiples of most strides
    maps = net.train()(x)
    assert [tuple(m.shape) for m in maps] == [(2, s.channels, 192 // s.stride, 128 // s.stride) for s in net.specs]
    sum((m * torch.rand_like(m)).sum() for m in maps).backward()
    missing = [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    # Behind a learnable scale that starts at zero, or a norm, a gradient may be zero; it must be a number.
    assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)

    net.eval()
    fused = inference_model(net)
    with torch.no_grad():
        for expected, found in zip(net(x), fused(x), strict=True):
            scale = expected.abs().max()
            torch.testing.assert_close(found / scale, expected / scale, atol=2e-5, rtol=0)
    net.freeze(["norms"])
    before = {key: value.clone() for key, value in net.state_dict().items() if "running" in key}
    net.train()(x)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


UNDER = [("o2o", name) for name in FAMILIES] + [(head, name) for head in ("dfine", "fpnlite") for name in FAMILIES[::8]]


@pytest.mark.parametrize(("head", "name"), UNDER)
def test_builds_under_heads_that_read_its_declaration(
    swapped: Callable[[str, dict], tuple], head: str, name: str
) -> None:
    found = swapped(head, dict(type="TimmBackbone", name=name, out_strides=COARSE.get(name, (8, 16, 32))))
    assert sum(output is not None for output in found) == (1 if head == "fpnlite" else 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_exports(name: str, tmp_path: Path) -> None:
    net = inference_model(make(name))
    x = torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        expected = net(x)
        torch.onnx.export(net, (x,), str(tmp_path / "net.onnx"), dynamo=True, opset_version=18, verbose=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    for got, want in zip(found, expected, strict=True):
        scale = float(want.abs().max())
        np.testing.assert_allclose(got / scale, want.numpy() / scale, atol=1e-4)
