"""What all conversions to COCO share: they build one file, and say what they left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.structures.errors import UserError

__all__ = ["Conversion", "first_folder", "render_conversion", "split_names"]


@dataclass
class Conversion:
    """A COCO file in the making. Ids count from 1 in the order of adding; numbers are rounded to 1/1000 pixel.

    ``skipped`` and ``notes`` map a reason to where it applied: what is skipped is not in the file, a note says how
    something in the file was changed.
    """

    classes: Sequence[str]
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, where: str) -> None:
        """Remember that something was left out."""
        self.skipped.setdefault(reason, []).append(where)

    def note(self, reason: str, where: str) -> None:
        """Remember that something was changed."""
        self.notes.setdefault(reason, []).append(where)

    def add_image(self, file_name: str, width: int, height: int) -> dict[str, Any]:
        """Add an image and return its entry."""
        entry = {"id": len(self.images) + 1, "file_name": file_name, "width": width, "height": height}
        self.images.append(entry)
        return entry

    def add_object(
        self,
        image: dict[str, Any],
        label: int,
        box: Sequence[float],
        where: str,
        polygon: Sequence[float] | None = None,
    ) -> None:
        """Add an object, cut to its image; skipped if nothing of it is left.

        Args:
            image: the entry of its image.
            label: index of its class.
            box: x1, y1, x2, y2 in pixels.
            where: file and line, for the report.
            polygon: x1, y1, x2, y2, ... in pixels.
        """
        sides = np.array([image["width"], image["height"]] * 2, dtype=float)
        cut = np.clip(np.asarray(box, dtype=float), 0, sides)
        if np.abs(cut - box).max() > 1:
            self.note("boxes reached more than 1 px outside their image and were cut to it", where)
        x1, y1, x2, y2 = (round(float(v), 3) for v in cut)
        if x2 <= x1 or y2 <= y1:
            self.skip("boxes without area inside their image", where)
            return
        width, height = round(x2 - x1, 3), round(y2 - y1, 3)
        entry = {
            "id": len(self.annotations) + 1,
            "image_id": image["id"],
            "category_id": label + 1,
            "bbox": [x1, y1, width, height],
            "area": round(width * height, 3),
            "iscrowd": 0,
        }
        if polygon is not None:
            points = np.clip(np.asarray(polygon, dtype=float).reshape(-1, 2), 0, sides[:2])
            entry["area"] = round(_polygon_area(points), 3)
            entry["segmentation"] = [[round(float(v), 3) for v in points.reshape(-1)]]
            if not entry["area"]:
                self.skip("polygons without area inside their image", where)
                return
        self.annotations.append(entry)

    def to_coco(self) -> dict[str, Any]:
        """The file.

        Raises:
            UserError: there is no image, or no object, in it.
        """
        first = next((f"{reason} ({places[0]})" for reason, places in self.skipped.items()), "no file was found")
        if not self.images:
            raise UserError(f"no image could be converted: {first}")
        if not self.annotations:
            raise UserError(f"no object of {len(self.images)} images could be converted: {first}")
        categories = [{"id": i, "name": name, "supercategory": "none"} for i, name in enumerate(self.classes, start=1)]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}


def _polygon_area(points: np.ndarray) -> float:
    """The shoelace formula; points (n, 2)."""
    x, y = points.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def split_names(text: str | None) -> list[str] | None:
    """``"a, b"`` -> ``["a", "b"]``; None stays None.

    Raises:
        UserError: no name, or one twice.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise UserError(f"--classes: got {text!r}, expected names with commas between, each once")
    return names


def first_folder(candidates: Sequence[Path], what: str) -> Path:
    """The first of some folders that exists.

    Raises:
        UserError: none does.
    """
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UserError(f"{candidates[0]}: no such folder; expected {what} in {' or '.join(map(str, candidates))}")


def render_conversion(result: Conversion, out: str | Path, examples: int = 3) -> str:
    """The report as text: what was written, what was left out and what was changed, each with a few places."""
    counts = f"{len(result.images)} images, {len(result.annotations)} annotations, {len(result.classes)} categories"
    lines = [f"{out}: {counts}"]
    for title, groups in (("skipped", result.skipped), ("notes", result.notes)):
        if groups:
            lines += ["", f"{title}:"]
        for reason, places in groups.items():
            more = f", ... and {len(places) - examples} more" if len(places) > examples else ""
            lines.append(f"  - {len(places)} x {reason}: {', '.join(places[:examples])}{more}")
    return "\n".join(lines)
