import efftasks.compat  # noqa: F401

import pytest
import torch
from mmdet.models.task_modules.assigners import TaskAlignedAssigner as Reference
from mmengine.structures import InstanceData
from torch.testing import assert_close

from efftasks.models.assigners.task_aligned import Overlap, TaskAlignedAssigner
from efftasks.ops.boxes import points_inside
from efftasks.structures.instances import PaddedTargets


def grid_points(side: int, stride: float) -> torch.Tensor:
    axis = (torch.arange(side) + 0.5) * stride
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def targets(boxes: list[list[float]], labels: list[int], ignored: list[bool] | None = None) -> PaddedTargets:
    count = len(labels)
    return PaddedTargets(
        torch.tensor([labels], dtype=torch.long),
        torch.tensor([boxes]).reshape(1, count, 4),
        torch.ones(1, count, dtype=torch.bool),
        torch.tensor([ignored or [False] * count]),
    )


def noisy_predictions(points: torch.Tensor, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    half = 10 + 20 * torch.rand(len(points), 2, generator=generator)
    boxes = torch.cat([points - half, points + half], -1)
    return torch.rand(len(points), classes, generator=generator), boxes


@pytest.mark.parametrize("seed", range(5))
def test_one_to_many_equals_mmdet(seed):
    """mmdet's assigner of the TOOD paper, with the same exponents and no floor for small boxes.

    mmdet takes the ten best points and then drops those outside; here only points inside compete. Scores of next to
    nothing outside, and objects apart, make the two the same.
    """
    points = grid_points(16, 8.0)
    scores, boxes = noisy_predictions(points, 3, seed)
    ground_truth = targets([[10.0, 10.0, 60.0, 62.0], [66.0, 6.0, 126.0, 60.0], [34.0, 70.0, 100.0, 118.0]], [0, 2, 1])
    scores[~points_inside(points, ground_truth.boxes[0]).any(0)] = 1e-12
    ours = TaskAlignedAssigner(topk=10, alpha=1.0, beta=6.0, min_side=1e-3)(
        scores[None], boxes[None], points, ground_truth
    )
    theirs = Reference(topk=10, iou_calculator=dict(type="BboxOverlaps2D", _scope_="mmdet")).assign(
        InstanceData(priors=torch.cat([points, points], -1), bboxes=boxes, scores=scores),
        InstanceData(bboxes=ground_truth.boxes[0], labels=ground_truth.labels[0]),
        alpha=1,
        beta=6,
    )
    assert torch.equal(ours.foreground[0], theirs.gt_inds > 0)
    chosen = ours.foreground[0]
    assert chosen.sum() > 20
    assert torch.equal(ours.target[0][chosen], theirs.gt_inds[chosen] - 1)


def test_a_point_wanted_by_two_objects_goes_to_the_one_it_overlaps_more():
    points = torch.tensor([[50.0, 50.0]])
    boxes = torch.tensor([[[0.0, 0.0, 100.0, 100.0]]])
    ground_truth = targets([[40.0, 40.0, 60.0, 60.0], [0.0, 0.0, 100.0, 90.0]], [0, 1])
    assigned = TaskAlignedAssigner()(torch.tensor([[[0.99, 0.01]]]), boxes, points, ground_truth)
    assert assigned.target.item() == 1
    assert_close(assigned.quality.item(), 0.9, atol=1e-5, rtol=0)  # the only point of its object: its IoU


def test_quality_of_the_best_point_is_the_best_overlap():
    points = grid_points(8, 8.0)
    scores, boxes = noisy_predictions(points, 1, 7)
    ground_truth = targets([[5.0, 5.0, 50.0, 50.0]], [0])
    assigned = TaskAlignedAssigner()(scores[None], boxes[None], points, ground_truth)
    chosen = boxes[assigned.foreground[0]]
    overlap = Reference(1, dict(type="BboxOverlaps2D", _scope_="mmdet")).iou_calculator(chosen, ground_truth.boxes[0])
    assert_close(assigned.quality.max(), overlap.max(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_one_to_one_gives_each_object_at_most_one_point(seed):
    points = grid_points(16, 8.0)
    scores, boxes = noisy_predictions(points, 2, seed)
    ground_truth = targets([[10.0, 10.0, 60.0, 70.0], [12.0, 12.0, 62.0, 72.0], [70.0, 70.0, 120.0, 120.0]], [0, 0, 1])
    assigned = TaskAlignedAssigner(topk=7, keep=1)(scores[None], boxes[None], points, ground_truth)
    owners = assigned.target[0][assigned.foreground[0]].tolist()
    # Two objects nearly on top of each other: each still finds a point of its own.
    assert sorted(owners) == [0, 1, 2]


def test_a_tiny_box_between_points_is_not_lost():
    points = grid_points(8, 8.0)  # at 4, 12, 20 ...
    scores, boxes = noisy_predictions(points, 1, 0)
    ground_truth = targets([[7.0, 7.0, 9.0, 9.0]], [0])
    assert not TaskAlignedAssigner(min_side=1e-3)(scores[None], boxes[None], points, ground_truth).foreground.any()
    assigned = TaskAlignedAssigner(min_side=16.0)(scores[None], boxes[None], points, ground_truth).foreground
    assert assigned.sum() == 4  # the four points around it


def test_further_overlaps_are_averaged_by_their_weight():
    points = grid_points(2, 8.0)  # at 4 and 12
    boxes = torch.tensor([[[0.0, 0, 16, 16], [0, 0, 16, 12], [0, 0, 16, 8], [0, 0, 16, 4]]])  # IoU 1, 3/4, 1/2, 1/4
    scores = torch.full((1, 4, 1), 0.25)
    ground_truth = targets([[0.0, 0.0, 16.0, 16.0]], [0])
    further = torch.tensor([0.0, 0.75, 1.0, torch.nan])

    def other_overlaps(image, target, point):
        assert not image.any() and not target.any()
        return [Overlap(further[point], True), Overlap(torch.full((len(point),), torch.nan), True)]

    for weight, expected in ((0.0, [1, 3 / 4, 1 / 2, 1 / 4]), (1.0, [1 / 2, 3 / 4, 3 / 4, 1 / 4])):
        assigned = TaskAlignedAssigner(alpha=0.0, beta=1.0)(scores, boxes, points, ground_truth, other_overlaps, weight)
        assert_close(assigned.quality[0], torch.tensor(expected))
    half = TaskAlignedAssigner(alpha=0.0, beta=1.0)(scores, boxes, points, ground_truth, other_overlaps, 0.5)
    assert_close(half.quality[0], torch.tensor([2 / 3, 3 / 4, 2 / 3, 1 / 4]))
    both = TaskAlignedAssigner(alpha=0.0, beta=1.0)(
        scores,
        boxes,
        points,
        ground_truth,
        lambda i, t, p: [Overlap(further[p], True), Overlap(torch.full((len(p),), 0.5), True)],
    )
    # The means of 1, 0, 1/2; of 3/4, 3/4, 1/2; of 1/2, 1, 1/2; and, where one is unknown, of 1/4, 1/2.
    assert_close(both.quality[0], torch.tensor([1 / 2, 2 / 3, 2 / 3, 3 / 8]))
    best = TaskAlignedAssigner(topk=4, keep=1, alpha=0.0, beta=1.0)(
        scores, boxes, points, ground_truth, other_overlaps, 0.5
    )
    assert best.foreground[0].tolist() == [False, True, False, False]


@pytest.mark.parametrize("affects_score, best", [(True, 1 / 2), (False, 1.0)])
def test_an_overlap_that_does_not_affect_the_score_is_in_the_metric_alone(affects_score, best):
    points = grid_points(2, 8.0)
    boxes = torch.tensor([[[0.0, 0, 16, 16], [0, 0, 16, 12], [0, 0, 16, 8], [0, 0, 16, 4]]])  # IoU 1, 3/4, 1/2, 1/4
    scores = torch.full((1, 4, 1), 0.25)
    ground_truth = targets([[0.0, 0.0, 16.0, 16.0]], [0])

    def assigned(further, **kwargs):
        assigner = TaskAlignedAssigner(topk=2, alpha=0.0, beta=1.0, **kwargs)
        return assigner(scores, boxes, points, ground_truth, lambda i, t, p: [Overlap(further[p], affects_score)])

    # The means are 1/2, 1/2, 5/16, 1/8: the first two are taken, and are as good as each other.
    assignment = assigned(torch.tensor([0.0, 0.25, 0.125, 0.0]))
    assert_close(assignment.quality[0], torch.tensor([best, best, 0, 0]))
    # The means are 1/2, 3/4, 5/8, 1/8: the second is taken, whose box has 3/4 as well.
    assignment = assigned(torch.tensor([0.0, 0.75, 0.75, 0.0]), keep=1)
    assert_close(assignment.quality[0], torch.tensor([0, 3 / 4, 0, 0]))


def test_no_objects_and_crowds():
    points = grid_points(8, 8.0)
    scores, boxes = noisy_predictions(points, 2, 0)
    nothing = TaskAlignedAssigner()(scores[None], boxes[None], points, targets([], []))
    assert not nothing.foreground.any() and not nothing.ignored.any() and nothing.quality.sum() == 0
    crowd = TaskAlignedAssigner()(
        scores[None], boxes[None], points, targets([[0.0, 0.0, 32.0, 64.0]], [0], ignored=[True])
    )
    assert not crowd.foreground.any()
    assert crowd.ignored.sum() == 32  # the left half of the 8 x 8 points


def test_padding_changes_nothing():
    points = grid_points(8, 8.0)
    scores, boxes = noisy_predictions(points, 2, 3)
    one = targets([[5.0, 5.0, 50.0, 50.0]], [1])
    padded = PaddedTargets(*(torch.cat([x, torch.zeros_like(x)], 1) for x in one[:4]))
    a = TaskAlignedAssigner()(scores[None], boxes[None], points, one)
    b = TaskAlignedAssigner()(scores[None], boxes[None], points, padded)
    assert all(torch.equal(x, y) for x, y in zip(a, b))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="topk and keep: got 3 and 4"):
        TaskAlignedAssigner(topk=3, keep=4)
