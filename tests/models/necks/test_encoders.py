"""The encoders of query detectors: shapes, fusing, mistakes."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from efftasks.compression.folding import inference_model
from efftasks.models.necks.hybrid_encoder import HybridEncoder
from efftasks.models.necks.lite_encoder import LiteEncoder
from efftasks.structures.features import FeatureSpec

SPECS = (FeatureSpec(24, 8), FeatureSpec(32, 16), FeatureSpec(40, 32))


@pytest.mark.parametrize("block", ["csp", "elan"])
@pytest.mark.parametrize("fusion", ["cat", "sum"])
def test_hybrid_maps_are_as_declared_and_fused_equals_trained(block: str, fusion: str) -> None:
    torch.manual_seed(0)
    neck = HybridEncoder(SPECS, channels=32, ffn_channels=48, num_heads=4, block=block, fusion=fusion, depth=1)
    features = [torch.randn(2, spec.channels, 64 // spec.stride * 2, 96 // spec.stride * 2) for spec in SPECS]
    neck.train()(features)
    neck.eval()
    maps = neck(features)
    assert [spec.stride for spec in neck.specs] == [8, 16, 32]
    for feature, before in zip(maps, features, strict=True):
        assert feature.shape == (2, 32, *before.shape[-2:])
    for a, b in zip(inference_model(neck)(features), maps):
        assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_attention_sees_the_whole_coarsest_map() -> None:
    torch.manual_seed(0)
    neck = HybridEncoder(SPECS[2:], channels=32, ffn_channels=48, num_heads=4).eval()
    feature = torch.randn(1, 40, 4, 4)
    changed = feature.clone()
    changed[..., 0, 0] += 10
    difference = (neck([feature])[0] - neck([changed])[0]).abs().amax(1)[0]
    assert bool((difference > 1e-6).all()), "every cell hears of the corner"


def test_lite_makes_two_maps_of_one() -> None:
    torch.manual_seed(0)
    neck = LiteEncoder(SPECS[1:2], channels=16, depth=1)
    feature = torch.randn(2, 32, 8, 12)
    neck.train()([feature])
    neck.eval()
    fine, coarse = neck([feature])
    assert fine.shape == (2, 16, 8, 12) and coarse.shape == (2, 16, 4, 6)
    assert [spec.stride for spec in neck.specs] == [16, 32]
    for a, b in zip(inference_model(neck)([feature]), (fine, coarse)):
        assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="in_specs: got 3 maps, expected one"):
        LiteEncoder(SPECS, channels=16)
    with pytest.raises(ValueError, match="block: got 'dense'"):
        HybridEncoder(SPECS, block="dense")
    with pytest.raises(ValueError, match=r"in_specs: got strides \[8, 32\]"):
        HybridEncoder((SPECS[0], SPECS[2]))
