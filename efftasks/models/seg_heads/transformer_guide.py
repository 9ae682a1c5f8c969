"""Distillation of a transformer into SCTNet: its feature maps and its decoding learn from those of a SegFormer.

Sources: SCTNet (arXiv 2312.17071), "Semantic Information Alignment Module": alignment of backbone features, and of
logits and features behind a shared decode head; the divergence is that of CWD (arXiv 2011.13256). Weights, temperature
and the order of steps are those of the authors' code (xzz777/SCTNet, MIT). Written anew.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmengine.logging import MMLogger
from mmseg.models.decode_heads import SegformerHead
from torch import Tensor, nn
from torch.nn import functional

from efftasks.checkpoints.files import load_matching, read_state_dict
from efftasks.models.backbones.base import probe, specs_of
from efftasks.models.guides.base import Guide, Student
from efftasks.models.losses.channel_wise import channel_wise_divergence
from efftasks.registry import MODELS
from efftasks.structures.features import Stages

__all__ = ["SEGFORMER_B2", "Teacher", "TransformerGuide"]

# As mmseg's segformer_mit-b2 (Apache-2.0), for whose checkpoints it is; B3 has 18 layers in its third stage.
SEGFORMER_B2: dict[str, dict[str, Any]] = dict(
    backbone=dict(
        type="mmseg.MixVisionTransformer",
        embed_dims=64,
        num_layers=[3, 4, 6, 3],
        num_heads=[1, 2, 5, 8],
        patch_sizes=[7, 3, 3, 3],
        sr_ratios=[8, 4, 2, 1],
        mlp_ratio=4,
        qkv_bias=True,
    ),
    decode_head=dict(
        type="mmseg.SegformerHead",
        in_index=[0, 1, 2, 3],
        channels=256,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(type="mmseg.CrossEntropyLoss"),
    ),
)


class Teacher(nn.Module):
    """A trained segmentation network without gradient, always in evaluation mode.

    Args:
        num_classes: that it was trained with.
        backbone: config of a network that returns a tuple of maps, finest first.
        decode_head: config of a decode head of mmseg's form; ``in_channels`` defaults to those of the backbone.
        weights: path of a local checkpoint of all of it: ``backbone.*`` and ``decode_head.*`` (mmseg's), or
            ``teacher_backbone.*`` and ``teacher_head.*`` (SCTNet's authors'). None for random weights, for trials.

    Attributes:
        specs: channels and stride of each map of the backbone.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Mapping[str, Any] = SEGFORMER_B2["backbone"],
        decode_head: Mapping[str, Any] = SEGFORMER_B2["decode_head"],
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        self.backbone = MODELS.build(dict(copy.deepcopy(backbone)))
        maps: Any = probe(self.backbone)
        self.specs = specs_of(type(self.backbone).__name__, maps)
        defaults = dict(in_channels=[spec.channels for spec in self.specs], num_classes=num_classes)
        self.decode_head = MODELS.build({**defaults, **copy.deepcopy(decode_head)})
        if self.decode_head.num_classes != num_classes:
            raise ValueError(
                f"teacher.decode_head.num_classes: got {self.decode_head.num_classes}, expected {num_classes}"
            )
        if weights is None:
            MMLogger.get_current_instance().warning("the guide's teacher has no weights: what it teaches is noise")
        else:
            renamed = {_renamed(key): value for key, value in read_state_dict(weights).items()}
            state = {key: value for key, value in renamed.items() if key.startswith(("backbone.", "decode_head."))}
            load_matching(self, state, name=os.fspath(weights))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Evaluation mode, whatever ``mode`` is."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps as declared in ``specs``."""
        return tuple(self.backbone(images))

    def merge(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps -> the input (B, D, h, w) of the fusion of SegFormer's head, at the finest map's stride."""
        head = self.decode_head
        selected = head._transform_inputs(maps)
        resize = dict(size=selected[0].shape[2:], mode=head.interpolate_mode, align_corners=head.align_corners)
        return torch.cat([functional.interpolate(conv(x), **resize) for conv, x in zip(head.convs, selected)], 1)

    def classify(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the fusion (B, D, h, w) -> decoded features, logits (B, C, h, w)."""
        decoded = self.decode_head.fusion_conv(merged)
        return decoded, self.decode_head.cls_seg(decoded)


@MODELS.register_module()
class TransformerGuide(Guide):
    """Distillation losses between the maps of a student and a teacher; training only.

    Each loss is a :func:`channel_wise_divergence`, the student's map resized to the teacher's:

    - ``loss_stride{s}``, one for each of ``stage_index``: a 1x1 projection of the student's map of stride s against the
      teacher's map of the same stride.
    - ``loss_decoded`` and ``loss_logits``, where ``decoder_index`` is a map: its 1x1 projection, given the mean and
      deviation of the channels that the teacher's decode head fuses, goes through the teacher's fusion and
      classifier, and both results are compared with the teacher's. The logits of the student's head are not used: two
      heads decode in different spaces.
    - ``loss_logits`` alone, where ``decoder_index`` is None: the logits of the student's head against the teacher's,
      which then may have any decode head.

    Args:
        teacher: arguments of :class:`Teacher` without ``num_classes``: ``dict(weights=path)`` for SegFormer-B2.
        student: its maps, and the number of classes of both; set by the segmentor.
        decoder_index: of the student's map that its decode head classifies; needs a teacher with mmseg's SegformerHead.
            None for the logits of the student's head.
        stage_index: of the student's maps that are compared with the teacher's of the same stride. The defaults are
            those of SCTNet's maps.
        logits_weight: of ``loss_logits``.
        feature_weight: of each other loss.
        temperature: of all.
    """

    def __init__(
        self,
        teacher: Mapping[str, Any],
        student: Student,
        decoder_index: int | None = -3,
        stage_index: Sequence[int] = (-2, -1),
        logits_weight: float = 3.0,
        feature_weight: float = 15.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(Teacher(student.num_classes, **teacher))
        in_specs = student.specs
        self.decoder_index = decoder_index
        self.logits_weight = logits_weight
        self.feature_weight = feature_weight
        self.temperature = temperature
        indices = [*stage_index, *([] if decoder_index is None else [decoder_index])]
        if not all(-len(in_specs) <= i < len(in_specs) for i in indices):
            raise ValueError(f"stage_index, decoder_index: got {indices}, allowed are indices of {len(in_specs)} maps")

        self.projections = nn.ModuleDict()
        self.pairs: dict[str, tuple[int, int]] = {}  # index of the student's map and of the teacher's
        index_of_stride = {spec.stride: i for i, spec in enumerate(self.teacher.specs)}
        strides = [in_specs[i].stride for i in stage_index]
        if len(set(strides)) < len(strides) or not set(strides) <= set(index_of_stride):
            raise ValueError(
                f"stage_index: got maps of strides {strides}, allowed are different ones of {tuple(index_of_stride)}"
            )
        for i, stride in zip(stage_index, strides):
            name, j = f"stride{stride}", index_of_stride[stride]
            self.projections[name] = _projection(in_specs[i].channels, self.teacher.specs[j].channels)
            self.pairs[name] = (i, j)
        if decoder_index is not None:
            head = self.teacher.decode_head
            if not isinstance(head, SegformerHead):
                raise ValueError(
                    f"decoder_index: got {decoder_index}, allowed is None for a teacher's {type(head).__name__}"
                )
            channels = in_specs[decoder_index].channels
            self.projections["decoded"] = _projection(channels, head.fusion_conv.in_channels)

    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        """The weighted losses.

        Args:
            images: (B, 3, H, W), normalized for both networks.
            stages: the student's maps, and the logits (B, C, h, w) of its decode head.
        """
        features, logits = stages.features, stages.raw
        with torch.no_grad():
            maps = self.teacher(images)
        losses = {}
        for name, (i, j) in self.pairs.items():
            projected = self.projections[name](features[i])
            losses[f"loss_{name}"] = self.feature_weight * self._divergence(projected, maps[j])
        if self.decoder_index is None:
            with torch.no_grad():
                teacher_logits = self.teacher.decode_head(maps)
        else:
            decoded, teacher_decoded, logits, teacher_logits = self._decoded(features[self.decoder_index], maps)
            losses["loss_decoded"] = self.feature_weight * self._divergence(decoded, teacher_decoded)
        losses["loss_logits"] = self.logits_weight * self._divergence(logits, teacher_logits)
        return losses

    def _decoded(self, feature: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decoded features of student and teacher and logits of both, all from the teacher's head."""
        with torch.no_grad():
            merged = self.teacher.merge(maps)
            teacher_decoded, teacher_logits = self.teacher.classify(merged)
        projected = _resized(self.projections["decoded"](feature), merged.shape[2:])
        decoded, logits = self.teacher.classify(_with_statistics(projected, merged))
        return decoded, teacher_decoded, logits, teacher_logits

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        return channel_wise_divergence(_resized(student, teacher.shape[2:]), teacher, self.temperature)


def _projection(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(x, size, mode="bilinear", align_corners=False)


def _with_statistics(x: Tensor, target: Tensor) -> Tensor:
    """``x`` with the mean and deviation, over images and pixels, of each channel of ``target``."""
    deviation, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
    target_deviation, target_mean = torch.std_mean(target, (0, 2, 3), keepdim=True)
    return (x - mean) / (deviation + 1e-6) * target_deviation + target_mean


def _renamed(key: str) -> str:
    """The name here of a tensor in a checkpoint of SCTNet's authors."""
    return re.sub("^teacher_head", "decode_head", key).removeprefix("teacher_")
