"""Attention and norms against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from efftasks.compression.folding import inference_model
from efftasks.models.layers.deformable_attention import DeformableAttention
from efftasks.models.layers.transformer import RMSNorm, SelfAttention, build_norm, position_embedding


def test_attention_equals_torch_with_positions_and_a_mask() -> None:
    torch.manual_seed(0)
    own, reference = SelfAttention(32, 4), nn.MultiheadAttention(32, 4, batch_first=True)
    nn.init.normal_(own.in_proj_bias)
    reference.load_state_dict(own.state_dict())  # same names
    x, position = torch.randn(2, 9, 32), torch.randn(2, 9, 32)
    blocked = torch.rand(9, 9) > 0.6
    blocked.fill_diagonal_(False)
    for mask in (None, blocked):
        expected, _ = reference(x + position, x + position, x, attn_mask=mask)
        assert_close(own(x, position, mask), expected, atol=1e-5, rtol=1e-5)


def test_attention_fused_equals_trained() -> None:
    torch.manual_seed(0)
    own = SelfAttention(32, 4)
    nn.init.normal_(own.in_proj_bias)
    x, position = torch.randn(2, 9, 32), torch.randn(1, 9, 32)
    assert_close(inference_model(own)(x, position), own(x, position), atol=1e-5, rtol=1e-5)
    assert_close(inference_model(own)(x), own(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("sampling", ["grid_sample", "gather", "discrete"])
def test_deformable_attention_fused_equals_trained(project: bool, sampling: str) -> None:
    torch.manual_seed(0)
    own = DeformableAttention(32, 4, (3, 2), project, sampling)
    for parameter in own.parameters():
        nn.init.normal_(parameter, std=0.3)
    boxes = torch.rand(2, 6, 4) * 0.5 + 0.2
    maps = [torch.randn(2, 32, 8, 8), torch.randn(2, 32, 4, 4)]
    query = torch.randn(2, 6, 32)
    assert_close(inference_model(own)(query, boxes, maps), own(query, boxes, maps), atol=1e-5, rtol=1e-5)


def test_discrete_offsets_do_not_learn() -> None:
    own = DeformableAttention(32, 4, (2,), sampling="discrete")
    assert not any(parameter.requires_grad for parameter in own.sampling_offsets.parameters())
    with pytest.raises(ValueError, match=r"sampling: got 'nearest'"):
        DeformableAttention(32, 4, (2,), sampling="nearest")


def test_rms_norm_equals_torch() -> None:
    norm, reference = RMSNorm(16), nn.RMSNorm(16, eps=1e-6)
    nn.init.normal_(norm.weight)
    reference.weight.data = norm.weight.data
    x = torch.randn(3, 5, 16)
    assert_close(norm(x), reference(x), atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="norm: got 'batch'"):
        build_norm("batch", 16)


def test_positions_go_by_rows() -> None:
    table = position_embedding(2, 3, 8, torch.device("cpu")).reshape(2, 3, 8)
    assert_close(table[0, :, :4], table[0, :1, :4].expand(3, 4))  # the first half is the row's
    assert_close(table[:, 1, 4:], table[:1, 1, 4:].expand(2, 4))  # the second the column's
    assert_close(
        table[1, 2, [0, 2, 4, 6]],
        torch.tensor([1.0, 1.0, 2.0, 2.0])
        .mul_(1)
        .sin()[[0, 0, 2, 2]]
        .where(torch.tensor([True, False, True, False]), torch.tensor([1.0, 1.0, 2.0, 2.0]).cos()),
    )
