"""Losses between maps: against numpy, and by their properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from efftasks.models.losses.distillation_maps import CWDLoss, FeatureMSELoss, MGDLoss, PKDLoss
from efftasks.registry import MODELS


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)


def test_pkd_is_one_minus_the_correlation_of_each_channel_over_the_batch(maps: tuple[Tensor, Tensor]) -> None:
    s, t = (x.movedim(1, 0).flatten(1).numpy() for x in maps)
    expected = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(s, t)])
    assert PKDLoss(weight=3.0)(*maps).item() == pytest.approx(3 * expected, rel=1e-4)


def test_pkd_knows_neither_scale_nor_mean_and_a_dead_channel_has_a_gradient(maps: tuple[Tensor, Tensor]) -> None:
    student, teacher = maps
    assert PKDLoss()(teacher * 7 - 3, teacher).item() == pytest.approx(0, abs=1e-5)
    assert PKDLoss()(-teacher, teacher).item() == pytest.approx(2, rel=1e-4)
    student[:, 0] = 0.5
    student.requires_grad_()
    PKDLoss()(student, teacher).backward()
    assert student.grad is not None and bool(student.grad.isfinite().all()) and bool(student.grad[:, 1:].any())


def test_cwd_by_hand(maps: tuple[Tensor, Tensor]) -> None:
    total = 0.0
    for s, t in zip(*(x.flatten(2).numpy() for x in maps)):
        for a, b in zip(s, t):
            p, q = np.exp(b / 2) / np.exp(b / 2).sum(), np.exp(a / 2) / np.exp(a / 2).sum()
            total += (p * np.log(p / q)).sum()
    assert CWDLoss(weight=5.0, temperature=2.0)(*maps).item() == pytest.approx(5 * 4 * total / (2 * 3))


def test_mean_and_sum_of_squares(maps: tuple[Tensor, Tensor]) -> None:
    squares = (maps[0] - maps[1]).numpy() ** 2
    assert FeatureMSELoss(2.0)(*maps).item() == pytest.approx(2 * squares.mean())
    assert MGDLoss(2e-5)(*maps).item() == pytest.approx(2e-5 * squares.sum() / 2)


@pytest.mark.parametrize("name", ["PKDLoss", "CWDLoss", "FeatureMSELoss", "MGDLoss"])
def test_equal_maps_have_no_loss_and_the_weight_is_a_factor(name: str, maps: tuple[Tensor, Tensor]) -> None:
    loss, double = MODELS.build(dict(type=name, weight=1.0)), MODELS.build(dict(type=name, weight=2.0))
    assert loss(maps[1], maps[1]).item() == pytest.approx(0, abs=1e-12)
    assert loss(*maps).item() > 0
    assert double(*maps).item() == pytest.approx(2 * loss(*maps).item())
