"""Losses of masks and of set predictions, by hand and against mmdet's."""

from __future__ import annotations

import math

import efftasks.compat  # noqa: F401

import pytest
import torch
from mmdet.models.losses import DiceLoss
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from torch import Tensor, nn

from efftasks.models.losses.masks import MaskBCELoss, MaskDiceLoss, SigmoidFocalLoss


def masks(count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 5, 4, generator=generator)
    return logits, torch.rand(count, 5, 4, generator=generator).round(decimals=1)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_focal_by_hand() -> None:
    logits = torch.tensor([[logit(0.25), logit(0.5)]])
    # A positive at 0.25: 0.25 x 0.75^2 x -log 0.25; a negative at 0.5: 0.75 x 0.5^2 x -log 0.5.
    expected = 0.25 * 0.5625 * math.log(4) + 0.75 * 0.25 * math.log(2)
    assert SigmoidFocalLoss(weight=2.0)(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(2 * expected)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.5)])
def test_focal_equals_mmdets(alpha: float, gamma: float) -> None:
    logits = 4 * torch.randn(7, 5)
    hot = (torch.rand(7, 5) > 0.7).float()
    expected = py_sigmoid_focal_loss(logits, hot, gamma=gamma, alpha=alpha, reduction="sum")
    assert SigmoidFocalLoss(3.0, alpha, gamma)(logits, hot).item() == pytest.approx(3 * expected.item(), rel=1e-5)


def test_bce_by_hand() -> None:
    # Means over two cells of each mask, then the sum over the masks; a target may be a share.
    logits = torch.tensor([[[logit(0.25), logit(0.5)]], [[logit(0.9), logit(0.9)]]])
    targets = torch.tensor([[[1.0, 0.0]], [[1.0, 0.5]]])
    first = (math.log(4) + math.log(2)) / 2
    second = (-math.log(0.9) - (math.log(0.9) + math.log(0.1)) / 2) / 2
    assert MaskBCELoss(weight=5.0)(logits, targets).item() == pytest.approx(5 * (first + second))


def test_dice_by_hand() -> None:
    logits = torch.tensor([[[logit(0.5), logit(0.5), logit(0.25)]]])
    targets = torch.tensor([[[1.0, 0.0, 1.0]]])
    expected = 1 - 2 * 0.75 / (0.25 + 0.25 + 0.0625 + 2)
    assert MaskDiceLoss(weight=2.0)(logits, targets).item() == pytest.approx(2 * expected)


def test_dice_equals_mmdets() -> None:
    logits, targets = masks()
    reference = DiceLoss(use_sigmoid=True, activate=True, reduction="sum", naive_dice=False, eps=1e-9)
    assert MaskDiceLoss(weight=1.0)(logits, targets).item() == pytest.approx(reference(logits, targets).item(), 1e-5)


@pytest.mark.parametrize("loss", [MaskBCELoss(), MaskDiceLoss()])
def test_a_sum_over_masks(loss: nn.Module) -> None:
    logits, targets = masks()
    each = sum(loss(logits[i : i + 1], targets[i : i + 1]).item() for i in range(3))
    assert loss(logits, targets).item() == pytest.approx(each, rel=1e-6)


@pytest.mark.parametrize("loss", [MaskBCELoss(), MaskDiceLoss(), SigmoidFocalLoss()])
def test_nothing_costs_nothing_and_has_a_gradient(loss: nn.Module) -> None:
    logits = torch.randn(2, 4, 4, requires_grad=True)
    value = loss(logits[:0], torch.zeros(0, 4, 4))
    value.backward()
    assert value.item() == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("loss", [MaskBCELoss(), MaskDiceLoss()])
def test_right_is_cheaper_than_wrong(loss: nn.Module) -> None:
    targets = (masks()[1] > 0.5).float()
    right = 40 * (targets - 0.5)
    assert loss(right, targets).item() == pytest.approx(0, abs=1e-4)
    assert loss(-right, targets).item() > 3 * 0.9 * loss.weight  # type: ignore[operator]


@pytest.mark.parametrize("loss", [MaskBCELoss(), MaskDiceLoss(), SigmoidFocalLoss()])
def test_half_precision_is_computed_in_single(loss: nn.Module) -> None:
    logits, targets = masks()
    targets = targets.round()
    rounded = logits.bfloat16()
    assert loss(rounded, targets).item() == pytest.approx(loss(rounded.float(), targets).item(), rel=1e-6)
