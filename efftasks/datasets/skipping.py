"""Data sets skip unreadable images and report them."""

from __future__ import annotations

from typing import Any

from efftasks.imaging.images import UnreadableImage
from efftasks.structures.errors import UserError

__all__ = ["SkipUnreadable"]


class SkipUnreadable:
    """Mixin for data sets of mmengine; it stands before their base class.

    An unreadable image is replaced by the next one in training and by a blank one in testing; ``skipped_files`` of the
    sample names it.
    """

    attempts: int  # number of unreadable images in a row after which training stops
    pipeline: Any
    test_mode: bool

    def __getitem__(self, idx: int) -> dict:
        """One sample; an unreadable image gives the next readable one (training) or a blank one (testing)."""
        data: Any = self
        skipped: list[str] = []
        for step in range(self.attempts):
            index = (idx + step) % len(data)
            info = data.get_data_info(index)
            info["skipped_files"] = tuple(skipped)
            try:
                return self.pipeline(info)
            except UnreadableImage as error:
                skipped.append(error.path)
                if self.test_mode:
                    return self._blank(index, skipped)
        raise UserError(f"{self.attempts} images in a row cannot be read, the first is {skipped[0]}")

    def _blank(self, index: int, skipped: list[str]) -> dict:
        data: Any = self
        info = data.get_data_info(index)
        info.update(self.blank_image(info), skipped_files=tuple(skipped))
        for transform in self.pipeline.transforms[1:]:  # the first one loads the image
            info = transform(info)
        return info

    def blank_image(self, info: dict) -> dict[str, Any]:
        """The keys that loading would have set: ``img`` uint8 (H, W, 3), ``img_shape``, ``ori_shape``."""
        raise NotImplementedError
