"""Loading with an error that says which file it is."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from efftasks.registry import TRANSFORMS
from efftasks.structures.images import read_image

__all__ = ["LoadImage"]


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``img_path`` into ``img``: uint8 (H, W, 3) BGR; sets ``img_shape`` and ``ori_shape`` (height, width)."""

    def transform(self, results: dict) -> dict:
        """Read one image; raises ``structures.images.UnreadableImage``, which the dataset turns into a skip."""
        results["img"] = read_image(results["img_path"])
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results
