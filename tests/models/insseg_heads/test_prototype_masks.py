"""Prototype masks: in numbers by hand, in a head that learns, and in a file."""

from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from torch.testing import assert_close

from efftasks.compression.folding import inference_model
from efftasks.models.det_heads.o2o_head import O2OHead
from efftasks.models.det_heads.o2o_parts import Pairs
from efftasks.models.insseg_heads.prototype_masks import PrototypeMasks, Prototypes
from efftasks.models.losses.instance_masks import BoxMaskBCELoss, BoxMaskDiceLoss
from efftasks.ops.masks import box_window
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import PaddedTargets

SPECS = (FeatureSpec(16, 8), FeatureSpec(24, 16))
LOSSES = dict(bce=dict(type="BoxMaskBCELoss", weight=1.0), dice=dict(type="BoxMaskDiceLoss", weight=1.0))


@pytest.fixture(autouse=True)
def scope():
    DefaultScope.get_instance("test-prototype-masks", scope_name="efftasks")


def make_part(**kwargs) -> PrototypeMasks:
    return PrototypeMasks(SPECS, 2, losses=LOSSES, num_prototypes=2, channels=8, branch_channels=8, **kwargs)


def two_objects() -> PaddedTargets:
    """32 x 32 px: a rectangle, and an object whose mask nobody drew."""
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.uint8)
    masks[0, 0, 2:4, 2:6] = 255
    return PaddedTargets(
        labels=torch.tensor([[1, 0]]),
        boxes=torch.tensor([[[8.0, 8.0, 24.0, 16.0], [16.0, 16.0, 32.0, 32.0]]]),
        valid=torch.ones(1, 2, dtype=torch.bool),
        ignored=torch.zeros(1, 2, dtype=torch.bool),
        masks=masks,
    )


def pairs_of(targets: list[int]) -> Pairs:
    count = len(targets)
    return Pairs(
        torch.zeros(count, dtype=torch.long), torch.tensor(targets), torch.zeros(count, 2), torch.ones(count, 1)
    )


def test_masks_are_mixed_by_hand():
    prototypes = torch.zeros(1, 2, 8, 8)
    prototypes[0, 0] = 3.0
    prototypes[0, 1, 2:4] = -5.0
    values = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    shared = Prototypes(prototypes, torch.zeros(1, 8, 4, 4))
    masks = make_part().decode(values, shared, torch.zeros(1, 2, 2), torch.ones(1, 2, 1))
    expected = torch.full((8, 8), 3.0)
    assert_close(masks[0, 0], expected)
    expected[2:4] = -2.0
    assert_close(masks[0, 1], expected)


def test_overlap_is_that_of_the_masks_and_unknown_without_one():
    part, targets = make_part(), two_objects()
    prototypes = torch.full((1, 2, 8, 8), -20.0)
    prototypes[0, 0, 2:4, 2:6] = 20.0  # the rectangle
    shared = Prototypes(prototypes, torch.zeros(1, 8, 4, 4))
    actual = part.overlap(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), shared, pairs_of([0, 1]), targets)
    assert actual[0] > 0.9 and bool(actual[1].isnan())


def test_losses_count_annotated_masks_alone():
    part, targets = make_part(), two_objects()
    shared = Prototypes(torch.randn(1, 2, 8, 8), torch.zeros(1, 8, 4, 4))
    values = torch.randn(3, 2)
    weights = torch.tensor([0.5, 0.25, 1.0])
    losses = part.losses(values, shared, pairs_of([0, 0, 1]), targets, weights, torch.tensor(2.0))
    logits = torch.einsum("nr,rhw->nhw", values, shared.masks[0])[:2]
    assert targets.masks is not None
    truth = targets.masks[0, [0, 0]].float() / 255
    window = torch.zeros(2, 8, 8, dtype=torch.bool)
    window[:, 2:4, 2:6] = True  # the cells with their centre in the box widened by half a cell: its own, and no more
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    expected = (bce[:, 2:4, 2:6].mean((1, 2)) * weights[:2]).sum() / 2
    assert_close(losses["mask_bce"], expected)
    scores = logits.sigmoid()[:, 2:4, 2:6]
    dice = 1 - 2 * scores.sum((1, 2)) / ((scores**2).sum((1, 2)) + 8)
    assert_close(losses["mask_dice"], (dice * weights[:2]).sum() / 2)


def test_losses_of_a_draw_stand_for_all():
    part, targets = make_part(max_pairs=2), two_objects()
    shared = Prototypes(torch.randn(1, 2, 8, 8), torch.zeros(1, 8, 4, 4))
    values = torch.randn(1, 2).expand(6, 2)
    few = part.losses(values, shared, pairs_of([0] * 6), targets, torch.ones(6), torch.tensor(3.0))
    part.max_pairs = 100
    many = part.losses(values, shared, pairs_of([0] * 6), targets, torch.ones(6), torch.tensor(3.0))
    assert all(torch.allclose(few[key], many[key]) for key in many)


def test_the_semantic_branch_does_not_learn_from_what_nobody_drew():
    part, targets = make_part(), two_objects()
    merged = torch.zeros(1, 8, 4, 4, requires_grad=True)
    loss = part.common_losses(Prototypes(torch.zeros(1, 2, 8, 8), merged), targets)["loss_semantic"]
    loss.backward()
    assert merged.grad is not None
    touched = merged.grad[0].abs().sum(0) > 0
    assert not touched[2:, 2:].any() and touched[:2].all() and touched[:, :2].all()


def test_losses_by_hand():
    logits = torch.zeros(1, 2, 2)
    targets = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    window = torch.tensor([[[True, True], [False, False]]])
    assert_close(BoxMaskBCELoss(2.0)(logits, targets, window), torch.tensor([2 * np.log(2)], dtype=torch.float32))
    # Scores 0.5, 0.5 against 1, 0: Dice 2 * 0.5 / (0.25 + 0.25 + 1).
    assert_close(BoxMaskDiceLoss(3.0)(logits, targets, window), torch.tensor([3 * (1 - 1 / 1.5)]))


def make_head(**kwargs) -> O2OHead:
    torch.manual_seed(0)
    return O2OHead(
        SPECS,
        2,
        assigner=dict(type="TaskAlignedAssigner", topk=7, keep=1),
        one_to_many_assigner=dict(type="TaskAlignedAssigner", topk=10),
        loss_class=dict(type="SoftBCELoss"),
        losses_box=dict(iou=dict(type="CIoULoss"), l1=dict(type="L1BoxLoss")),
        parts=dict(masks=dict(type="PrototypeMasks", losses=LOSSES, num_prototypes=8, channels=16)),
        **kwargs,
    )


def features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, spec.channels, 64 // spec.stride, 64 // spec.stride, generator=generator) for spec in SPECS]


def test_learns_the_masks_of_a_scene():
    head = make_head(max_detections=10).train()
    masks = torch.zeros(1, 2, 16, 16, dtype=torch.uint8)
    masks[0, 0, 1:7, 1:7], masks[0, 0, 3:5, 3:5] = 255, 0  # with a hole
    masks[0, 1, 8:15, 5:9] = masks[0, 1, 12:15, 5:15] = 255  # an L
    targets = PaddedTargets(
        labels=torch.tensor([[0, 1]]),
        boxes=torch.tensor([[[4.0, 4.0, 28.0, 28.0], [20.0, 32.0, 60.0, 60.0]]]),
        valid=torch.ones(1, 2, dtype=torch.bool),
        ignored=torch.zeros(1, 2, dtype=torch.bool),
        masks=masks,
    )
    inputs = features()
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    head.set_progress(0.5)
    for _ in range(100):
        optimizer.zero_grad()
        torch.stack(list(head.loss(inputs, targets).values())).sum().backward()
        optimizer.step()
    detections = head.eval().decode(head(inputs))
    assert detections.masks is not None
    for label in range(2):
        best = int(torch.where(detections.labels[0] == label, detections.scores[0], -1.0).argmax())
        window = box_window(detections.boxes[0, best], (16, 16), 4.0)
        inside, truth = (detections.masks[0, best] > 0) & window, masks[0, label] > 127
        assert (inside & truth).sum() / (inside | truth).sum() > 0.9


def test_batches_without_objects_or_masks_reach_every_parameter():
    empty = PaddedTargets(
        torch.zeros(1, 0, dtype=torch.long),
        torch.zeros(1, 0, 4),
        torch.zeros(1, 0, dtype=torch.bool),
        torch.zeros(1, 0, dtype=torch.bool),
        torch.zeros(1, 0, 16, 16, dtype=torch.uint8),
    )
    boxes_only = two_objects()._replace(masks=None)
    for targets in (empty, boxes_only):
        head = make_head().train()
        torch.stack(list(head.loss(features(), targets).values())).sum().backward()
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in head.parameters())


def test_fused_it_gives_the_same_masks_with_less():
    head = make_head(max_detections=10).eval()
    fused: Any = inference_model(head)
    before, after = head.decode(head(features())), fused.decode(fused(features()))
    assert_close(before.masks, after.masks, atol=1e-5, rtol=0)
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in head.parameters())
    assert [x.shape for x in head.part_outputs(64, 64)] == [("N", 10, 16, 16)]
