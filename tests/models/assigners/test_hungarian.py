"""Set matching against all permutations, mmdet's assigner, and by hand."""

from __future__ import annotations

from itertools import permutations

import efftasks.compat  # noqa: F401

import pytest
import torch
from mmdet.models.task_modules.assigners import CrossEntropyLossCost, DiceCost, HungarianAssigner
from mmengine.structures import InstanceData

from efftasks.models.assigners.hungarian import (
    FocalCost,
    GIoUCost,
    HungarianMatcher,
    L1Cost,
    MaskBCECost,
    MaskDiceCost,
    Matching,
    ScoreIoUCost,
    union_of,
)
from efftasks.models.det_heads.query_raw import LayerOutput, MaskFactors, QueryTargets
from efftasks.ops.boxes import cxcywh_to_xyxy

COSTS = [dict(type="FocalCost"), dict(type="L1Cost"), dict(type="GIoUCost")]


@pytest.fixture(autouse=True)
def scope():
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("efftasks"):
        yield


def problem(seed: int, queries: int = 6) -> tuple[LayerOutput, QueryTargets]:
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(2, 3, 4, generator=g) * 0.4 + 0.1
    output = LayerOutput(torch.randn(2, queries, 5, generator=g), torch.rand(2, queries, 4, generator=g) * 0.4 + 0.1)
    valid = torch.tensor([[True, True, True], [True, False, True]])
    return output, QueryTargets(torch.randint(0, 5, (2, 3), generator=g), boxes, valid)


def by_image(matching: Matching) -> list[set[tuple[int, int]]]:
    rows = list(zip(*(part.tolist() for part in matching)))
    return [{(q, t) for i, q, t in rows if i == image} for image in range(2)]


@pytest.mark.parametrize("seed", range(5))
def test_no_permutation_is_cheaper(seed: int) -> None:
    output, targets = problem(seed)
    (matching,) = HungarianMatcher(COSTS)([output], targets)
    scores = output.logits.sigmoid().gather(2, targets.labels[:, None].expand(-1, 6, -1))
    terms = [cost(scores, output.boxes, targets.boxes) for cost in (FocalCost(), L1Cost(), GIoUCost())]
    cost = torch.stack(terms).sum(0)
    for i, pairs in enumerate(by_image(matching)):
        objects = targets.valid[i].nonzero().flatten().tolist()
        assert {t for _, t in pairs} == set(objects)
        best = min(sum(float(cost[i, q, t]) for q, t in zip(p, objects)) for p in permutations(range(6), len(objects)))
        assert sum(float(cost[i, q, t]) for q, t in pairs) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(3))
def test_equals_mmdet(seed: int) -> None:
    output, targets = problem(seed, queries=20)
    reference = HungarianAssigner(
        [
            dict(type="mmdet.FocalLossCost", weight=2.0),
            dict(type="mmdet.BBoxL1Cost", weight=5.0, box_format="xywh"),
            dict(type="mmdet.IoUCost", iou_mode="giou", weight=2.0),
        ]
    )
    (matching,) = HungarianMatcher(COSTS)([output], targets)
    for i, pairs in enumerate(by_image(matching)):
        kept = targets.valid[i].nonzero().flatten()
        result = reference.assign(
            InstanceData(scores=output.logits[i], bboxes=cxcywh_to_xyxy(output.boxes[i])),
            InstanceData(labels=targets.labels[i][kept], bboxes=cxcywh_to_xyxy(targets.boxes[i][kept])),
            dict(img_shape=(1, 1)),
        )
        queries = (result.gt_inds > 0).nonzero().flatten().tolist()
        assert pairs == {(q, int(kept[result.gt_inds[q] - 1])) for q in queries}


def test_several_outputs_at_once_equal_one_at_a_time() -> None:
    first, targets = problem(0)
    second, _ = problem(1)
    matcher = HungarianMatcher(COSTS)
    together = matcher([first, second], targets)
    for matching, output in zip(together, (first, second)):
        (alone,) = matcher([output], targets)
        assert by_image(matching) == by_image(alone)


def test_late_cost_takes_over() -> None:
    output, targets = problem(0)
    matcher = HungarianMatcher(COSTS, late_costs=[dict(type="ScoreIoUCost", power=4.0)], late_from=0.5)
    early = by_image(matcher([output], targets)[0])
    matcher.set_progress(0.5)
    late = by_image(matcher([output], targets)[0])
    scores = output.logits.sigmoid().gather(2, targets.labels[:, None].expand(-1, 6, -1))
    cost = ScoreIoUCost(power=4.0)(scores, output.boxes, targets.boxes)
    for i, pairs in enumerate(late):
        assert sum(float(cost[i, q, t]) for q, t in pairs) <= sum(float(cost[i, q, t]) for q, t in early[i]) + 1e-7


def test_nothing_to_match() -> None:
    output, _ = problem(0)
    nothing = QueryTargets(
        torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)
    )
    (matching,) = HungarianMatcher(COSTS)([output], nothing)
    assert all(len(part) == 0 for part in matching)


def test_union_keeps_the_most_frequent_object_of_a_query() -> None:
    def matching(*pairs: tuple[int, int, int]) -> Matching:
        return Matching(*torch.tensor(pairs).T)

    union = union_of(
        [
            matching((0, 1, 0), (0, 2, 1), (1, 5, 0)),
            matching((0, 1, 1), (0, 3, 0), (1, 5, 0)),
            matching((0, 1, 1), (0, 2, 0), (1, 4, 0)),
        ]
    )
    # Query 1 of image 0 was matched twice with object 1; query 2 once with each: the lower index stays.
    expected = {(0, 1, 1), (0, 2, 0), (0, 3, 0), (1, 5, 0), (1, 4, 0)}
    assert set(zip(*(part.tolist() for part in union))) == expected


MASK_COSTS = [dict(type="MaskBCECost"), dict(type="MaskDiceCost")]


def masked_problem() -> tuple[LayerOutput, QueryTargets, torch.Tensor]:
    """Queries whose scores and boxes say nothing; query 4 has object 0's mask, query 1 object 1's, in image 0."""
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    masks[:, 0, :4, :4] = 255
    masks[:, 1, 3:8, 5:8] = 255  # object 2 has no mask
    logits = torch.randn(2, 6, 8, 8, generator=g)
    for query, target in ((4, 0), (1, 1)):
        logits[0, query] = masks[0, target].float() / 255 * 8 - 4
    # Masks as they are: one pixel channel for each cell.
    pixels = torch.eye(64).reshape(1, 64, 8, 8).expand(2, -1, -1, -1)
    factors = MaskFactors(logits.flatten(2), pixels, torch.zeros(1))
    boxes = torch.tensor([0.5, 0.5, 0.6, 0.6])
    output = LayerOutput(torch.zeros(2, 6, 5), boxes.expand(2, 6, 4), masks=factors)
    valid = torch.tensor([[True, True, True], [True, False, True]])
    return output, QueryTargets(torch.zeros(2, 3, dtype=torch.long), boxes.expand(2, 3, 4), valid, masks), logits


def test_mask_costs_equal_mmdet() -> None:
    _, targets, logits = masked_problem()
    assert targets.masks is not None
    ground_truth = targets.masks.float() / 255
    for own, reference in (
        (MaskBCECost(weight=2.0), CrossEntropyLossCost(use_sigmoid=True, weight=2.0)),
        (MaskDiceCost(weight=2.0), DiceCost(pred_act=True, eps=1.0, weight=2.0)),
    ):
        actual = own(logits.flatten(2), ground_truth.flatten(2))
        for i in range(2):
            expected = reference(InstanceData(masks=logits[i]), InstanceData(masks=ground_truth[i]))
            torch.testing.assert_close(actual[i], expected)


def test_mask_costs_by_hand() -> None:
    logits, ground_truth = torch.tensor([[[0.0, 0.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    assert float(MaskBCECost(weight=3.0)(logits, ground_truth)) == pytest.approx(3 * 0.6931472)  # log 2 in every cell
    # Scores of a half: 2 * (0.5 + 0.5) + 1 over 2 + 2 + 1.
    assert float(MaskDiceCost(weight=5.0)(logits, ground_truth)) == pytest.approx(5 * (1 - 3 / 5))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_where_boxes_tie_masks_decide(share: float) -> None:
    output, targets, _ = masked_problem()
    matcher = HungarianMatcher(COSTS, mask_costs=MASK_COSTS, mask_share=share)
    for seed in range(5):
        torch.manual_seed(seed)
        plain, matching = matcher([LayerOutput(output.logits, output.boxes), output], targets)
        assert {(4, 0), (1, 1)} <= by_image(matching)[0]
        assert not {(4, 0), (1, 1)} <= by_image(plain)[0], "an output without masks has no mask costs"
        torch.manual_seed(seed)
        assert by_image(matcher([output, output], targets)[1]) == by_image(matching)


def test_an_object_without_a_mask_costs_none() -> None:
    output, targets, _ = masked_problem()
    assert targets.masks is not None
    nothing = targets._replace(masks=torch.zeros_like(targets.masks))
    (matching,) = HungarianMatcher(COSTS, mask_costs=MASK_COSTS)([output], nothing)
    (expected,) = HungarianMatcher(COSTS)([output], nothing)
    assert by_image(matching) == by_image(expected)


def test_late_costs_replace_mask_costs_too() -> None:
    output, targets, _ = masked_problem()
    late = [dict(type="ScoreIoUCost")]
    matcher = HungarianMatcher(COSTS, late_costs=late, late_from=0.5, mask_costs=MASK_COSTS, mask_share=1.0)
    matcher.set_progress(0.5)
    (matching,) = matcher([output], targets)
    assert not {(4, 0), (1, 1)} <= by_image(matching)[0]
