"""Shared by the previews of data sets: their result, the size of a picture, and the contact sheet."""

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

SHEET = "contact_sheet.png"  # lossless, since the sheet is what people look at closely

_MIN_SIDE, _MAX_SIDE = 480, 1600  # smaller images are enlarged, as captions would cover them


@dataclass
class Preview:
    """The files of a preview: a picture for each image, the contact sheet, and why images were left out."""

    files: list[Path] = field(default_factory=list)
    sheet: Path | None = None
    left_out: list[str] = field(default_factory=list)


def fit_picture(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Resize a picture uint8 (H, W, 3) for display; returns it and the factor."""
    side = max(picture.shape[:2])
    scale = float(max(1, math.ceil(_MIN_SIDE / side))) if side < _MAX_SIDE else _MAX_SIDE / side
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    canvas = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    return np.asarray(canvas, dtype=np.uint8), scale


def draw_sheet(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The contact sheet of all pictures, about as many columns as rows."""
    columns = math.ceil(math.sqrt(len(pictures)))
    return contact_sheet(pictures, columns, min(400, 8000 // columns))
