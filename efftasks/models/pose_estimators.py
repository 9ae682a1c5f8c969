"""The top-down pose estimator: preprocessor, backbone, head, for crops of one object each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from efftasks.imaging.crops import TOP_DOWN
from efftasks.models.backbones.base import build_backbone
from efftasks.models.guides.base import build_guide, guide_losses, recorded_for_guide
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec, Stages
from efftasks.structures.spec import OutputSpec, Undecoded

__all__ = ["Keypoints", "PoseEstimator"]


class Keypoints(NamedTuple):
    """The keypoints of the object of each crop."""

    keypoints: Tensor  # (B, P, 3): x, y in pixels of the network input, and score in [0, 1]


@MODELS.register_module()
class PoseEstimator(BaseModel):
    """Predicts the keypoints of one object from a crop around it. The boxes of the objects are an input.

    Args:
        backbone: a Backbone, or its config; any mmdet or mmseg backbone by scoped name.
        head: config without ``in_specs``, which are those of the backbone.
        data_preprocessor: config without ``pad_size_divisor``, which is that of the backbone.
        guide: config of a :class:`~efftasks.models.guides.base.Guide` without ``student``, for training only.

    Attributes:
        cfg: the config it was loaded with, set by ``apis.load``.
        dataset_meta: classes, category ids and keypoints it was trained on, set by ``apis.load``.
    """

    task = TOP_DOWN

    def __init__(
        self, backbone: dict | nn.Module, head: dict, data_preprocessor: dict, guide: dict | None = None
    ) -> None:
        network = build_backbone(backbone)
        super().__init__(data_preprocessor=dict(data_preprocessor, pad_size_divisor=network.divisor))
        self.cfg: Any = None
        self.dataset_meta: dict[str, Any] = {}
        self.backbone = network
        self.head = MODELS.build(dict(head, in_specs=network.specs))
        self.guide = build_guide(guide, network.specs, self.head.num_keypoints, self)

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1], on which a guide may depend."""
        if self.guide is not None:
            self.guide.set_progress(fraction)

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """Specs of the backbone's maps, the input of the head."""
        return self.backbone.specs

    def stages(self, images: Tensor) -> Stages:
        """Preprocessed crops (B, 3, H, W) -> the backbone's maps and the head's raw prediction."""
        maps = self.backbone(images)
        return Stages(maps, self.head(maps))

    def raw(self, images: Tensor) -> Any:
        """Preprocessed crops (B, 3, H, W) -> the head's raw prediction."""
        return self.head(self.backbone(images))

    def infer(self, images: Tensor) -> Keypoints:
        """Preprocessed crops (B, 3, H, W) -> keypoints in pixels of the network input. This is what is exported."""
        return Keypoints(self.head.decode(self.raw(images)))

    def infer_undecoded(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed crops (B, 3, H, W) -> what the head gives before its decoder."""
        return self.head.candidates(self.raw(images))

    def undecoded(self, height: int, width: int) -> Undecoded:
        """The outputs of :meth:`infer_undecoded` for an input of this size, and the decoder that they are for."""
        self.outputs(height, width)  # refuses another size
        return Undecoded(self.head.candidate_outputs(), self.head.decoder_spec)

    @property
    def divisor(self) -> int:
        """Sides of the input are multiples of this, in pixels."""
        return self.backbone.divisor

    def outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The outputs of :meth:`infer` for an input of this size.

        Raises:
            UserError: it is not the input size of the head.
        """
        if (height, width) != self.head.input_size:
            raise UserError(f"image size: got {(height, width)}, the head is made for {self.head.input_size} only")
        shape = ("N", self.head.num_keypoints, 3)
        return (OutputSpec("keypoints", shape, "float32", "x, y in pixels of the network input, score in [0, 1]"),)

    def forward(self, inputs: Tensor, data_samples: Sequence[DetDataSample] | None = None, mode: str = "tensor") -> Any:
        """The interface of mmengine.

        Args:
            inputs: preprocessed crops (B, 3, H, W).
            data_samples: one for each crop; required by ``loss`` and ``predict``.
            mode: ``loss`` -> dict of scalars, ``predict`` -> samples with ``pred_instances`` (one row, keypoints in
                pixels of the original image), ``tensor`` -> the raw prediction.
        """
        if mode == "tensor":
            return self.raw(inputs)
        if data_samples is None:
            raise ValueError(f"data_samples: got None, mode {mode!r} needs one sample for each crop")
        if mode == "loss":
            return self._loss(inputs, torch.cat([sample.gt_instances.keypoints for sample in data_samples]))
        if mode == "predict":
            return self._predict(inputs, data_samples)
        raise ValueError(f"mode: got {mode!r}, allowed are 'loss', 'predict' and 'tensor'")

    def _loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        with recorded_for_guide(self) as outputs:
            stages = self.stages(inputs)
        return {**self.head.loss_by_feat(stages.raw, targets), **guide_losses(self, inputs, stages, outputs)}

    def strip(self) -> PoseEstimator:
        """A copy without the guide."""
        stripped = copy.deepcopy(self)
        stripped.guide = None
        return stripped

    def _predict(self, inputs: Tensor, data_samples: Sequence[DetDataSample]) -> list[DetDataSample]:
        for sample, keypoints in zip(data_samples, self.infer(inputs).keypoints):
            matrix = keypoints.new_tensor(sample.crop_to_image)
            points = keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
            sample.pred_instances = InstanceData(
                bboxes=keypoints.new_tensor(sample.box)[None],
                scores=keypoints[:, 2].mean()[None],
                labels=torch.tensor([sample.label], device=keypoints.device),
                keypoints=torch.cat([points, keypoints[:, 2:]], dim=1)[None],
            )
        return list(data_samples)
