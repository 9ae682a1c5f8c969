"""Augmentations of batches, on any device: mixing of images, and random sizes.

Sources: mixup arXiv 1710.09412; DEIM (arXiv 2412.04234) and DEIMv2 (arXiv 2509.20787, section 4, "copy-blend") for
their schedules; RT-DETR (arXiv 2304.08069) for the sizes.

They are ``batch_augments`` of the preprocessor and are applied in training only, in a window of its progress.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from efftasks.models.targets import IGNORED_LABEL, plain_boxes
from efftasks.registry import MODELS

__all__ = ["CopyBlend", "DenseBatchAugment", "MixUp", "MultiScale"]

Batch = tuple[Tensor, list[DetDataSample]]


class Windowed(nn.Module):
    """An augmentation that is active in ``window`` = [start, end), fractions of training.

    In a config each may be a named point of ``schedule``.
    """

    linked_progress: ClassVar[tuple[str, ...]] = ("window",)

    def __init__(self, window: tuple[float, float]) -> None:
        super().__init__()
        if not 0 <= window[0] <= window[1]:
            raise ValueError(f"window: got {window}, allowed are 0 <= start <= end")
        self.window = window
        self.progress = 0.0

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""
        self.progress = fraction

    @property
    def active(self) -> bool:
        """Whether training is in the window."""
        return self.window[0] <= self.progress < self.window[1]


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


class MixUp(Windowed):
    """Mixes each image with the one before it in the batch. The result has the objects of both, with all annotations.

    Pixels whose labels differ in two semantic label maps get the ignored label 255.

    Args:
        prob: probability that a batch is mixed.
        ratio_range: of the weight of the image itself.
        window: see :class:`Windowed`.
    """

    def __init__(
        self,
        prob: float = 0.5,
        ratio_range: tuple[float, float] = (0.45, 0.55),
        window: tuple[float, float] = (0.0, 2.0),
    ) -> None:
        super().__init__(window)
        self.prob, self.ratio_range = prob, ratio_range

    def happens(self) -> bool:
        """Decide at random whether the next batch is mixed."""
        return self.active and float(torch.rand(())) < self.prob

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample]) -> Batch:
        """Images (B, 3, H, W) and samples -> mixed ones."""
        share = _uniform(*self.ratio_range)
        mixed = inputs * share + inputs.roll(1, dims=0) * (1 - share)
        before = [data_samples[-1], *data_samples[:-1]]
        return mixed, [_merged(sample, other) for sample, other in zip(data_samples, before)]


class CopyBlend(Windowed):
    """Blends objects of the batch, with some context, into random places of its images.

    For objects with boxes alone: masks and keypoints of covered objects would become wrong.

    Args:
        prob: probability that a batch is augmented.
        min_area: of a copied object, in square pixels of the network input.
        num_objects: number of objects that are blended into an image.
        expand_ratios: range of the context around an object, as a fraction of its sides.
        ratio_range: of the weight of the image in a blended patch.
        window: see :class:`Windowed`.
    """

    def __init__(
        self,
        prob: float = 0.5,
        min_area: float = 100.0,
        num_objects: int = 3,
        expand_ratios: tuple[float, float] = (0.1, 0.25),
        ratio_range: tuple[float, float] = (0.45, 0.55),
        window: tuple[float, float] = (0.0, 2.0),
    ) -> None:
        super().__init__(window)
        self.prob, self.min_area, self.num_objects = prob, min_area, num_objects
        self.expand_ratios, self.ratio_range = expand_ratios, ratio_range

    def happens(self) -> bool:
        """Decide at random whether the next batch is augmented."""
        return self.active and float(torch.rand(())) < self.prob

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample]) -> Batch:
        """Images (B, 3, H, W) and samples -> images and samples with blended objects.

        Raises:
            ValueError: objects have masks or keypoints, or there are label maps.
        """
        for name in ("masks", "keypoints"):
            if any(name in sample.gt_instances for sample in data_samples):
                raise ValueError(f"CopyBlend: got objects with {name}, expected boxes alone; use MixUp for those")
        if any("gt_sem_seg" in sample for sample in data_samples):
            raise ValueError("CopyBlend: got label maps, expected boxes alone; use MixUp for those")
        pool = self._pool(data_samples, inputs.shape[-2:])
        if not pool:
            return inputs, data_samples
        share = _uniform(*self.ratio_range)
        images = inputs.clone()
        samples = []
        for i, sample in enumerate(data_samples):
            boxes, labels = [], []
            for j in torch.randperm(len(pool))[: self.num_objects].tolist():
                source, box, label = pool[j]
                boxes.append(self._blend(images[i], inputs[source], box, share))
                labels.append(label)
            added = InstanceData(
                bboxes=torch.tensor(boxes, dtype=torch.float32, device=sample.gt_instances.labels.device),
                labels=torch.tensor(labels, dtype=torch.long, device=sample.gt_instances.labels.device),
            )
            new = sample.new()
            new.gt_instances = InstanceData.cat([_boxes_alone(sample.gt_instances), added])
            samples.append(new)
        return images, samples

    def _pool(self, samples: Sequence[DetDataSample], size: Sequence[int]) -> list[tuple[int, list[int], int]]:
        """Image index, box in integer pixels and label of every object that is large enough."""
        height, width = size
        pool = []
        for i, sample in enumerate(samples):
            for box, label in zip(
                plain_boxes(sample.gt_instances.bboxes).tolist(), sample.gt_instances.labels.tolist()
            ):
                left, top = max(int(box[0]), 0), max(int(box[1]), 0)
                right, bottom = min(int(box[2]), width), min(int(box[3]), height)
                large = (box[2] - box[0]) * (box[3] - box[1]) >= self.min_area
                if large and right > left and bottom > top:
                    pool.append((i, [left, top, right, bottom], label))
        return pool

    def _blend(self, image: Tensor, source: Tensor, box: list[int], share: float) -> list[int]:
        """Blend a patch into an image, in place, and return the box of the object in it."""
        height, width = image.shape[-2:]
        left, top, right, bottom = box
        w, h = right - left, bottom - top
        x = int(torch.randint(0, width - w + 1, ()))
        y = int(torch.randint(0, height - h + 1, ()))
        expand = _uniform(*self.expand_ratios)
        # Context is cut at the borders of both images.
        before_x, before_y = min(int(w * expand), left, x), min(int(h * expand), top, y)
        after_x = min(int(w * expand), width - right, width - x - w)
        after_y = min(int(h * expand), height - bottom, height - y - h)
        patch = source[:, top - before_y : bottom + after_y, left - before_x : right + after_x]
        region = image[:, y - before_y : y + h + after_y, x - before_x : x + w + after_x]
        region.mul_(share).add_(patch * (1 - share))
        return [x, y, x + w, y + h]


@MODELS.register_module()
class DenseBatchAugment(nn.Module):
    """Applies MixUp, or else CopyBlend, to a batch.

    Args:
        mixup: arguments of :class:`MixUp`; None for none.
        copyblend: arguments of :class:`CopyBlend`; None for none.
    """

    linked_progress: ClassVar[tuple[str, ...]] = ("mixup.window", "copyblend.window")

    def __init__(self, mixup: dict[str, Any] | None = None, copyblend: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        if mixup is not None:
            self.steps.append(MixUp(**mixup))
        if copyblend is not None:
            self.steps.append(CopyBlend(**copyblend))

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""
        for step in self.steps:
            step.set_progress(fraction)  # type: ignore[operator]

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample]) -> Batch:
        """Images (B, 3, H, W) and samples -> the result of the first augmentation that applies."""
        for step in self.steps:
            if step.happens():  # type: ignore[operator]
                return step(inputs, data_samples)
        return inputs, data_samples


@MODELS.register_module()
class MultiScale(Windowed):
    """Resizes the batch to a random square size.

    Args:
        sizes: sides in pixels to draw from, possibly repeated; None for multiples of 32 from 0.75 to 1.25 times
            ``base``.
        base: the middle of these sizes; None in a config is the side of its square ``image_size``.
        base_repeat: number of times that ``base`` is in the list.
        window: see :class:`Windowed`.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"base": "square_side"}

    def __init__(
        self,
        sizes: Sequence[int] | None = None,
        base: int = 640,
        base_repeat: int = 3,
        window: tuple[float, float] = (0.0, 2.0),
    ) -> None:
        super().__init__(window)
        if sizes is None:
            smallest, largest = int(base * 0.75 / 32) * 32, int(base * 1.25 / 32) * 32
            steps = (base - smallest) // 32
            sizes = [smallest + 32 * i for i in range(steps)] + [base] * base_repeat
            sizes += [largest - 32 * i for i in range(steps)]
        if not sizes or any(size < 32 or size % 32 for size in sizes):
            raise ValueError(f"sizes: got {tuple(sizes)}, allowed are multiples of 32")
        self.sizes = tuple(sizes)

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample]) -> Batch:
        """Images (B, 3, H, W) and samples -> at the random size."""
        if not self.active:
            return inputs, data_samples
        side = self.sizes[int(torch.randint(0, len(self.sizes), ()))]
        height, width = inputs.shape[-2:]
        if (height, width) == (side, side):
            return inputs, data_samples
        images = F.interpolate(inputs, size=(side, side), mode="bilinear", align_corners=False)
        for sample in data_samples:
            for name in ("gt_instances", "ignored_instances"):
                objects = sample.get(name)
                if objects is not None and "bboxes" in objects:
                    _resize_objects(objects, (side / height, side / width))
            if "gt_sem_seg" in sample:
                labels = sample.gt_sem_seg.data[None].float()
                labels = F.interpolate(labels, size=(side, side), mode="nearest-exact")[0].long()
                sample.gt_sem_seg = PixelData(data=labels)
            sample.set_metainfo(dict(batch_input_shape=(side, side), pad_shape=(side, side), img_shape=(side, side)))
        return images, data_samples


def _resize_objects(objects: InstanceData, scale: tuple[float, float]) -> None:
    """Resize boxes, keypoints and masks, in place, by factors of (height, width)."""
    boxes = plain_boxes(objects.bboxes)
    factor = boxes.new_tensor([scale[1], scale[0]])
    objects.bboxes = boxes * factor.repeat(2)
    if "keypoints" in objects:
        objects.keypoints = torch.cat([objects.keypoints[..., :2] * factor, objects.keypoints[..., 2:]], dim=-1)
    if "masks" in objects:
        cells = [round(side * by) for side, by in zip(objects.masks.shape[-2:], scale)]
        shares = F.interpolate(objects.masks[:, None].float(), size=cells, mode="bilinear", antialias=True)
        objects.masks = shares[:, 0].round().to(objects.masks.dtype)


def _plain(objects: InstanceData) -> InstanceData:
    """The objects with boxes as a tensor."""
    return InstanceData(**{**dict(objects.items()), "bboxes": plain_boxes(objects.bboxes)})


def _boxes_alone(objects: InstanceData) -> InstanceData:
    return InstanceData(bboxes=plain_boxes(objects.bboxes), labels=objects.labels)


def _merged(first: DetDataSample, second: DetDataSample) -> DetDataSample:
    """A copy of the first sample with the objects of both."""
    new = first.new()
    new.gt_instances = InstanceData.cat([_plain(first.gt_instances), _plain(second.gt_instances)])
    crowds = [_plain(sample.ignored_instances) for sample in (first, second) if "ignored_instances" in sample]
    if crowds:
        new.ignored_instances = InstanceData.cat(crowds)
    if "gt_sem_seg" in first:  # an image without a label map has only ignored pixels
        labels = first.gt_sem_seg.data
        other = second.gt_sem_seg.data if "gt_sem_seg" in second else torch.full_like(labels, IGNORED_LABEL)
        new.gt_sem_seg = PixelData(data=labels.masked_fill(labels != other, IGNORED_LABEL))
    return new
