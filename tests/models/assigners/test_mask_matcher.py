"""Matching of masks: by hand, against all permutations, and what takes no part."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from efftasks.models.assigners.hungarian import Matching
from efftasks.models.assigners.mask_matcher import MaskMatcher, learnable_objects
from efftasks.structures.instances import PaddedTargets

CLASSES, CELLS = 4, (6, 5)


def problem(seed: int, count: int = 6, most: int = 3) -> tuple[Tensor, Tensor, PaddedTargets]:
    g = torch.Generator().manual_seed(seed)
    logits, masks = torch.randn(2, count, CLASSES, generator=g), 2 * torch.randn(2, count, *CELLS, generator=g)
    ground_truth = torch.randint(0, 256, (2, most, *CELLS), generator=g, dtype=torch.uint8)
    valid = torch.ones(2, most, dtype=torch.bool)
    labels = torch.randint(0, CLASSES, (2, most), generator=g)
    boxes = torch.tensor([0.0, 0.0, 20.0, 24.0]).expand(2, most, 4)
    return logits, masks, PaddedTargets(labels, boxes, valid, torch.zeros_like(valid), ground_truth)


def by_image(matching: Matching) -> list[set[tuple[int, int]]]:
    rows = list(zip(*(part.tolist() for part in matching)))
    return [{(q, t) for i, q, t in rows if i == image} for image in range(2)]


def fit(logits: Tensor, masks: Tensor, targets: PaddedTargets, image: int, query: int, target: int) -> float:
    assert targets.masks is not None
    p = masks[image, query].double().sigmoid()
    t = targets.masks[image, target].double() / 255
    dice = 2 * float((p * t).sum()) / float((p * p).sum() + (t * t).sum())
    score = float(logits[image, query, targets.labels[image, target]].double().sigmoid())
    return dice**0.8 * score**0.2


@pytest.mark.parametrize("seed", range(5))
def test_no_permutation_is_better(seed: int) -> None:
    logits, masks, targets = problem(seed)
    assert targets.masks is not None
    targets.valid[1, 1] = False
    targets.ignored[1, 0] = True
    matches = by_image(MaskMatcher()(logits, masks, targets))
    for i, objects in enumerate(([0, 1, 2], [2])):
        assert {t for _, t in matches[i]} == set(objects)
        values = [
            sum(fit(logits, masks, targets, i, q, t) for q, t in zip(chosen, objects))
            for chosen in permutations(range(6), len(objects))
        ]
        own = sum(fit(logits, masks, targets, i, q, t) for q, t in matches[i])
        assert own == pytest.approx(max(values), rel=1e-6)


def test_mask_and_class_both_count() -> None:
    ground_truth = torch.zeros(1, 1, *CELLS, dtype=torch.uint8)
    ground_truth[0, 0, :3] = 255
    near = 8 * (ground_truth[0, 0].float() / 127.5 - 1)
    far = -near
    yes = torch.ones(1, 1, dtype=torch.bool)
    targets = PaddedTargets(torch.tensor([[2]]), torch.zeros(1, 1, 4), yes, ~yes, ground_truth)
    sure, unsure = torch.tensor([-3.0, -3, 3, -3]), torch.full((4,), -3.0)
    for masks, logits in (((near, far), (unsure, sure)), ((near, near), (sure, unsure))):
        matching = MaskMatcher()(torch.stack(logits)[None], torch.stack(masks)[None], targets)
        assert [part.tolist() for part in matching] == [[0], [0], [0]]


def test_exponents_shift_the_weight() -> None:
    logits, masks, targets = problem(0)
    score = by_image(MaskMatcher(alpha=0.0, beta=1.0)(logits, masks, targets))
    again = by_image(MaskMatcher(alpha=0.0, beta=1.0)(logits, torch.randn_like(masks), targets))
    assert score == again
    mask = by_image(MaskMatcher(alpha=1.0, beta=0.0)(logits, masks, targets))
    assert mask == by_image(MaskMatcher(alpha=1.0, beta=0.0)(torch.randn_like(logits), masks, targets))


def test_only_objects_with_a_mask_are_learned() -> None:
    *_, targets = problem(0)
    assert targets.masks is not None
    targets.masks[0, 1] = 0
    targets.ignored[0, 2] = True
    targets.valid[1, 1:] = False
    assert learnable_objects(targets).tolist() == [[True, False, False], [True, False, False]]
    assert not learnable_objects(targets._replace(masks=None)).any()


def test_more_objects_than_predictions() -> None:
    logits, masks, targets = problem(1, count=2, most=5)
    matches = by_image(MaskMatcher()(logits, masks, targets))
    for i in range(2):
        best = max(
            sum(fit(logits, masks, targets, i, q, t) for q, t in enumerate(chosen))
            for chosen in permutations(range(5), 2)
        )
        assert sum(fit(logits, masks, targets, i, q, t) for q, t in matches[i]) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("case", ["none in the batch", "no masks", "all ignored"])
def test_nothing_to_match(case: str) -> None:
    logits, masks, targets = problem(0, most=0 if case == "none in the batch" else 2)
    if case == "no masks":
        targets = targets._replace(masks=None)
    if case == "all ignored":
        targets.ignored[:] = True
    assert all(len(part) == 0 and part.dtype == torch.long for part in MaskMatcher()(logits, masks, targets))


def test_broken_predictions_stop_nothing() -> None:
    logits, masks, targets = problem(0)
    masks[0, 0] = float("nan")
    matches = by_image(MaskMatcher()(logits, masks, targets))
    assert 0 not in {q for q, _ in matches[0]} and len(matches[0]) == 3
