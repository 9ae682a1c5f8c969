"""The light pyramid: its formula step by step, sizes that do not divide, cost."""

from __future__ import annotations

import efftasks.compat  # noqa: F401

# isort: split
import torch
from torch import nn
from torch.nn import functional

from efftasks.compression.folding import inference_model
from efftasks.models.seg_heads.fpn_lite_head import FPNLiteHead

CE = dict(type="mmseg.CrossEntropyLoss")


def make(**changes: object) -> FPNLiteHead:
    torch.manual_seed(0)
    arguments = dict(in_channels=(8, 12, 20), channels=16, num_classes=5, in_index=(0, 1, 2), loss_decode=CE)
    head = FPNLiteHead(**{**arguments, **changes})  # type: ignore[arg-type]
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return head.eval()


def test_top_down_by_the_formula() -> None:
    head = make().double()
    maps = [torch.rand(2, c, *size, dtype=torch.float64) for c, size in ((8, (13, 17)), (12, (7, 9)), (20, (4, 5)))]
    a, b, c = (lateral(x) for lateral, x in zip(head.laterals, maps))
    pooled = c.mean((2, 3), keepdim=True)
    (_, gate, _) = head.context.gate
    c = c * torch.sigmoid(functional.conv2d(pooled, gate.weight, gate.bias))
    b = head.smooth[0](b + c[:, :, [0, 0, 1, 1, 2, 2, 3]][..., [0, 0, 1, 1, 2, 2, 3, 3, 4]])
    a = head.smooth[1](a + functional.interpolate(b, (13, 17), mode="nearest"))
    torch.testing.assert_close(head(tuple(maps)), head.conv_seg(head.mix(a)))


def test_fused_it_is_the_same() -> None:
    head = make().double()
    maps = tuple(torch.rand(1, c, n, n, dtype=torch.float64) for c, n in ((8, 16), (12, 8), (20, 4)))
    torch.testing.assert_close(inference_model(head)(maps), head(maps), atol=1e-10, rtol=1e-9)


def test_parameters_by_hand() -> None:
    c = 16
    laterals = (8 + 12 + 20) * c + 3 * 2 * c
    smooth = 2 * (25 * c + 2 * c + c * c + 2 * c)
    rest = (c * c + c) + (9 * c * c + 2 * c) + (c * 5 + 5)
    assert sum(p.numel() for p in make().parameters()) == laterals + smooth + rest
