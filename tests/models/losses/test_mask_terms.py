"""Mask terms against dense formulas and mmdet's Dice; which cells and which queries they look at."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import DiceLoss

from efftasks.models.assigners.hungarian import Matching
from efftasks.models.det_heads.query_raw import (
    DenoisingQueries,
    LayerOutput,
    MaskFactors,
    QueryTargets,
    TrainingOutputs,
)
from efftasks.models.losses.mask_terms import MaskBCETerm, MaskDiceTerm, MaskSampler
from efftasks.models.losses.set_criterion import SetCriterion

SIZE = (12, 16)
MATCHING = Matching(torch.tensor([0, 0, 1]), torch.tensor([4, 1, 2]), torch.tensor([0, 1, 0]))
BOXES = [[[0.3, 0.3, 0.2, 0.3], [0.6, 0.5, 0.5, 0.4]], [[0.5, 0.4, 0.6, 0.5], [0.0] * 4]]


@pytest.fixture(autouse=True)
def scope():
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("efftasks"):
        yield


def factors(queries: int = 6) -> MaskFactors:
    g = torch.Generator().manual_seed(0)
    kernels, pixels = torch.randn(2, queries, 5, generator=g), torch.randn(2, 5, *SIZE, generator=g)
    return MaskFactors(kernels.requires_grad_(), pixels.requires_grad_(), torch.tensor([0.3], requires_grad=True))


def targets() -> QueryTargets:
    g = torch.Generator().manual_seed(1)
    masks = torch.randint(0, 256, (2, 2, *SIZE), generator=g, dtype=torch.uint8)
    valid = torch.tensor([[True, True], [True, False]])
    return QueryTargets(torch.zeros(2, 2, dtype=torch.long), torch.tensor(BOXES), valid, masks)


def dense(made: MaskFactors, ground_truth: QueryTargets) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets (P, h, w) of the matched pairs, from whole masks of all queries."""
    assert ground_truth.masks is not None
    logits = torch.einsum("bqd,bdhw->bqhw", made.kernels, made.pixels) + made.bias
    place = MATCHING.image, MATCHING.target
    return logits[MATCHING.image, MATCHING.query], ground_truth.masks[place].float() / 255


def test_all_cells_give_the_dense_losses() -> None:
    sampled = MaskSampler(share=1.0)(factors(), MATCHING, targets())
    logits, ground_truth = dense(factors(), targets())
    bce = F.binary_cross_entropy_with_logits(logits, ground_truth, reduction="none").mean((1, 2)).sum()
    torch.testing.assert_close(MaskBCETerm(weight=5.0)(sampled), 5 * bce)
    dice = DiceLoss(use_sigmoid=True, naive_dice=True, reduction="sum", eps=1.0, loss_weight=5.0)
    torch.testing.assert_close(MaskDiceTerm(weight=5.0)(sampled), dice(logits.flatten(1), ground_truth.flatten(1)))


def test_samples_pair_logits_with_targets_of_the_same_cell() -> None:
    made = factors()
    ground_truth = targets()
    logits, _ = dense(made, ground_truth)
    # An object's mask that tells its own logit: then samples must agree, whichever they are.
    assert ground_truth.masks is not None
    masks = torch.zeros_like(ground_truth.masks)
    masks[MATCHING.image, MATCHING.target] = (logits.sigmoid() * 255).round().to(torch.uint8)
    torch.manual_seed(0)
    sampled = MaskSampler(share=0.25)(made, MATCHING, ground_truth._replace(masks=masks))
    assert sampled.logits.shape == (3, 48)
    torch.testing.assert_close(sampled.logits.sigmoid(), sampled.targets, atol=0.5 / 255 + 1e-6, rtol=0)


def test_samples_are_where_the_prediction_is_unsure_and_deterministic() -> None:
    def chosen(importance: float) -> torch.Tensor:
        torch.manual_seed(0)
        return MaskSampler(share=0.25, importance=importance)(factors(), MATCHING, targets()).logits.detach()

    assert float(chosen(1.0).abs().mean()) < 0.6 * float(chosen(0.0).abs().mean())
    torch.testing.assert_close(chosen(0.75), chosen(0.75))


def test_an_object_without_a_mask_teaches_nothing() -> None:
    made, ground_truth = factors(), targets()
    assert ground_truth.masks is not None
    ground_truth.masks[0, 1] = 0
    sampled = MaskSampler(share=1.0)(made, MATCHING, ground_truth)
    (MaskBCETerm()(sampled) + MaskDiceTerm()(sampled)).backward()
    assert made.kernels.grad is not None
    assert not bool(made.kernels.grad[0, 1].any())  # query 1 of image 0 was matched with it
    assert bool(made.kernels.grad[0, 4].any()) and bool(made.kernels.grad[1, 2].any())


@pytest.mark.parametrize("wrong", [dict(share=0.0), dict(share=1.1), dict(importance=-0.1), dict(oversample=0.5)])
def test_wrong_arguments_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: got"):
        MaskSampler(**wrong)


def criterion(**changes: Any) -> SetCriterion:
    return SetCriterion(
        matcher=dict(type="HungarianMatcher", costs=[dict(type="L1Cost")]),
        class_term=dict(type="VarifocalTerm"),
        box_terms=dict(bbox=dict(type="L1Term")),
        mask_terms=dict(mask=dict(type="MaskBCETerm"), dice=dict(type="MaskDiceTerm")),
        mask_sampler=dict(share=1.0),
        **changes,
    )


def outputs(groups: int) -> tuple[TrainingOutputs, MaskFactors]:
    """Two layers with masks; 4 denoising queries a group, then 6 others."""
    g = torch.Generator().manual_seed(0)
    count = 4 * groups
    made = factors(count + 6)
    boxes = torch.rand(2, count + 6, 4, generator=g) * 0.4 + 0.1
    layer = LayerOutput(torch.randn(2, count + 6, 3, generator=g), boxes, masks=made)
    empty = torch.zeros(2, count, 4)
    noised = DenoisingQueries(empty, empty, torch.zeros(0, 0, dtype=torch.bool), groups)
    plain = LayerOutput(layer.logits[:, count:], boxes[:, count:])
    return TrainingOutputs((layer, layer), None, plain, noised), made


def test_criterion_divides_by_the_objects_that_have_masks() -> None:
    ground_truth = targets()
    assert ground_truth.masks is not None
    ground_truth.masks[0, 1] = 0  # two of the three objects are left
    raw, made = outputs(groups=0)
    loss = criterion()
    losses = loss(raw._replace(denoising=None), ground_truth, None)
    (matching,) = loss.matcher([raw.layers[-1]], ground_truth)
    expected = MaskBCETerm()(MaskSampler(share=1.0)(made, matching, ground_truth)) / 2
    torch.testing.assert_close(losses["loss_mask"], expected)
    torch.testing.assert_close(losses["loss_mask_layer0"], expected)
    assert "loss_mask_select" not in losses, "proposals have no masks"


def test_positives_of_the_first_denoising_group_learn_masks() -> None:
    raw, made = outputs(groups=2)
    losses = criterion()(raw, targets(), None)
    denoised = [value for name, value in losses.items() if name.startswith(("loss_mask_dn", "loss_dice_dn"))]
    assert len(denoised) == 4  # two terms after each of two layers
    torch.stack(denoised).sum().backward()
    assert made.kernels.grad is not None
    reached = made.kernels.grad.abs().sum(-1) > 0
    expected = torch.zeros(2, 14, dtype=torch.bool)
    expected[0, :2] = expected[1, 0] = True  # valid objects, in the order of the first group's positives
    assert torch.equal(reached, expected)


def test_without_objects_losses_are_zero_and_reach_the_masks() -> None:
    raw, made = outputs(groups=0)
    nothing = QueryTargets(
        torch.zeros(2, 0, dtype=torch.long),
        torch.zeros(2, 0, 4),
        torch.zeros(2, 0, dtype=torch.bool),
        torch.zeros(2, 0, *SIZE, dtype=torch.uint8),
    )
    losses = criterion()(raw, nothing, None)
    masks = [value for name, value in losses.items() if name.startswith(("loss_mask", "loss_dice"))]
    assert len(masks) == 8 and all(float(value.detach()) == 0 for value in masks)
    torch.stack(masks).sum().backward()
    assert all(part.grad is not None for part in made)
