"""Random geometry for images with all that is annotated in them: fit, scale, turn and move in one step, and mirrors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.transforms.affine import affine_about_centre
from efftasks.datasets.transforms.fit_image import FIT_MODES, fit_scales
from efftasks.datasets.transforms.warp import move_objects, put_objects, take_objects, warp_objects
from efftasks.registry import TRANSFORMS

__all__ = ["FlipObjects", "RandomWarp"]

# What cv2.flip calls a direction, and the factors of x and y.
_DIRECTIONS = {"horizontal": (1, (-1, 1)), "vertical": (0, (1, -1)), "diagonal": (-1, (-1, -1))}


@TRANSFORMS.register_module()
class RandomWarp(BaseTransform):
    """Bring image, boxes, masks, keypoints and label map to ``size`` by one random affine map about the centre.

    Whatever the image's size, it fits into the frame at scale 1: no resizing is needed before, and pixels are
    interpolated once.

    Args:
        size: (height, width) of the result in pixels. In a config None stands for the config's ``image_size``.
        mode: how an image fits, as :class:`FitImage` of the test pipeline does: ``letterbox`` or ``stretch``.
        scale: the factor is drawn evenly from this range.
        translate: the move is at most this part of width and height.
        rotate: the turn is at most this many degrees in either direction.
        quarter_turns: besides, turn by 0, 90, 180 or 270 degrees, each as likely: for objects that lie any way round.
            Boxes stay tight under these, while the hull of a box turned by another angle is larger than its object.
        fill: pixel value of what lies outside of the image, 0..255.
        min_visible: objects of whose box a smaller part, by area, stays in the frame are dropped.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"size": "image_size"}

    def __init__(
        self,
        size: tuple[int, int] | None,
        mode: str = "letterbox",
        scale: tuple[float, float] = (0.6, 1.6),
        translate: float = 0.1,
        rotate: float = 0.0,
        quarter_turns: bool = False,
        fill: int = 114,
        min_visible: float = 0.1,
    ) -> None:
        if size is None:
            raise ValueError("size: got None, expected (height, width), or an image_size in the config")
        if mode not in FIT_MODES:
            raise ValueError(f"mode: got {mode!r}, allowed are {', '.join(map(repr, FIT_MODES))}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale: got {scale}, allowed 0 < least <= most")
        for field, value in (("translate", translate), ("min_visible", min_visible)):
            if not 0 <= value <= 1:
                raise ValueError(f"{field}: got {value}, allowed 0 to 1")
        if not 0 <= rotate <= 180:
            raise ValueError(f"rotate: got {rotate}, allowed 0 to 180 degrees")
        self.size = (int(size[0]), int(size[1]))
        self.mode = mode
        self.scale = scale
        self.translate = translate
        self.rotate = rotate
        self.quarter_turns = quarter_turns
        self.fill = fill
        self.min_visible = min_visible

    def transform(self, results: dict) -> dict:
        """Draw a map and apply it; sets ``img_shape``."""
        matrix = self._draw(results["img"].shape[:2])
        return warp_objects(results, matrix, self.size, self.fill, self.min_visible)

    def _draw(self, shape: tuple[int, int]) -> np.ndarray:
        turns = np.random.randint(4) if self.quarter_turns else 0
        source, frame = np.array(shape[::-1]), np.array(self.size[::-1])
        limit = self.translate * frame
        shift = (frame - source) / 2 + np.random.uniform(-limit, limit)  # from centre to centre, and beside it
        fit = fit_scales(shape[::-1] if turns % 2 else shape, self.size, self.mode)
        degrees = 90 * turns + np.random.uniform(-self.rotate, self.rotate)
        factor = np.random.uniform(*self.scale)
        # One factor for both sides is the scale; what is left of the other is a stretch.
        return affine_about_centre(shape, degrees, (shift[0], shift[1]), fit[0] * factor, stretch=(fit[1] / fit[0], 1))


@TRANSFORMS.register_module()
class FlipObjects(BaseTransform):
    """Mirror image, boxes, masks, keypoints and label map; nothing is lost.

    In a mirror, either way, left becomes right, and keypoints change places as ``keypoint_mirror`` says. A diagonal
    flip, both at once, is a turn by 180 degrees: they do not.

    Args:
        prob: of a flip; or of each direction, at most 1 together.
        direction: ``horizontal``, ``vertical`` or ``diagonal``, or a list of them, that share a single ``prob`` evenly.
    """

    def __init__(self, prob: float | Sequence[float] = 0.5, direction: str | Sequence[str] = "horizontal") -> None:
        directions = np.atleast_1d(direction).tolist()
        probs = np.atleast_1d(np.asarray(prob, np.float64))
        if probs.shape == (1,):
            probs = np.repeat(probs / len(directions), len(directions))
        if not set(directions) <= set(_DIRECTIONS):
            raise ValueError(f"direction: got {direction!r}, allowed are {', '.join(map(repr, _DIRECTIONS))}")
        if len(probs) != len(directions) or (probs < 0).any() or probs.sum() > 1 + 1e-9:
            raise ValueError(f"prob: got {prob}, allowed is one for all, or one for each direction, at most 1 together")
        self.directions = [*directions, None]
        self.probs = [*probs.tolist(), max(0.0, 1 - probs.sum())]

    def transform(self, results: dict) -> dict:
        """Draw a direction and mirror; sets ``flip`` and ``flip_direction``."""
        drawn = self.directions[np.random.choice(len(self.probs), p=self.probs)]
        results["flip"] = drawn is not None
        results["flip_direction"] = drawn
        return results if drawn is None else _flipped(results, drawn)


def _flipped(results: dict, direction: str) -> dict:
    height, width = size = results["img"].shape[:2]
    code, (x, y) = _DIRECTIONS[direction]
    matrix = np.array([[x, 0, width if x < 0 else 0], [0, y, height if y < 0 else 0]], np.float64)
    for key in ("img", "gt_seg_map"):
        if key in results:
            results[key] = cv2.flip(results[key], code)
    objects = move_objects(take_objects(results), matrix, size)
    mirror = results.get("keypoint_mirror")
    if objects.keypoints is not None and mirror is not None and x * y < 0:
        objects = objects._replace(keypoints=objects.keypoints[:, list(mirror)])
    put_objects(results, objects, size)
    return results
