"""Transforms of top-down pose estimation: crops of single objects.

Source of the recipe: RTMPose (arXiv 2303.07399, section 3.4), without half-body augmentation, which is for persons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from efftasks.imaging.crops import CROP_PADDING, crop_matrix, cut_crop, invert_affine, warp_points
from efftasks.registry import TRANSFORMS
from efftasks.structures.errors import UserError
from efftasks.structures.image_fit import PAD_VALUE, ImageFit, size_pair

__all__ = ["CropBox", "MirrorCrop", "PackTopDown"]

_META = ("img_id", "ann_id", "img_path", "ori_shape", "img_shape", "box", "label", "crop_to_image", "skipped_files")


@TRANSFORMS.register_module()
class CropBox(BaseTransform):
    """Crop the image to ``box`` (xyxy, pixels) with its aspect ratio kept; ``keypoints`` are transformed too.

    Without ``shift``, ``scale`` and ``degrees`` nothing is random, and the crop equals that of the runtimes.

    Args:
        size: (height, width) of the crop in pixels. In a config None stands for the config's ``image_size``.
        padding: factor by which the crop is larger than the box.
        pad_value: pixel value outside of the image, 0..255.
        shift: maximum shift of the center, relative to the box's width and height.
        scale: range of the uniform random factor by which the cropped region is enlarged.
        degrees: maximum rotation, in either direction.
        turned: probability of a rotation.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"size": "image_size"}
    fits_input: ClassVar[bool] = True  # resizes to the network input

    def __init__(
        self,
        size: tuple[int, int] | None,
        padding: float = CROP_PADDING,
        pad_value: int = PAD_VALUE,
        shift: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        degrees: float = 0.0,
        turned: float = 0.5,
    ) -> None:
        if size is None:
            raise ValueError("size: got None, expected (height, width), or an image_size in the config")
        if padding <= 0:
            raise ValueError(f"padding: got {padding}, allowed is a number above 0")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale: got {scale}, allowed 0 < min <= max")
        if not 0 <= turned <= 1:
            raise ValueError(f"turned: got {turned}, allowed 0 to 1")
        self.size = (int(size[0]), int(size[1]))
        self.padding = padding
        self.pad_value = pad_value
        self.shift = shift
        self.scale = scale
        self.degrees = degrees
        self.turned = turned

    @staticmethod
    def how_it_fits(arguments: Mapping[str, Any]) -> ImageFit:
        """See :mod:`efftasks.linking.declared`."""
        return ImageFit("crop", size_pair(arguments["size"]), arguments["pad_value"], float(arguments["padding"]))

    def transform(self, results: dict) -> dict:
        """Crop; sets ``img_shape`` and ``crop_to_image``, the affine map (2, 3) from the crop to the image.

        Raises:
            UserError: the sample has no box.
        """
        if "box" not in results:
            raise UserError(f"{results.get('img_path', 'image')}: has no boxes, expected some for top-down pose")
        shift = np.random.uniform(-self.shift, self.shift, 2)
        rotates = np.random.rand() < self.turned
        matrix = crop_matrix(
            results["box"],
            self.size,
            self.padding,
            shift=(shift[0], shift[1]),
            scale=np.random.uniform(*self.scale),
            degrees=np.random.uniform(-self.degrees, self.degrees) if rotates else 0.0,
        )
        results["img"] = cut_crop(results["img"], matrix, self.size, self.pad_value)
        results["img_shape"] = self.size
        results["crop_to_image"] = invert_affine(matrix)
        if "keypoints" in results:
            results["keypoints"] = warp_points(results["keypoints"], matrix)
        return results


@TRANSFORMS.register_module()
class MirrorCrop(BaseTransform):
    """Flip a crop horizontally, and exchange left and right keypoints (``keypoint_mirror``).

    Args:
        prob: probability of a flip.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Flip with probability ``prob``; ``crop_to_image`` is updated."""
        if np.random.rand() >= self.prob:
            return results
        width = results["img"].shape[1]
        flip = np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])
        to_image = results["crop_to_image"]
        results["img"] = np.ascontiguousarray(results["img"][:, ::-1])
        linear, offset = to_image[:, :2], to_image[:, 2:]
        results["crop_to_image"] = np.hstack([linear @ flip[:, :2], linear @ flip[:, 2:] + offset])
        results["keypoints"] = warp_points(results["keypoints"], flip)[list(results["keypoint_mirror"])]
        return results


@TRANSFORMS.register_module()
class PackTopDown(BaseTransform):
    """Pack crop and keypoints as tensors.

    ``gt_instances`` has one row, ``keypoints`` float32 (1, P, 3) in pixels of the crop and ``labels``. It is empty if
    the sample has no keypoints. ``metainfo`` has ``box`` (xyxy, pixels of the image), ``label`` (0 if it is unknown)
    and ``crop_to_image`` float64 (2, 3), which maps predictions back to the image.
    """

    def transform(self, results: dict) -> dict:
        """Pack ``inputs``, uint8 (3, H, W) BGR, and ``data_samples``."""
        results.setdefault("label", 0)
        sample = DetDataSample(metainfo={key: results[key] for key in _META if key in results})
        instances = InstanceData()
        if "keypoints" in results:
            instances.keypoints = torch.from_numpy(results["keypoints"])[None]
            instances.labels = torch.tensor([results["label"]])
        sample.gt_instances = instances
        image = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(image), data_samples=sample)
