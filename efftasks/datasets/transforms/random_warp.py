"""Random geometry for images and their annotations: an affine map in one step, and flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from efftasks.datasets.transforms.affine import affine_about_center
from efftasks.datasets.transforms.fit_image import FIT_MODES, fit_scales
from efftasks.datasets.transforms.warp import move_objects, put_objects, take_objects, warp_objects
from efftasks.registry import TRANSFORMS
from efftasks.structures.image_fit import PAD_VALUE, ImageFit, size_pair

__all__ = ["FlipObjects", "RandomWarp"]

# The code of cv2.flip, and the factors of x and y.
_DIRECTIONS = {"horizontal": (1, (-1, 1)), "vertical": (0, (1, -1)), "diagonal": (-1, (-1, -1))}


@TRANSFORMS.register_module()
class RandomWarp(BaseTransform):
    """Warp image, boxes, masks, keypoints and label map to ``size`` by one random affine map about the center.

    At scale 1 an image of any size fits into the frame: it needs no resizing before, so pixels are interpolated once.

    Args:
        size: (height, width) of the result in pixels. In a config None stands for the config's ``image_size``.
        mode: ``letterbox`` or ``stretch``, as :class:`FitImage` of the test pipeline.
        scale: range of the uniform random factor.
        translate: maximum translation, relative to width and height.
        rotate: maximum rotation in degrees, in either direction.
        quarter_turns: also rotate by 0, 90, 180 or 270 degrees with equal probability, for objects without a fixed
            orientation. Boxes stay tight under these; the box around one rotated by another angle is too large.
        fill: pixel value outside of the image, 0..255.
        min_visible: objects with a smaller part of the area of their box inside the frame are dropped.
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
        fill: int = PAD_VALUE,
        min_visible: float = 0.1,
    ) -> None:
        if size is None:
            raise ValueError("size: got None, expected (height, width), or an image_size in the config")
        if mode not in FIT_MODES:
            raise ValueError(f"mode: got {mode!r}, allowed are {', '.join(map(repr, FIT_MODES))}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale: got {scale}, allowed 0 < min <= max")
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

    @staticmethod
    def how_it_fits(arguments: Mapping[str, Any]) -> ImageFit:
        """See :mod:`efftasks.linking.declared`."""
        return ImageFit(arguments["mode"], size_pair(arguments["size"]), arguments["fill"])

    def transform(self, results: dict) -> dict:
        """Apply a random affine map; sets ``img_shape``."""
        matrix = self._random_matrix(results["img"].shape[:2])
        return warp_objects(results, matrix, self.size, self.fill, self.min_visible)

    def _random_matrix(self, shape: tuple[int, int]) -> np.ndarray:
        turns = np.random.randint(4) if self.quarter_turns else 0
        source, frame = np.array(shape[::-1]), np.array(self.size[::-1])
        limit = self.translate * frame
        shift = (frame - source) / 2 + np.random.uniform(-limit, limit)  # center to center, plus the translation
        fit = fit_scales(shape[::-1] if turns % 2 else shape, self.size, self.mode)
        degrees = 90 * turns + np.random.uniform(-self.rotate, self.rotate)
        factor = np.random.uniform(*self.scale)
        # The factor of height is the scale; the stretch corrects that of width.
        return affine_about_center(shape, degrees, (shift[0], shift[1]), fit[0] * factor, stretch=(fit[1] / fit[0], 1))


@TRANSFORMS.register_module()
class FlipObjects(BaseTransform):
    """Flip image, boxes, masks, keypoints and label map.

    A horizontal or vertical flip mirrors objects, so left and right keypoints are exchanged as ``keypoint_mirror``
    states. A diagonal flip is a rotation by 180 degrees, so they are not.

    Args:
        prob: probability of a flip, or a list of the probabilities of the directions, with a sum of at most 1.
        direction: ``horizontal``, ``vertical`` or ``diagonal``, or a list of these; with a single ``prob`` each
            direction is equally likely.
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
        """Flip in a random direction or not at all; sets ``flip`` and ``flip_direction``."""
        direction = self.directions[np.random.choice(len(self.probs), p=self.probs)]
        results["flip"] = direction is not None
        results["flip_direction"] = direction
        return results if direction is None else _flip(results, direction)


def _flip(results: dict, direction: str) -> dict:
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
