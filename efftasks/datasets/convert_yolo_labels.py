"""The lines of a YOLO label file.

One line per object; numbers separated by spaces, tabs or commas, relative to the image's width and height:

- ``class cx cy w h``, a box by its center; a sixth number (a confidence, a track id) is not read;
- ``class x1 y1 x2 y2 x3 y3 ...``, a polygon;
- ``class cx cy w h x1 y1 v1 x2 y2 v2 ...``, a box with keypoints, where ``kpt_shape`` says so; ``v`` may be missing.

Classes are counted from 0. A file with any other line is unreadable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from efftasks.datasets.coco_convert import Report, Shape, UnreadableLabel, polygon_bounds
from efftasks.datasets.convert_source import read_text

__all__ = ["PIXELS", "LabelForm", "looks_like_labels", "read_label_file"]

PIXELS = "label files with coordinates that are no shares of the image (0 to 1)"
_SEPARATORS = re.compile(r"[\s,;]+")
_DECIMAL_COMMA = re.compile(r"-?\d+(,\d+)?")
_MAX_COORDINATE = 1.5  # boxes may exceed the image (1.0); larger coordinates are not relative ones


@dataclass(frozen=True)
class LabelForm:
    """The form of the lines.

    Args:
        classes: number of classes.
        keypoints: number of keypoints of an object; 0 for boxes and polygons.
        dims: values of a keypoint: 2 (x, y) or 3 (x, y, visibility).
    """

    classes: int
    keypoints: int = 0
    dims: int = 3


def read_label_file(
    file: Path, where: str, form: LabelForm, size: tuple[int, int], report: Report | None = None
) -> list[Shape]:
    """Read the objects of an image.

    Args:
        file: the label file.
        where: its name in the report.
        form: the form of its lines.
        size: width and height of the image.
        report: receives what was left out or changed.

    Raises:
        UnreadableLabel: a line cannot be read.
    """
    report = report or Report()
    seen: set[tuple[float, ...]] = set()
    shapes = []
    for number, line in enumerate(read_text(file, where).splitlines(), start=1):
        at = f"{where}:{number}"
        values = _numbers(line, at)
        if not values:
            continue
        if len(values) == 6 and not form.keypoints:
            report.note("lines have a sixth number (a confidence or a track id), which was not read", at)
            values = values[:5]
        _check(values, form, at)
        if values in seen:
            report.skip("lines that repeat an earlier one of their file", at)
            continue
        seen.add(values)
        shapes.append(_shape(values, form, size, at))
    return shapes


def looks_like_labels(file: Path) -> bool:
    """Whether a text file is a label file, by its first line; other texts may be in the same folder."""
    try:
        lines = [line for line in read_text(file).splitlines() if line.strip()]
        return bool(lines) and len(_numbers(lines[0], "")) >= 5
    except UnreadableLabel:
        return False


def _numbers(line: str, at: str) -> tuple[float, ...]:
    words = line.split()
    if "." not in line and any("," in word for word in words) and all(map(_DECIMAL_COMMA.fullmatch, words)):
        words = [word.replace(",", ".") for word in words]
    else:
        words = [word for word in _SEPARATORS.split(line) if word]
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise UnreadableLabel("label files with a line that is no numbers", at) from None


def _check(values: tuple[float, ...], form: LabelForm, at: str) -> None:
    """Raise UnreadableLabel if the values are not an object of this form."""
    count = len(values)
    if form.keypoints:
        expected = 5 + form.keypoints * form.dims
        if count != expected:
            reason = f"label files with a line that has not the {expected} numbers of a box and {form.keypoints} points"
            raise UnreadableLabel(reason, f"{at} has {count}")
    elif count != 5 and (count < 7 or count % 2 == 0):
        reason = "label files with a line of neither 5 numbers (a box) nor 7, 9, 11, ... (a polygon)"
        raise UnreadableLabel(reason, f"{at} has {count}")
    if not np.isfinite(values).all():
        raise UnreadableLabel("label files with nan or inf", at)
    if values[0] != int(values[0]) or not 0 <= values[0] < form.classes:
        reason = f"label files with a class that is none of 0 to {form.classes - 1}, those with a name"
        raise UnreadableLabel(reason, f"{at} has {values[0]:g}")
    if not form.keypoints and _looks_like_keypoints(values):
        raise UnreadableLabel("label files that look like keypoints, without kpt_shape in data.yaml", at)
    relative = values[1:5] if form.keypoints else values[1:]
    if min(relative) < 1 - _MAX_COORDINATE or max(relative) > _MAX_COORDINATE:
        raise UnreadableLabel(PIXELS, at)
    if (count == 5 or form.keypoints) and min(values[3:5]) < 0:
        raise UnreadableLabel("label files with a box of negative width or height", at)


def _looks_like_keypoints(values: tuple[float, ...]) -> bool:
    """Whether a box is followed by at least three x, y, visibility (0, 1 or 2); a plausible polygon never is."""
    keypoints = values[5:]
    visibilities = keypoints[2::3]
    return (
        len(keypoints) >= 9 and len(keypoints) % 3 == 0 and set(visibilities) <= {0.0, 1.0, 2.0} and max(keypoints) > 1
    )


def _shape(values: tuple[float, ...], form: LabelForm, size: tuple[int, int], at: str) -> Shape:
    label, sides = int(values[0]), np.array(size, dtype=float)
    if len(values) > 5 and not form.keypoints:
        polygon = (np.reshape(values[1:], (-1, 2)) * sides).reshape(-1).tolist()
        return Shape(label, at, polygon_bounds([polygon]), [polygon])
    center, extent = np.asarray(values[1:3]) * sides, np.asarray(values[3:5]) * sides
    box = [*(center - extent / 2).tolist(), *(center + extent / 2).tolist()]
    if not form.keypoints:
        return Shape(label, at, box)
    rows = np.reshape(values[5:], (form.keypoints, form.dims))
    # without a visibility, (0, 0) stands for a point that is not labeled
    visible = rows[:, 2] if form.dims == 3 else np.where((rows == 0).all(1), 0, 2)
    if not set(visible.tolist()) <= {0.0, 1.0, 2.0}:
        raise UnreadableLabel("label files with a visibility that is none of 0, 1, 2", at)
    points = np.column_stack([rows[:, :2] * sides, visible])
    return Shape(label, at, box, keypoints=points.reshape(-1).tolist())
