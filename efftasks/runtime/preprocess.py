"""Image -> network input, and boxes and keypoints back, as the artifact states it. numpy and OpenCV only."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from efftasks.structures.spec import InputSpec

__all__ = [
    "Placement",
    "as_the_network_sees",
    "fit_image",
    "input_buffer",
    "keypoints_to_image",
    "to_image_pixels",
    "write_image",
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
    """Room for ``count`` images of (height, width), in the artifact's layout and type."""
    shape = (*size, spec.channels) if spec.layout == "NHWC" else (spec.channels, *size)
    return np.empty((count, *shape), spec.dtype)


def as_the_network_sees(inputs: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Network inputs of an artifact as float32 (N, 3, H, W), normalized; of float inputs a view."""
    images = inputs.transpose(0, 3, 1, 2) if spec.layout == "NHWC" else inputs
    if spec.dtype == "float32":
        return images
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (spec.mean, spec.std))
    return (images[:, :3] - mean) / std


def write_image(buffer: np.ndarray, image: np.ndarray, spec: InputSpec) -> None:
    """Write a resized image into its place of the batch, padding included.

    Args:
        buffer: the place: one image of :func:`input_buffer`, overwritten.
        image: uint8 (h, w, 3) BGR with h <= H and w <= W.
        spec: the artifact's input.
    """
    if spec.dtype == "uint8":
        _write_bytes(buffer, image, spec)
    else:
        _write_normalized(buffer.transpose(2, 0, 1) if spec.layout == "NHWC" else buffer, image, spec)


def _write_bytes(buffer: np.ndarray, image: np.ndarray, spec: InputSpec) -> None:
    """Of uint8 (H, W, 4)."""
    height, width = image.shape[:2]
    code = cv2.COLOR_BGR2RGBA if spec.color == "RGB" else cv2.COLOR_BGR2BGRA
    cv2.cvtColor(image, code, dst=buffer[:height, :width])
    buffer[height:] = buffer[:height, width:] = int(spec.pad_value)


def _write_normalized(buffer: np.ndarray, image: np.ndarray, spec: InputSpec) -> None:
    """Of float32 (3, H, W), channel by channel."""
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
