"""Deformable attention around points, and the embedding of points, by loops and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from efftasks.compression.folding import inference_model
from efftasks.models.layers.deformable_attention import DeformableAttention
from efftasks.models.layers.transformer import point_embedding
from efftasks.models.necks.hybrid_encoder import HybridEncoder
from efftasks.structures.features import FeatureSpec

CHANNELS, HEADS, POINTS = 8, 2, (2, 1)


def bilinear(level: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """A map (C, H, W) at x, y in cells, cell centres at 0.5; nothing outside."""
    total = torch.zeros(level.shape[0])
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < level.shape[1] and 0 <= column < level.shape[2]:
                total += level[:, row, column] * (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
    return total


def test_offsets_from_points_are_in_cells_of_each_map() -> None:
    attention: DeformableAttention = DeformableAttention(CHANNELS, HEADS, POINTS, reference="point")
    torch.nn.init.normal_(attention.sampling_offsets.weight, std=0.3)
    torch.nn.init.normal_(attention.attention_weights.weight)
    maps = [torch.randn(1, CHANNELS, 5, 7), torch.randn(1, CHANNELS, 3, 4)]
    query, points = torch.randn(1, 3, CHANNELS), torch.rand(1, 3, 2)
    with torch.no_grad():
        outputs = attention(query, points, maps)
        fused = inference_model(attention)(query, points, maps)
        offsets = attention.sampling_offsets(query).reshape(3, HEADS, 3, 2)
        weights = attention.attention_weights(query).reshape(3, HEADS, 3).softmax(-1)
    expected = torch.zeros(3, HEADS, CHANNELS // HEADS)
    for q in range(3):
        for head in range(HEADS):
            for point, level in enumerate((0, 0, 1)):
                height, width = maps[level].shape[-2:]
                x = float(points[0, q, 0]) * width + float(offsets[q, head, point, 0])
                y = float(points[0, q, 1]) * height + float(offsets[q, head, point, 1])
                part = maps[level][0].unflatten(0, (HEADS, -1))[head]
                expected[q, head] += weights[q, head, point] * bilinear(part, x, y)
    torch.testing.assert_close(outputs[0], expected.flatten(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fused, outputs, atol=1e-5, rtol=1e-4)


def test_points_are_embedded_y_first_with_waves_up_to_the_temperature() -> None:
    embedding = point_embedding(torch.tensor([[0.25, 0.5]]), 8, temperature=16.0)[0]
    # Two waves a coordinate: once around, and slower by the square root of 16.
    y, x = 2 * math.pi * 0.5, 2 * math.pi * 0.25
    expected = [f(angle / slow) for angle in (y, x) for slow in (1, 4) for f in (math.sin, math.cos)]
    torch.testing.assert_close(embedding, torch.tensor(expected), atol=1e-6, rtol=0)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="reference: got 'line'"):
        DeformableAttention(CHANNELS, HEADS, POINTS, reference="line")
    with pytest.raises(ValueError, match="channels: got 6"):
        point_embedding(torch.zeros(1, 2), 6)
    with pytest.raises(ValueError, match="position: got 'row'"):
        HybridEncoder((FeatureSpec(8, 16),), position="row")
