"""One sample an object of a COCO keypoints file: for estimators that look at one object at a time."""

from __future__ import annotations

import numpy as np

from efftasks.datasets.coco import CocoDetection
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError

__all__ = ["CocoTopDown"]


@DATASETS.register_module()
class CocoTopDown(CocoDetection):
    """The annotated objects of a COCO keypoints file, crowd regions left out.

    In training, objects without an annotated keypoint are left out too; in testing every box is asked for. Classes,
    keypoints and arguments are those of :class:`~efftasks.datasets.coco.CocoDetection`.

    A sample is that of its image, with this one object in ``instances``. For the transforms it also has ``ann_id``,
    ``box`` (xyxy, pixels, clipped to the image), ``label`` and ``keypoints`` float32 (P, 3): x, y in pixels and COCO's
    visibility, 0 where nothing is annotated.
    """

    def load_data_list(self) -> list[dict]:
        """Read the annotation file; one dict an object.

        Raises:
            UserError: it is no keypoints file, or has nothing to train on.
        """
        images = super().load_data_list()
        if self.keypoints is None:
            raise UserError(
                f"{self.ann_file}: none of the categories {self._metainfo['classes']} has keypoints, expected their "
                "names as COCO has them"
            )
        samples = [self._sample(image, instance) for image in images for instance in image["instances"]]
        kept = [sample for sample in samples if sample is not None]
        if not kept and not self.test_mode:
            raise UserError(
                f"{self.ann_file}: none of {len(samples)} annotations has keypoints, expected at least one to train on"
            )
        return kept

    def _sample(self, image: dict, instance: dict) -> dict | None:
        """What is known of an object; None if it is a crowd, or if there is nothing to learn from it in training."""
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
