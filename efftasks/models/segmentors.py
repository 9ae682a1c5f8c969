"""The semantic segmentor: mmseg's encoder and decoder over any backbone, with one decode for all ways to predict."""

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
from efftasks.models.guides import build_guide
from efftasks.models.seg_heads.channels import labels_on_original, with_channels
from efftasks.ops.semantic import label_map
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec, Stages
from efftasks.structures.spec import OutputSpec

__all__ = ["Labels", "Logits", "SemanticOutput", "Segmentor"]

SemanticOutput = Literal["labels", "coarse-labels", "logits"]
MOST_CLASSES = 255  # uint8, and 255 is the label to ignore


class Labels(NamedTuple):
    """The best class of each pixel of the network input."""

    segmentation: Tensor  # uint8 (B, H, W)


class Logits(NamedTuple):
    """Class scores at the head's own stride."""

    logits: Tensor  # float32 (B, C, h, w)


@MODELS.register_module()
class Segmentor(EncoderDecoder):
    """A network that names the class of every pixel.

    Heads are this package's or mmseg's, written as mmseg writes them. One without ``in_channels`` gets those of the
    maps that its ``in_index`` chooses. Where the decode head names its own, the backbone is taken as it is: mmseg's
    networks of two and three branches (PIDNet, DDRNet) give other maps in training than in evaluation, and declare
    nothing.

    Args:
        backbone: a Backbone, or its config; any mmdet or mmseg backbone by scoped name.
        decode_head: config of the head that predicts.
        auxiliary_head: configs of heads that only training has.
        neck: config without ``in_specs``: the backbone's are given. Heads then see the neck's maps.
        guide: config of a :class:`~efftasks.models.guides.Guide`, without ``student``; only training has it.
        data_preprocessor: config.
        test_cfg: ``mode`` is ``whole``, or ``slide`` with ``crop_size`` and ``stride`` (height, width): windows whose
            logits are averaged where they overlap. ``output`` is what a whole image gives and what is exported:
            ``labels``; ``coarse-labels``, chosen at the head's stride and repeated; ``logits`` at the head's stride,
            for others to choose from and to enlarge.
        divisor: sides of the input are multiples of this; None takes what the backbone declares.

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
        # Not EncoderDecoder's own: it builds everything from configs that name their channels.
        BaseSegmentor.__init__(self, data_preprocessor=data_preprocessor)
        self.cfg: Any = None
        self.dataset_meta: dict[str, Any] = {}
        self.train_cfg = None
        self.test_cfg = _checked(test_cfg or {})
        specs: Sequence[FeatureSpec] = ()
        if "in_channels" in decode_head:
            self.backbone: Any = MODELS.build(copy.deepcopy(backbone))
            if divisor is None:
                raise ValueError("divisor: got None, expected a number: the decode head names its own in_channels")
            self.divisor = divisor
        else:
            self.backbone = build_backbone(backbone)
            specs = self.backbone.specs
            self.divisor = divisor or self.backbone.divisor
        if neck is not None:
            self.neck = MODELS.build(dict(neck, in_specs=specs))
            specs = self.neck.specs
        self._init_decode_head(with_channels(decode_head, specs))
        if not self.num_classes == self.out_channels <= MOST_CLASSES:
            raise ValueError(
                f"decode_head: got {self.num_classes} classes and {self.out_channels} out_channels, "
                f"expected as many of one as of the other, at most {MOST_CLASSES}"
            )
        heads = [auxiliary_head] if isinstance(auxiliary_head, Mapping) else auxiliary_head
        self._init_auxiliary_head([with_channels(head, specs) for head in heads] or None)
        self.guide = build_guide(guide, specs, self.num_classes)

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """Of the maps that the heads see."""
        return (self.neck if self.with_neck else self.backbone).specs

    def stages(self, images: Tensor) -> Stages:
        """Preprocessed images (B, 3, H, W) -> maps, and logits (B, C, h, w) at the decode head's stride."""
        maps = self.extract_feat(images)
        return Stages(tuple(maps), self.decode_head(maps))

    def raw(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, H, W) -> logits (B, C, h, w) at the decode head's stride."""
        return self.decode_head(self.extract_feat(images))

    def infer(self, images: Tensor) -> Labels | Logits:
        """Preprocessed images (B, 3, H, W) -> what ``test_cfg.output`` says: what is exported."""
        logits = self.raw(images)
        output = self.test_cfg.output
        if output == "logits":
            return Logits(logits)
        size = (images.shape[2], images.shape[3])
        return Labels(label_map(logits, size, self.align_corners, coarse=output == "coarse-labels"))

    def outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """What :meth:`infer` gives for an input of this size."""
        if self.test_cfg.output != "logits":
            return (OutputSpec("segmentation", ("N", height, width), "uint8", "index into classes"),)
        device = next(self.parameters()).device
        with torch.no_grad():
            shape = self.raw(torch.zeros(1, 3, height, width, device=device)).shape
        return (OutputSpec("logits", ("N", *shape[1:]), "float32", "class scores; the best is an index into classes"),)

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """The losses of all heads, and the guide's."""
        if self.guide is None:
            return super().loss(inputs, data_samples)
        stages = self.stages(inputs)
        found = self.decode_head.loss_by_feat(stages.raw, data_samples)
        losses = {f"decode.{key}": value for key, value in found.items()}
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(stages.features, data_samples))
        found = self.guide(inputs, stages)
        return {**losses, **{f"guide.{key}": value for key, value in found.items()}}

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
        found = self.infer(images)
        return found.segmentation if isinstance(found, Labels) else found.logits.argmax(1).byte()

    def strip(self) -> Segmentor:
        """Without auxiliary heads and guide."""
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
