"""Matching of poses against all permutations, with costs by hand."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch

from efftasks.models.assigners.hungarian import FocalCost, Matching
from efftasks.models.assigners.pose_matcher import OKSCost, PoseL1Cost, PoseMatcher
from efftasks.models.pose_heads.pose_raw import PoseOutput, PoseTargets

COSTS = [dict(type="FocalCost"), dict(type="PoseL1Cost"), dict(type="OKSCost")]
WIDTH, HEIGHT, QUERIES, POINTS = 200.0, 120.0, 6, 2


@pytest.fixture(autouse=True)
def scope():
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("efftasks"):
        yield


def problem(seed: int) -> tuple[PoseOutput, PoseTargets]:
    random = np.random.default_rng(seed)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.uniform(0.2, 0.8, shape).astype(np.float32))

    output = PoseOutput(
        torch.from_numpy(random.standard_normal((2, QUERIES, 4), dtype=np.float32)), tensor(2, QUERIES, POINTS, 2)
    )
    seen = torch.tensor([[[1.0, 1], [1, 0], [0, 1]], [[1, 1], [0, 0], [1, 1]]])
    targets = PoseTargets(
        labels=torch.from_numpy(random.integers(0, 4, (2, 3))),
        keypoints=torch.cat([tensor(2, 3, POINTS, 2), seen[..., None]], dim=-1),
        areas=5000 * tensor(2, 3),
        valid=torch.tensor([[True, True, True], [True, False, True]]),
        regions=torch.zeros(2, 3, 4),
        sigmas=torch.tensor([0.1, 0.2]),
        size=torch.tensor([WIDTH, HEIGHT]),
    )
    return output, targets


def cost_of(output: PoseOutput, targets: PoseTargets, image: int, query: int, target: int) -> float:
    """The published cost of one pair, a keypoint at a time: focal 2, L1 10, 1 - OKS 4."""
    score = float(output.logits[image, query, targets.labels[image, target]].sigmoid())
    negative = 0.75 * score**2 * -np.log(1 - score)
    positive = 0.25 * (1 - score) ** 2 * -np.log(score)
    distance, similarities = 0.0, []
    for k in range(POINTS):
        x, y, seen = targets.keypoints[image, target, k].tolist()
        if seen:
            dx, dy = output.poses[image, query, k, 0].item() - x, output.poses[image, query, k, 1].item() - y
            distance += abs(dx) + abs(dy)
            spread = 2 * float(targets.areas[image, target]) * (2 * float(targets.sigmas[k])) ** 2
            similarities.append(np.exp(-((dx * WIDTH) ** 2 + (dy * HEIGHT) ** 2) / spread))
    return 2 * (positive - negative) + 10 * distance + 4 * (1 - float(np.mean(similarities)))


def by_image(matching: Matching) -> list[set[tuple[int, int]]]:
    rows = list(zip(*(part.tolist() for part in matching)))
    return [{(q, t) for i, q, t in rows if i == image} for image in range(2)]


@pytest.mark.parametrize("seed", range(5))
def test_no_permutation_is_cheaper(seed: int) -> None:
    output, targets = problem(seed)
    (matching,) = PoseMatcher(COSTS)([output], targets)
    for i, pairs in enumerate(by_image(matching)):
        kept = targets.valid[i].nonzero().flatten().tolist()
        assert {t for _, t in pairs} == set(kept)
        table = {(q, t): cost_of(output, targets, i, q, t) for q in range(QUERIES) for t in kept}
        best = min(sum(table[q, t] for q, t in zip(p, kept)) for p in permutations(range(QUERIES), len(kept)))
        assert sum(table[pair] for pair in pairs) == pytest.approx(best, rel=1e-5)


def test_costs_by_hand() -> None:
    output, targets = problem(0)
    scores = output.logits.sigmoid().gather(2, targets.labels[:, None].expand(-1, QUERIES, -1))
    costs: list[Any] = [FocalCost(), PoseL1Cost(), OKSCost()]
    table = torch.stack([cost(scores, output.poses, targets) for cost in costs]).sum(0)
    for place in ((0, 0, 0), (0, 3, 1), (1, 5, 2)):
        # Minus the similarity and one minus it lead to the same pairs.
        assert float(table[place]) + 4 == pytest.approx(cost_of(output, targets, *place), rel=1e-4)


def test_several_outputs_at_once_equal_one_at_a_time() -> None:
    first, targets = problem(0)
    second, _ = problem(1)
    matcher = PoseMatcher(COSTS)
    for matching, output in zip(matcher([first, second], targets), (first, second)):
        assert by_image(matching) == by_image(matcher([output], targets)[0])


def test_nothing_to_match() -> None:
    output, targets = problem(0)
    nothing = targets._replace(
        **{name: getattr(targets, name)[:, :0] for name in ("labels", "keypoints", "areas", "valid", "regions")}
    )
    (matching,) = PoseMatcher(COSTS)([output], nothing)
    assert all(len(part) == 0 for part in matching)
