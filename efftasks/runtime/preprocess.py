"""Image -> network input, and boxes and keypoints back, as the artifact states it. numpy and OpenCV only."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from efftasks.structures.spec import InputSpec

__all__ = [
    "Placement",
    "channels_first",
    "fit_image",
    "input_buffer",
    "keypoints_to_image",
    "normalize_into",
    "to_image_pixels",
]


class Placement(NamedTuple):
    """Where an image lies in the network input: at the top left, scaled by (x, y)."""

    scale_x: float
    scale_y: float
    height: int  # of the image, pixels
    width: int

    @property
    def covered(self) -> tuple[int, int]:
        """(height, width) that it takes of the network input, in pixels."""
        return int(self.height * self.scale_y + 0.5), int(self.width * self.scale_x + 0.5)


def fit_image(image: np.ndarray, spec: InputSpec, size: tuple[int, int]) -> tuple[np.ndarray, Placement]:
    """Resize an image to the network's size.

    Args:
        image: uint8 (H, W, 3) BGR.
        spec: the artifact's input.
        size: (height, width) of the network input.

    Returns:
        The resized image uint8, not padded, and where it lies.
    """
    height, width = image.shape[:2]
    if spec.resize == "stretch":
        new_height, new_width = size
    else:
        scale = min(size[0] / height, size[1] / width)
        new_height, new_width = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    if (new_height, new_width) != (height, width):
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    return image, Placement(new_width / width, new_height / height, height, width)


def input_buffer(count: int, size: tuple[int, int], spec: InputSpec) -> np.ndarray:
    """Room for ``count`` images of (height, width), float32, in the artifact's layout."""
    shape = (count, *size, 3) if spec.layout == "NHWC" else (count, 3, *size)
    return np.empty(shape, np.float32)


def channels_first(inputs: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Network inputs in the artifact's layout as (N, 3, H, W), sharing their memory."""
    return inputs.transpose(0, 3, 1, 2) if spec.layout == "NHWC" else inputs


def normalize_into(buffer: np.ndarray, image: np.ndarray, spec: InputSpec) -> None:
    """Write a resized image into its place of the batch: channel by channel, padding included.

    Args:
        buffer: float32 (3, H, W), overwritten.
        image: uint8 (h, w, 3) BGR with h <= H and w <= W.
        spec: the artifact's input.
    """
    height, width = image.shape[:2]
    channels = cv2.split(image)  # contiguous planes: arithmetic on them is several times faster than on strided views
    order = (2, 1, 0) if spec.color == "RGB" else (0, 1, 2)
    for plane, source, mean, std in zip(buffer, order, spec.mean, spec.std):
        place = plane[:height, :width]
        np.multiply(channels[source], np.float32(1 / std), out=place, dtype=np.float32)
        if mean:
            place -= np.float32(mean / std)
        if (height, width) != plane.shape:
            pad = (spec.pad_value - mean) / std
            plane[height:] = pad
            plane[:height, width:] = pad


def to_image_pixels(boxes: np.ndarray, placement: Placement) -> np.ndarray:
    """Boxes (K, 4) xyxy in network pixels -> pixels of the image, clipped to it."""
    x, y = placement.scale_x, placement.scale_y
    limit = np.array([placement.width, placement.height] * 2, np.float32)
    return np.clip(boxes / np.array([x, y, x, y], np.float32), 0, limit)


def keypoints_to_image(keypoints: np.ndarray, placement: Placement) -> np.ndarray:
    """Keypoints (K, P, 3) x, y in network pixels and score -> pixels of the image.

    They are not clipped: a joint may lie where the image has been cut off.
    """
    return keypoints / np.array([placement.scale_x, placement.scale_y, 1], np.float32)
