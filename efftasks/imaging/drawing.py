"""Drawing boxes, masks and keypoints on a picture, with numpy and OpenCV alone.

Pictures are uint8 (H, W, 3) in BGR; coordinates are pixels of the picture, and pixel ``i`` covers
``[i, i + 1)``. Nothing is drawn in place: every function returns a new picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["contact_sheet", "draw_instances", "jpeg_of", "line_width", "palette", "track_palette"]

Color = tuple[int, int, int]
Image = NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN = 0.61803398875  # steps of the golden ratio on the hue circle never come close to an earlier one
_MASK_ALPHA = 0.42
_TRACK_COLORS = 64  # of which tracks take turns
_JPEG_LIMIT = 65500  # pixels in a direction, of libjpeg


def palette(n: int) -> list[Color]:
    """``n`` distinct colors (b, g, r); ``palette(n)[:m] == palette(m)``."""
    hsv = np.empty((max(n, 0), 1, 3), np.float32)
    for i in range(len(hsv)):
        hsv[i, 0] = ((0.02 + i * _GOLDEN) % 1.0 * 360.0, (0.85, 0.6, 0.95)[i // 2 % 3], (1.0, 0.82)[i % 2])
    bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR) if len(hsv) else hsv
    return [(int(b), int(g), int(r)) for b, g, r in np.rint(bgr[:, 0] * 255)]


def track_palette() -> list[Color]:
    """The colors (b, g, r) of tracks: that of a track is at its number modulo their number."""
    return palette(_TRACK_COLORS)


def line_width(picture: Image) -> int:
    """Width in pixels of the lines on a picture of that size."""
    return max(1, round(min(picture.shape[:2]) / 240))


@dataclass(frozen=True)
class _Pen:
    """Line widths and text size for one picture."""

    line: int
    font: float
    weight: int
    pad: int

    @classmethod
    def of(cls, image: Image) -> _Pen:
        side = min(image.shape[:2])
        font = min(max(side / 900.0, 0.33), 2.5)
        weight, pad = max(1, round(font * 1.7)), max(2, round(font * 5))
        return cls(line=line_width(image), font=font, weight=weight, pad=pad)


def draw_instances(
    image_bgr: Image,
    boxes_xyxy: ArrayLike | None,
    labels: ArrayLike,
    names: Sequence[str],
    scores: ArrayLike | None = None,
    masks: ArrayLike | None = None,
    keypoints: ArrayLike | None = None,
    skeleton: Sequence[Sequence[int]] = (),
    keypoint_hidden: ArrayLike | None = None,
    track_ids: ArrayLike | None = None,
) -> Image:
    """Draw objects on a copy of a picture: large objects first, so that small ones stay visible, and captions last.

    Args:
        image_bgr: (H, W, 3) uint8.
        boxes_xyxy: (K, 4) pixels, or None to draw no boxes (captions are then placed by masks or keypoints).
        labels: (K,) indices into ``names``; a label beyond those is shown as its number.
        names: class names.
        scores: (K,) shown beside the names.
        masks: (K, H, W), nonzero inside the object.
        keypoints: (K, P, 3) x, y and a score or visibility; only those above 0 are drawn.
        skeleton: pairs of indices of keypoints, from 0 (COCO files count from 1).
        keypoint_hidden: (K, P), true for keypoints to be drawn hollow.
        track_ids: (K,) numbers of tracks: they choose the color and are in the caption; below 0 for no track.

    Raises:
        ValueError: an array has another number of objects than ``labels``, or masks have another size than the picture.
    """
    canvas = np.ascontiguousarray(image_bgr).copy()
    ids = np.asarray(labels, dtype=np.int64).reshape(-1)
    count = len(ids)
    object_masks = _as_masks(masks, count, canvas)
    points = _as_array("keypoints", keypoints, (count, -1, 3))
    boxes = _as_array("boxes_xyxy", boxes_xyxy, (count, 4))
    values = _as_array("scores", scores, (count,))
    anchors = boxes if boxes is not None else _extents(object_masks, points, count)
    order = _large_first(anchors)
    tracks = None if track_ids is None else _as_array("track_ids", track_ids, (count,))
    colors = _object_colors(ids, tracks, len(names))
    pen = _Pen.of(canvas)
    if object_masks is not None:
        for k in order:
            _draw_mask(canvas, object_masks[k], colors[k], pen)
    if boxes is not None:
        for k in order:
            _draw_box(canvas, boxes[k], colors[k], pen)
    if points is not None:
        hidden = np.zeros(points.shape[:2], bool) if keypoint_hidden is None else np.asarray(keypoint_hidden, bool)
        for k in order:
            _draw_keypoints(canvas, points[k], hidden[k], skeleton, colors[k], pen)
    occupied: list[tuple[int, int, int, int]] = []
    for k in order[::-1]:
        name = names[ids[k]] if 0 <= ids[k] < len(names) else str(ids[k])
        text = name if values is None else f"{name} {values[k]:.2f}"
        if tracks is not None and tracks[k] >= 0:
            text = f"#{tracks[k]:.0f} {text}"
        if np.isfinite(anchors[k]).all():
            _draw_caption(canvas, text, anchors[k], colors[k], pen, occupied)
    return canvas


def contact_sheet(images: Sequence[Image], columns: int, cell: int, gap: int = 6) -> Image:
    """All pictures in one, row by row, each scaled to fit a square of ``cell`` pixels and centered in it.

    Args:
        images: (H, W, 3) uint8 pictures of any size, at least one.
        columns: pictures in a row.
        cell: side of a cell, in pixels.
        gap: pixels between cells.

    Raises:
        ValueError: no picture, or ``columns`` or ``cell`` below 1.
    """
    if not images:
        raise ValueError("images: got none, expected at least one picture for a contact sheet")
    if columns < 1 or cell < 1:
        raise ValueError(f"columns, cell: got {columns}, {cell}, expected both at least 1")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * (cell + gap) + gap, columns * (cell + gap) + gap, 3), 32, np.uint8)
    for k, image in enumerate(images):
        height, width = image.shape[:2]
        scale = cell / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        top = gap + (k // columns) * (cell + gap) + (cell - size[1]) // 2
        left = gap + (k % columns) * (cell + gap) + (cell - size[0]) // 2
        sheet[top : top + size[1], left : left + size[0]] = small
    return sheet


def _object_colors(labels: NDArray[np.int64], tracks: NDArray[np.float64] | None, num_classes: int) -> list[Color]:
    """The color of each object: that of its track, else that of its class."""
    by_class = palette(max([num_classes, *(int(label) + 1 for label in labels)]))
    if tracks is None:
        return [by_class[label] for label in labels]
    by_track = track_palette()
    return [
        by_class[label] if track < 0 else by_track[int(track) % _TRACK_COLORS] for label, track in zip(labels, tracks)
    ]


def _as_array(field: str, value: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """As float64, checked against a shape (-1: any length)."""
    if value is None:
        return None
    array = np.asarray(value, dtype=np.float64)
    if array.size == 0 and shape[0] == 0:
        return np.zeros(tuple(max(side, 0) for side in shape))
    if array.ndim != len(shape) or any(
        side not in (-1, actual) for actual, side in zip(array.shape, shape, strict=True)
    ):
        raise ValueError(f"{field}: got shape {array.shape}, expected {shape}")
    return array


def _as_masks(masks: ArrayLike | None, count: int, canvas: Image) -> NDArray[np.bool_] | None:
    if masks is None:
        return None
    object_masks = np.asarray(masks, dtype=bool)
    if count == 0:
        return np.zeros((0, *canvas.shape[:2]), bool)
    if object_masks.shape != (count, *canvas.shape[:2]):
        raise ValueError(f"masks: got shape {object_masks.shape}, expected {(count, *canvas.shape[:2])}")
    return object_masks


def _extents(
    object_masks: NDArray[np.bool_] | None, points: NDArray[np.float64] | None, count: int
) -> NDArray[np.float64]:
    """Boxes to place captions by where there are none: of the mask, else of the keypoints, else nan."""
    boxes = np.full((count, 4), np.nan)
    for k in range(count):
        xy: NDArray[np.float64] = np.zeros((0, 2))
        if object_masks is not None and object_masks[k].any():
            xy = np.argwhere(object_masks[k])[:, ::-1].astype(np.float64)
        elif points is not None:
            xy = points[k, points[k, :, 2] > 0, :2]
        if len(xy):
            boxes[k] = (*xy.min(0), *xy.max(0))
    return boxes


def _large_first(boxes: NDArray[np.float64]) -> list[int]:
    area = np.nan_to_num((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return [int(k) for k in np.argsort(-area, kind="stable")]


def _draw_mask(canvas: Image, mask: NDArray[np.bool_], color: Color, pen: _Pen) -> None:
    if not mask.any():
        return
    inside = canvas[mask].astype(np.float32) * (1 - _MASK_ALPHA) + np.array(color, np.float32) * _MASK_ALPHA
    canvas[mask] = np.rint(inside).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, max(1, pen.line - 1), cv2.LINE_AA)


def _draw_box(canvas: Image, box: NDArray[np.float64], color: Color, pen: _Pen) -> None:
    if not np.isfinite(box).all():
        return
    height, width = canvas.shape[:2]
    low = np.clip(np.floor(box[:2]), 0, (width - 1, height - 1)).astype(int).tolist()
    high = np.clip(np.ceil(box[2:]) - 1, 0, (width - 1, height - 1)).astype(int).tolist()
    cv2.rectangle(canvas, low, high, color, pen.line)


def _draw_keypoints(
    canvas: Image,
    points: NDArray[np.float64],
    hidden: NDArray[np.bool_],
    skeleton: Sequence[Sequence[int]],
    color: Color,
    pen: _Pen,
) -> None:
    shown = (points[:, 2] > 0) & np.isfinite(points[:, :2]).all(1)
    limit = 4 * max(canvas.shape)  # OpenCV's fixed-point drawing overflows far outside the picture
    xy = np.clip(np.nan_to_num(points[:, :2]), -limit, limit).astype(int).tolist()
    for first, second in skeleton:
        if shown[first] and shown[second]:
            cv2.line(canvas, xy[first], xy[second], (0, 0, 0), pen.line + 1, cv2.LINE_AA)
            cv2.line(canvas, xy[first], xy[second], color, max(1, pen.line), cv2.LINE_AA)
    radius = max(2, round(pen.line * 1.8))
    dots = palette(len(points))
    for k in np.flatnonzero(shown):
        cv2.circle(canvas, xy[k], radius + 1, (0, 0, 0) if not hidden[k] else (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, xy[k], radius, dots[k], 1 if hidden[k] else -1, cv2.LINE_AA)


def _draw_caption(
    canvas: Image,
    text: str,
    box: NDArray[np.float64],
    color: Color,
    pen: _Pen,
    occupied: list[tuple[int, int, int, int]],
) -> None:
    """Draw a filled caption where it overlaps least with those already drawn, and add its place to ``occupied``."""
    text = text.encode("ascii", "replace").decode(
        "ascii"
    )  # the font of OpenCV is ASCII, and it crashes on lone surrogates
    (width, height), base = cv2.getTextSize(text, _FONT, pen.font, pen.weight)
    width, height = width + 2 * pen.pad, height + base + pen.pad
    rows, columns = canvas.shape[:2]
    x0, y0, x1, y1 = (float(v) for v in box)
    places = [(x0, y0 - height), (x0, y0), (x0, y1), (x1 - width, y0 - height), (x1 - width, y1 - height)]
    inside = [
        (int(min(max(x, 0), max(columns - width, 0))), int(min(max(y, 0), max(rows - height, 0)))) for x, y in places
    ]
    costs = [sum(_overlap((x, y, x + width, y + height), other) for other in occupied) for x, y in inside]
    x, y = inside[int(np.argmin(costs))]
    occupied.append((x, y, x + width, y + height))
    cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), color, -1)
    luminance = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2]
    text_color = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    origin = (x + pen.pad, y + height - base - pen.pad // 2)
    cv2.putText(canvas, text, origin, _FONT, pen.font, text_color, pen.weight, cv2.LINE_AA)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def jpeg_of(picture: Image) -> bytes:
    """The picture uint8 (H, W, 3) BGR as a JPEG file; one of more than 65500 pixels in a direction is made smaller."""
    scale = _JPEG_LIMIT / max(picture.shape[:2])
    if scale < 1:
        height, width = (max(1, int(side * scale)) for side in picture.shape[:2])
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()
