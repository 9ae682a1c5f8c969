"""Drawing label maps with numpy and OpenCV alone: as an overlay, as a PNG with a palette, and their legend.

Pictures are uint8 (H, W, 3) in BGR and colors (b, g, r); label maps are uint8 (H, W), the class index of each
pixel. Nothing is drawn in place.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_legend", "draw_semantic", "semantic_palette", "write_indexed_png"]

Color = tuple[int, int, int]
Image = NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MAX_COLORS = 256  # of a palette PNG, and of labels of 8 bits


def semantic_palette(num_classes: int) -> list[Color]:
    """A color for each class; ``semantic_palette(n)[:m] == semantic_palette(m)``.

    The colors of Pascal VOC without the first one, black, which looks like a shadow over an image. Bits 0, 3 and 6 of
    the index are the high bits of red, bits 1, 4 and 7 those of green, bits 2 and 5 those of blue.

    Raises:
        ValueError: ``num_classes`` is negative or above 256.
    """
    if not 0 <= num_classes <= _MAX_COLORS:
        raise ValueError(f"num_classes: got {num_classes}, expected 0 to {_MAX_COLORS}")
    indices = np.arange(1, num_classes + 1)
    rgb = np.zeros((num_classes, 3), int)
    for place in range(3):  # the indices have at most nine bits
        for channel in range(3):
            rgb[:, channel] |= (indices >> (3 * place + channel) & 1) << (7 - place)
    return [(int(b), int(g), int(r)) for r, g, b in rgb]


def draw_semantic(
    image: Image,
    labels: NDArray[np.uint8],
    palette: Sequence[Color] | None = None,
    opacity: float = 0.5,
    ignore: int = 255,
) -> Image:
    """Overlay an image with a label map.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 (H, W).
        palette: color of each class; None for ``semantic_palette``.
        opacity: of the colors, 0 to 1.
        ignore: the label of pixels that are not colored.

    Returns:
        uint8 (H, W, 3), a new picture.

    Raises:
        ValueError: label map and image differ in size, a label has no color, or ``opacity`` is outside [0, 1].
    """
    if image.ndim != 3 or image.shape[2] != 3 or labels.shape != image.shape[:2]:
        raise ValueError(f"labels: got shape {labels.shape}, expected height and width of the image {image.shape}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity: got {opacity}, expected 0 to 1")
    colors = semantic_palette(_MAX_COLORS) if palette is None else palette
    _check_labels(labels, len(colors), ignore)
    table = np.zeros((_MAX_COLORS, 3), np.uint8)
    if len(colors):
        table[: len(colors)] = colors
    image, labels = np.ascontiguousarray(image), np.ascontiguousarray(labels)
    colored = cv2.LUT(cv2.merge([labels] * 3), table[None])
    blended = cv2.addWeighted(colored, opacity, image, 1 - opacity, 0)
    return np.asarray(cv2.copyTo(image, (labels == ignore).astype(np.uint8), blended), dtype=np.uint8)


def draw_legend(names: Sequence[str], palette: Sequence[Color], width: int, height: int = 26) -> Image:
    """Draw the names of classes beside their colors, in rows.

    Args:
        names: of the classes; characters that are not ASCII become question marks.
        palette: color of each name.
        width: of the picture, in pixels; longer names are clipped.
        height: of a row, in pixels.

    Returns:
        uint8 (rows * height, width, 3).

    Raises:
        ValueError: other numbers of colors and names, no names, or ``width`` or ``height`` too small for a name.
    """
    if len(names) != len(palette) or not names:
        raise ValueError(f"palette: got {len(palette)} colors for {len(names)} names, expected one each")
    if height < 8 or width < 2 * height:
        raise ValueError(f"width, height: got {width}, {height}, expected a height of 8 and twice that width at least")
    scale, side, gap = height / 50, height - 8, height // 3
    texts = [name.encode("ascii", "replace").decode("ascii") for name in names]  # the font of OpenCV is ASCII
    longest = max(cv2.getTextSize(text, _FONT, scale, 1)[0][0] for text in texts)
    cell = min(side + 3 * gap + longest, width)
    columns = max(1, width // cell)
    rows = -(-len(texts) // columns)
    canvas = np.full((rows * height, width, 3), 32, np.uint8)
    for k, (text, color) in enumerate(zip(texts, palette, strict=True)):
        left, top = (k % columns) * cell + gap, (k // columns) * height + 4
        cv2.rectangle(canvas, (left, top), (left + side - 1, top + side - 1), color, -1)
        base = top + side - round(side / 4)
        cv2.putText(canvas, text, (left + side + gap, base), _FONT, scale, (235, 235, 235), 1, cv2.LINE_AA)
    return canvas


def write_indexed_png(path: str | Path, labels: NDArray[np.uint8], palette: Sequence[Color]) -> None:
    """Write a label map as a PNG of 8 bits with a palette: its pixels are the labels, and viewers show the colors.

    OpenCV cannot write palettes. See the PNG specification (third edition), 11.2.1 to 11.2.4, for the four chunks.

    Args:
        path: the file; its folder must exist.
        labels: uint8 (H, W).
        palette: color of each label; labels beyond it, such as 255, are black.

    Raises:
        ValueError: ``labels`` is not uint8 (H, W) with at least one pixel, or there are more than 256 colors.
        OSError: the file cannot be written.
    """
    if labels.dtype != np.uint8 or labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels: got {labels.dtype} {labels.shape}, expected uint8 (H, W) of at least one pixel")
    if len(palette) > _MAX_COLORS:
        raise ValueError(f"palette: got {len(palette)} colors, expected at most {_MAX_COLORS}")
    height, width = labels.shape
    colors = np.zeros((max(len(palette), int(labels.max()) + 1), 3), np.uint8)  # every label must have an entry
    if len(palette):
        colors[: len(palette)] = palette
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = labels
    header = struct.pack(">2I5B", width, height, 8, 3, 0, 0, 0)  # 8 bits, palette, deflate, adaptive, not interlaced
    chunks = (
        (b"IHDR", header),
        (b"PLTE", colors[:, ::-1].tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _check_labels(labels: NDArray[np.uint8], num_colors: int, ignore: int) -> None:
    if labels.dtype != np.uint8:
        raise ValueError(f"labels: got {labels.dtype}, expected uint8")
    if num_colors >= _MAX_COLORS:
        return
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=_MAX_COLORS))
    beyond = [int(label) for label in present if label >= num_colors and label != ignore]
    if beyond:
        raise ValueError(f"labels: got {beyond[0]}, expected below {num_colors}, the number of colors, or {ignore}")
