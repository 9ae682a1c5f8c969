"""Denoising of poses: what is noised how far."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from efftasks.models.pose_heads.detrpose_denoising import PoseDenoising
from efftasks.models.pose_heads.pose_raw import PoseTargets
from efftasks.ops.keypoints import squared_errors

CLASSES, POINTS, OTHERS = 5, 3, 7


def targets(most: int = 2) -> PoseTargets:
    """Two images of 200 x 100 pixels; the second has one object. A keypoint of the first is not annotated."""
    keypoints = torch.tensor(
        [[[0.4, 0.4, 1], [0.6, 0.5, 1], [0.0, 0.0, 0]], [[0.5, 0.5, 1], [0.4, 0.6, 1], [0.6, 0.6, 1]]]
    )
    return PoseTargets(
        labels=torch.tensor([[1, 4], [2, 0]])[:, :most],
        keypoints=keypoints.expand(2, 2, POINTS, 3)[:, :most].clone(),
        areas=torch.tensor([[400.0, 900.0], [600.0, 0.0]])[:, :most],
        valid=torch.tensor([[True, True], [True, False]])[:, :most],
        regions=torch.zeros(2, most, 4),
        sigmas=torch.tensor([0.05, 0.08, 0.1]),
        size=torch.tensor([200.0, 100.0]),
    )


def make(**changes: Any) -> PoseDenoising:
    torch.manual_seed(0)
    return PoseDenoising(CLASSES, POINTS, channels=8, **{"num_queries": 400, **changes})


def test_similarities_are_those_of_the_paper() -> None:
    made = make()(targets(), OTHERS)
    assert made.groups == 200 and made.content.shape == (2, 800, 1 + POINTS, 8)
    ground_truth = targets()
    poses = made.poses.unflatten(1, (200, 2, 2))  # group, positive or negative, object
    points, areas = (x[:, None, None] for x in (ground_truth.keypoints, ground_truth.areas))
    errors = squared_errors(poses * ground_truth.size, points[..., :2] * ground_truth.size, ground_truth.sigmas, areas)
    similarity = torch.exp(-errors[0])[..., :2][:, :, :1]  # the two annotated keypoints of the first object
    positive, negative = similarity[:, 0], similarity[:, 1]
    assert 0.5 - 1e-4 <= float(positive.min()) < 0.52 and 0.98 < float(positive.max()) <= 1
    assert 0.1 - 1e-4 <= float(negative.min()) < 0.12 and 0.48 < float(negative.max()) <= 0.5 + 1e-4


def test_directions_are_even() -> None:
    ground_truth = targets()
    moves = (
        make()(ground_truth, OTHERS).poses.unflatten(1, (-1, 2)) - ground_truth.keypoints[:, None, ..., :2]
    ) * ground_truth.size
    first = moves[0, :, 0, 0]
    assert float((first / first.norm(dim=-1, keepdim=True)).mean(0).abs().max()) < 0.15
    assert 0.8 < float(first[:, 0].std() / first[:, 1].std()) < 1.25, "as far across as down, in pixels"


def test_what_is_not_annotated_is_put_in_the_middle_and_padding_is_empty() -> None:
    made = make(label_noise=0.0)(targets(), OTHERS)
    poses, content = made.poses.unflatten(1, (-1, 2)), made.content.unflatten(1, (-1, 2))
    torch.testing.assert_close(poses[0, :, 0, 2], torch.tensor([0.5, 0.45]).expand(400, 2))
    assert bool((content[1, :, 1] == 0).all()) and bool((poses[1, :, 1] == 0.5).all())


def test_tokens_say_the_class_and_the_keypoint() -> None:
    denoising = make(label_noise=0.0)
    made = denoising(targets(), OTHERS)
    expected = torch.cat([denoising.label_tokens[4][None], denoising.keypoint_tokens])
    torch.testing.assert_close(made.content[0, 1], expected)


def test_labels_are_drawn_anew_at_times() -> None:
    denoising = make(label_noise=0.5)
    content = denoising(targets(), OTHERS).content[0, ::2, 0]
    wrong = (content - denoising.label_tokens[1]).abs().amax(-1) > 0
    assert float(wrong.float().mean()) == pytest.approx(0.25 * (CLASSES - 1) / CLASSES, abs=0.06)


def test_without_objects_there_are_no_queries_but_the_tokens_have_gradients() -> None:
    denoising = make()
    made = denoising(targets(most=0), OTHERS)
    assert made.poses.shape == (2, 0, POINTS, 2) and made.groups == 0 and made.blocked.shape == (OTHERS, OTHERS)
    made.content.sum().backward()
    assert all(p.grad is not None for p in denoising.parameters())
