"""The detector: preprocess, backbone, neck, head. Everything else is in those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from efftasks.models.backbones.base import build_backbone
from efftasks.registry import MODELS
from efftasks.structures.instances import PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["Detector"]


@MODELS.register_module()
class Detector(BaseModel):
    """A detector whose output rows are its detections: no suppression follows.

    Args:
        backbone: a Backbone, or its config; any mmdet or mmseg backbone by scoped name.
        neck: config without ``in_specs``: the backbone's are given.
        head: config without ``in_specs``: the neck's are given.
        data_preprocessor: config; the divisor of the backbone is given.

    Attributes:
        cfg: the config it was loaded with, set by ``apis.load``.
        dataset_meta: classes and category ids it was trained on, set by ``apis.load``.
    """

    task = "detection"

    def __init__(self, backbone: dict | nn.Module, neck: dict, head: dict, data_preprocessor: dict) -> None:
        network = build_backbone(backbone)
        super().__init__(data_preprocessor=dict(data_preprocessor, pad_size_divisor=network.divisor))
        self.cfg: Any = None
        self.dataset_meta: dict[str, Any] = {}
        self.backbone = network
        self.neck = MODELS.build(dict(neck, in_specs=network.specs))
        self.head = MODELS.build(dict(head, in_specs=self.neck.specs))

    def set_progress(self, fraction: float) -> None:
        """Tell how much of training is done, in [0, 1]."""
        self.head.set_progress(fraction)
        self.data_preprocessor.set_progress(fraction)

    def raw(self, images: Tensor) -> Any:
        """Preprocessed images (B, 3, H, W) -> the head's raw prediction."""
        return self.head(self.neck(self.backbone(images)))

    def infer(self, images: Tensor) -> Any:
        """Preprocessed images (B, 3, H, W) -> decoded tensors in pixels of the network input: what is exported."""
        return self.head.decode(self.raw(images))

    @property
    def divisor(self) -> int:
        """Sides of the input are multiples of this, in pixels."""
        return self.backbone.divisor

    def outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """What :meth:`infer` gives for an input of this size."""
        count = self.head.count_detections(height, width)
        return (
            OutputSpec("boxes", ("N", count, 4), "float32", "xyxy, pixels of the network input"),
            OutputSpec("scores", ("N", count), "float32", "probability in [0, 1], best first"),
            OutputSpec("labels", ("N", count), "int64", "index into classes"),
        )

    def forward(self, inputs: Tensor, data_samples: Sequence[DetDataSample] | None = None, mode: str = "tensor") -> Any:
        """mmengine's entry.

        Args:
            inputs: preprocessed images (B, 3, H, W).
            data_samples: one an image; needed by ``loss`` and ``predict``.
            mode: ``loss`` -> dict of scalars, ``predict`` -> samples with ``pred_instances`` (boxes xyxy in pixels of
                the original image), ``tensor`` -> the raw prediction.
        """
        if mode == "tensor":
            return self.raw(inputs)
        if data_samples is None:
            raise ValueError(f"data_samples: got None, mode {mode!r} needs one sample an image")
        if mode == "loss":
            features = self.neck(self.backbone(inputs))
            return self.head.loss(features, pad_targets(data_samples, inputs.device))
        if mode == "predict":
            return self._predict(inputs, data_samples)
        raise ValueError(f"mode: got {mode!r}, allowed are 'loss', 'predict' and 'tensor'")

    def _predict(self, inputs: Tensor, data_samples: Sequence[DetDataSample]) -> list[DetDataSample]:
        detections = self.infer(inputs)
        for i, sample in enumerate(data_samples):
            height, width = sample.ori_shape
            scale = detections.boxes.new_tensor(sample.scale_factor).repeat(2)
            limit = detections.boxes.new_tensor([width, height, width, height])
            boxes = torch.minimum((detections.boxes[i] / scale).clamp(min=0), limit)
            sample.pred_instances = InstanceData(bboxes=boxes, scores=detections.scores[i], labels=detections.labels[i])
        return list(data_samples)


def pad_targets(data_samples: Sequence[DetDataSample], device: torch.device) -> PaddedTargets:
    """Objects and crowd regions of a batch as padded tensors; a batch without any has M = 0."""
    boxes, labels, ignored = [], [], []
    for sample in data_samples:
        objects, crowds = sample.gt_instances, sample.get("ignored_instances", InstanceData())
        parts = [part for part in (objects, crowds) if len(part)]
        boxes.append([row for part in parts for row in part.bboxes.tolist()])
        labels.append([label for part in parts for label in part.labels.tolist()])
        ignored.append([False] * len(objects) + [True] * len(crowds))
    most = max(map(len, labels))
    filled = [len(row) for row in labels]
    return PaddedTargets(
        labels=torch.tensor([row + [0] * (most - len(row)) for row in labels], dtype=torch.long, device=device),
        boxes=torch.tensor(
            [row + [[0.0] * 4] * (most - len(row)) for row in boxes], dtype=torch.float32, device=device
        ).reshape(len(boxes), most, 4),
        valid=torch.tensor([[j < n for j in range(most)] for n in filled], dtype=torch.bool, device=device).reshape(
            len(boxes), most
        ),
        ignored=torch.tensor(
            [row + [False] * (most - len(row)) for row in ignored], dtype=torch.bool, device=device
        ).reshape(len(boxes), most),
    )
