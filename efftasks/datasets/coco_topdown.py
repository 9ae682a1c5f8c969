"""The COCO data set of top-down pose estimators: one sample per annotated object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from efftasks.datasets.coco import CocoDetection
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError

__all__ = ["CocoTopDown"]


@DATASETS.register_module()
class CocoTopDown(CocoDetection):
    """The annotated objects of a COCO keypoints file, without crowd regions.

    Training also leaves out objects without a labeled keypoint; testing takes every box. Classes, keypoints and
    arguments are those of :class:`~efftasks.datasets.coco.CocoDetection`.

    A sample is that of its image, with this one object in ``instances``. For the transforms it also has ``ann_id``,
    ``box`` (xyxy, pixels, clipped to the image), ``label`` and ``keypoints`` float32 (P, 3): x, y in pixels and COCO's
    visibility, 0 for a keypoint that is not annotated.
    """

    @staticmethod
    def needed_annotations(arguments: Mapping[str, Any]) -> set[str]:
        """See :mod:`efftasks.linking.declared`."""
        return {"keypoints"}

    def load_data_list(self) -> list[dict]:
        """Read the annotation file; one dict per object.

        Raises:
            UserError: it is not a keypoints file, or has no object to train on.
        """
        images = super().load_data_list()
        if self.keypoints is None:
            raise UserError(
                f"{self.ann_file}: none of the categories {self._metainfo['classes']} has keypoints, expected their "
                "names as COCO has them"
            )
        samples = [self._sample(image, instance) for image in images for instance in image["instances"]]
        objects = [sample for sample in samples if sample is not None]
        if not objects and not self.test_mode:
            raise UserError(
                f"{self.ann_file}: none of {len(samples)} annotations has keypoints, expected at least one to train on"
            )
        return objects

    def _sample(self, image: dict, instance: dict) -> dict | None:
        """The sample of an object; None for a crowd, and in training for an object without labeled keypoints."""
        assert self.keypoints is not None
        keypoints = np.array(instance.get("keypoints", np.zeros((len(self.keypoints), 3))), np.float32)
        if instance["ignore_flag"] or not (self.test_mode or (keypoints[:, 2] > 0).any()):
            return None
        return dict(
            image,
            instances=[instance],
            ann_id=instance["id"],
            box=tuple(instance["bbox"]),
            label=instance["bbox_label"],
            keypoints=keypoints,
        )
