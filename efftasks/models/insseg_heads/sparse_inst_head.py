"""NMS-free instance segmentation without boxes: a fixed set of instances, each with a class, a score and a mask.

Source: SparseInst (arXiv 2203.12827, sections 3.3 to 3.5). Convolutions, products and one interpolation; boxes
enclose the masks.

Legend: B images, N instances, C classes, K detections, P matched pairs, M objects, (h, w) cells of MASK_STRIDE pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn

from efftasks.models.assigners.mask_matcher import learnable_objects
from efftasks.models.insseg_heads.sparse_inst_parts import InstanceBranch, MaskBranch, with_coordinates
from efftasks.ops.masks import box_window, mask_iou, masks_to_boxes
from efftasks.registry import MODELS, TASK_UTILS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import MASK_STRIDE, MASKS_MEANING, DetectionTensors, PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["SparseInstHead", "SparseInstRaw"]


class SparseInstRaw(NamedTuple):
    """The raw prediction of each instance, all as logits."""

    logits: Tensor  # (B, N, C)
    objectness: Tensor  # (B, N, 1)
    masks: Tensor  # (B, N, h, w)


@MODELS.register_module()
class SparseInstHead(nn.Module):
    """Instances from activation maps, masks from a kernel each over one map, trained with one-to-one matching.

    The losses are ``cls`` and ``objectness`` ``(logits, targets) -> scalar``, and any on masks ``(logits, targets) ->
    scalar`` of (P, h, w). The target of the objectness is the IoU of the mask with its object.

    Args:
        in_specs: one map, of a stride that is a multiple of 4; given by the detector.
        num_classes: C.
        matcher: config of the matcher ``(logits, masks, targets) -> Matching``.
        losses: name -> config.
        num_instances: N.
        channels: of the convolutions.
        kernel_channels: of the map that masks are made of.
        num_convs: number of 3x3 convolutions of each of the two branches.
        groups: activation maps of an instance.
        mask_threshold: a cell is foreground where its probability is above this. Output masks are shifted so that it
            lies at logit 0, the threshold of all mask outputs.
        max_detections: K is at most this, and at most N.
    """

    candidate_decoder = "instances"

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        num_classes: int,
        matcher: dict,
        losses: dict[str, dict],
        num_instances: int = 100,
        channels: int = 256,
        kernel_channels: int = 128,
        num_convs: int = 4,
        groups: int = 4,
        mask_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes: got {num_classes!r}, allowed are integers from 1")
        if len(in_specs) != 1 or in_specs[0].stride % MASK_STRIDE:
            raise ValueError(f"in_specs: got {list(in_specs)}, expected one map of a stride that is a multiple of 4")
        if groups < 1 or channels % groups:
            raise ValueError(f"groups: got {groups}, allowed are divisors of channels, {channels}")
        if not 0 < mask_threshold < 1:
            raise ValueError(f"mask_threshold: got {mask_threshold}, allowed are numbers between 0 and 1")
        missing = {"cls", "objectness"} - set(losses)
        if missing:
            raise ValueError(f"losses: got {sorted(losses)}, expected cls and objectness among them")
        (spec,) = in_specs
        self.num_classes, self.num_instances, self.max_detections = num_classes, num_instances, max_detections
        self.scale = spec.stride // MASK_STRIDE
        self.logit_threshold = math.log(mask_threshold / (1 - mask_threshold))
        self.matcher = TASK_UTILS.build(matcher)
        self.losses = nn.ModuleDict({name: MODELS.build(loss) for name, loss in losses.items()})
        self.instances = InstanceBranch(
            2 + spec.channels, channels, num_convs, num_instances, num_classes, kernel_channels, groups
        )
        self.mask_map = MaskBranch(2 + spec.channels, channels, num_convs, kernel_channels)

    def set_progress(self, fraction: float) -> None:
        """Training progress, in [0, 1], which this head does not use."""

    def forward(self, features: Sequence[Tensor]) -> SparseInstRaw:
        """One map (B, D, H / stride, W / stride) -> raw prediction."""
        x = with_coordinates(features[0])
        instances = self.instances(x)
        mask_features = self.mask_map(x)
        height, width = mask_features.shape[2:]
        masks = (instances.kernels @ mask_features.flatten(2)).unflatten(2, (height, width))
        if self.scale > 1:
            masks = F.interpolate(masks, scale_factor=float(self.scale), mode="bilinear")
        return SparseInstRaw(instances.logits, instances.objectness, masks)

    def count_detections(self, height: int, width: int) -> int:
        """K for an input of this size in pixels."""
        return min(self.max_detections, self.num_instances)

    def part_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The outputs of :meth:`decode` beside boxes, scores and labels, for an input of this size in pixels."""
        shape = ("N", self.count_detections(height, width), height // MASK_STRIDE, width // MASK_STRIDE)
        return (OutputSpec("masks", shape, "float32", MASKS_MEANING),)

    def decode(self, raw: SparseInstRaw) -> DetectionTensors:
        """Raw prediction -> the K best instances. Pure tensors, the same when exported.

        The score is the geometric mean of class score and objectness, times the mean probability of the foreground
        cells ("maskness"). An instance without such cells has score 0 and an empty box.
        """
        class_logits, labels = raw.logits.float().max(dim=2)
        masks = raw.masks.float() - self.logit_threshold
        inside = (masks > 0).to(masks.dtype)
        maskness = (masks.sigmoid() * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1.0)
        scores = (class_logits.sigmoid() * raw.objectness[..., 0].float().sigmoid()).sqrt() * maskness
        scores, index = scores.topk(min(self.max_detections, self.num_instances), dim=1)
        # Masks are selected as rows of one list: gather would need an index for every cell.
        first = torch.arange(masks.shape[0], device=masks.device)[:, None] * self.num_instances
        masks = masks.flatten(0, 1).index_select(0, (first + index).flatten()).unflatten(0, index.shape)
        return DetectionTensors(masks_to_boxes(masks, 0.0, float(MASK_STRIDE)), scores, labels.gather(1, index), masks)

    def candidates(self, raw: SparseInstRaw) -> tuple[Tensor, ...]:
        """Raw prediction -> all instances: class logits, objectness, and masks shifted as those of :meth:`decode`."""
        return raw.logits.float(), raw.objectness.float(), raw.masks.float() - self.logit_threshold

    def candidate_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """What :meth:`candidates` gives for an input of this size in pixels."""
        count, cells = self.num_instances, (height // MASK_STRIDE, width // MASK_STRIDE)
        return (
            OutputSpec("logits", ("N", count, self.num_classes), "float32", "of each instance and class"),
            OutputSpec("objectness", ("N", count, 1), "float32", "logit of each instance"),
            OutputSpec("mask_logits", ("N", count, *cells), "float32", MASKS_MEANING),
        )

    def loss(self, features: Sequence[Tensor], targets: PaddedTargets) -> dict[str, Tensor]:
        """Losses of features (B, D, H / stride, W / stride) against the objects."""
        return self.raw_and_loss(features, targets)[1]

    def raw_and_loss(
        self, features: Sequence[Tensor], targets: PaddedTargets
    ) -> tuple[SparseInstRaw, dict[str, Tensor]]:
        """The raw prediction of features, and its losses against the objects."""
        raw = self(features)
        return raw, self.loss_by_feat(raw, targets)

    def loss_by_feat(self, raw: SparseInstRaw, targets: PaddedTargets) -> dict[str, Tensor]:
        """All losses, normalized and weighted, by name.

        Sums are divided by the number of matched objects, a mean over all processes of at least 1. Without objects
        empty sums are 0 with a gradient, so that every process has gradients for every parameter.
        """
        device = raw.logits.device
        image, instance, target = self.matcher(raw.logits, raw.masks, targets).to(device)
        count = torch.tensor(float(len(image)), device=device)
        all_reduce(count, op="mean")
        count = count.clamp(min=1.0)

        class_targets = torch.zeros_like(raw.logits, dtype=torch.float32)
        class_targets[image, instance, targets.labels[image, target]] = 1.0
        counted = ~self._ignored(raw.masks.detach(), targets)
        counted[image, instance] = True

        masks = raw.masks[image, instance].float()
        target_masks = torch.zeros_like(masks) if targets.masks is None else targets.masks[image, target].float() / 255
        with torch.no_grad():
            quality = mask_iou((masks > self.logit_threshold).float(), (target_masks > 0.5).float())
        arguments = {
            "cls": (raw.logits[counted].float(), class_targets[counted]),
            "objectness": (raw.objectness[image, instance, 0].float(), quality),
        }
        losses = {name: loss(*arguments.get(name, (masks, target_masks))) for name, loss in self.losses.items()}
        return {f"loss_{name}": value / count for name, value in losses.items()}

    def _ignored(self, masks: Tensor, targets: PaddedTargets) -> Tensor:
        """Predictions, bool (B, N), whose mask lies mostly in crowd regions and in objects without a mask.

        The region of these is their mask, or their box where there is none.
        """
        unannotated = targets.valid & ~learnable_objects(targets)
        size = (masks.shape[2], masks.shape[3])
        if not bool(unannotated.any()):
            return torch.zeros(masks.shape[:2], dtype=torch.bool, device=masks.device)
        region = box_window(targets.boxes, size, float(MASK_STRIDE))
        if targets.masks is not None:
            has_mask = targets.masks.flatten(2).amax(2)[..., None, None] > 0
            region = torch.where(has_mask, targets.masks > 127, region)
        region = (region & unannotated[..., None, None]).any(1, keepdim=True)
        inside = masks > self.logit_threshold
        return (inside & region).sum((2, 3)) * 2 > inside.sum((2, 3))
