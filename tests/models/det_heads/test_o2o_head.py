import math
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from mmengine.registry import DefaultScope
from torch.testing import assert_close

from efftasks.models.det_heads.o2o_head import BranchRaw, O2OHead, O2ORaw, level_points
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import PaddedTargets

SPECS = (FeatureSpec(16, 8), FeatureSpec(24, 16), FeatureSpec(32, 32))


@pytest.fixture(autouse=True)
def scope():
    DefaultScope.get_instance("test-o2o-head", scope_name="efftasks")


def make_head(num_classes: Any = 3, **kwargs) -> O2OHead:
    torch.manual_seed(0)
    return O2OHead(
        SPECS,
        num_classes,
        assigner=dict(type="TaskAlignedAssigner", topk=7, keep=1),
        one_to_many_assigner=dict(type="TaskAlignedAssigner", topk=10),
        loss_class=dict(type="SoftBCELoss"),
        losses_box=dict(iou=dict(type="CIoULoss"), l1=dict(type="L1BoxLoss")),
        **kwargs,
    )


def features(batch: int = 2, size: int = 64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, size // s, size // s, generator=generator) for c, s in SPECS]


def targets(batch: int, boxes: list[list[float]], labels: list[int]) -> PaddedTargets:
    count = len(labels)
    return PaddedTargets(
        torch.tensor([labels] * batch, dtype=torch.long).reshape(batch, count),
        torch.tensor([boxes] * batch).reshape(batch, count, 4),
        torch.ones(batch, count, dtype=torch.bool),
        torch.zeros(batch, count, dtype=torch.bool),
    )


def total(losses: dict[str, torch.Tensor], suffix: str = "") -> torch.Tensor:
    return torch.stack([value for key, value in losses.items() if key.endswith(suffix)]).sum()


def test_points_are_cell_centres_row_by_row():
    points, strides = level_points([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 1)], (8, 16))
    expected = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8]]
    assert points.tolist() == expected
    assert strides.flatten().tolist() == [8] * 6 + [16]


def test_decode_against_a_loop():
    head = make_head(max_detections=5).eval()
    raw = head(features())
    found = head.decode(raw)
    for image in range(2):
        rows = []
        for a, (x, y) in enumerate(raw.points.tolist()):
            left, top, right, bottom = (raw.one_to_one.distances[image, a] * raw.strides[a]).tolist()
            for c in range(3):
                score = 1 / (1 + math.exp(-raw.one_to_one.logits[image, a, c].item()))
                rows.append((score, c, [x - left, y - top, x + right, y + bottom]))
        rows.sort(key=lambda row: -row[0])
        assert_close(found.scores[image], torch.tensor([row[0] for row in rows[:5]]))
        assert found.labels[image].tolist() == [row[1] for row in rows[:5]]
        assert_close(found.boxes[image], torch.tensor([row[2] for row in rows[:5]]), atol=1e-3, rtol=1e-4)


def test_only_the_one_to_many_branch_teaches_the_backbone():
    head = make_head().train()
    inputs = [x.requires_grad_() for x in features()]
    wanted = targets(2, [[8.0, 8.0, 40.0, 40.0]], [1])
    losses = head.loss_by_feat(head(inputs), wanted)
    one_to_one = total(losses, "_o2o")
    gradients = torch.autograd.grad(one_to_one, inputs, retain_graph=True, allow_unused=True)
    assert all(g is None for g in gradients)
    one_to_many = total(losses, "_o2m")
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(one_to_many, inputs))


def test_weight_moves_from_one_branch_to_the_other():
    head, wanted = make_head().train(), targets(2, [[8.0, 8.0, 40.0, 40.0]], [1])
    raw = head(features())
    start = head.loss_by_feat(raw, wanted)
    head.set_progress(1.0)
    end = head.loss_by_feat(raw, wanted)
    assert_close(end["loss_cls_o2m"] / start["loss_cls_o2m"], torch.tensor(0.1 / 0.8))
    assert_close(end["loss_cls_o2o"] / start["loss_cls_o2o"], torch.tensor(0.9 / 0.2))


def one_answer(box_sides: list[float], logit: float) -> O2ORaw:
    """64 x 64 pixels on which one point, (24, 24) of stride 16, says something; the boxes of all others are empty."""
    points, strides = level_points([torch.zeros(1, 1, 64 // s, 64 // s) for _, s in SPECS], (8, 16, 32))
    (index,) = ((points == 24).all(-1) & (strides[:, 0] == 16)).nonzero().flatten().tolist()
    logits, distances = torch.full((1, len(points), 3), -20.0), torch.zeros(1, len(points), 4)
    logits[0, index, 1], distances[0, index] = logit, torch.tensor(box_sides)
    branch = BranchRaw(logits, distances, {})
    return O2ORaw(branch, branch, points, strides, {})


def test_losses_of_one_answer_by_hand():
    """The box (8, 8, 40, 32) for the object (8, 8, 40, 40): IoU 24 / 32, and its lower side is half a stride off."""
    head = make_head().train()
    losses = head.loss_by_feat(one_answer([1.0, 1.0, 1.0, 0.5], 0.0), targets(1, [[8.0, 8.0, 40.0, 40.0]], [1]))
    iou = 0.75  # it is the quality, too: weight of the boxes' losses, and target of the class
    aspect = 4 / math.pi**2 * (math.atan(32 / 24) - math.atan(1)) ** 2
    complete = iou - 4**2 / (32**2 + 32**2) - aspect / (1 - iou + aspect) * aspect
    by_hand = {
        "l1": 1.5 * (0.5 / 4) * iou,  # in strides: in pixels it would be 16 times that
        "iou": 7.5 * (1 - complete) * iou,
        "cls": 0.5 * math.log(2),  # a logit of 0, whatever the target
    }
    for name, value in by_hand.items():
        assert losses[f"loss_{name}_o2m"].item() == pytest.approx(0.8 * value, rel=1e-5), name
        assert losses[f"loss_{name}_o2o"].item() == pytest.approx(0.2 * value, rel=1e-5), name


def test_class_target_is_the_quality_of_the_box():
    """Cross-entropy of the logit 2 against 0.75, at the label of the object."""
    losses = make_head().loss_by_feat(one_answer([1.0, 1.0, 1.0, 0.5], 2.0), targets(1, [[8.0, 8.0, 40.0, 40.0]], [1]))
    expected = 0.5 * (math.log(1 + math.exp(2)) - 0.75 * 2)
    assert losses["loss_cls_o2o"].item() == pytest.approx(0.2 * expected, rel=1e-5)


@pytest.mark.parametrize("num_classes", [1, 3, 200])
def test_batches_without_objects_train(num_classes):
    head = make_head(num_classes).train()
    losses = head.loss_by_feat(head(features()), targets(2, [], []))
    whole = total(losses)
    whole.backward()
    assert torch.isfinite(whole) and losses["loss_iou_o2o"] == 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_learns_one_scene_and_gives_one_row_an_object():
    head = make_head(num_classes=2, max_detections=20).train()
    inputs = [x.repeat(1, 1, 1, 1) for x in features(batch=1)]
    boxes, labels = [[4.0, 6.0, 30.0, 28.0], [20.0, 30.0, 60.0, 62.0]], [0, 1]
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    head.set_progress(0.5)
    for _ in range(200):
        optimizer.zero_grad()
        total(head.loss_by_feat(head(inputs), targets(1, boxes, labels))).backward()
        optimizer.step()
    found = head.eval().decode(head(inputs))
    sure = found.scores[0] > 0.3
    assert sorted(found.labels[0][sure].tolist()) == labels  # no duplicates, nothing suppressed
    order = found.labels[0][sure].argsort()
    assert_close(found.boxes[0][sure][order], torch.tensor(boxes), atol=2.0, rtol=0)


def test_strip_drops_the_one_to_many_branch_and_keeps_the_outputs():
    head = make_head().eval()
    fused = head.strip()
    assert fused.one_to_many is None and head.one_to_many is not None
    before, after = head.decode(head(features())), fused.decode(fused(features()))
    assert all(torch.equal(a, b) for a, b in zip(before, after) if a is not None and b is not None)
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in head.parameters())


def test_fewer_points_than_detections():
    head = make_head(max_detections=300).eval()
    assert head.decode(head(features(size=32))).scores.shape == (2, 16 + 4 + 1)


def test_wrong_class_count_is_named():
    with pytest.raises(ValueError, match="num_classes: got None"):
        make_head(num_classes=None)
