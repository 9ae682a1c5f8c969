"""The last step of a pipeline: packs arrays as inputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform, to_tensor
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from efftasks.datasets.transforms.mask_windows import mask_shares
from efftasks.registry import TRANSFORMS
from efftasks.structures.instances import MASK_STRIDE

__all__ = ["PackObjects"]

_FIELDS = {
    "gt_bboxes": "bboxes",
    "gt_bboxes_labels": "labels",
    "gt_keypoints": "keypoints",
    "gt_area_shares": "area_shares",
}


@TRANSFORMS.register_module()
class PackObjects(BaseTransform):
    """Pack ``inputs``, uint8 (3, H, W) BGR, and ``data_samples``, a DetDataSample.

    As mmdet's PackDetInputs, with keypoints and area shares: ``gt_instances`` has the objects, ``ignored_instances``
    the crowd regions, ``gt_sem_seg`` the label map, as far as the pipeline has loaded them. Masks become training
    targets, ``masks`` uint8 (N, H / 4, W / 4): 255 times the share of each cell of 4 x 4 pixels that the object covers.

    Args:
        meta_keys: keys of the pipeline's dict that become metainfo of the sample, if they are present.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "skipped_files"),
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack one image."""
        sample = DetDataSample(metainfo={key: results[key] for key in self.meta_keys if key in results})
        sample.gt_instances, sample.ignored_instances = InstanceData(), InstanceData()
        if "gt_bboxes" in results:
            ignored = results["gt_ignore_flags"]
            sample.gt_instances = _instances(results, ~ignored)
            sample.ignored_instances = _instances(results, ignored)
        if "gt_seg_map" in results:
            sample.gt_sem_seg = PixelData(data=to_tensor(results["gt_seg_map"][None].astype(np.int64)))
        image = to_tensor(np.ascontiguousarray(results["img"])).permute(2, 0, 1).contiguous()
        return dict(inputs=image, data_samples=sample)


def _instances(results: dict[str, Any], mask: np.ndarray) -> InstanceData:
    instances = InstanceData()
    for key, name in _FIELDS.items():
        if key in results:
            part = results[key][mask]
            instances[name] = part if key == "gt_bboxes" else to_tensor(part)  # boxes are tensors already
    if "gt_masks" in results:
        instances.masks = to_tensor(mask_shares(results["gt_masks"][mask], MASK_STRIDE, results["img"].shape[:2]))
    return instances
