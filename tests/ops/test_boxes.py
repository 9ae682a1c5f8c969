import efftasks.compat  # noqa: F401

import pytest
import torch
from mmdet.models.losses.iou_loss import ciou_loss
from mmdet.structures.bbox import bbox_overlaps
from torch.testing import assert_close

from efftasks.ops.boxes import (
    box_area,
    box_ciou,
    box_giou,
    box_iou,
    cxcywh_to_xyxy,
    decode_distances,
    encode_distances,
    points_inside,
    xyxy_to_cxcywh,
)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * 100
    return torch.cat([corners.amin(1), corners.amax(1)], dim=-1)


def test_iou_by_hand():
    a = torch.tensor([0.0, 0.0, 2.0, 2.0])
    b = torch.tensor([1.0, 1.0, 3.0, 3.0])
    assert_close(box_iou(a, b), torch.tensor(1 / 7))
    assert_close(box_area(torch.tensor([[0.0, 0.0, 2.0, 3.0], [5.0, 5.0, 4.0, 9.0]])), torch.tensor([6.0, 0.0]))


def test_iou_equals_mmdet_on_all_pairs():
    a, b = random_boxes(20, 0), random_boxes(30, 1)
    assert_close(box_iou(a[:, None], b[None]), bbox_overlaps(a, b), atol=1e-5, rtol=1e-4)


def test_ciou_and_its_gradient_equal_mmdet():
    # mmdet drops the aspect term below an IoU of 0.5 (the authors' later code); above, both are the paper's.
    b = random_boxes(200, 3)
    a = b + torch.randn(200, 4, generator=torch.Generator().manual_seed(2)) * 2
    near = box_iou(a, b) > 0.5
    a, b = a[near].requires_grad_(), b[near]
    assert len(a) > 50
    ours, theirs = 1 - box_ciou(a, b), ciou_loss(a, b, reduction="none")
    assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(ours.sum(), a, retain_graph=True)
    (expected,) = torch.autograd.grad(theirs.sum(), a)
    assert_close(gradient, expected, atol=1e-3, rtol=1e-3)


def test_ciou_of_equal_and_of_empty_boxes_is_finite():
    boxes = random_boxes(5, 4)
    assert_close(box_ciou(boxes, boxes), torch.ones(5), atol=1e-4, rtol=0)
    degenerate = torch.zeros(1, 4, requires_grad=True)
    box_ciou(degenerate, boxes[:1]).sum().backward()
    assert degenerate.grad is not None and torch.isfinite(degenerate.grad).all()


def test_distances_round_trip():
    boxes, points = random_boxes(40, 5), torch.rand(40, 2) * 100
    assert_close(decode_distances(points, encode_distances(points, boxes)), boxes)
    assert_close(
        encode_distances(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 1.0, 10.0, 20.0])),
        torch.tensor([2.0, 3.0, 7.0, 16.0]),
    )


@pytest.mark.parametrize(("point", "inside"), [((1.0, 1.0), True), ((0.0, 1.0), False), ((3.0, 1.0), False)])
def test_points_inside_is_strict(point, inside):
    assert points_inside(torch.tensor([point]), torch.tensor([[0.0, 0.0, 2.0, 2.0]])).item() is inside


def test_giou_equals_mmdet_on_all_pairs():
    a, b = random_boxes(20, 0), random_boxes(30, 1)
    assert_close(box_giou(a[:, None], b[None]), bbox_overlaps(a, b, mode="giou"), atol=1e-5, rtol=1e-4)


def test_iou_does_not_depend_on_the_unit():
    a, b = random_boxes(20, 0), random_boxes(30, 1)
    small = box_iou(a[:, None] / 1000, b[None] / 1000)
    assert_close(small, box_iou(a[:, None], b[None]), rtol=1e-5, atol=1e-7)


def test_center_form_there_and_back():
    boxes = random_boxes(50, 5)
    assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)
    assert_close(cxcywh_to_xyxy(torch.tensor([5.0, 6.0, 2.0, 4.0])), torch.tensor([4.0, 4.0, 6.0, 8.0]))
