"""Bring every image to one size; the one transform whose facts the exported file repeats."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import Pad, Resize

from efftasks.registry import TRANSFORMS

__all__ = ["FitImage"]

_MODES = ("letterbox", "stretch")


@TRANSFORMS.register_module()
class FitImage(BaseTransform):
    """Resize image and annotations to ``size``.

    Args:
        size: (height, width) in pixels. In a config None stands for the config's ``image_size``.
        mode: ``letterbox`` keeps the aspect ratio, with the image at the top left and padding on the right and at the
            bottom; ``stretch`` does not keep it.
        pad_value: pixel value of the padding, 0..255.
    """

    def __init__(self, size: tuple[int, int] | None, mode: str = "letterbox", pad_value: int = 114) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode: got {mode!r}, allowed are {', '.join(map(repr, _MODES))}")
        if size is None:
            raise ValueError("size: got None, expected (height, width), or an image_size in the config")
        self.size = (int(size[0]), int(size[1]))
        self.mode = mode
        self.pad_value = pad_value
        height, width = self.size
        self._pad = Pad(size=(width, height), pad_val=dict(img=(pad_value,) * 3, masks=0, seg=255))

    def transform(self, results: dict) -> dict:
        """Resize and pad; sets ``scale_factor`` (width, height) from the original to the new pixels."""
        results = Resize(scale=self._fitted(*results["img"].shape[:2]), keep_ratio=False)(results)
        return self._pad(results) if self.mode == "letterbox" else results

    def _fitted(self, height: int, width: int) -> tuple[int, int]:
        """(width, height) after resizing. Not mmcv's rule, which may turn the size to the image's orientation."""
        if self.mode == "stretch":
            return self.size[1], self.size[0]
        scale = min(self.size[0] / height, self.size[1] / width)
        return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
