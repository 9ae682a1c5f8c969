"""Modules as they are given to LiteRT's converter: the same numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efftasks.export.graph_litert import ConvertibleCalls, NamedChannelsLast


class _Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images[:, 0], images.mean((1, 2, 3))


def test_images_come_with_channels_last_and_outputs_by_name():
    images = torch.rand(2, 3, 4, 5)
    outputs = NamedChannelsLast(_Pair(), ("red", "mean"))(anything=images.permute(0, 2, 3, 1).contiguous())
    assert list(outputs) == ["red", "mean"]
    assert torch.equal(outputs["red"], images[:, 0])
    torch.testing.assert_close(outputs["mean"], images.mean((1, 2, 3)))


def test_convertible_calls_give_the_same():
    values = torch.rand(2, 5, 7)
    calls = (
        lambda: values.topk(3, dim=1),
        lambda: torch.topk(values, 2),
        lambda: torch.topk(input=values, k=4, dim=0 - 2),
        lambda: torch.topk(values, 2, 1, False),
    )
    for call in calls:
        expected = call()
        with ConvertibleCalls():
            result = call()
        assert torch.equal(result.values, expected.values) and torch.equal(result.indices, expected.indices)
    with ConvertibleCalls():
        assert [part.shape[1] for part in values.split((2, 3), 1)] == [2, 3]
        (whole,) = values.split([5], 1)
        (same,) = torch.split(tensor=values, split_size_or_sections=5, dim=1)
    assert torch.equal(whole, values) and torch.equal(same, values)
