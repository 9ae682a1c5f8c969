"""The semantic segmentor: mmseg's EncoderDecoder over any backbone, decoded alike in PyTorch and exported files."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from efftasks.models.backbones.base import build_backbone
from efftasks.models.guides.base import build_guide, guide_losses, recorded_for_guide
from efftasks.models.seg_heads.channels import class_rows_of, labels_on_original, with_channels
from efftasks.ops.semantic import class_scores, label_map
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec, Stages
from efftasks.structures.instances import CLASS_SCORES_MEANING
from efftasks.structures.protocols import HasSpecs
from efftasks.structures.spec import DecoderSpec, OutputSpec, Undecoded

__all__ = ["Labels", "Logits", "SemanticOutput", "Segmentor"]

SemanticOutput = Literal["labels", "coarse-labels", "logits"]
MAX_CLASSES = 255  # labels are uint8, and 255 is the ignored label


class Labels(NamedTuple):
    """The best class of each pixel of the network input."""

    segmentation: Tensor  # uint8 (B, H, W)


class Logits(NamedTuple):
    """Class scores at the stride of the head."""

    logits: Tensor  # float32 (B, C, h, w)


@MODELS.register_module()
class Segmentor(EncoderDecoder):
    """Predicts the class of every pixel.

    Heads are this package's or mmseg's, with configs of mmseg's form. ``in_channels`` defaults to the channels of the
    maps of their ``in_index``. If the decode head has ``in_channels``, the backbone is not wrapped and declares no
    specs: mmseg's networks of two and three branches (PIDNet, DDRNet) return other maps in training than in evaluation.

    Args:
        backbone: a Backbone, or its config; any mmdet or mmseg backbone by scoped name.
        decode_head: config of the head that predicts.
        auxiliary_head: configs of heads that are used in training only.
        neck: config without ``in_specs``, which are those of the backbone.
        guide: config of a :class:`~efftasks.models.guides.base.Guide` without ``student``, for training only.
        data_preprocessor: config.
        test_cfg: ``mode`` is ``whole``, or ``slide`` with ``crop_size`` and ``stride`` (height, width): windows whose
            logits are averaged where they overlap. ``output`` is the output of :meth:`infer`, which is exported:
            ``labels``; ``coarse-labels``, the labels at the head's stride, repeated; ``logits`` at the head's stride.
        divisor: sides of the input are multiples of this; None for that of the backbone.

    Attributes:
        cfg: the config it was loaded with, set by ``apis.load``.
        dataset_meta: classes and palette it was trained on, set by ``apis.load``.
    """

    task = "semantic segmentation"

    def __init__(
        self,
        backbone: dict | nn.Module,
        decode_head: dict,
        data_preprocessor: dict,
        auxiliary_head: dict | Sequence[dict] = (),
        neck: dict | None = None,
        guide: dict | None = None,
        test_cfg: dict | None = None,
        divisor: int | None = None,
    ) -> None:
        # Not EncoderDecoder.__init__, which builds everything from configs with channels.
        BaseSegmentor.__init__(self, data_preprocessor=data_preprocessor)
        self.cfg: Any = None
        self.dataset_meta: dict[str, Any] = {}
        self.train_cfg = None
        self.test_cfg = _checked(test_cfg or {})
        specs: Sequence[FeatureSpec] = ()
        if "in_channels" in decode_head:
            self.backbone: Any = MODELS.build(copy.deepcopy(backbone))
            if divisor is None:
                raise ValueError("divisor: got None, expected a number: the decode head has in_channels")
            self.divisor = divisor
        else:
            self.backbone = build_backbone(backbone)
            specs = self.backbone.specs
            self.divisor = divisor or self.backbone.divisor
        if neck is not None:
            self.neck = MODELS.build(dict(neck, in_specs=specs))
            specs = self.neck.specs
        self._init_decode_head(with_channels(decode_head, specs))
        if not self.num_classes == self.out_channels <= MAX_CLASSES:
            raise ValueError(
                f"decode_head: got {self.num_classes} classes and {self.out_channels} out_channels, "
                f"expected equal numbers, at most {MAX_CLASSES}"
            )
        heads = [auxiliary_head] if isinstance(auxiliary_head, Mapping) else auxiliary_head
        self._init_auxiliary_head([with_channels(head, specs) for head in heads] or None)
        self.guide = build_guide(guide, specs, self.num_classes, self)

    def class_rows(self) -> dict[str, str]:
        """See :class:`~efftasks.structures.protocols.HasClassRows`."""
        heads = {"decode_head": self.decode_head}
        if self.with_auxiliary_head:
            part = self.auxiliary_head
            children = part.named_children() if isinstance(part, nn.ModuleList) else ()
            heads.update({f"auxiliary_head.{i}": head for i, head in children} or {"auxiliary_head": part})
        return {
            name: kind for place, head in heads.items() for name, kind in class_rows_of(head, place, "classes").items()
        }

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1], on which a guide may depend."""
        if self.guide is not None:
            self.guide.set_progress(fraction)

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """Specs of the maps that are the input of the heads; none of a backbone that declares none."""
        # An AttributeError here would make it no Staged before Python 3.12, and one since.
        owner = self.neck if self.with_neck else self.backbone
        return tuple(owner.specs) if isinstance(owner, HasSpecs) else ()

    @property
    def map_readers(self) -> tuple[nn.Module, ...]:
        """The auxiliary heads."""
        if not self.with_auxiliary_head:
            return ()
        heads = self.auxiliary_head
        return tuple(heads) if isinstance(heads, nn.ModuleList) else (heads,)

    def stages(self, images: Tensor) -> Stages:
        """Preprocessed images (B, 3, H, W) -> maps, and logits (B, C, h, w) at the decode head's stride."""
        maps = self.extract_feat(images)
        return Stages((maps,) if isinstance(maps, Tensor) else tuple(maps), self.decode_head(maps))

    def raw(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, H, W) -> logits (B, C, h, w) at the decode head's stride."""
        return self.decode_head(self.extract_feat(images))

    def infer(self, images: Tensor) -> Labels | Logits:
        """Preprocessed images (B, 3, H, W) -> the output that ``test_cfg.output`` names. This is what is exported."""
        logits = self.raw(images)
        output = self.test_cfg.output
        if output == "logits":
            return Logits(logits)
        size = (images.shape[2], images.shape[3])
        return Labels(label_map(logits, size, self.align_corners, coarse=output == "coarse-labels"))

    def outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The outputs of :meth:`infer` for an input of this size."""
        if self.test_cfg.output != "logits":
            return (OutputSpec("segmentation", ("N", height, width), "uint8", "index into classes"),)
        device = next(self.parameters()).device
        with torch.no_grad():
            shape = self.raw(torch.zeros(1, 3, height, width, device=device)).shape
        return (OutputSpec("logits", ("N", *shape[1:]), "float32", "class scores; the best is an index into classes"),)

    def infer_undecoded(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> the class scores of every pixel; or the output ``logits``, if chosen."""
        logits, output = self.raw(images), self.test_cfg.output
        if output == "logits":
            return (logits,)
        size = (images.shape[2], images.shape[3])
        return (class_scores(logits, size, self.align_corners, coarse=output == "coarse-labels"),)

    def undecoded(self, height: int, width: int) -> Undecoded:
        """The outputs of :meth:`infer_undecoded` for an input of this size, and the decoder that they are for."""
        if self.test_cfg.output == "logits":
            return Undecoded(self.outputs(height, width), None)
        shape = ("N", self.num_classes, height, width)
        return Undecoded((OutputSpec("class_scores", shape, "float32", CLASS_SCORES_MEANING),), DecoderSpec("argmax"))

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """The losses of all heads and of the guide."""
        if self.guide is None:
            return super().loss(inputs, data_samples)
        with recorded_for_guide(self) as outputs:
            stages = self.stages(inputs)
        decode_losses = self.decode_head.loss_by_feat(stages.raw, data_samples)
        losses = {f"decode.{name}": value for name, value in decode_losses.items()}
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(stages.features, data_samples))
        return {**losses, **guide_losses(self, inputs, stages, outputs)}

    def predict(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """Label maps ``pred_sem_seg`` (1, H, W) uint8 in pixels of the original images."""
        samples = [SegDataSample() for _ in inputs] if data_samples is None else list(data_samples)
        extent = (inputs.shape[2], inputs.shape[3])
        for labels, sample in zip(self._labels(inputs), samples):
            sample.pred_sem_seg = PixelData(data=labels_on_original(labels, extent, sample.metainfo)[None])
        return samples

    def _labels(self, images: Tensor) -> Tensor:
        if self.test_cfg.mode == "slide":
            metas = [dict(ori_shape=images.shape[2:])] * images.shape[0]
            return self.slide_inference(images, metas).argmax(1).byte()
        output = self.infer(images)
        return output.segmentation if isinstance(output, Labels) else output.logits.argmax(1).byte()

    def strip(self) -> Segmentor:
        """A copy without auxiliary heads and guide."""
        stripped = copy.deepcopy(self)
        stripped.auxiliary_head = None
        stripped.guide = None
        return stripped


def _checked(test_cfg: Mapping[str, Any]) -> ConfigDict:
    cfg = ConfigDict({"mode": "whole", "output": "labels", **test_cfg})
    for key, allowed in (("mode", ("whole", "slide")), ("output", get_args(SemanticOutput))):
        if cfg[key] not in allowed:
            raise ValueError(f"test_cfg.{key}: got {cfg[key]!r}, allowed are {', '.join(map(repr, allowed))}")
    needed = {"crop_size", "stride"} if cfg.mode == "slide" else set()
    if set(cfg) != {"mode", "output"} | needed:
        raise ValueError(
            f"test_cfg: got {sorted(cfg)}, expected mode, output{''.join(f', {k}' for k in sorted(needed))}"
        )
    return cfg
