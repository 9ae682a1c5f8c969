"""The detector: preprocessor, backbone, neck, head, and optionally a semantic head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from efftasks.imaging.masks import masks_on_image
from efftasks.models.backbones.base import build_backbone
from efftasks.models.exits.base import ExitingDetector, build_exit
from efftasks.models.guides.base import build_guide, guide_losses, recorded_for_guide
from efftasks.models.seg_heads.channels import class_rows_of, labels_on_original, with_channels
from efftasks.models.targets import IGNORED_LABEL, pad_targets
from efftasks.ops.semantic import class_scores, label_map
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec, Stages
from efftasks.structures.instances import CLASS_SCORES_MEANING, EXIT_SCORE_MEANING, DetectionTensors
from efftasks.structures.protocols import GivesCandidates, SelectsInside
from efftasks.structures.spec import DecoderSpec, OutputSpec, Undecoded

__all__ = ["Detector"]


@MODELS.register_module()
class Detector(BaseModel):
    """Detects objects without NMS, with masks, keypoints and a semantic label map where its heads predict them.

    Args:
        backbone: a Backbone, or its config; any mmdet or mmseg backbone by scoped name.
        neck: config without ``in_specs``, which are those of the backbone.
        head: config without ``in_specs``, which are those of the neck.
        data_preprocessor: config without ``pad_size_divisor``, which is that of the backbone.
        semantic_head: config of a decode head of mmseg's form on the neck's maps, for a label map of the image; None
            for none. ``in_channels`` defaults to the channels of the maps of its ``in_index``.
        semantic_stride: output stride of the label map. Stride 1 costs as much as half a nano network; 4 is the stride
            of masks.
        guide: config of a :class:`~efftasks.models.guides.base.Guide` without ``student``, for training only.
        early_exit: config of an :class:`~efftasks.models.exits.base.EarlyExit` without ``model``; None for none.

    Attributes:
        cfg: the config it was loaded with, set by ``apis.load``.
        dataset_meta: classes and category ids it was trained on, set by ``apis.load``.
    """

    integer_parts = ("backbone", "neck")
    float_layers = ()

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict,
        head: dict,
        data_preprocessor: dict,
        semantic_head: dict | None = None,
        semantic_stride: int = 4,
        guide: dict | None = None,
        early_exit: dict | None = None,
    ) -> None:
        network = build_backbone(backbone)
        super().__init__(data_preprocessor=dict(data_preprocessor, pad_size_divisor=network.divisor))
        self.cfg: Any = None
        self.dataset_meta: dict[str, Any] = {}
        self.backbone = network
        self.neck = MODELS.build(dict(neck, in_specs=network.specs))
        self.head = MODELS.build(dict(head, in_specs=self.neck.specs))
        self.semantic_stride = semantic_stride
        self.semantic_head = (
            None if semantic_head is None else MODELS.build(with_channels(semantic_head, self.neck.specs))
        )
        self.guide = None if guide is None else build_guide(guide, self.neck.specs, self.head.num_classes, self)
        self.early_exit = build_exit(early_exit, self)

    def train(self, mode: bool = True) -> Detector:
        """Set training mode, but for parts that an early exit keeps as they are."""
        super().train(mode)
        if mode and self.early_exit is not None:
            self.early_exit.set_modes(self)
        return self

    def class_rows(self) -> dict[str, str]:
        """See :class:`~efftasks.structures.protocols.HasClassRows`: those of the semantic head."""
        head = self.semantic_head
        return {} if head is None else class_rows_of(head, "semantic_head", "semantic_classes")

    @property
    def exits_early(self) -> ExitingDetector | None:
        """The detector as one that answers at its exit or after it; None without an exit."""
        return None if self.early_exit is None else ExitingDetector(self, self.early_exit)

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""
        self.head.set_progress(fraction)
        self.data_preprocessor.set_progress(fraction)
        if self.guide is not None:
            self.guide.set_progress(fraction)
        if self.early_exit is not None:
            self.early_exit.set_progress(fraction)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> the neck's maps."""
        return self.neck(self.backbone(images))

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """Specs of the neck's maps, the input of the heads."""
        return self.neck.specs

    @property
    def map_readers(self) -> tuple[nn.Module, ...]:
        """The semantic head."""
        return () if self.semantic_head is None else (self.semantic_head,)

    def stages(self, images: Tensor) -> Stages:
        """Preprocessed images (B, 3, H, W) -> the neck's maps and the head's raw prediction."""
        maps = self.features(images)
        return Stages(maps, self.head(maps))

    def infer(self, images: Tensor) -> DetectionTensors:
        """Preprocessed images (B, 3, H, W) -> detections in pixels of the network input. This is what is exported.

        With an early exit its threshold decides for each image which answer is taken.
        """
        if self.exits_early is not None:
            return self.exits_early.infer(images)
        maps = self.features(images)
        detections = self.head.decode(self.head(maps))
        if self.semantic_head is None:
            return detections
        labels = label_map(self.semantic_head(maps), self._semantic_size(images), self.semantic_head.align_corners)
        return detections._replace(segmentation=labels)

    def _semantic_size(self, images: Tensor) -> tuple[int, int]:
        return images.shape[2] // self.semantic_stride, images.shape[3] // self.semantic_stride

    def infer_undecoded(self, images: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed images (B, 3, H, W) -> all candidates of the head, and class scores of the label map."""
        maps = self.features(images)
        candidates = self.head.candidates(self.head(maps))
        if self.semantic_head is None:
            return candidates
        logits = self.semantic_head(maps)
        return (*candidates, class_scores(logits, self._semantic_size(images), self.semantic_head.align_corners))

    def undecoded(self, height: int, width: int) -> Undecoded:
        """The outputs of :meth:`infer_undecoded` for an input of this size, and the decoder that they are for.

        An early exit is no part of them: its gate reads decoded detections.

        Raises:
            UserError: the head does not give its candidates.
        """
        head: Any = self.head
        if not isinstance(head, GivesCandidates):
            name = type(head).__name__
            raise UserError(f"the decoding of {name} cannot be left out of the file (it does not give its candidates)")
        outputs = head.candidate_outputs(height, width)
        if self.semantic_head is not None:
            shape = ("N", self.semantic_head.num_classes, height // self.semantic_stride, width // self.semantic_stride)
            outputs = (*outputs, OutputSpec("class_scores", shape, "float32", CLASS_SCORES_MEANING))
        decoder = DecoderSpec(head.candidate_decoder, head.count_detections(height, width))
        return Undecoded(outputs, decoder, head.selects_inside if isinstance(head, SelectsInside) else "")

    @property
    def task(self) -> str:
        """The task, as artifacts name it."""
        names = [output.name for output in self.head.part_outputs(self.divisor, self.divisor)]
        if self.semantic_head is not None:
            names.append("segmentation")
        if len(names) > 1:
            return "multi-task"
        return {"masks": "instance segmentation", "keypoints": "pose"}.get("".join(names), "detection")

    @property
    def divisor(self) -> int:
        """Sides of the input are multiples of this, in pixels."""
        return self.backbone.divisor

    def outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The outputs of :meth:`infer` for an input of this size."""
        count = self.head.count_detections(height, width)
        stride = self.semantic_stride
        meaning = f"index into semantic_classes, one for {stride} x {stride} pixels of the network input"
        semantic = OutputSpec("segmentation", ("N", height // stride, width // stride), "uint8", meaning)
        exit_score = OutputSpec("exit_score", ("N",), "float32", EXIT_SCORE_MEANING)
        return (
            OutputSpec("boxes", ("N", count, 4), "float32", "xyxy, pixels of the network input"),
            OutputSpec("scores", ("N", count), "float32", "probability in [0, 1], best first"),
            OutputSpec("labels", ("N", count), "int64", "index into classes"),
            *self.head.part_outputs(height, width),
            *(() if self.semantic_head is None else (semantic,)),
            *(() if self.early_exit is None else (exit_score,)),
        )

    def forward(self, inputs: Tensor, data_samples: Sequence[DetDataSample] | None = None, mode: str = "tensor") -> Any:
        """The interface of mmengine.

        Args:
            inputs: preprocessed images (B, 3, H, W).
            data_samples: one for each image; required by ``loss`` and ``predict``.
            mode: ``loss`` -> dict of scalars, ``predict`` -> samples with ``pred_instances`` (boxes xyxy, masks bool
                (K, H, W), keypoints (K, P, 3), all in pixels of the original image) and ``pred_sem_seg``, ``tensor`` ->
                the head's raw prediction.
        """
        if mode == "tensor":
            return self.head(self.features(inputs))
        if data_samples is None:
            raise ValueError(f"data_samples: got None, mode {mode!r} needs one sample for each image")
        if mode == "loss":
            return self._loss(inputs, data_samples)
        if mode == "predict":
            return self._predict(inputs, data_samples)
        raise ValueError(f"mode: got {mode!r}, allowed are 'loss', 'predict' and 'tensor'")

    def _loss(self, inputs: Tensor, data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        size = (inputs.shape[2], inputs.shape[3])
        targets = pad_targets(data_samples, inputs.device)
        if self.early_exit is not None and self.early_exit.train_only is not None:
            return _of_exit(self.early_exit.losses_alone(self, inputs, targets))
        with recorded_for_guide(self) as outputs:
            backbone_maps = self.backbone(inputs)
            maps = self.neck(backbone_maps)
            raw, head_losses = self.head.raw_and_loss(maps, targets)
        losses = dict(head_losses)
        if self.semantic_head is not None:
            samples = [_with_label_map(sample, size, inputs.device) for sample in data_samples]
            semantic_losses = self.semantic_head.loss_by_feat(self.semantic_head(maps), samples)
            losses.update({f"semantic.{name}": value for name, value in semantic_losses.items()})
        if self.early_exit is not None:
            losses.update(_of_exit(self.early_exit.losses(self, backbone_maps, raw, targets)))
        return {**losses, **guide_losses(self, inputs, Stages(maps, raw), outputs)}

    def strip(self) -> Detector:
        """A copy without the guide."""
        stripped = copy.deepcopy(self)
        stripped.guide = None
        return stripped

    def _predict(self, inputs: Tensor, data_samples: Sequence[DetDataSample]) -> list[DetDataSample]:
        detections = self.infer(inputs)
        for i, sample in enumerate(data_samples):
            sample.pred_instances = _on_original(detections, i, sample)
            if detections.segmentation is not None:
                labels = labels_on_original(
                    detections.segmentation[i], (inputs.shape[2], inputs.shape[3]), sample.metainfo
                )
                sample.pred_sem_seg = PixelData(data=labels[None])
            if self.exits_early is not None and detections.exit_score is not None:
                score = detections.exit_score[i]
                exited = bool(score >= self.exits_early.exit_threshold)
                sample.set_metainfo(dict(exit_score=score.item(), exited=exited))
        return list(data_samples)


def _of_exit(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"exit.{name}": value for name, value in losses.items()}


def _on_original(detections: DetectionTensors, i: int, sample: DetDataSample) -> InstanceData:
    """The detections of image ``i`` in pixels of the original image."""
    height, width = sample.ori_shape
    scale = detections.boxes.new_tensor(sample.scale_factor)
    limit = detections.boxes.new_tensor([width, height, width, height])
    boxes = torch.minimum((detections.boxes[i] / scale.repeat(2)).clamp(min=0), limit)
    objects = InstanceData(bboxes=boxes, scores=detections.scores[i], labels=detections.labels[i])
    if detections.masks is not None:
        cells, windows = detections.masks[i].float().cpu().numpy(), boxes.cpu().numpy()
        objects.masks = torch.from_numpy(masks_on_image(cells, windows, sample.scale_factor, (height, width)))
    if detections.keypoints is not None:
        points = detections.keypoints[i]
        objects.keypoints = torch.cat([points[..., :2] / scale, points[..., 2:]], -1)
    return objects


def _with_label_map(sample: DetDataSample, size: tuple[int, int], device: torch.device) -> DetDataSample:
    """The sample, or, where it has no label map, a copy with one of ignored pixels."""
    if "gt_sem_seg" in sample:
        return sample
    new = sample.new()
    new.gt_sem_seg = PixelData(data=torch.full((1, *size), IGNORED_LABEL, device=device))
    return new
