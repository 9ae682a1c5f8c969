"""Keypoints of points: in numbers by hand, and in a head that learns."""

from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from torch.testing import assert_close

from efftasks.compression.folding import inference_model
from efftasks.models.det_heads.o2o_head import O2OHead, PartOverlaps
from efftasks.models.det_heads.o2o_parts import Pairs
from efftasks.models.pose_heads.point_keypoints import PointKeypoints
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import PaddedTargets

SPECS = (FeatureSpec(16, 8), FeatureSpec(24, 16))


@pytest.fixture(autouse=True)
def scope():
    DefaultScope.get_instance("test-point-keypoints", scope_name="efftasks")


def make_part(count: int = 2, **kwargs) -> PointKeypoints:
    return PointKeypoints(SPECS, 1, sigmas=[0.05] * count, branch_channels=8, **kwargs)


def targets_of(keypoints: list, areas: list[float], boxes: list | None = None) -> PaddedTargets:
    count = len(areas)
    return PaddedTargets(
        labels=torch.zeros(1, count, dtype=torch.long),
        boxes=torch.tensor([boxes or [[0.0, 0.0, 40.0, 40.0]] * count]),
        valid=torch.ones(1, count, dtype=torch.bool),
        ignored=torch.zeros(1, count, dtype=torch.bool),
        keypoints=torch.tensor([keypoints], dtype=torch.float32),
        areas=torch.tensor([areas]),
    )


def pairs_of(targets: list[int], point: list[float], stride: float) -> Pairs:
    count = len(targets)
    return Pairs(
        torch.zeros(count, dtype=torch.long),
        torch.tensor(targets),
        torch.tensor([point] * count),
        torch.full((count, 1), stride),
    )


def test_decoding_by_hand():
    # x of both, y of both, visibility of both; offsets in units of two strides.
    values = torch.tensor([[[0.5, -1.0, 0.25, 2.0, 0.0, 3.0]]])
    detections = make_part().decode(values, None, torch.tensor([[[20.0, 12.0]]]), torch.tensor([[[8.0]]]))
    sure = 1 / (1 + np.exp(-3.0))
    assert_close(detections[0, 0], torch.tensor([[28.0, 16.0, 0.5], [4.0, 44.0, sure]], dtype=torch.float32))


def test_overlap_is_oks_and_unknown_without_keypoints():
    part = make_part()
    targets = targets_of([[[28, 16, 2], [4, 44, 2]], [[0, 0, 0], [0, 0, 0]]], [1600.0, 900.0])
    values = torch.tensor([[0.5, -1.0, 0.25, 2.0, 0.0, 0.0]]).expand(2, 6)
    actual = part.overlap(values, None, pairs_of([0, 1], [20.0, 12.0], 8.0), targets)
    assert_close(actual[0], torch.tensor(1.0))
    assert bool(actual[1].isnan())


def test_losses_by_hand():
    part = make_part(oks_weight=2.0, l1_weight=3.0, visibility_weight=5.0, likelihood_weight=0.0)
    # The first keypoint is 10 px off in x, the second is not annotated.
    targets = targets_of([[[38, 16, 1], [0, 0, 0]]], [10000.0])
    values = torch.tensor([[0.5, -1.0, 0.25, 2.0, 1.0, -2.0]])
    losses = part.losses(
        values, None, pairs_of([0], [20.0, 12.0], 8.0), targets, torch.tensor([0.5]), torch.tensor(4.0)
    )
    oks = np.exp(-100 / (2 * 10000 * 0.1**2))
    assert_close(losses["oks"], torch.tensor(2 * (1 - oks) * 0.5 / 4, dtype=torch.float32))
    assert_close(losses["kpt_l1"], torch.tensor(3 * 0.1 * 0.5 / 4))
    visible = (np.log1p(np.exp(-1.0)) + np.log1p(np.exp(-2.0))) / 2
    assert_close(losses["kpt_visible"], torch.tensor(5 * visible * 0.5 / 4, dtype=torch.float32))
    assert "kpt_rle" not in losses


def test_objects_without_keypoints_teach_nothing():
    part = make_part().train()
    targets = targets_of([[[7, 9, 0], [0, 0, 0]]], [400.0])
    values = torch.randn(3, 10, requires_grad=True)
    pairs = pairs_of([0, 0, 0], [20.0, 12.0], 8.0)
    losses = part.losses(values, None, pairs, targets, torch.ones(3), torch.tensor(1.0))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total == 0 and values.grad is not None and values.grad.abs().sum() == 0


def test_spreads_are_for_training_alone():
    part = make_part()
    branch = part.new_branch()
    maps = [torch.randn(1, spec.channels, 4, 4) for spec in SPECS]
    assert branch.train()(maps).shape == (1, 10, 32)
    plain = branch.eval()(maps)
    fused = inference_model(branch)
    assert plain.shape == (1, 6, 32)
    assert_close(fused(maps), plain, atol=1e-5, rtol=0)
    assert not any("spreads" in name for name, _ in fused.named_parameters())


def test_heatmaps_are_for_training_alone():
    part = make_part().train()
    maps = [torch.randn(1, spec.channels, 4, 4) for spec in SPECS]
    targets = targets_of([[[4, 4, 2], [20, 12, 2]]], [400.0])
    shown = part.shared(maps)
    assert shown is not None and shown.shape == (1, 2, 4, 4)
    assert set(part.common_losses(shown, targets)) == {"loss_heatmap"}
    assert part.eval().shared(maps) is None and part.common_losses(None, targets) == {}
    assert not list(inference_model(part).parameters())
    assert make_part(heatmap_weight=0.0).train().shared(maps) is None


def test_no_sigmas_is_named():
    with pytest.raises(ValueError, match=r"sigmas: got \[\], expected one for each keypoint"):
        make_part(0)


def make_head(count: int, **part: Any) -> O2OHead:
    return O2OHead(
        SPECS,
        1,
        assigner=dict(type="TaskAlignedAssigner", topk=7, keep=1),
        one_to_many_assigner=dict(type="TaskAlignedAssigner", topk=10),
        loss_class=dict(type="SoftBCELoss"),
        losses_box=dict(iou=dict(type="CIoULoss"), l1=dict(type="L1BoxLoss")),
        parts=dict(keypoints=dict(type="PointKeypoints", sigmas=[0.05] * count, **part)),
        max_detections=10,
    ).train()


@pytest.mark.parametrize("affects_score", [True, False])
def test_the_assigner_gets_whether_keypoints_affect_the_score(affects_score):
    head = make_head(2, affects_score=affects_score)
    raw = head([torch.zeros(1, s.channels, 64 // s.stride, 64 // s.stride) for s in SPECS])
    targets = targets_of([[[4, 4, 2], [20, 12, 2]]], [400.0])
    overlaps = PartOverlaps(raw.one_to_one, raw, dict(head.parts.items()), targets)
    zero = torch.zeros(1, dtype=torch.long)
    assert [overlap.affects_score for overlap in overlaps(zero, zero, zero)] == [affects_score]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 17])
def test_learns_the_keypoints_of_a_scene(count):
    torch.manual_seed(0)
    head = make_head(count)
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(1, s.channels, 64 // s.stride, 64 // s.stride, generator=generator) for s in SPECS]
    boxes = [[4.0, 4.0, 28.0, 30.0], [30.0, 24.0, 62.0, 60.0]]
    corner = torch.tensor(boxes)[:, None, :2]
    sides = torch.tensor(boxes)[:, None, 2:] - corner
    places = corner + torch.rand(2, count, 2, generator=generator) * sides
    points = torch.cat([places, torch.full((2, count, 1), 2.0)], -1)
    points[0, 0, 2] = 0  # one of them is not annotated
    targets = targets_of(points.tolist(), [500.0, 900.0], boxes)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    head.set_progress(0.5)
    for _ in range(350):
        optimizer.zero_grad()
        torch.stack(list(head.loss(inputs, targets).values())).sum().backward()
        optimizer.step()
    detections = head.eval().decode(head(inputs))
    assert detections.keypoints is not None
    for box, ground_truth in zip(boxes, points):
        best = int(((detections.boxes[0] - torch.tensor(box)).abs().amax(-1) - 10 * detections.scores[0]).argmin())
        seen = ground_truth[:, 2] > 0
        off = (detections.keypoints[0, best, :, :2] - ground_truth[:, :2]).norm(dim=-1)
        assert off[seen].max() < 2.5
        assert bool((detections.keypoints[0, best, seen, 2] > 0.5).all())
