"""DETRPose: one-stage pose estimation without NMS.

Source: DETRPose (arXiv 2506.13027) and its public code (SebastianJanampa/DETRPose, Apache-2.0). The authors' sizes, all
with 60 queries and the losses of ``configs/_base_/models/detrpose.py``:

=====  ========  ==============  =====================  =======  =====================  =========
size   HGNetV2   maps (strides)  hidden (encoder ffn)   depth    decoder layers (ffn)   reg_scale
=====  ========  ==============  =====================  =======  =====================  =========
N      B0        16, 32          128 (512), x 0.34      x 0.5    3 (512), 6 points      4
S      B0        8, 16, 32       256 (1024), x 0.5      x 0.34   3 (1024), 4 points     4
M      B2        8, 16, 32       256 (1024), x 1.0      x 0.67   4 (1024), 4 points     4
L      B4        8, 16, 32       256 (1024), x 1.0      x 1.0    6 (1024), 4 points     4
X      B5        8, 16, 32       384 (2048), x 1.0      x 1.0    6 (1024), 4 points     8
=====  ========  ==============  =====================  =======  =====================  =========

Depth counts the three blocks of the encoder's fusion. Depths are rounded: 2, 1, 2, 3, 3 blocks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from efftasks.models.det_heads.query_decoder import score_rows
from efftasks.models.det_heads.query_head import input_size
from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.pose_heads.detrpose_decoder import PoseDecoderOutputs
from efftasks.models.pose_heads.pose_raw import PoseRaw, PoseTargets, PoseTrainingOutputs
from efftasks.ops.topk import top_pairs
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import KEYPOINTS_MEANING, DetectionTensors, PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["DETRPoseHead"]


@MODELS.register_module()
class DETRPoseHead(nn.Module):
    """Predicts a set of poses, one for each query.

    Args:
        in_specs: the feature maps, finest first; given by the detector.
        num_classes: C, passed to every part.
        sigmas: of the P keypoints, as COCO has them.
        selection: config of the query selection, without ``num_classes``, ``num_keypoints`` and ``channels``.
        decoder: config of the decoder, without them.
        denoising: config of the denoising, without them; None for none.
        criterion: config of the criterion.
        channels: of a token; maps with other channels are projected to them.
        max_detections: K, the number of top pairs of query and class; a query may give several classes.
    """

    float_parts = ("selection", "decoder")  # attention, sampling and points refined through logits
    candidate_decoder = "top-pairs"
    selects_inside = "they select its queries before its decoder runs"

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        num_classes: int,
        sigmas: Sequence[float],
        selection: dict,
        decoder: dict,
        denoising: dict | None,
        criterion: dict,
        channels: int = 128,
        max_detections: int = 60,
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes: got {num_classes!r}, allowed are integers from 1")
        if not sigmas or any(not sigma > 0 for sigma in sigmas):
            raise ValueError(f"sigmas: got {sigmas!r}, allowed are numbers above 0, one for each keypoint")
        self.num_classes, self.max_detections = num_classes, max_detections
        self.strides = tuple(spec.stride for spec in in_specs)
        self.sigmas: Tensor
        self.register_buffer("sigmas", torch.tensor([float(sigma) for sigma in sigmas]), persistent=False)
        common = dict(num_classes=num_classes, num_keypoints=len(sigmas), channels=channels)
        self.input_proj = nn.ModuleList(
            nn.Identity() if spec.channels == channels else ConvNormAct(spec.channels, channels, 1, act=None)
            for spec in in_specs
        )
        self.selection = MODELS.build({**selection, **common})
        self.decoder = MODELS.build({**decoder, **common})
        self.denoising: nn.Module | None = None if denoising is None else MODELS.build({**denoising, **common})
        self.criterion = MODELS.build(criterion)

    @property
    def reg_scale(self) -> float:
        """The scale of the distributions of distances."""
        return self.decoder.reg_scale

    def set_progress(self, fraction: float) -> None:
        """Training progress, in [0, 1], which this head does not use."""

    def forward(self, features: Sequence[Tensor], targets: PoseTargets | None = None) -> PoseRaw:
        """Features (B, C_i, H_i, W_i), finest first -> raw prediction; with ``targets`` also the outputs for losses."""
        maps = [project(x) for project, x in zip(self.input_proj, features)]
        selected = self.selection(maps)
        content, poses = selected.content, selected.proposals.poses.detach()
        denoising = None
        blocked = None
        if targets is not None and self.denoising is not None:
            denoising = self.denoising(targets, content.shape[1])
            blocked = denoising.blocked
            content = torch.cat([denoising.content, content], dim=1)
            poses = torch.cat([denoising.poses, poses], dim=1)
        decoded: PoseDecoderOutputs = self.decoder(content, poses, maps, blocked)
        last, size = decoded.layers[-1], input_size(features[0], self.strides[0])[:2]
        if targets is None or decoded.first is None:
            return PoseRaw(last.logits, last.poses, size, None)
        training = PoseTrainingOutputs(decoded.layers, decoded.first, selected.proposals, denoising)
        count = 0 if denoising is None else denoising.poses.shape[1]
        return PoseRaw(last.logits[:, count:], last.poses[:, count:], size, training)

    def class_rows(self) -> dict[str, str]:
        """See :class:`~efftasks.structures.protocols.HasClassRows`."""
        return dict.fromkeys([*score_rows(self), *(["denoising.label_tokens"] if self.denoising else [])], "classes")

    def count_detections(self, height: int, width: int) -> int:
        """K for an input of this size in pixels."""
        return min(self.max_detections, self._count_queries(height, width) * self.num_classes)

    def _count_queries(self, height: int, width: int) -> int:
        cells = sum((height // stride) * (width // stride) for stride in self.strides)
        return min(cells, self.selection.num_queries)

    def part_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The outputs of :meth:`decode` beside boxes, scores and labels, for an input of this size in pixels."""
        shape = ("N", self.count_detections(height, width), len(self.sigmas), 3)
        return (OutputSpec("keypoints", shape, "float32", KEYPOINTS_MEANING),)

    def decode(self, raw: PoseRaw) -> DetectionTensors:
        """Raw prediction -> the K best detections. Pure tensors, the same when exported.

        Boxes enclose the keypoints, and the score of a keypoint is that of its pose: neither is predicted.
        """
        count = min(self.max_detections, raw.logits.shape[1] * raw.logits.shape[2])
        logits, labels, index = top_pairs(raw.logits.float(), count)
        flat = raw.poses.float().flatten(2)
        selected = flat.gather(1, index[..., None].expand(-1, -1, flat.shape[-1]))
        points = selected.unflatten(-1, (-1, 2)) * raw.size
        scores = logits.sigmoid()
        boxes = torch.cat([points.amin(2), points.amax(2)], dim=-1)
        keypoint_scores = scores[..., None, None].expand(-1, -1, points.shape[2], 1)
        return DetectionTensors(boxes, scores, labels, keypoints=torch.cat([points, keypoint_scores], dim=-1))

    def candidates(self, raw: PoseRaw) -> tuple[Tensor, ...]:
        """Raw prediction -> boxes (B, Q, 4), scores (B, Q, C) and keypoints (B, Q, P, 2) without scores."""
        points = raw.poses.float() * raw.size
        boxes = torch.cat([points.amin(2), points.amax(2)], dim=-1)
        return boxes, raw.logits.float().sigmoid(), points

    def candidate_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The tensors of :meth:`candidates` for an input of this size in pixels."""
        count = self._count_queries(height, width)
        places = "x, y in pixels of the network input; their score is that of the object"
        return (
            OutputSpec("boxes", ("N", count, 4), "float32", "xyxy of every query, pixels of the network input"),
            OutputSpec("scores", ("N", count, self.num_classes), "float32", "probability in [0, 1] of every class"),
            OutputSpec("keypoints", ("N", count, len(self.sigmas), 2), "float32", places),
        )

    def loss(self, features: Sequence[Tensor], targets: PaddedTargets) -> dict[str, Tensor]:
        """Losses of features (B, C_i, H_i, W_i) against the objects; see :meth:`raw_and_loss`."""
        return self.raw_and_loss(features, targets)[1]

    def raw_and_loss(self, features: Sequence[Tensor], targets: PaddedTargets) -> tuple[PoseRaw, dict[str, Tensor]]:
        """The raw prediction of features, and its losses against the objects that have keypoints.

        Crowd regions and objects without any annotated keypoint are not matched, and unmatched queries in them are
        masked out of the loss.

        Raises:
            ValueError: the targets have no keypoints, or another number of them.
        """
        pose_targets = self._targets(targets, input_size(features[0], self.strides[0]))
        raw = self(features, pose_targets)
        assert raw.training is not None, "losses need a head in training mode"
        return raw, self.criterion(raw.training, pose_targets)

    def _targets(self, targets: PaddedTargets, scale: Tensor) -> PoseTargets:
        if targets.keypoints is None or targets.areas is None:
            raise ValueError("targets: got none with keypoints, allowed are those of data with keypoints")
        if targets.keypoints.shape[2] != len(self.sigmas):
            got = targets.keypoints.shape[2]
            raise ValueError(f"sigmas: got {len(self.sigmas)}, allowed are as many as the data's keypoints, {got}")
        points, visible = targets.keypoints.split((2, 1), dim=-1)
        annotated = (visible > 0).to(points.dtype)
        valid = targets.valid & ~targets.ignored & annotated.flatten(2).any(-1)
        ignored = targets.valid & ~valid
        return PoseTargets(
            labels=targets.labels,
            keypoints=torch.cat([points / scale[:2], annotated], dim=-1),
            areas=targets.areas,
            valid=valid,
            regions=targets.boxes / scale * ignored[..., None],
            sigmas=self.sigmas,
            size=scale[:2],
        )

    def strip(self) -> DETRPoseHead:
        """A copy without denoising and criterion."""
        stripped = copy.deepcopy(self)
        stripped.denoising = None
        stripped.criterion = nn.Identity()
        return stripped
