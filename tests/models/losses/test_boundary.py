"""The boundary loss: numbers by hand, its definition pixel by pixel, and what it must and must not react to."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample
from torch import Tensor

from efftasks.models.losses.boundary import BoundaryF1Loss

IGNORED = 255


def two_classes(second: list[float]) -> Tensor:
    """Logits (1, 2, 1, W) whose softmax gives the second class these probabilities."""
    p = torch.tensor(second, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()])[None, :, None]


def row(*labels: int) -> Tensor:
    return torch.tensor(labels)[None, None]


def sure(label: Tensor, classes: int) -> Tensor:
    """Logits (B, C, H, W) that leave no doubt."""
    return 100.0 * torch.nn.functional.one_hot(label, classes).movedim(-1, 1).double()


# Boundary of the second class: 0, 0.2 - 0.1, 0.6 - 0.2, 0.9 - 0.6, of which there are 0.8 in all; the true one is the
# third pixel. Of the first class it is 0.1, 0.4, 0.3, 0 about the second pixel: the same numbers.
@pytest.mark.parametrize(
    ("theta", "precision", "recall"),
    [(1, 0.4 / 0.8, 0.4), (3, 0.8 / 0.8, 0.4)],
)
def test_by_hand(theta: int, precision: float, recall: float) -> None:
    loss = BoundaryF1Loss(theta=theta, loss_weight=2.0)(two_classes([0.1, 0.2, 0.6, 0.9]), row(0, 0, 1, 1))
    assert loss.item() == pytest.approx(2 * (1 - 2 * precision * recall / (precision + recall)), abs=1e-6)


def test_by_hand_with_an_ignored_pixel() -> None:
    # The first pixel has no neighbour then, and the second is not one of the third.
    logits = two_classes([0.1, 0.2, 0.3, 0.5, 0.7])
    loss = BoundaryF1Loss(theta=1)(logits, row(0, IGNORED, 0, 0, 1))
    # Second class: 0, -, 0, 0.2, 0.2; true 0, -, 0, 0, 1. First class: 0, -, 0.2, 0.2, 0; true 0, -, 0, 1, 0.
    precision, recall = 0.2 / 0.4, 0.2
    assert loss.item() == pytest.approx(1 - 2 * precision * recall / (precision + recall), abs=1e-6)


def boundary(part: np.ndarray, valid: np.ndarray, side: int) -> np.ndarray:
    edges = np.zeros_like(part)
    reach = side // 2
    for y, x in np.argwhere(valid):
        window = np.s_[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        edges[y, x] = part[y, x] - part[window][valid[window]].min()
    return edges


def spread(values: np.ndarray, side: int) -> np.ndarray:
    reach = side // 2
    rows, columns = values.shape
    return np.array(
        [
            [values[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1].max() for x in range(columns)]
            for y in range(rows)
        ]
    )


def by_definition(scores: np.ndarray, label: np.ndarray, theta0: int, theta: int, weight: np.ndarray) -> float:
    losses = []
    for p, t, w in zip(scores, label, weight):
        valid = t != IGNORED
        for index in set(t[valid].tolist()):
            predicted, true = boundary(p[index], valid, theta0), boundary((t == index).astype(float), valid, theta0)
            if not (true * w).any():
                continue
            precision = (w * predicted * spread(true, theta)).sum() / (w * predicted).sum()
            recall = (w * true * spread(predicted, theta)).sum() / (w * true).sum()
            losses.append(1 - 2 * precision * recall / (precision + recall))
    return float(np.mean(losses))


@pytest.mark.parametrize(("theta0", "theta"), [(3, 5), (5, 3), (3, 1), (7, 9)])
@pytest.mark.parametrize("weighted", [False, True])
def test_by_definition(theta0: int, theta: int, weighted: bool) -> None:
    random = np.random.default_rng(0)
    logits = torch.tensor(random.standard_normal((3, 5, 9, 11)))
    label = random.integers(0, 3, (3, 9, 11))  # two of the five classes are nowhere
    label[0, :4] = IGNORED
    label[1] = 1  # no boundary at all
    label[2][random.random((9, 11)) < 0.2] = IGNORED
    weight = random.random((3, 9, 11)).round() if weighted else np.ones((3, 9, 11))
    expected = by_definition(logits.softmax(1).numpy(), label, theta0, theta, weight)
    given = torch.tensor(weight) if weighted else None
    loss = BoundaryF1Loss(theta0=theta0, theta=theta)(logits, torch.tensor(label), weight=given)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def blob() -> Tensor:
    y, x = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
    label = ((y - 12) ** 2 + (x - 12) ** 2 < 49).long() + 2 * (x >= 24).long()
    return label[None]


def test_a_perfect_prediction_costs_nothing() -> None:
    assert BoundaryF1Loss()(sure(blob(), 4), blob()).item() < 1e-6


def test_the_further_off_the_dearer() -> None:
    label = (torch.arange(40) >= 16).long().expand(1, 12, 40)
    at = torch.arange(40, dtype=torch.float64)
    losses = []
    for shift in range(8):
        ramp = (at - 15.5 - shift).expand(1, 12, 40)
        losses.append(BoundaryF1Loss()(torch.stack([-ramp, ramp], 1), label).item())
    assert all(a < b - 1e-4 for a, b in pairwise(losses)), losses
    assert losses[0] < 0.4 and losses[-1] > 0.99


def test_within_theta_a_boundary_is_met() -> None:
    # Half of theta rounds down to two pixels.
    for shift, expected in ((0, 0.0), (2, 0.0), (3, 1.0)):
        label, moved = ((torch.arange(20) >= edge).long().expand(1, 6, 20) for edge in (8, 8 + shift))
        assert BoundaryF1Loss(theta=5)(sure(moved, 2), label).item() == pytest.approx(expected, abs=1e-5)


def test_ignored_pixels_do_not_matter() -> None:
    label = blob()
    label[0, 5:19, 10:14] = IGNORED
    logits = torch.randn(1, 4, 24, 32, dtype=torch.float64, requires_grad=True)
    loss = BoundaryF1Loss()(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient.movedim(1, -1)[label == IGNORED].any()
    assert gradient.movedim(1, -1)[label != IGNORED].any()
    changed = torch.where((label == IGNORED)[:, None], 50 * torch.randn_like(logits), logits)
    assert BoundaryF1Loss()(changed, label).item() == loss.item()
    # Another number may stand for them.
    again = BoundaryF1Loss()(logits, torch.where(label == IGNORED, -1, label), ignore_index=-1)
    assert again.item() == loss.item()


def test_the_rim_of_what_is_ignored_is_no_boundary() -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.long)
    label[0, 2:5, 2:5] = IGNORED
    assert BoundaryF1Loss()(torch.randn(1, 3, 8, 8), label).item() == 0


def test_classes_and_images_without_a_boundary_are_left_out() -> None:
    label = blob()
    logits = torch.randn(1, 4, 24, 32, dtype=torch.float64)
    loss = BoundaryF1Loss()(logits, label)
    pair = torch.cat([label, torch.full_like(label, 3), torch.full_like(label, IGNORED)])
    assert BoundaryF1Loss()(logits.expand(3, -1, -1, -1), pair).item() == pytest.approx(loss.item(), abs=1e-12)
    assert BoundaryF1Loss()(logits, label, avg_factor=6).item() == pytest.approx(loss.item() / 2, abs=1e-12)


@pytest.mark.parametrize("value", [0, IGNORED])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
def test_nothing_to_compare_is_no_loss(value: int, scale: float) -> None:
    logits = (scale * torch.randn(2, 3, 8, 8)).requires_grad_()
    loss = BoundaryF1Loss()(logits, torch.full((2, 8, 8), value))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_gradient_is_finite(scale: float, dtype: torch.dtype) -> None:
    logits = (scale * torch.randn(1, 4, 24, 32)).to(dtype).requires_grad_()
    loss = BoundaryF1Loss()(logits, blob())
    loss.backward()
    assert 0 <= loss.item() <= 1 and math.isfinite(loss.item())
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())
    assert float(logits.grad.abs().max()) < 1


def test_the_gradient_is_the_slope() -> None:
    logits = torch.randn(1, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 3, (1, 5, 6))
    assert torch.autograd.gradcheck(lambda x: BoundaryF1Loss()(x, label), (logits,))


def test_descent_moves_the_boundary() -> None:
    label = blob()
    logits = (0.1 * torch.randn(1, 4, 24, 32)).requires_grad_()
    loss = BoundaryF1Loss()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    first = loss(logits, label).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss(logits, label).backward()
        optimizer.step()
    assert loss(logits, label).item() < 0.3 * first


@pytest.mark.parametrize("sampler", [None, dict(type="mmseg.OHEMPixelSampler", thresh=0.7, min_kept=100)])
def test_beside_cross_entropy_in_a_head(sampler: dict[str, Any] | None) -> None:
    cross_entropy = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
    losses = [cross_entropy, dict(type="efftasks.BoundaryF1Loss", loss_weight=0.5)]
    widths = dict(in_channels=8, channels=8, num_classes=4)
    head = FCNHead(**widths, num_convs=1, concat_input=False, loss_decode=losses, sampler=sampler)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=blob())) for _ in range(2)]
    loss = head.loss((torch.randn(2, 8, 6, 8),), samples, train_cfg={})
    assert sorted(loss) == ["acc_seg", "loss_boundary", "loss_ce"]
    assert 0 < loss["loss_boundary"].item() < 0.5
    loss["loss_boundary"].backward()
    assert head.conv_seg.weight.grad is not None and head.conv_seg.weight.grad.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(theta0=4), "theta0: got 4, allowed is an odd number of at least 3"),
        (dict(theta0=1), "theta0: got 1, allowed is an odd number of at least 3"),
        (dict(theta=0), "theta: got 0, allowed is an odd number of at least 1"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoundaryF1Loss(**arguments)
