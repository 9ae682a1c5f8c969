"""Distillation as a whole: in every kind of model, from teachers of all kinds."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import DefaultScope
from torch import nn

from efftasks.compression.plan import architecture_digest
from efftasks.models.guides.distillation import Distillation
from efftasks.models.guides.teachers import TeacherImages, class_map
from efftasks.models.preprocessors import DetPreprocessor, SegPreprocessor, normalization_of
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec, Stages


@pytest.fixture(autouse=True)
def scope() -> None:
    DefaultScope.get_instance("test-distillation", scope_name="efftasks")


def guide(teacher: Any, **arguments: Any) -> dict[str, Any]:
    return dict(type="Distillation", teacher=teacher, **arguments)


def maps(loss: str = "PKDLoss", **arguments: Any) -> dict[str, Any]:
    return dict(type="MapTerm", loss=dict(type=loss), **arguments)


def run(model: Any, families: ModuleType, name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    return model.train()(families.images(name), families.samples(name, model.task), mode="loss")


@pytest.mark.parametrize("name", ["o2o", "dfine", "simcc", "fpnlite"])
def test_a_module_of_the_student_learns_from_one_of_the_teacher(name: str, families: ModuleType) -> None:
    plain, teacher = families.build_family(name), families.build_family(name)
    for parameter in teacher.parameters():  # not those of the student
        parameter.data += 0.1 * torch.randn_like(parameter)
    inner = next(n for n, m in plain.backbone.named_modules() if n and not list(m.children()) and "conv" in n)
    terms = dict(inner=maps(student=f"backbone.{inner}"), maps=maps("MGDLoss"))
    size = (families.SIDE, families.SIDE)
    model = families.build_family(name, guide=guide(teacher, terms=terms, probe_size=size))
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    alone, losses = run(plain, families, name), run(model, families, name)
    assert set(losses) - set(alone) == {"guide.loss_inner", "guide.loss_maps"}
    assert all(torch.equal(torch.as_tensor(losses[key]), torch.as_tensor(value)) for key, value in alone.items())
    losses["guide.loss_inner"].backward()
    below = [p for n, p in model.backbone.named_parameters() if n == f"{inner}.weight"]
    assert all(p.grad is not None and bool(p.grad.any()) for p in below) and below
    losses = run(model, families, name)
    losses["guide.loss_maps"].backward()
    assert all(p.grad is not None for p in model.guide.terms["maps"].parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items()) and not teacher.training
    assert not any(module._forward_hooks for net in (model, teacher) for module in net.modules())
    assert architecture_digest(model) == architecture_digest(plain)
    extra = set(model.state_dict()) - set(plain.state_dict())
    assert extra and all(key.startswith("guide.terms.maps.adapters.") for key in extra)


def test_copies_and_averages_work_on(families: ModuleType) -> None:
    teacher = families.build_family("fpnlite")
    terms = dict(inner=maps(student="backbone.stages.1"), logits=dict(type="LogitTerm", loss=dict(type="CWDLoss")))
    model = families.build_family("fpnlite", guide=guide(teacher, terms=terms))
    average = ExponentialMovingAverage(model)
    copied = copy.deepcopy(model)
    losses = [run(net, families, "fpnlite") for net in (model, copied, average.module)]
    assert all(torch.equal(losses[0][key], other[key]) for other in losses[1:] for key in losses[0] if "loss" in key)
    assert copied.guide.teacher is not teacher


def test_a_wrong_name_is_refused_when_the_model_is_built(families: ModuleType) -> None:
    teacher = families.build_family("o2o")
    match = r"model\.guide\.terms\.a\.student: got 'backbone\.stage\.1', .* Detector; similar are backbone\.stages\.1"
    with pytest.raises(UserError, match=match):
        families.build_family("o2o", guide=guide(teacher, terms=dict(a=maps(student="backbone.stage.1"))))
    with pytest.raises(UserError, match=r"terms\.a\.teacher: got 'nek', .*similar are neck"):
        families.build_family("o2o", guide=guide(teacher, terms=dict(a=maps(teacher="nek"))))
    with pytest.raises(UserError, match=r"model\.guide\.terms: got none"):
        families.build_family("o2o", guide=guide(teacher, terms=dict(a=None)))
    with pytest.raises(UserError, match=r"terms\.a\.student: got head\.one_to_one\[0\], one of shape .*expected maps"):
        families.build_family("o2o", guide=guide(teacher, terms=dict(a=maps(student="head.one_to_one[0]"))))


def test_heads_that_a_guide_does_not_see_are_refused(families: ModuleType) -> None:
    def build(term: dict[str, Any], name: str, of: str) -> Any:
        return families.build_family(name, guide=guide(families.build_family(of), terms=dict(a=term)))

    logits = dict(type="LogitTerm", loss=dict(type="CWDLoss"))
    with pytest.raises(UserError, match=r"a\.student: got 'semantic_head', but a Detector does not run its semantic_h"):
        build(dict(logits, student="semantic_head", teacher="raw"), "o2o_all", "fpnlite")
    with pytest.raises(
        UserError, match=r"a\.student: got 'auxiliary_head\.0\.conv_seg', but a Segmentor does not run its"
    ):
        build(dict(logits, student="auxiliary_head.0.conv_seg", teacher="raw"), "fpnlite", "fpnlite")
    with pytest.raises(UserError, match=r"a\.teacher: got 'auxiliary_head', but a Segmentor does not run its auxil"):
        build(dict(logits, teacher="auxiliary_head"), "fpnlite", "fpnlite")


def test_what_runs_in_training_only_is_seen_in_training_only(families: ModuleType) -> None:
    def build(term: dict[str, Any]) -> Any:
        return families.build_family("o2o", guide=guide(teacher, terms=dict(a=term)))

    teacher, logits = families.build_family("o2o"), dict(type="LogitTerm", loss=dict(type="CWDLoss"))
    trained_only = next(name for name, _ in teacher.named_modules() if name.startswith("head.one_to_many."))
    message = r"'head\.one_to_many\.\S+', but that module does not run in evaluation mode, in which a teacher"
    with pytest.raises(UserError, match=rf"a\.student: got {message}"):
        build(maps(student=trained_only))
    with pytest.raises(UserError, match=rf"a\.teacher: got {message}"):
        build(dict(logits, teacher=trained_only))
    build(dict(logits, student=trained_only, teacher="raw.one_to_one.logits"))  # it runs where the student is trained


def test_what_simcc_cannot_do_is_refused(families: ModuleType) -> None:
    teacher, size = families.build_family("simcc"), (families.SIDE, families.SIDE)
    logits = dict(a=dict(type="LogitTerm", loss=dict(type="CWDLoss")))
    with pytest.raises(UserError, match=r"terms\.a: the student has a SimCCHead, whose logits are of positions"):
        families.build_family("simcc", guide=guide(teacher, terms=logits, probe_size=size))
    with pytest.raises(UserError, match=r"terms\.a: the teacher has a SimCCHead"):
        families.build_family("o2o", guide=guide(teacher, terms=logits))
    with pytest.raises(UserError, match=r"teacher_scale: got 2, expected 1: a SimCCHead reads images of one size"):
        families.build_family("simcc", guide=guide(teacher, terms=dict(a=maps()), teacher_scale=2, probe_size=size))


def test_a_teacher_of_mmdet_is_called_on_the_images(families: ModuleType) -> None:
    teacher = dict(type="mmdet.ResNet", depth=18, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1))
    teacher.update(out_indices=(1, 2), base_channels=8, _scope_="mmdet")
    terms = dict(a=maps(student=["features[0]", "features[1]"], teacher="raw"))
    model = families.build_family("o2o", guide=guide(teacher, terms=terms))
    assert [a.conv.out_channels for a in model.guide.terms["a"].adapters] == [16, 32]
    assert run(model, families, "o2o")["guide.loss_a"].item() > 0


class Echo(nn.Module):
    """A teacher that returns its images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return images


def test_images_are_normalized_for_the_teacher(families: ModuleType) -> None:
    student, teacher = families.build_family("o2o"), families.build_family("fpnlite")
    pixels = torch.randint(0, 256, (2, 3, 64, 96)).float()  # BGR
    own, other = (
        net.data_preprocessor(dict(inputs=list(pixels.byte()), data_samples=None), False)["inputs"]
        for net in (student, teacher)
    )
    assert not torch.allclose(own, other, atol=0.1)
    torch.testing.assert_close(TeacherImages(student, teacher)(own), other, atol=1e-5, rtol=1e-5)
    assert TeacherImages(student, student)(own) is own
    assert TeacherImages(student, Echo())(own) is own


def test_images_of_a_teacher_for_bgr(families: ModuleType) -> None:
    student = families.build_family("o2o")
    config = dict(type="mmdet.DetDataPreprocessor", mean=[103.5, 116.3, 123.7], std=[1.0, 1.0, 2.0], bgr_to_rgb=False)
    preprocessor = MODELS.build(config)
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).float()
    own = student.data_preprocessor(dict(inputs=list(pixels.byte()), data_samples=None), False)["inputs"]
    teacher = families.build_family("o2o")
    teacher.data_preprocessor = preprocessor
    expected = (pixels - torch.tensor([103.5, 116.3, 123.7])[:, None, None]) / torch.tensor([1, 1, 2])[:, None, None]
    torch.testing.assert_close(TeacherImages(student, teacher)(own), expected, atol=1e-4, rtol=1e-4)
    normalization = normalization_of(preprocessor)
    assert normalization is not None and normalization.color == "BGR"
    for mine in (DetPreprocessor((1, 2, 3), (4, 5, 6)), SegPreprocessor((1, 2, 3), (4, 5, 6))):
        assert normalization_of(mine) is mine.normalization


@pytest.mark.parametrize("rgb", [False, True])
def test_a_teacher_whose_preprocessor_does_not_normalize_gets_pixels(rgb: bool, families: ModuleType) -> None:
    """As YOLOX of mmdet, which reads BGR in 0..255."""
    student, teacher = families.build_family("o2o"), families.build_family("o2o")
    teacher.data_preprocessor = MODELS.build(
        dict(type="mmdet.DetDataPreprocessor", pad_size_divisor=32, bgr_to_rgb=rgb)
    )
    pixels = torch.randint(0, 256, (2, 3, 64, 96)).float()  # BGR
    own, expected = (
        net.data_preprocessor(dict(inputs=list(pixels.byte()), data_samples=None), False)["inputs"]
        for net in (student, teacher)
    )
    assert torch.equal(expected, pixels.flip(1) if rgb else pixels)
    torch.testing.assert_close(TeacherImages(student, teacher)(own), expected, atol=1e-3, rtol=0)
    assert normalization_of(nn.Identity()) is None


def test_the_size_of_the_teachers_images(families: ModuleType) -> None:
    teacher = families.build_family("o2o")  # its largest stride is 32
    sizes = [TeacherImages(None, teacher, scale)(torch.rand(1, 3, 96, 160)).shape[2:] for scale in (2.0, 0.5, 1.0)]
    assert sizes == [(192, 320), (64, 64), (96, 160)]
    flat = TeacherImages(None, teacher, 0.5)(torch.full((1, 3, 64, 64), 0.3))
    torch.testing.assert_close(flat, torch.full((1, 3, 32, 32), 0.3))


class Maps(nn.Module):
    """A teacher of one map that counts how often it runs."""

    feature_specs = (FeatureSpec(6, 16),)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.runs = nn.Conv2d(3, 6, 3, 16, 1), 0

    def stages(self, images: torch.Tensor) -> Stages:
        self.runs += 1
        return Stages((self.conv(images),), None)


def test_the_weight_fades_with_progress(families: ModuleType) -> None:
    def make(fade: tuple[float, float] | None) -> Any:
        terms = dict(a=maps("FeatureMSELoss", student="features[1]", teacher="features[0]"))
        return families.build_family("o2o", guide=guide(Maps(), terms=terms, fade=fade))

    def factors(fade: tuple[float, float] | None) -> list[float]:
        model = make(fade)
        found = []
        for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
            model.set_progress(progress)
            found.append(model.guide.factor)
        return found

    assert factors(None) == [1, 1, 1, 1, 1]
    assert factors((0.0, 1.0)) == [1, 0.75, 0.5, 0.25, 0]
    assert factors((0.5, 0.5)) == [1, 1, 0, 0, 0]
    assert factors((0.25, 0.75)) == [1, 1, 0.5, 0, 0]
    model = make((0.0, 1.0))
    full = run(model, families, "o2o")["guide.loss_a"]
    model.set_progress(0.75)
    torch.testing.assert_close(run(model, families, "o2o")["guide.loss_a"], full / 4)
    model.set_progress(1.0)
    runs = model.guide.teacher.runs
    silent = run(model, families, "o2o")["guide.loss_a"]
    silent.backward()  # distributed training needs a gradient for every parameter
    assert silent.item() == 0 and model.guide.teacher.runs == runs
    assert all(p.grad is not None and not p.grad.any() for p in model.guide.parameters())
    with pytest.raises(ValueError, match=r"model\.guide\.fade: got \(0.5, 0.1\)"):
        make((0.5, 0.1))


@pytest.mark.parametrize("name", ["fpnlite", "simcc"])
def test_progress_reaches_the_guide_of_every_model(name: str, families: ModuleType) -> None:
    terms = dict(a=maps(student="features[0]", teacher="features[0]"))
    model = families.build_family(name, guide=guide(Maps(), terms=terms, fade=(0.0, 1.0)))
    model.set_progress(0.25)
    assert model.guide.factor == 0.75
    families.build_family(name).set_progress(0.5)  # and nothing happens without


def test_classes_are_found_by_name() -> None:
    assert class_map(("b", "a"), 2, ("a", "x", "b"), 3).indices == (2, 0)
    assert class_map(None, 2, ("a", "b"), 2).indices == (0, 1)
    assert class_map(("a", "b"), 2, None, None).indices == (0, 1)
    with pytest.raises(UserError, match=r"the teacher has no class 'c', it has a, b; expected a teacher of"):
        class_map(("a", "c"), 2, ("a", "b"), 2)
    with pytest.raises(UserError, match=r"the teacher has 80 classes and the student 2; expected as many"):
        class_map(None, 2, None, 80)


def test_other_classes_are_refused_before_the_first_step(families: ModuleType) -> None:
    other: Any = families.build_family("fpnlite")
    config: Any = dict(type="Segmentor", **{k: v for k, v in other_config(families).items() if k != "type"})
    config["decode_head"]["num_classes"] = 7
    logits = dict(type="LogitTerm", loss=dict(type="CWDLoss"))
    model = families.build_family("fpnlite", guide=guide(config, terms=dict(a=logits)))
    with pytest.raises(UserError, match="the teacher has 7 classes and the student 3"):
        run(model, families, "fpnlite")
    assert architecture_digest(model) == architecture_digest(other)
    of_maps = families.build_family("fpnlite", guide=guide(config, terms=dict(a=maps())))
    assert run(of_maps, families, "fpnlite")["guide.loss_a"].item() >= 0  # maps have no classes


def other_config(families: ModuleType) -> Any:
    """The config of a small FPNLite for three classes."""
    from mmengine.config import Config

    config = Config.fromfile(families.MODEL_CONFIGS / "fpnlite.py").model.to_dict()
    config["decode_head"]["num_classes"] = config["auxiliary_head"]["num_classes"] = 3
    return config


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "x", "b")])
def test_the_checkpoint_states_the_classes(order: tuple[str, ...], families: ModuleType, tmp_path: Path) -> None:
    """A teacher with the student's weights, whose classes have another order: nothing is left to learn."""
    config = other_config(families)
    student = families.build_family("fpnlite")
    weights = student.state_dict()
    rows = [("a", "b", "c").index(name) if name != "x" else 0 for name in order]
    for key, value in weights.items():
        if len(value.shape) and value.shape[0] == 3 and key.startswith(("decode_head.conv_seg", "auxiliary_head")):
            weights[key] = value[rows]
    path = tmp_path / "teacher.pth"
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=list(order)))), path)
    terms = dict(a=dict(type="LogitTerm", loss=dict(type="LogitKLLoss")))
    model = families.build_family(
        "fpnlite", guide=guide(config, terms=terms, weights=path, class_names=("a", "b", "c"))
    )
    model.load_state_dict(student.state_dict())
    distillation: Distillation = model.guide
    model.eval()
    images = families.images("fpnlite")
    loss = distillation(images, model.stages(images))["loss_a"]
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert distillation.teacher.decode_head.num_classes == len(order)
    model.guide.class_names = ("b", "a", "c")
    model.guide._has_begun = False
    assert distillation(images, model.stages(images))["loss_a"].item() > 1e-4


@pytest.mark.parametrize("name", ["o2o", "dfine", "fpnlite"])
def test_losses_are_finite_and_float32_in_mixed_precision(name: str, families: ModuleType) -> None:
    terms = dict(
        pkd=maps(),
        mgd=maps("MGDLoss"),
        special={
            "o2o": dict(type="OneToManyTerm", min_score=0.0),
            "dfine": dict(type="SharedQueryTerm", num_queries=5),
            "fpnlite": dict(type="LogitTerm", loss=dict(type="DISTLoss")),
        }[name],
    )
    model = families.build_family(name, guide=guide(families.build_family(name), terms=terms))
    with torch.autocast("cpu", torch.bfloat16):
        losses = {key: value for key, value in run(model, families, name).items() if key.startswith("guide.")}
    assert len(losses) >= 3
    assert all(value.dtype == torch.float32 and bool(value.isfinite()) for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
