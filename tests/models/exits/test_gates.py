"""Gates: what they score, and that a threshold means a share of the images."""

from __future__ import annotations

import efftasks.compat  # noqa: F401

# isort: split
import math
from collections.abc import Callable
from functools import partial
from operator import itemgetter

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from efftasks.models.exits.agreement import agreement
from efftasks.models.exits.gates import (
    AgreementGate,
    BothAnswers,
    ConfidenceGate,
    ExitGate,
    LossGate,
    score_statistics,
)
from efftasks.structures.instances import DetectionTensors

CHANNELS = (4,)


def answer(scores: Tensor, shift: float = 0.0) -> DetectionTensors:
    """Detections of the given scores (B, K) in boxes that do not overlap one another."""
    left = 20.0 * torch.arange(scores.shape[1]) + shift
    boxes = torch.stack([left, torch.zeros_like(left), left + 10, torch.full_like(left, 10)], -1)
    return DetectionTensors(boxes.expand(*scores.shape, 4), scores, torch.zeros_like(scores, dtype=torch.long))


def maps(count: int) -> list[Tensor]:
    return [torch.zeros(count, CHANNELS[0], 3, 3)]


@pytest.mark.parametrize("kind", [ConfidenceGate, LossGate, AgreementGate])
def test_a_score_is_the_share_of_training_images_with_a_worse_early_answer(kind: Callable[..., ExitGate]) -> None:
    torch.manual_seed(0)
    gate = kind(CHANNELS, memory=500)
    gate.train()
    for _ in range(400):  # 3200 images, the last 500 count most
        gate(maps(8), answer(torch.rand(8, 5) ** 3))
    gate.eval()
    scores, _ = gate(maps(2000), answer(torch.rand(2000, 5) ** 3))
    for threshold in (0.1, 0.25, 0.5, 0.75, 0.9):
        exits = (scores >= threshold).float().mean().item()
        assert exits == pytest.approx(1 - threshold, abs=0.06), threshold
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_it_ranks_among_the_images_it_was_calibrated_by() -> None:
    gate = ConfidenceGate(CHANNELS, bins=1000).eval()
    gate.calibrate(torch.tensor([0.1005, 0.2005, 0.3005, 0.9005]))
    certainty = torch.tensor([[0.05], [0.15], [0.25], [0.5], [0.95]])  # of one detection: its score
    scores, _ = gate(maps(5), answer(certainty))
    assert_close(scores, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))


def test_an_untrained_gate_gives_the_quality_itself() -> None:
    scores, logits = ConfidenceGate(CHANNELS).eval()(maps(2), answer(torch.tensor([[0.3], [0.8]])))
    assert_close(scores, torch.tensor([0.3, 0.8]), atol=1e-3, rtol=0)
    assert_close(logits.sigmoid(), torch.tensor([0.3, 0.8]))


def test_the_first_images_count_at_once() -> None:
    gate = ConfidenceGate(CHANNELS, memory=1000)
    gate.train()
    gate(maps(4), answer(torch.tensor([[0.2], [0.2], [0.4], [0.4]])))
    gate(maps(4), answer(torch.tensor([[0.4], [0.6], [0.6], [0.6]])))
    scores, _ = gate.eval()(maps(3), answer(torch.tensor([[0.3], [0.5], [0.7]])))
    assert_close(scores, torch.tensor([2 / 8, 5 / 8, 1.0]))


def test_in_evaluation_nothing_is_counted() -> None:
    gate = ConfidenceGate(CHANNELS).eval()
    before = gate.histogram.clone()
    gate(maps(2), answer(torch.rand(2, 3)))
    assert_close(gate.histogram, before, rtol=0, atol=0)


def test_confidence_is_the_mean_score_weighted_by_the_scores() -> None:
    _, logits = ConfidenceGate(CHANNELS)(maps(2), answer(torch.tensor([[0.9, 0.3, 0.0], [0.5, 0.5, 0.5]])))
    assert_close(logits.sigmoid(), torch.tensor([(0.81 + 0.09) / 1.2, 0.5]))


def test_the_statistics_are_those_of_the_scores() -> None:
    (row,) = score_statistics(torch.tensor([[0.95, 0.45, 0.07]])).tolist()
    counts = [3, 2, 2, 2, 2, 1, 1, 1, 1, 1]  # above 0.05, 0.1, 0.2, ..., 0.9
    assert row[:10] == pytest.approx([math.log1p(count) for count in counts])
    assert row[10] == pytest.approx(math.log1p(1.47))
    assert row[11] == pytest.approx((0.95**2 + 0.45**2 + 0.07**2) / 1.47)
    assert row[12] == pytest.approx(math.log1p(0.95 * 0.05 + 0.45 * 0.55 + 0.07 * 0.93))


def test_equal_answers_agree_and_others_as_far_as_they_overlap() -> None:
    scores = torch.tensor([[0.8, 0.4]])
    assert_close(agreement(answer(scores), answer(scores)), torch.ones(1))
    assert_close(agreement(answer(scores), answer(scores, shift=10)), torch.zeros(1))  # beside one another
    moved = answer(scores, shift=2)  # IoU 8 / 12
    assert_close(agreement(answer(scores), moved), torch.full((1,), 8 / 12))
    other = moved._replace(labels=torch.ones_like(moved.labels))
    assert_close(agreement(answer(scores), other), torch.zeros(1))
    # What only one of them has: the detection of 0.4 (squared 0.16) is missing in the other.
    fewer = answer(torch.tensor([[0.8, 0.0]]))
    expected = torch.tensor([2 * 0.64 / (0.64 + 0.64 + 0.16)])
    assert_close(agreement(answer(scores), fewer), expected)
    assert_close(agreement(fewer, answer(scores)), expected)


def test_no_objects_in_both_is_agreement() -> None:
    nothing = answer(torch.zeros(1, 3))
    assert_close(agreement(nothing, nothing), torch.ones(1))


def known_problem(count: int) -> tuple[list[Tensor], Tensor]:
    """Maps whose first channel says whether an image is hard, and which are: bool (count,)."""
    hard = torch.rand(count) < 0.4
    level = torch.randn(count, CHANNELS[0], 3, 3)
    level[:, 0] += 2.0 * hard[:, None, None]
    return [level], hard


@pytest.mark.parametrize("kind", [LossGate, AgreementGate])
def test_a_gate_learns_which_images_are_hard(kind: type[LossGate | AgreementGate]) -> None:
    torch.manual_seed(0)
    gate = kind(CHANNELS, memory=500)
    gate.train()
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=120)
    scores = torch.full((32, 3), 0.7)
    for _ in range(120):
        levels, hard = known_problem(32)
        late = answer(scores)
        early = late._replace(boxes=torch.where(hard[:, None, None], late.boxes + 10, late.boxes))
        losses: tuple[torch.Tensor, torch.Tensor] = (1.0 + 2.0 * hard + 0.2 * torch.randn(32), torch.ones(32))
        _, logits = gate(levels, early)
        loss = gate.loss(logits, BothAnswers(early, late, partial(itemgetter(slice(None)), losses)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    gate.eval()
    levels, hard = known_problem(400)
    with torch.no_grad():
        rank, _ = gate(levels, answer(scores[:1].expand(400, 3)))
    # The area under the ROC curve: how often an easy image has the better score.
    better = (rank[~hard][:, None] > rank[hard]).float().mean().item()
    assert better > 0.95
    # Forty percent are hard: what leaves at a high threshold is easy, what goes on at a low one is hard.
    assert (~hard)[rank >= 0.7].float().mean() > 0.9
    assert hard[rank < 0.2].float().mean() > 0.9


def test_a_gate_sends_no_gradient_into_the_network() -> None:
    gate = LossGate(CHANNELS)
    level = torch.rand(2, CHANNELS[0], 3, 3, requires_grad=True)
    scores = torch.rand(2, 3, requires_grad=True)
    rank, logits = gate([level], answer(scores))
    (rank.sum() + logits.sum()).backward()
    assert level.grad is None
    assert scores.grad is None
    assert all(parameter.grad is not None for parameter in gate.parameters())


def test_the_loss_gate_compares_with_the_median_difference() -> None:
    gate = LossGate(CHANNELS, memory=8)
    losses = (torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 1.0, 1.0]))
    detections = answer(torch.rand(3, 2))
    target = gate.target(BothAnswers(detections, detections, lambda: losses))
    assert target[0] < 0.5
    assert target[1] == pytest.approx(0.5)  # all of the memory: the median of 2, 1, 0
    assert target[2] > 0.5
    assert gate.median.item() == pytest.approx(1.0)
    assert gate.spread.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("wrong", [dict(bins=0), dict(memory=0)])
def test_impossible_histograms_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected integers from 1"):
        ConfidenceGate(CHANNELS, **wrong)
