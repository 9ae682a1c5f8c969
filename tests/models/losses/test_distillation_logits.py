"""Losses between logits: against numpy, row by row, and by their properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from efftasks.models.losses.distillation_logits import (
    DISTLoss,
    DKDLoss,
    LogitBCELoss,
    LogitKLLoss,
    bernoulli_divergence,
    quality_divergence,
)
from efftasks.registry import MODELS


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    """Of student and teacher: 2 images, 4 classes, 3 x 2 pixels."""
    return 2 * torch.randn(2, 4, 3, 2, dtype=torch.float64), 2 * torch.randn(2, 4, 3, 2, dtype=torch.float64)


def rows(logits: tuple[Tensor, Tensor]) -> list[tuple[np.ndarray, np.ndarray]]:
    s, t = (np.moveaxis(x.numpy(), 1, -1).reshape(-1, 4) for x in logits)
    return list(zip(s, t))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def test_kl(logits: tuple[Tensor, Tensor]) -> None:
    expected = np.mean([divergence(softmax(t / 3), softmax(s / 3)) for s, t in rows(logits)])
    assert LogitKLLoss(0.5, temperature=3.0)(*logits).item() == pytest.approx(0.5 * 9 * expected)


def test_bce_is_the_cross_entropy_less_its_least_value(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = logits
    target = teacher.sigmoid()
    entropies = [functional.binary_cross_entropy_with_logits(x, target, reduction="sum") / 12 for x in logits]
    assert LogitBCELoss(2.0)(student, teacher).item() == pytest.approx(2 * (entropies[0] - entropies[1]).item())


def test_probabilities_of_0_and_1_are_allowed() -> None:
    values = bernoulli_divergence(torch.tensor([0.0, 0.0, -30.0]), torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(values, torch.tensor([np.log(2), np.log(2), 0.0], dtype=torch.float32))


def test_quality_divergence_by_hand() -> None:
    # Student 0.5, teacher 0.8: |0.3| * (0.8 log(0.8 / 0.5) + 0.2 log(0.2 / 0.5)).
    expected = 0.3 * (0.8 * np.log(1.6) + 0.2 * np.log(0.4))
    assert quality_divergence(torch.zeros(1), torch.tensor([0.8])).item() == pytest.approx(expected, rel=1e-5)


def test_dkd(logits: tuple[Tensor, Tensor]) -> None:
    total = 0.0
    for s, t in rows(logits):
        target = int(t.argmax())
        p, q = softmax(t / 2), softmax(s / 2)
        binary = [np.array([x[target], 1 - x[target]]) for x in (p, q)]
        others = [np.delete(x, target) / (1 - x[target]) for x in (p, q)]
        total += 1.5 * divergence(*binary) + 4 * divergence(*others)
    assert DKDLoss(0.5, alpha=1.5, beta=4.0, temperature=2.0)(*logits).item() == pytest.approx(0.5 * 4 * total / 12)


def test_dkd_with_the_weights_of_kl_is_kl(logits: tuple[Tensor, Tensor]) -> None:
    """The reformulation of the paper: KL is the target's part plus the others', weighted by 1 - p_target."""
    student, teacher = (x[:1, :, :1, :1] for x in logits)  # one row, whose weight is one number
    rest = 1 - teacher.softmax(1).max().item()
    dkd = DKDLoss(alpha=1.0, beta=rest, temperature=1.0)(student, teacher)
    torch.testing.assert_close(dkd, LogitKLLoss()(student, teacher))


def test_dist(logits: tuple[Tensor, Tensor]) -> None:
    pairs = [(softmax(s / 2), softmax(t / 2)) for s, t in rows(logits)]
    between = np.mean([1 - np.corrcoef(s, t)[0, 1] for s, t in pairs])
    columns = zip(*(np.stack(x).T for x in zip(*pairs)))
    within = np.mean([1 - np.corrcoef(s, t)[0, 1] for s, t in columns])
    loss = DISTLoss(0.5, beta=2.0, gamma=3.0, temperature=2.0)(*logits)
    assert loss.item() == pytest.approx(0.5 * 4 * (2 * between + 3 * within), rel=1e-5)


@pytest.mark.parametrize("name", ["LogitKLLoss", "LogitBCELoss", "DKDLoss", "DISTLoss"])
def test_equal_logits_have_no_loss_and_the_gradient_leads_there(name: str, logits: tuple[Tensor, Tensor]) -> None:
    loss = MODELS.build(dict(type=name, weight=2.0))
    student, teacher = logits
    assert loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    student.requires_grad_()
    before = loss(student, teacher)
    before.backward()
    assert student.grad is not None
    assert loss(student.detach() - 0.01 * student.grad, teacher).item() < before.item()
    half = MODELS.build(dict(type=name, weight=1.0))(*logits)
    assert before.item() == pytest.approx(2 * half.item())
