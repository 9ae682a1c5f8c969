"""Denoising queries: what is noised how far, and who sees whom."""

from __future__ import annotations

import torch

from efftasks.models.det_heads.denoising import ContrastiveDenoising
from efftasks.models.det_heads.query_raw import QueryTargets
from efftasks.ops.boxes import box_iou, cxcywh_to_xyxy

CLASSES, QUERIES = 5, 7


def targets() -> QueryTargets:
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.3, 0.6, 0.1, 0.1]], [[0.4, 0.4, 0.3, 0.3], [0.0] * 4]])
    return QueryTargets(torch.tensor([[1, 4], [2, 0]]), boxes, torch.tensor([[True, True], [True, False]]))


def make(**changes: float) -> ContrastiveDenoising:
    torch.manual_seed(0)
    return ContrastiveDenoising(CLASSES, channels=8, num_queries=20, **changes)


def test_groups_fill_the_number_asked_for() -> None:
    made = make()(targets(), QUERIES)
    assert made.groups == 10  # 20 queries over at most 2 objects
    assert made.content.shape == (2, 10 * 2 * 2, 8)
    assert made.boxes.shape == (2, 40, 4)


def test_positives_stay_near_and_negatives_go_further() -> None:
    made = make(box_noise=1.0)(targets(), QUERIES)
    boxes = made.boxes.reshape(2, made.groups, 2, 2, 4)  # image, group, positive or negative, object
    truth = targets().boxes[:, None, None].expand_as(boxes)
    overlap = box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(truth))
    assert float(overlap[0, :, 0].mean()) > float(overlap[0, :, 1].mean()) + 0.1
    sides = (cxcywh_to_xyxy(boxes) - cxcywh_to_xyxy(truth)).abs()
    half = truth[..., 2:].repeat(1, 1, 1, 1, 2) / 2
    assert bool((sides[0, :, 0] <= half[0, :, 0] + 1e-6).all())
    assert bool((boxes >= 0).all() and (boxes <= 1).all())


def test_without_noise_positives_are_the_objects() -> None:
    denoising = make(label_noise=0.0, box_noise=0.0)
    made = denoising(targets(), QUERIES)
    expected = targets().boxes.repeat(1, 20, 1)
    torch.testing.assert_close(made.boxes, expected)
    labels = torch.tensor([[1, 4], [2, CLASSES]]).repeat(1, 20)  # the padded one has the embedding of padding
    torch.testing.assert_close(made.content, denoising.embedding(labels))


def test_who_sees_whom() -> None:
    made = make()(targets(), QUERIES)
    count, size = made.boxes.shape[1], 4
    for row in range(count + QUERIES):
        for column in range(count + QUERIES):
            if row < count:  # its own group, and the queries that are matched
                sees = column >= count or row // size == column // size
            else:  # those only
                sees = column >= count
            assert bool(made.blocked[row, column]) == (not sees)


def test_without_objects_there_are_no_queries_but_the_embedding_has_a_gradient() -> None:
    denoising = make()
    nothing = QueryTargets(
        torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)
    )
    made = denoising(nothing, QUERIES)
    assert made.content.shape == (2, 0, 8) and made.boxes.shape == (2, 0, 4) and made.groups == 0
    assert not bool(made.blocked.any()) and made.blocked.shape == (QUERIES, QUERIES)
    made.content.sum().backward()
    assert denoising.embedding.weight.grad is not None


def test_seeds_hold() -> None:
    denoising = make()
    torch.manual_seed(5)
    a = denoising(targets(), QUERIES)
    torch.manual_seed(5)
    b = denoising(targets(), QUERIES)
    assert torch.equal(a.boxes, b.boxes)
    assert not torch.equal(a.boxes, denoising(targets(), QUERIES).boxes)
