"""The Dice loss by its formula, and what makes mmseg's another."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.losses import DiceLoss
from mmseg.structures import SegDataSample
from torch import Tensor

from efftasks.models.losses.dice import SoftDiceLoss

IGNORED = 255


def example() -> tuple[Tensor, Tensor]:
    """Logits of four classes, labels of two of them and of pixels to ignore."""
    random = np.random.default_rng(0)
    label = random.integers(1, 3, (2, 5, 6))
    label[0, 0] = label[1, :, 2] = IGNORED
    return torch.tensor(random.standard_normal((2, 4, 5, 6))), torch.tensor(label)


def by_formula(logits: Tensor, label: Tensor, weight: np.ndarray) -> float:
    powers = np.exp(logits.numpy())
    scores = powers / powers.sum(1, keepdims=True)
    weight = weight * (label.numpy() != IGNORED)
    losses = []
    for index in (1, 2):
        true = (label.numpy() == index) * weight
        predicted = scores[:, index] * weight
        losses.append(1 - 2 * (scores[:, index] * true).sum() / (predicted.sum() + true.sum()))
    return float(np.mean(losses))


def test_by_hand() -> None:
    # Probabilities of the second class: 0.25, 0.5, 0.5, 0.75; of the first, the rest. The last pixel does not count.
    p = torch.tensor([0.25, 0.5, 0.5, 0.75], dtype=torch.float64)
    logits = torch.stack([(1 - p).log(), p.log()])[None, :, None]
    label = torch.tensor([[[0, 0, 1, IGNORED]]])
    # First: 2 (0.75 + 0.5) / (1.75 + 2). Second: 2 x 0.5 / (1.25 + 1).
    expected = 1 - (2.5 / 3.75 + 1 / 2.25) / 2
    assert SoftDiceLoss()(logits, label).item() == pytest.approx(expected, abs=1e-12)
    assert SoftDiceLoss(loss_weight=3.0)(logits, label).item() == pytest.approx(3 * expected, abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_by_formula(weighted: bool) -> None:
    logits, label = example()
    weight = np.random.default_rng(1).random(label.shape) if weighted else np.ones(label.shape)
    loss = SoftDiceLoss()(logits, label, weight=torch.tensor(weight) if weighted else None)
    assert loss.item() == pytest.approx(by_formula(logits, label, weight), abs=1e-12)
    again = SoftDiceLoss()(logits, label, weight=torch.tensor(weight) if weighted else None, avg_factor=8)
    assert again.item() == pytest.approx(loss.item() / 4, abs=1e-12)


def test_a_perfect_prediction_costs_nothing() -> None:
    label = torch.randint(0, 3, (2, 5, 6))
    logits = 100.0 * torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    assert SoftDiceLoss()(logits, label).item() == pytest.approx(0, abs=1e-6)
    assert SoftDiceLoss()(logits, (label + 1) % 3).item() == pytest.approx(1, abs=1e-6)


def test_ignored_pixels_do_not_matter() -> None:
    logits, label = example()
    logits.requires_grad_()
    loss = SoftDiceLoss()(logits, label)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.movedim(1, -1)[label == IGNORED].any()
    assert logits.grad.movedim(1, -1)[label != IGNORED].any()
    changed = torch.where((label == IGNORED)[:, None], 9 * torch.randn_like(logits), logits)
    assert SoftDiceLoss()(changed, label).item() == pytest.approx(loss.item(), abs=1e-12)
    again = SoftDiceLoss()(logits, torch.where(label == IGNORED, 0, label), ignore_index=0)
    assert again.item() == pytest.approx(loss.item(), abs=1e-12)


def test_a_batch_of_ignored_pixels_is_no_loss() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = SoftDiceLoss()(logits, torch.full((2, 4, 4), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_the_gradient_is_the_slope() -> None:
    logits, label = example()
    assert torch.autograd.gradcheck(lambda x: SoftDiceLoss()(x, label), (logits.requires_grad_(),))


@pytest.mark.parametrize("sampler", [None, dict(type="mmseg.OHEMPixelSampler", thresh=0.7, min_kept=10)])
def test_beside_cross_entropy_in_a_head(sampler: dict[str, Any] | None) -> None:
    losses = [dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True), dict(type="efftasks.SoftDiceLoss")]
    widths = dict(in_channels=8, channels=8, num_classes=4)
    head = FCNHead(**widths, num_convs=1, concat_input=False, loss_decode=losses, sampler=sampler)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in example()[1]]
    loss = head.loss((torch.randn(2, 8, 3, 3),), samples, train_cfg={})
    assert sorted(loss) == ["acc_seg", "loss_ce", "loss_dice"]
    assert 0 < loss["loss_dice"].item() < 1


def test_what_mmsegs_own_does() -> None:
    """Where this fails, mmseg's has changed: see whether this package still needs one of its own."""
    logits, label = example()
    theirs = DiceLoss(use_sigmoid=False, naive_dice=True, eps=0)
    # All pixels of all classes in one sum per image: ignored pixels have a prediction and no label.
    powers = np.exp(logits.numpy())
    scores = powers / powers.sum(1, keepdims=True)
    true = np.stack([label.numpy() == index for index in range(4)], 1)
    sums = [values.sum((1, 2, 3)) for values in (scores * true, scores, true)]
    wrong = 1 - (2 * sums[0] / (sums[1] + sums[2])).mean()
    assert theirs(logits, label, ignore_index=IGNORED).item() == pytest.approx(wrong, abs=1e-6)
    assert SoftDiceLoss()(logits, label).item() != pytest.approx(wrong, abs=0.01)
    with pytest.raises(AssertionError):  # the weight of pixels that a head with a sampler gives
        theirs(logits, label, weight=torch.ones(2, 5, 6), ignore_index=IGNORED)
