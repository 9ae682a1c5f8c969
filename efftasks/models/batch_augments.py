"""Augmentations of whole batches, on whatever device they are: mixing images, and changing the size.

Sources: mixup arXiv 1710.09412; DEIM (arXiv 2412.04234) and DEIMv2 (arXiv 2509.20787, section 4, "copy-blend") for when
and how they are used; RT-DETR (arXiv 2304.08069) for the sizes.

They are given to the preprocessor as ``batch_augments`` and act in training alone, within a window of its progress.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from efftasks.models.targets import plain_boxes
from efftasks.registry import MODELS

__all__ = ["CopyBlend", "DenseBatchAugment", "MixUp", "MultiScale"]

Batch = tuple[Tensor, list[DetDataSample]]
_IGNORE = 255  # label of pixels that are no class


class Windowed(nn.Module):
    """Something that acts in ``window`` = [start, end), fractions of training.

    In a config a point of ``schedule`` may stand for either.
    """

    linked_progress: ClassVar[tuple[str, ...]] = ("window",)

    def __init__(self, window: tuple[float, float]) -> None:
        super().__init__()
        if not 0 <= window[0] <= window[1]:
            raise ValueError(f"window: got {window}, allowed are 0 <= start <= end")
        self.window = window
        self.progress = 0.0

    def set_progress(self, fraction: float) -> None:
        """Tell how much of training is done, in [0, 1]."""
        self.progress = fraction

    @property
    def active(self) -> bool:
        """Whether training is in the window."""
        return self.window[0] <= self.progress < self.window[1]


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


class MixUp(Windowed):
    """Each image is mixed about half and half with the one before it in the batch; objects, with all they have, are
    united. Pixels of which two label maps do not say the same get label 255.

    Args:
        prob: chance that a batch is mixed.
        ratio_range: of the own image's share.
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
        """Draw whether the next batch is mixed."""
        return self.active and float(torch.rand(())) < self.prob

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample]) -> Batch:
        """Images (B, 3, H, W) and samples -> mixed ones."""
        share = _uniform(*self.ratio_range)
        mixed = inputs * share + inputs.roll(1, dims=0) * (1 - share)
        before = [data_samples[-1], *data_samples[:-1]]
        return mixed, [_united(own, other) for own, other in zip(data_samples, before)]


class CopyBlend(Windowed):
    """Objects from anywhere in the batch are blended about half and half into other places, with some context.

    For objects with boxes alone: masks and keypoints of what is covered would not be true any more.

    Args:
        prob: chance that a batch is changed.
        min_area: of an object that is copied, in pixels of the network input.
        num_objects: how many an image gets.
        expand_ratios: the context around an object, as a part of its sides.
        ratio_range: of the image's share in a blended patch.
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
        """Draw whether the next batch is changed."""
        return self.active and float(torch.rand(())) < self.prob

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample]) -> Batch:
        """Images (B, 3, H, W) and samples -> with objects blended in.

        Raises:
            ValueError: objects have masks or keypoints.
        """
        for name in ("masks", "keypoints"):
            if any(name in sample.gt_instances for sample in data_samples):
                raise ValueError(f"CopyBlend: got objects with {name}, expected boxes alone; use MixUp for those")
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
        """Image, box in whole pixels and label of every object that is large enough."""
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
        """Blend a patch into an image, in place; the object's box there."""
        height, width = image.shape[-2:]
        left, top, right, bottom = box
        w, h = right - left, bottom - top
        x = int(torch.randint(0, width - w + 1, ()))
        y = int(torch.randint(0, height - h + 1, ()))
        more = _uniform(*self.expand_ratios)
        # Context only as far as both images reach.
        before_x, before_y = min(int(w * more), left, x), min(int(h * more), top, y)
        after_x = min(int(w * more), width - right, width - x - w)
        after_y = min(int(h * more), height - bottom, height - y - h)
        patch = source[:, top - before_y : bottom + after_y, left - before_x : right + after_x]
        place = image[:, y - before_y : y + h + after_y, x - before_x : x + w + after_x]
        place.mul_(share).add_(patch * (1 - share))
        return [x, y, x + w, y + h]


@MODELS.register_module()
class DenseBatchAugment(nn.Module):
    """Mixup, or else copy-blend.

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
        """Tell how much of training is done, in [0, 1]."""
        for step in self.steps:
            step.set_progress(fraction)  # type: ignore[operator]

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample]) -> Batch:
        """Images (B, 3, H, W) and samples -> after the first step that happens."""
        for step in self.steps:
            if step.happens():  # type: ignore[operator]
                return step(inputs, data_samples)
        return inputs, data_samples


@MODELS.register_module()
class MultiScale(Windowed):
    """The whole batch at another, square size.

    Args:
        sizes: sides in pixels to draw from, with repetitions; or
        base: the side about which sizes go from 0.75 to 1.25 times in steps of 32 (in a config None stands for the side
            of the config's square ``image_size``), and
        base_repeat: how often it is itself in the list.
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
            least, most = int(base * 0.75 / 32) * 32, int(base * 1.25 / 32) * 32
            steps = (base - least) // 32
            sizes = [least + 32 * i for i in range(steps)] + [base] * base_repeat
            sizes += [most - 32 * i for i in range(steps)]
        if not sizes or any(size < 32 or size % 32 for size in sizes):
            raise ValueError(f"sizes: got {tuple(sizes)}, allowed are multiples of 32")
        self.sizes = tuple(sizes)

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample]) -> Batch:
        """Images (B, 3, H, W) and samples -> at the size drawn."""
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
    """Boxes, keypoints and shares of cells, in place, by factors of (height, width)."""
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
    """All that objects have, with boxes as a tensor."""
    return InstanceData(**{**dict(objects.items()), "bboxes": plain_boxes(objects.bboxes)})


def _boxes_alone(objects: InstanceData) -> InstanceData:
    return InstanceData(bboxes=plain_boxes(objects.bboxes), labels=objects.labels)


def _united(own: DetDataSample, other: DetDataSample) -> DetDataSample:
    """A copy of a sample with the objects of both."""
    new = own.new()
    new.gt_instances = InstanceData.cat([_plain(own.gt_instances), _plain(other.gt_instances)])
    crowds = [_plain(sample.ignored_instances) for sample in (own, other) if "ignored_instances" in sample]
    if crowds:
        new.ignored_instances = InstanceData.cat(crowds)
    if "gt_sem_seg" in own and "gt_sem_seg" in other:
        labels = own.gt_sem_seg.data
        new.gt_sem_seg = PixelData(data=labels.masked_fill(labels != other.gt_sem_seg.data, _IGNORE))
    return new
