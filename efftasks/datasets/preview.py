"""What the previews of data sets share: their result, the size of a picture, and the sheet of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.drawing import contact_sheet

__all__ = ["SHEET", "Preview", "draw_sheet", "fit_picture"]

SHEET = "contact_sheet.png"  # without loss: the sheet is what one looks at closely

_LEAST_SIDE, _MOST_SIDE = 480, 1600  # smaller images are enlarged, or their captions would hide them


@dataclass
class Preview:
    """What was written: a picture for each image, and all of them on one sheet; and what was left out, and why."""

    files: list[Path] = field(default_factory=list)
    sheet: Path | None = None
    left_out: list[str] = field(default_factory=list)


def fit_picture(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """A picture uint8 (H, W, 3) of a size to be looked at, and the factor that brought it there."""
    side = max(picture.shape[:2])
    scale = float(max(1, math.ceil(_LEAST_SIDE / side))) if side < _MOST_SIDE else _MOST_SIDE / side
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    canvas = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    return np.asarray(canvas, dtype=np.uint8), scale


def draw_sheet(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """All pictures on one, about as many in a row as there are rows."""
    columns = math.ceil(math.sqrt(len(pictures)))
    return contact_sheet(pictures, columns, min(400, 8000 // columns))
