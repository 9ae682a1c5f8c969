"""From an image and a box to the crop of one object, and to a sample of it.

Source of the recipe: RTMPose (arXiv 2303.07399, section 3.4), without its half bodies, which are of persons alone.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from efftasks.imaging.crops import CROP_PADDING, crop_matrix, cut_crop, invert_affine, warp_points
from efftasks.registry import TRANSFORMS
from efftasks.structures.errors import UserError

__all__ = ["CropBox", "MirrorCrop", "PackTopDown"]

_META = ("img_id", "ann_id", "img_path", "ori_shape", "img_shape", "box", "label", "crop_to_image", "skipped_files")


@TRANSFORMS.register_module()
class CropBox(BaseTransform):
    """Cut out what ``box`` (xyxy, pixels) holds, its aspect ratio kept; ``keypoints`` go along where there are any.

    Without ``shift``, ``scale`` and ``degrees`` nothing is random, and it is the crop that the runtimes make.

    Args:
        size: (height, width) of the crop in pixels. In a config None stands for the config's ``image_size``.
        padding: the crop is larger than the box by this factor.
        pad_value: of pixels outside of the image, 0..255.
        shift: the centre moves by at most this part of the box's width and height.
        scale: the window is larger by a factor drawn evenly from this range.
        degrees: the picture turns by at most so much, one way or the other.
        turned: share of the pictures that turn.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"size": "image_size"}
    fits_input: ClassVar[bool] = True  # to the size of the network

    def __init__(
        self,
        size: tuple[int, int] | None,
        padding: float = CROP_PADDING,
        pad_value: int = 114,
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
            raise ValueError(f"scale: got {scale}, allowed 0 < least <= most")
        if not 0 <= turned <= 1:
            raise ValueError(f"turned: got {turned}, allowed 0 to 1")
        self.size = (int(size[0]), int(size[1]))
        self.padding = padding
        self.pad_value = pad_value
        self.shift = shift
        self.scale = scale
        self.degrees = degrees
        self.turned = turned

    def transform(self, results: dict) -> dict:
        """Cut; sets ``img_shape`` and ``crop_to_image``, the map (2, 3) from pixels of the crop to the image's."""
        if "box" not in results:
            raise UserError(f"{results.get('img_path', 'image')}: has no boxes to look into, top-down pose needs some")
        shift = np.random.uniform(-self.shift, self.shift, 2)
        turns = np.random.rand() < self.turned
        matrix = crop_matrix(
            results["box"],
            self.size,
            self.padding,
            shift=(shift[0], shift[1]),
            scale=np.random.uniform(*self.scale),
            degrees=np.random.uniform(-self.degrees, self.degrees) if turns else 0.0,
        )
        results["img"] = cut_crop(results["img"], matrix, self.size, self.pad_value)
        results["img_shape"] = self.size
        results["crop_to_image"] = invert_affine(matrix)
        if "keypoints" in results:
            results["keypoints"] = warp_points(results["keypoints"], matrix)
        return results


@TRANSFORMS.register_module()
class MirrorCrop(BaseTransform):
    """Mirror a crop left to right, and let left and right keypoints change places (``keypoint_mirror``).

    Args:
        prob: share of the crops that are mirrored.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Mirror or not; ``crop_to_image`` stays true."""
        if np.random.rand() >= self.prob:
            return results
        width = results["img"].shape[1]
        over = np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])
        back = results["crop_to_image"]
        results["img"] = np.ascontiguousarray(results["img"][:, ::-1])
        results["crop_to_image"] = np.hstack([back[:, :2] @ over[:, :2], back[:, :2] @ over[:, 2:] + back[:, 2:]])
        results["keypoints"] = warp_points(results["keypoints"], over)[list(results["keypoint_mirror"])]
        return results


@TRANSFORMS.register_module()
class PackTopDown(BaseTransform):
    """Crop and keypoints as tensors, and what leads back to the image as metainfo.

    ``gt_instances`` has one row: ``keypoints`` float32 (1, P, 3) in pixels of the crop and ``labels``; without
    keypoints there is none. ``metainfo`` has ``box`` (xyxy, pixels of the image), ``label`` (0 where nothing is said)
    and ``crop_to_image`` float64 (2, 3).
    """

    def transform(self, results: dict) -> dict:
        """``inputs``: uint8 (3, H, W) BGR, and ``data_samples``."""
        results.setdefault("label", 0)
        sample = DetDataSample(metainfo={key: results[key] for key in _META if key in results})
        instances = InstanceData()
        if "keypoints" in results:
            instances.keypoints = torch.from_numpy(results["keypoints"])[None]
            instances.labels = torch.tensor([results["label"]])
        sample.gt_instances = instances
        image = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(image), data_samples=sample)
