"""TransformerGuide: who learns and who does not, a student that has nothing to learn, what is compared with what."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from efftasks.models.guides.base import Student
from efftasks.models.losses.channel_wise import channel_wise_divergence
from efftasks.models.seg_heads.transformer_guide import Teacher, TransformerGuide
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec, Stages

CLASSES = 5
SPECS = (FeatureSpec(12, 8), FeatureSpec(10, 16), FeatureSpec(14, 32))
TINY: dict[str, Any] = dict(
    backbone=dict(type="mmseg.MixVisionTransformer", embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 5, 8]),
    decode_head=dict(
        type="mmseg.SegformerHead",
        in_index=[0, 1, 2, 3],
        channels=16,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(type="mmseg.CrossEntropyLoss"),
    ),
)
FCN = dict(type="mmseg.FCNHead", in_channels=64, in_index=3, channels=16, norm_cfg=dict(type="BN"))
FCN["loss_decode"] = dict(type="mmseg.CrossEntropyLoss")


def guide(specs: tuple[FeatureSpec, ...] = SPECS, **changes: Any) -> TransformerGuide:
    torch.manual_seed(0)
    cfg = dict(type="TransformerGuide", teacher=TINY, student=Student(specs, CLASSES))
    net = MODELS.build({**cfg, **changes})
    with torch.no_grad():  # fresh layers of a transformer and of the classifier are too small to show anything
        for parameter in net.teacher.parameters():
            parameter.add_(torch.randn(parameter.shape).mul_(0.2))
    return net


def features(*sizes: tuple[int, int], specs: tuple[FeatureSpec, ...] = SPECS) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, s.channels, *size, requires_grad=True) for s, size in zip(specs, sizes, strict=True))


def example() -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Images, the student's maps, its logits."""
    maps = features((8, 12), (4, 6), (2, 3))
    return torch.randn(2, 3, 64, 96), maps, torch.randn(2, CLASSES, 8, 12, requires_grad=True)


def staged(inputs: tuple[Tensor, tuple[Tensor, ...], Tensor]) -> tuple[Tensor, Stages]:
    images, maps, logits = inputs
    return images, Stages(maps, logits)


def test_the_teacher_is_no_part_of_what_is_trained_and_saved() -> None:
    student = nn.ModuleDict({"guide": guide()})
    own = [
        f"guide.projections.{name}.{kind}"
        for name in ("stride16", "stride32", "decoded")
        for kind in ("weight", "bias")
    ]
    assert [key for key, _ in student.named_parameters()] == own
    assert list(student.state_dict()) == own
    assert list(student.buffers()) == []
    assert not any(isinstance(part, Teacher) for part in student.modules())


def test_the_teacher_stays_in_evaluation_mode() -> None:
    net = guide()
    teacher = net.teacher
    before = copy.deepcopy(teacher.state_dict())
    nn.ModuleDict({"guide": net}).train()
    teacher.train()
    assert not any(part.training for part in teacher.modules())
    sum(net(*staged(example())).values()).backward()  # type: ignore[union-attr]
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())


def test_the_teacher_follows_to() -> None:
    net = guide()
    parent = nn.ModuleDict({"guide": net})
    assert parent.double() is parent and net.to(torch.float64) is net
    assert {value.dtype for value in net.teacher.parameters()} == {torch.float64}
    images, maps, logits = example()
    losses = net(images.double(), Stages(tuple(m.double() for m in maps), logits.double()))
    assert {value.dtype for value in losses.values()} == {torch.float64}
    parent.to("meta")
    held = [*net.teacher.parameters(), *net.teacher.buffers()]
    assert {value.device.type for value in held} == {"meta"}


def test_a_copy_has_a_teacher_of_its_own() -> None:
    # A copy may go to another device, or stay behind for fusing.
    net = guide()
    again = copy.deepcopy(net).double()
    assert again.teacher is not net.teacher
    assert {value.dtype for value in net.teacher.parameters()} == {torch.float32}


def test_gradients_reach_the_student_and_the_projections() -> None:
    net = guide()
    images, maps, logits = example()
    losses = net(images, Stages(maps, logits))
    assert list(losses) == ["loss_stride16", "loss_stride32", "loss_decoded", "loss_logits"]
    assert all(value.dim() == 0 and value > 0 for value in losses.values())
    for name, reached in (("stride16", [1]), ("stride32", [2]), ("decoded", [0]), ("logits", [0])):
        found = torch.autograd.grad(losses[f"loss_{name}"], maps, retain_graph=True, allow_unused=True)
        assert [i for i, gradient in enumerate(found) if gradient is not None and gradient.any()] == reached
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []
    assert logits.grad is None  # the student's own logits are not looked at


def test_the_teachers_head_in_two_steps_is_the_whole_head() -> None:
    teacher = guide().teacher
    with torch.no_grad():
        maps = teacher(torch.randn(2, 3, 64, 96))
        _, logits = teacher.classify(teacher.merge(maps))
        assert torch.equal(logits, teacher.decode_head(maps)) and logits.shape == (2, CLASSES, 16, 24)
    assert teacher.specs == tuple(map(FeatureSpec, (8, 16, 40, 64), (4, 8, 16, 32)))


def test_a_student_that_is_the_teacher_has_nothing_to_learn() -> None:
    specs = (FeatureSpec(64, 4), FeatureSpec(40, 16), FeatureSpec(64, 32))
    net = guide(specs)
    with torch.no_grad():
        for projection in net.projections.values():
            assert isinstance(projection, nn.Conv2d)
            projection.weight.copy_(torch.eye(projection.out_channels)[:, :, None, None])
        images = torch.randn(2, 3, 64, 96)
        maps = net.teacher(images)
        # Any scale and shift of a channel is taken out before the teacher's head.
        fused = net.teacher.merge(maps) * torch.rand(64, 1, 1).add(0.5) + torch.randn(64, 1, 1)
        own = (fused, maps[2], maps[3])
        same = net(images, Stages(own, torch.zeros(1)))
        other = net(torch.randn(2, 3, 64, 96), Stages(own, torch.zeros(1)))
    assert all(value.abs() < 1e-4 for value in same.values())
    assert all(value > 1e-2 for value in other.values())


def test_numbers_of_each_loss() -> None:
    net = guide(logits_weight=2.0, feature_weight=5.0, temperature=3.0)
    images, _, logits = example()
    # Maps of other sizes than the teacher's are resized to its.
    maps = features((9, 13), (7, 9), (3, 2))
    found = net(images, Stages(maps, logits))
    teacher, projections = net.teacher, net.projections
    with torch.no_grad():
        wanted = teacher(images)

        def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
            return functional.interpolate(x, size, mode="bilinear", align_corners=False)

        for name, own, target in (("stride16", maps[1], wanted[2]), ("stride32", maps[2], wanted[3])):
            x = enlarged(projections[name](own), (target.shape[2], target.shape[3]))
            expected = 5.0 * channel_wise_divergence(x, target, 3.0)
            torch.testing.assert_close(found[f"loss_{name}"].detach(), expected)

        merged = teacher.merge(wanted)
        x = enlarged(projections["decoded"](maps[0]), (16, 24))
        for i in range(64):  # each channel gets the mean and deviation of the teacher's
            x[:, i] = (x[:, i] - x[:, i].mean()) / x[:, i].std() * merged[:, i].std() + merged[:, i].mean()
        decoded = teacher.decode_head.fusion_conv(x)
        target = teacher.decode_head.fusion_conv(merged)
        expected = 5.0 * channel_wise_divergence(decoded, target, 3.0)
        torch.testing.assert_close(found["loss_decoded"].detach(), expected, rtol=1e-4, atol=1e-5)
        classify = teacher.decode_head.conv_seg
        expected = 2.0 * channel_wise_divergence(classify(decoded), classify(target), 3.0)
        torch.testing.assert_close(found["loss_logits"].detach(), expected, rtol=1e-4, atol=1e-5)


def test_defaults_are_the_published_weights() -> None:
    inputs = staged(example())
    usual, single = guide()(*inputs), guide(logits_weight=1.0, feature_weight=1.0)(*inputs)
    ratios = {key: round((value / single[key]).item(), 3) for key, value in usual.items()}
    assert ratios == {"loss_stride16": 15, "loss_stride32": 15, "loss_decoded": 15, "loss_logits": 3}


def test_without_a_shared_head_the_students_logits_are_compared() -> None:
    teacher = dict(TINY, decode_head=FCN)
    net = guide(teacher=teacher, decoder_index=None, stage_index=(1,))
    images, maps, logits = example()
    losses = net(images, Stages(maps, logits))
    assert list(losses) == ["loss_stride16", "loss_logits"] and list(net.projections) == ["stride16"]
    with torch.no_grad():
        target = net.teacher.decode_head(net.teacher(images))
        small = functional.interpolate(logits, target.shape[2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(losses["loss_logits"].detach(), 3.0 * channel_wise_divergence(small, target))
    losses["loss_logits"].backward()
    assert logits.grad is not None and logits.grad.any()
    assert all(parameter.grad is None for parameter in net.teacher.parameters())


def test_a_map_before_the_others_is_passed_over() -> None:
    images, maps, logits = example()
    more = (FeatureSpec(7, 8), *SPECS)
    extra = torch.randn(2, 7, 8, 12)
    expected, found = guide()(images, Stages(maps, logits)), guide(more)(images, Stages((extra, *maps), logits))
    assert expected == found


@pytest.mark.parametrize("names", [("backbone", "decode_head"), ("teacher_backbone", "teacher_head")])
def test_weights_of_the_teacher_load(names: tuple[str, str], tmp_path: Path) -> None:
    state = guide().teacher.state_dict()
    renamed = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        renamed[f"{names[part == 'decode_head']}.{rest}"] = value
    torch.save({"state_dict": {**renamed, "auxiliary_head.conv_seg.bias": torch.zeros(1)}}, tmp_path / "w.pth")
    teacher = Teacher(CLASSES, **TINY, weights=tmp_path / "w.pth")
    assert all(torch.equal(value, state[key]) for key, value in teacher.state_dict().items())
    with pytest.raises(UserError, match=r"w\.pth is of another architecture than Teacher"):
        Teacher(CLASSES + 1, **TINY, weights=tmp_path / "w.pth")
    del renamed[f"{names[0]}.layers.0.0.projection.weight"]
    torch.save(renamed, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"part\.pth is of another architecture than Teacher"):
        Teacher(CLASSES, **TINY, weights=tmp_path / "part.pth")


def test_the_default_teacher_is_segformer_b2() -> None:
    teacher = Teacher(19)
    assert teacher.specs == tuple(map(FeatureSpec, (64, 128, 320, 512), (4, 8, 16, 32)))
    # SegFormer (arXiv 2105.15203), table 1: the encoder of B2 has 24.2 million parameters.
    assert sum(value.numel() for value in teacher.backbone.parameters()) / 1e6 == pytest.approx(24.2, abs=0.05)


def test_training_steps_lower_the_losses() -> None:
    net = guide()
    images, maps, logits = example()
    optimizer = torch.optim.Adam([*net.parameters(), *maps], lr=0.05)
    totals = []
    for _ in range(30):
        losses = net(images, Stages(maps, logits))
        optimizer.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        totals.append({key: value.item() for key, value in losses.items()})
    assert all(totals[-1][key] < 0.5 * value for key, value in totals[0].items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(stage_index=(0, 3)), r"stage_index, decoder_index: got \[0, 3, -3\], allowed are indices of 3 maps"),
        (dict(stage_index=(1, 1)), r"stage_index: got maps of strides \[16, 16\], allowed are different"),
        (
            dict(specs=(*SPECS[:2], FeatureSpec(8, 64))),
            r"got maps of strides \[16, 64\], allowed .* of \(4, 8, 16, 32\)",
        ),
        (
            dict(teacher=dict(TINY, decode_head=FCN)),
            r"decoder_index: got -3, allowed is None for a teacher's FCNHead",
        ),
        (
            dict(teacher=dict(TINY, decode_head=dict(TINY["decode_head"], num_classes=4))),
            r"teacher\.decode_head\.num_classes: got 4, expected 5",
        ),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guide(**changes)
