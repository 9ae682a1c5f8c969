"""Terms on poses by hand; all of them against the authors' in tests/models/pose_heads/test_authors.py."""

from __future__ import annotations

import math

import efftasks.compat  # noqa: F401

import pytest
import torch

from efftasks.models.assigners.hungarian import Matching
from efftasks.models.losses.pose_criterion import match_poses
from efftasks.models.losses.pose_terms import MatchedPoses, OKSTerm, PoseL1Term
from efftasks.models.losses.set_terms import VarifocalTerm
from efftasks.models.pose_heads.pose_raw import PoseOutput, PoseTargets


def matched() -> MatchedPoses:
    """Query 1 of two with the one object of an image of 100 x 50 pixels; its third keypoint is not annotated."""
    poses = torch.tensor([[[[0.0, 0.0]] * 3, [[0.5, 0.5], [0.6, 0.4], [0.9, 0.9]]]], requires_grad=True)
    targets = PoseTargets(
        labels=torch.tensor([[0]]),
        keypoints=torch.tensor([[[[0.5, 0.54, 1.0], [0.57, 0.4, 1.0], [0.0, 0.0, 0.0]]]]),
        areas=torch.tensor([[100.0]]),
        valid=torch.tensor([[True]]),
        regions=torch.zeros(1, 1, 4),
        sigmas=torch.tensor([0.1, 0.2, 0.3]),
        size=torch.tensor([100.0, 50.0]),
    )
    place = torch.tensor([0])
    output = PoseOutput(torch.tensor([[[0.2], [-0.4]]], requires_grad=True), poses)
    return match_poses(output, Matching(place, torch.tensor([1]), place), targets)


# Two pixels down and three across; spreads 2 * 100 * 0.2 ** 2 = 8 and 2 * 100 * 0.4 ** 2 = 32 square pixels.
OKS = (math.exp(-4 / 8) + math.exp(-9 / 32)) / 2


def test_l1_is_of_fractions_of_the_image() -> None:
    assert float(PoseL1Term(weight=10.0)(matched()).detach()) == pytest.approx(10 * (0.04 + 0.03), rel=1e-5)


def test_similarity_is_of_pixels() -> None:
    assert float(OKSTerm(weight=4.0)(matched()).detach()) == pytest.approx(4 * (1 - OKS), rel=1e-5)


def test_scores_learn_the_similarity_which_does_not_learn_from_them() -> None:
    pairs = matched()
    loss = VarifocalTerm(weight=2.0, alpha=0.25, gamma=2.0)(pairs)
    background, foreground = (1 / (1 + math.exp(-x)) for x in (0.2, -0.4))
    expected = 0.25 * background**2 * -math.log(1 - background)
    expected += OKS * (-OKS * math.log(foreground) - (1 - OKS) * math.log(1 - foreground))
    assert float(loss.detach()) == pytest.approx(2 * expected, rel=1e-5)
    loss.backward()
    assert pairs.output.logits.grad is not None and pairs.output.poses.grad is None


@pytest.mark.parametrize("term", [PoseL1Term(), OKSTerm()])
def test_only_annotated_keypoints_of_matched_queries_learn(term: torch.nn.Module) -> None:
    pairs = matched()
    term(pairs).backward()
    grad = pairs.output.poses.grad
    assert grad is not None
    assert grad[0, 0].abs().sum() == 0 and grad[0, 1, 2].abs().sum() == 0
    assert grad[0, 1, 0, 1] < 0 < grad[0, 1, 1, 0], "towards the keypoints"
