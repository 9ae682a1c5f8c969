"""Loading with an error that says which file it is."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.registry import TRANSFORMS

__all__ = ["LoadImage", "UnreadableImage", "read_image"]


class UnreadableImage(OSError):
    """An image file is missing or does not decode."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: the image is missing or cannot be decoded")
        self.path = path


def read_image(path: str) -> np.ndarray:
    """Decode an image file to uint8 (H, W, 3) BGR, turned as its Exif orientation says.

    Raises:
        UnreadableImage: the file is missing, empty, truncated beyond decoding, or no image.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UnreadableImage(path) from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise UnreadableImage(path)
    return image


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``img_path`` into ``img``: uint8 (H, W, 3) BGR; sets ``img_shape`` and ``ori_shape`` (height, width)."""

    def transform(self, results: dict) -> dict:
        """Read one image; raises :class:`UnreadableImage`, which the dataset turns into a skip."""
        results["img"] = read_image(results["img_path"])
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results
