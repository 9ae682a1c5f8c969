"""Label maps as pictures, with numpy and OpenCV alone: laid over an image, as a palette PNG, and their legend.

Pictures are uint8 (H, W, 3) in BGR and colours (b, g, r); label maps are uint8 (H, W), the index of a class in each
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

Colour = tuple[int, int, int]
Image = NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MOST_COLOURS = 256  # of a palette PNG, and of labels of 8 bits


def semantic_palette(num_classes: int) -> list[Colour]:
    """A colour for each class; ``semantic_palette(n)[:m] == semantic_palette(m)``.

    The colours of Pascal VOC from its second on: its first is black, which over an image looks like a shadow. Bits 0, 3
    and 6 of the number give the high bits of red, bits 1, 4, 7 those of green, bits 2, 5 those of blue.

    Raises:
        ValueError: ``num_classes`` is negative or above 256.
    """
    if not 0 <= num_classes <= _MOST_COLOURS:
        raise ValueError(f"num_classes: got {num_classes}, expected 0 to {_MOST_COLOURS}")
    numbers = np.arange(1, num_classes + 1)
    rgb = np.zeros((num_classes, 3), int)
    for place in range(3):  # the numbers have nine bits at most
        for channel in range(3):
            rgb[:, channel] |= (numbers >> (3 * place + channel) & 1) << (7 - place)
    return [(int(b), int(g), int(r)) for r, g, b in rgb]


def draw_semantic(
    image: Image,
    labels: NDArray[np.uint8],
    palette: Sequence[Colour] | None = None,
    opacity: float = 0.5,
    ignore: int = 255,
) -> Image:
    """Lay the colours of a label map over an image.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 (H, W).
        palette: the colour of each class; None takes ``semantic_palette``.
        opacity: 0 shows the image alone, 1 the colours alone.
        ignore: the label of pixels that stay as they are.

    Returns:
        uint8 (H, W, 3), a new picture.

    Raises:
        ValueError: label map and image differ in size, a label has no colour, or ``opacity`` is outside [0, 1].
    """
    if image.ndim != 3 or image.shape[2] != 3 or labels.shape != image.shape[:2]:
        raise ValueError(f"labels: got shape {labels.shape}, expected height and width of the image {image.shape}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity: got {opacity}, expected 0 to 1")
    colours = semantic_palette(_MOST_COLOURS) if palette is None else palette
    _check_labels(labels, len(colours), ignore)
    table = np.zeros((_MOST_COLOURS, 3), np.uint8)
    if len(colours):
        table[: len(colours)] = colours
    image, labels = np.ascontiguousarray(image), np.ascontiguousarray(labels)
    tint = cv2.LUT(cv2.merge([labels] * 3), table[None])
    blend = cv2.addWeighted(tint, opacity, image, 1 - opacity, 0)
    return np.asarray(cv2.copyTo(image, (labels == ignore).astype(np.uint8), blend), dtype=np.uint8)


def draw_legend(names: Sequence[str], palette: Sequence[Colour], width: int, height: int = 26) -> Image:
    """The names of classes beside their colours, row by row.

    Args:
        names: of the classes; what OpenCV's font lacks is shown as a question mark.
        palette: a colour for each name.
        width: of the picture, in pixels; a longer name is cut.
        height: of a row, in pixels.

    Returns:
        uint8 (rows * height, width, 3).

    Raises:
        ValueError: not as many colours as names, or none, or ``width`` or ``height`` too small for a name.
    """
    if len(names) != len(palette) or not names:
        raise ValueError(f"palette: got {len(palette)} colours for {len(names)} names, expected one each")
    if height < 8 or width < 2 * height:
        raise ValueError(f"width, height: got {width}, {height}, expected a height of 8 and twice that width at least")
    scale, side, gap = height / 50, height - 8, height // 3
    texts = [name.encode("ascii", "replace").decode("ascii") for name in names]  # the font has no more
    longest = max(cv2.getTextSize(text, _FONT, scale, 1)[0][0] for text in texts)
    cell = min(side + 3 * gap + longest, width)
    columns = max(1, width // cell)
    rows = -(-len(texts) // columns)
    canvas = np.full((rows * height, width, 3), 32, np.uint8)
    for k, (text, colour) in enumerate(zip(texts, palette, strict=True)):
        left, top = (k % columns) * cell + gap, (k // columns) * height + 4
        cv2.rectangle(canvas, (left, top), (left + side - 1, top + side - 1), colour, -1)
        base = top + side - round(side / 4)
        cv2.putText(canvas, text, (left + side + gap, base), _FONT, scale, (235, 235, 235), 1, cv2.LINE_AA)
    return canvas


def write_indexed_png(path: str | Path, labels: NDArray[np.uint8], palette: Sequence[Colour]) -> None:
    """Write a label map as a PNG of 8 bits with a palette: its pixels are the labels, and viewers show the colours.

    OpenCV writes no palettes; see the PNG specification (third edition), 11.2.1 to 11.2.4, for the four chunks.

    Args:
        path: the file; its folder must exist.
        labels: uint8 (H, W).
        palette: the colour of each label; labels beyond it, such as 255, are shown black.

    Raises:
        ValueError: ``labels`` is not uint8 (H, W) with at least one pixel, or there are more than 256 colours.
        OSError: the file cannot be written.
    """
    if labels.dtype != np.uint8 or labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels: got {labels.dtype} {labels.shape}, expected uint8 (H, W) of at least one pixel")
    if len(palette) > _MOST_COLOURS:
        raise ValueError(f"palette: got {len(palette)} colours, expected at most {_MOST_COLOURS}")
    height, width = labels.shape
    colours = np.zeros((max(len(palette), int(labels.max()) + 1), 3), np.uint8)  # every label must have an entry
    if len(palette):
        colours[: len(palette)] = palette
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = labels
    header = struct.pack(">2I5B", width, height, 8, 3, 0, 0, 0)  # 8 bits, palette, deflate, adaptive, not interlaced
    chunks = (
        (b"IHDR", header),
        (b"PLTE", colours[:, ::-1].tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _check_labels(labels: NDArray[np.uint8], colours: int, ignore: int) -> None:
    if labels.dtype != np.uint8:
        raise ValueError(f"labels: got {labels.dtype}, expected uint8")
    if colours >= _MOST_COLOURS:
        return
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=_MOST_COLOURS))
    beyond = [int(label) for label in present if label >= colours and label != ignore]
    if beyond:
        raise ValueError(f"labels: got {beyond[0]}, expected below {colours} as there are colours, or {ignore}")
