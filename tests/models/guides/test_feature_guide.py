"""A teacher beside any kind of model: what it adds, and where it is not to be seen."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn
from torch.nn import functional

from efftasks.checkpoints.files import load_matching
from efftasks.checkpoints.loading import fitting_weights
from efftasks.compression.folding import fold_model, strip_model
from efftasks.compression.plan import architecture_digest
from efftasks.models.guides.base import Student
from efftasks.models.guides.distillation import FeatureGuide
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec, Stages

KINDS = ["o2o", "deimv2_lite", "sparseinst", "detrpose", "simcc", "fpnlite"]


class Network(nn.Module):
    """A teacher of one map that counts how often it is asked, with a norm, which must stay still."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, channels, 3, 16, 1), nn.BatchNorm2d(channels)
        self.asked = 0

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        return (FeatureSpec(self.conv.out_channels, 16),)

    def stages(self, images: torch.Tensor) -> Stages:
        assert not torch.is_grad_enabled()
        self.asked += 1
        return Stages((self.norm(self.conv(images)),), None)


GUIDE = dict(type="FeatureGuide", teacher=Network())


@pytest.mark.parametrize("name", KINDS)
def test_it_adds_its_loss_to_any_kind_of_model_and_is_no_part_of_it(name: str, families: ModuleType) -> None:
    plain = families.build_family(name)
    model = families.build_family(name, guide=dict(type="FeatureGuide", teacher=Network()))
    guide = model.guide
    before = {key: value.clone() for key, value in guide.teacher.state_dict().items()}
    model.train()
    samples, images = families.samples(name, model.task), families.images(name)
    torch.manual_seed(0)
    losses = model(images, samples, mode="loss")
    torch.manual_seed(0)
    alone = plain.train()(images, samples, mode="loss")
    assert set(losses) - set(alone) == {"guide.loss_features"} and guide.teacher.asked == 1
    assert all(torch.equal(torch.as_tensor(losses[key]), torch.as_tensor(value)) for key, value in alone.items())
    losses["guide.loss_features"].backward()
    assert all(p.grad is not None for p in guide.terms.parameters())
    assert any(p.grad is not None for p in model.backbone.parameters())  # the student learns by it
    assert all(p.grad is None and not p.requires_grad for p in guide.teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in guide.teacher.state_dict().items())
    # Not in what is saved, optimized, averaged or shipped; the student's own weights keep their names.
    own = {key for key in model.state_dict() if not key.startswith("guide.terms.")}
    assert own == set(plain.state_dict())
    assert {id(p) for p in guide.teacher.parameters()}.isdisjoint(id(p) for p in model.parameters())
    assert not any(isinstance(part, Network) for part in model.modules())
    model.zero_grad()
    assert set(ExponentialMovingAverage(model).module.state_dict()) == set(model.state_dict())
    stripped: Any = strip_model(model)
    assert stripped.guide is None and set(stripped.state_dict()) <= own and model.guide is guide
    folded: Any = fold_model(model)
    assert folded.guide is not None and folded.guide.teacher is not guide.teacher


def test_a_checkpoint_is_that_of_a_plain_model(families: ModuleType) -> None:
    """Either starts from the other, and loads it; to resume, the guide must be there."""
    plain, model = families.build_family("o2o"), families.build_family("o2o", guide=GUIDE)
    assert architecture_digest(plain) == architecture_digest(model)
    for target, source in ((plain, model), (model, plain)):
        weights = source.state_dict()
        loaded, report = fitting_weights(target, weights, "a.pth", start=True)
        assert report.complete and set(loaded) == set(target.state_dict())
        assert all(torch.equal(loaded[key], weights[key]) for key in set(loaded) & set(weights))
        load_matching(target, weights)
        with pytest.raises(UserError, match=r"guide\.terms\.features\.adapters\.0\.conv\.weight"):
            fitting_weights(target, weights, "a.pth", start=False)
    with pytest.raises(UserError, match="head"):  # of the rest everything must match
        load_matching(model, {key: value for key, value in plain.state_dict().items() if not key.startswith("head.")})


@pytest.mark.parametrize("name", KINDS)
def test_stages_are_what_the_model_infers_from(name: str, families: ModuleType) -> None:
    model, images = families.build_family(name).eval(), families.images(name)
    with torch.no_grad():
        stages, raw = model.stages(images), model(images, mode="tensor")
    assert [maps.shape[1] for maps in stages.features] == [spec.channels for spec in model.feature_specs]
    first = raw if isinstance(raw, torch.Tensor) else raw[0]
    again = stages.raw if isinstance(stages.raw, torch.Tensor) else stages.raw[0]
    first, again = (x[0] if isinstance(x, tuple) else x for x in (first, again))
    assert torch.equal(first, again)


def test_the_loss_by_hand() -> None:
    teacher = Network(channels=2).eval()
    guide = FeatureGuide(Student((FeatureSpec(3, 8),), 1), teacher, weight=2.5)
    images, own = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 8, 8)
    found = guide(images, Stages((own,), None))["loss_features"]
    projected = functional.avg_pool2d(guide.terms["features"].adapters[0].conv(own), 2)
    with torch.no_grad():
        wanted = teacher.norm(teacher.conv(images))
    torch.testing.assert_close(found, 2.5 * (projected - wanted).square().sum() / wanted.numel())


def test_weights_are_read_when_training_begins(tmp_path: Path) -> None:
    student = Student((FeatureSpec(3, 16),), 1)
    path = tmp_path / "teacher.pth"
    guide = FeatureGuide(student, Network(), weights=path)  # who predicts needs no such file
    inputs = torch.rand(2, 3, 64, 64), Stages((torch.rand(2, 3, 4, 4),), None)
    with pytest.raises(UserError, match=r"teacher\.pth: no such checkpoint file"):
        guide(*inputs)
    other = Network()
    torch.save(other.state_dict(), path)
    guide(*inputs)
    assert torch.equal(guide.teacher.conv.weight, other.conv.weight)
    path.unlink()
    guide(*inputs)


@pytest.mark.parametrize("indices", [(), (2,), (0, -2)])
def test_maps_that_are_not_there_are_refused(indices: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"model\.guide\.terms\.features\.(student|teacher): got"):
        FeatureGuide(Student((FeatureSpec(3, 8), FeatureSpec(4, 16)), 1), Network(), indices=indices)
