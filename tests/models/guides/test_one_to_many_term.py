"""Distillation into the one-to-many branch: by hand, and what it reaches."""

from __future__ import annotations

import copy
from types import ModuleType, SimpleNamespace
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from efftasks.models.det_heads.o2o_head import BranchRaw, O2ORaw
from efftasks.models.guides.one_to_many_term import OneToManyTerm
from efftasks.models.guides.sources import Measured, Networks
from efftasks.models.guides.terms import ClassMap
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec, Stages
from efftasks.structures.instances import DetectionTensors

SAME = ClassMap((0, 1, 2))


@pytest.fixture(autouse=True)
def scope() -> None:
    DefaultScope.get_instance("test-one-to-many", scope_name="efftasks")


@pytest.fixture
def student(families: ModuleType) -> Any:
    return families.build_family("o2o").train()


def term(student: Any, teacher: Any, **arguments: Any) -> OneToManyTerm:
    return OneToManyTerm(Networks(Measured(student, ()), Measured(teacher, ()), "terms.a"), **arguments)


def branch(logits: list[float], distances: list[float]) -> BranchRaw:
    """Of one image, one point and two classes."""
    return BranchRaw(torch.tensor([[logits]]), torch.tensor([[distances]]), {})


def test_by_hand(student: Any) -> None:
    points, strides = torch.tensor([[20.0, 20.0]]), torch.tensor([[8.0]])
    # The student's box is 12 12 28 28, the teacher's 12 12 28 36: IoU 2/3, hull 16 x 24, centers 4 apart.
    own = branch([0.0, -2.0], [1.0, 1.0, 1.0, 1.0])
    other = branch([2.0, -3.0], [1.0, 1.0, 1.0, 2.0])
    head = copy.deepcopy(student.head)
    head.one_to_many = _Constant(other)
    teacher = Stages((), O2ORaw(other, None, points, strides, {}), model=SimpleNamespace(head=head))
    found = term(student, student, class_weight=2.0, box_weight=3.0)(
        Stages((), O2ORaw(own, own, points, strides, {})), teacher, ClassMap((0, 1))
    )

    def sigmoid(x: float) -> float:
        return 1 / (1 + np.exp(-x))

    cls = 0.0
    for s, t in ((0.0, 2.0), (-2.0, -3.0)):
        p, q = sigmoid(t), sigmoid(s)
        cls += abs(p - q) * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    aspect = 4 / np.pi**2 * (np.arctan(1.0) - np.arctan(16 / 24)) ** 2
    ciou = 2 / 3 - 16 / (16**2 + 24**2) - aspect**2 / (1 - 2 / 3 + aspect)
    assert found["cls"].item() == pytest.approx(2 * cls, rel=1e-4)  # the sum of qualities is below 1, and counts as 1
    assert found["box"].item() == pytest.approx(3 * sigmoid(2.0) * (1 - ciou), rel=1e-4)


class _Constant(torch.nn.Module):
    """A branch with one prediction for all features."""

    def __init__(self, prediction: BranchRaw) -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, features: Any) -> BranchRaw:
        return self.prediction


def stages_of(model: Any, images: torch.Tensor) -> Stages:
    return model.stages(images)._replace(model=model)


def test_it_reaches_the_one_to_many_branch_neck_and_backbone_alone(student: Any, families: ModuleType) -> None:
    teacher = families.build_family("o2o").eval()
    for parameter in teacher.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for layer in teacher.head.one_to_many.classes:
        layer[-1].bias.data.fill_(-1.0)  # it sees objects
    images = families.images("o2o")
    with torch.no_grad():
        seen = stages_of(teacher, images)
    losses = term(student, teacher)(stages_of(student, images), seen, SAME)
    sum(losses.values()).backward()
    with_gradient = {name for name, p in student.named_parameters() if p.grad is not None}
    assert not any(name.startswith("head.one_to_one") for name in with_gradient)
    for start in ("head.one_to_many.boxes", "head.one_to_many.classes", "neck", "backbone"):
        assert any(name.startswith(start) for name in with_gradient)
    assert all(p.grad is None for p in teacher.parameters())


def test_a_student_that_says_the_same_has_no_loss(student: Any, families: ModuleType) -> None:
    student.eval()
    for layer in student.head.one_to_many.classes:
        layer[-1].bias.data.fill_(0.5)
    with torch.no_grad():
        seen = stages_of(student, families.images("o2o"))
        own = seen._replace(raw=seen.raw._replace(one_to_many=student.head.one_to_many(seen.features)))
        same = term(student, student)(own, seen, SAME)
        others = term(student, student)(own, seen, ClassMap((2, 0, 1)))
    assert same["cls"].item() == pytest.approx(0, abs=1e-5) and same["box"].item() == pytest.approx(0, abs=1e-4)
    assert others["cls"].item() > 1e-4


def test_detections_of_a_query_detector_are_assigned_to_points(student: Any, families: ModuleType) -> None:
    teacher = families.build_family("dfine").eval()
    boxes = torch.tensor([[[20.0, 20.0, 100.0, 120.0], [0.0, 0.0, 30.0, 30.0], [9.0, 9.0, 40.0, 40.0]]])
    # At twice the student's size. The last has a class that the student lacks, the second a low score.
    detections = DetectionTensors(boxes, torch.tensor([[0.9, 0.01, 0.8]]), torch.tensor([[3, 0, 1]]))
    network = SimpleNamespace(head=SimpleNamespace(decode=lambda raw: detections), feature_specs=[FeatureSpec(1, 8)])
    seen = Stages((torch.zeros(1, 1, 24, 24),), None, model=network)
    own = stages_of(student, families.images("o2o", 1))
    found = term(student, teacher)
    raw: Any = own.raw
    logits, start = raw.one_to_many.logits, torch.cat([raw.points, raw.points], 1)
    predicted = (start + torch.tensor([-1.0, -1, 1, 1]) * raw.one_to_many.distances * raw.strides).detach()
    targets = found._of_detections(own, logits.detach(), predicted, seen, ClassMap((0, 3, 2)))
    points = targets.quality[0].nonzero()[:, 0]
    assert 0 < len(points) <= 10 and bool((targets.quality <= 0.9).all())
    assert torch.equal(targets.boxes[0, points], (boxes[0, :1] / 2).expand(len(points), 4))
    assert torch.equal(targets.probabilities[0, points, 1], targets.quality[0, points])
    assert targets.probabilities.sum().item() == pytest.approx(targets.quality.sum().item())
    inside = (raw.points[points] > 10).all(1) & (raw.points[points] < torch.tensor([50.0, 60.0])).all(1)
    assert bool(inside.all())


def test_other_points_and_heads_are_refused(student: Any, families: ModuleType) -> None:
    teacher = families.build_family("o2o").eval()
    own = stages_of(student, families.images("o2o"))
    with torch.no_grad():
        seen = stages_of(teacher, torch.rand(2, 3, 64, 64))
    with pytest.raises(UserError, match=r"terms\.a: the teacher has 84 points and the student 189; .*teacher_scale=1"):
        term(student, teacher)(own, seen, SAME)
    with pytest.raises(UserError, match=r"terms\.a: the student: got a QueryHead, expected a head of type O2OHead"):
        term(families.build_family("dfine"), teacher)
    with pytest.raises(UserError, match=r"terms\.a: the teacher: got a Segmentor, expected .* O2OHead or QueryHead"):
        term(student, families.build_family("fpnlite"))
