"""Distributions of box sides: values of the bins by hand, and there and back."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from efftasks.ops.boxes import cxcywh_to_xyxy
from efftasks.ops.distribution import bin_targets, bin_values, distances_to_boxes


def test_bin_values_by_hand() -> None:
    values = bin_values(reg_max=6, up=0.5, reg_scale=4.0)  # bound 2, step 3 ** 0.5
    step = 3**0.5
    assert_close(values, torch.tensor([-4.0, 1 - step**2, 1 - step, 0.0, step - 1, step**2 - 1, 4.0]))
    published = bin_values()
    assert len(published) == 33
    assert_close(published[[0, 1, 16, 31, 32]], torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0]))
    assert_close(published, -published.flip(0))


def test_no_distance_keeps_the_box() -> None:
    initial = torch.tensor([[0.4, 0.5, 0.2, 0.3]])
    assert_close(distances_to_boxes(initial, torch.zeros(1, 4), 4.0), initial)
    # The left side moves out by a quarter of the width (one unit of size / 4).
    moved = distances_to_boxes(initial, torch.tensor([[1.0, 0.0, 0.0, 0.0]]), 4.0)
    assert_close(cxcywh_to_xyxy(moved), torch.tensor([[0.25, 0.35, 0.5, 0.65]]))


def test_targets_decode_to_the_boxes_they_were_made_of() -> None:
    g = torch.Generator().manual_seed(0)
    initial = torch.cat([torch.rand(50, 2, generator=g) * 0.4 + 0.3, torch.rand(50, 2, generator=g) * 0.3 + 0.1], 1)
    boxes = initial + 0.03 * torch.randn(50, 4, generator=g)
    boxes[:, 2:] = boxes[:, 2:].clamp(min=0.02)
    for scale in (4.0, 8.0):
        values = bin_values(reg_scale=scale)
        left, weight_left, weight_right = bin_targets(initial, cxcywh_to_xyxy(boxes), values, scale)
        assert_close(weight_left + weight_right, torch.ones_like(weight_left))
        distances = weight_left * values[left] + weight_right * values[left + 1]
        assert_close(distances_to_boxes(initial, distances, scale), boxes, atol=1e-5, rtol=1e-4)


def test_far_targets_go_to_the_last_bins() -> None:
    initial = torch.tensor([[0.5, 0.5, 0.01, 0.01]])
    left, _, weight_right = bin_targets(initial, torch.tensor([[0.0, 0.504, 1.0, 0.506]]), bin_values(), 4.0)
    assert left.tolist()[0][0] == 31 and float(weight_right[0, 0]) == 1.0
    assert left.tolist()[0][2] == 31
