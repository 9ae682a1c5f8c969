"""Heatmaps of keypoints: by hand, what is not annotated, and a map that learns them."""

import math

import efftasks.compat  # noqa: F401

import pytest
import torch
from mmengine.registry import DefaultScope
from torch.testing import assert_close

from efftasks.models.pose_heads.keypoint_heatmaps import KeypointHeatmaps, keypoint_heatmaps
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import PaddedTargets

SIGMAS = torch.tensor([0.05, 0.1])


@pytest.fixture(autouse=True)
def scope():
    DefaultScope.get_instance("test-keypoint-heatmaps", scope_name="efftasks")


def targets_of(keypoints: list, areas: list[float], boxes: list, ignored: bool = False) -> PaddedTargets:
    valid = torch.ones(1, len(areas), dtype=torch.bool)
    return PaddedTargets(
        labels=torch.zeros(1, len(areas), dtype=torch.long),
        boxes=torch.tensor([boxes], dtype=torch.float32),
        valid=valid,
        ignored=valid & ignored,
        keypoints=torch.tensor([keypoints], dtype=torch.float32),
        areas=torch.tensor([areas]),
    )


def test_by_hand():
    # 10 px of spread for the first keypoint, 20 px for the second; cells of 8 px.
    targets = targets_of([[[17, 9, 2], [63, 63, 1]]], [10000.0], [[0, 0, 64, 64]])
    target_maps, counted = keypoint_heatmaps(targets, SIGMAS, (8, 8), 8)
    assert target_maps.shape == (1, 2, 8, 8) and bool(counted.all())
    assert target_maps[0, 0, 1, 2] == target_maps[0, 1, 7, 7] == 1 and int((target_maps == 1).sum()) == 2
    assert target_maps[0, 0, 1, 4].item() == pytest.approx(math.exp(-(16**2) / (2 * 10**2)))
    assert target_maps[0, 1, 6, 6].item() == pytest.approx(math.exp(-2 * 8**2 / (2 * 20**2)))


def test_a_small_object_has_a_spread_of_half_a_cell():
    target_maps, _ = keypoint_heatmaps(targets_of([[[4, 4, 2], [4, 4, 2]]], [1.0], [[0, 0, 8, 8]]), SIGMAS, (2, 2), 8)
    assert_close(target_maps[0, :, 0, 1], torch.full((2,), math.exp(-1 / (2 * 0.5**2))))


def test_of_two_objects_the_nearer_counts():
    one, other = [[4, 4, 2], [4, 4, 2]], [[28, 4, 2], [28, 4, 2]]
    areas, boxes = [6400.0, 1600.0], [[0, 0, 32, 8]] * 2
    both, _ = keypoint_heatmaps(targets_of([one, other], areas, boxes), SIGMAS, (1, 4), 8)
    alone = [
        keypoint_heatmaps(targets_of([o], [a], boxes[:1]), SIGMAS, (1, 4), 8)[0] for o, a in zip((one, other), areas)
    ]
    assert_close(both, torch.maximum(*alone))


def test_what_is_not_annotated_does_not_count():
    boxes = [[0, 0, 16, 16], [16, 0, 32, 16]]
    keypoints = [[[4, 4, 2], [0, 0, 0]], [[20, 4, 2], [12, 12, 2]]]
    target_maps, counted = keypoint_heatmaps(targets_of(keypoints, [100.0, 100.0], boxes), SIGMAS, (2, 4), 8)
    assert bool(counted[0, 0].all())
    # The second keypoint of the first object may be anywhere in its box; that of the other is known.
    assert counted[0, 1].tolist() == [[False, False, True, True], [False, True, True, True]]
    assert target_maps[0, 1, 1, 1] == 1
    _, crowd = keypoint_heatmaps(targets_of(keypoints, [100.0, 100.0], boxes, ignored=True), SIGMAS, (2, 4), 8)
    assert not crowd.any()


def test_a_map_learns_them_and_images_without_keypoints_teach_nothing():
    torch.manual_seed(0)
    heatmaps = KeypointHeatmaps(FeatureSpec(32, 8), 2, weight=2.0)
    feature = torch.randn(1, 32, 4, 4)
    targets = targets_of([[[4, 4, 2], [28, 20, 2]]], [400.0], [[0, 0, 32, 32]])
    optimizer = torch.optim.Adam(heatmaps.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = heatmaps.loss(heatmaps(feature), targets, SIGMAS)
        loss.backward()
        optimizer.step()
    scores = heatmaps(feature).sigmoid()[0].flatten(1)
    assert scores.argmax(1).tolist() == [0, 11] and scores.max(1).values.min() > 0.9 and loss < 0.2

    without = targets._replace(keypoints=None)
    optimizer.zero_grad()
    loss = heatmaps.loss(heatmaps(feature), without, SIGMAS)
    loss.backward()
    assert loss == 0 and all(p.grad is not None and not p.grad.any() for p in heatmaps.parameters())
