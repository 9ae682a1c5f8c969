"""Shared by all conversions to COCO: objects are collected into one file, and a report lists what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from efftasks.annotations.coco import rle_counts
from efftasks.structures.errors import UserError

__all__ = [
    "Conversion",
    "Report",
    "Shape",
    "UnreadableLabel",
    "check_size",
    "is_converted",
    "polygon_bounds",
    "split_names",
]


class UnreadableLabel(ValueError):
    """An annotation cannot be read; its image is taken out, as training would take the object for background.

    Args:
        reason: a plural noun phrase, the same for all errors of its kind.
        where: file and place in it.
    """

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(f"{reason} ({where})")
        self.reason = reason
        self.where = where


@dataclass
class Report:
    """What a conversion left out or changed: lists of places by reason.

    ``removed`` are images left out, ``skipped`` objects and files left out, ``notes`` are changes to what was read.
    ``warnings`` are sentences about the data set.
    """

    warnings: list[str] = field(default_factory=list)
    removed: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def warn(self, sentence: str) -> None:
        """Add a warning about the data set, unless it is there already."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def remove(self, reason: str, where: str) -> None:
        """Record that an image was left out."""
        self.removed.setdefault(reason, []).append(where)

    def skip(self, reason: str, where: str) -> None:
        """Record that an object or a file was left out."""
        self.skipped.setdefault(reason, []).append(where)

    def note(self, reason: str, where: str) -> None:
        """Record that something was changed."""
        self.notes.setdefault(reason, []).append(where)

    def first_reason(self) -> str:
        """The first reason for leaving something out, for the error when nothing is left."""
        groups = [*self.removed.items(), *self.skipped.items()]
        reasons = [f"{reason} ({places[0]})" for reason, places in groups]
        return next(iter([*reasons, *self.warnings]), "no annotation is there")

    def render_lines(self, examples: int = 3) -> list[str]:
        """The report as lines of text: warnings, then each reason with up to ``examples`` of its places."""
        lines = [f"WARNING: {sentence}" for sentence in self.warnings]
        total = sum(map(len, self.removed.values()))
        for title, groups in (
            (f"images taken out ({total})", self.removed),
            ("left out", self.skipped),
            ("notes", self.notes),
        ):
            if groups:
                lines += ["", f"{title}:"]
            for reason, places in groups.items():
                more = f", ... and {len(places) - examples} more" if len(places) > examples else ""
                lines.append(f"  - {len(places)} x {reason}: {', '.join(places[:examples])}{more}")
        return lines


@dataclass(frozen=True)
class Shape:
    """One object of a label file, in pixels of its image.

    Args:
        label: index of its class.
        where: file and place in it, for the report.
        box: xyxy; None takes the bounds of the mask.
        polygons: each x1, y1, x2, y2, ...; their union is the mask.
        rle: the mask as COCO's RLE, instead of polygons.
        keypoints: a flat list of x, y, visibility.
        crowd: whether it is a crowd region, which training ignores.
        area: the annotated area; None computes it.
    """

    label: int
    where: str
    box: Sequence[float] | None = None
    polygons: Sequence[Sequence[float]] = ()
    rle: Mapping[str, Any] | None = None
    keypoints: Sequence[float] | None = None
    crowd: bool = False
    area: float | None = None


@dataclass
class Conversion:
    """Builds a COCO file. Ids count from 1 in the order of adding; numbers are rounded to 1/1000 pixel.

    ``categories`` are those of the file, without ids.
    """

    categories: Sequence[Mapping[str, Any]]
    report: Report = field(default_factory=Report)
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add_image(self, file_name: str, width: int, height: int, shapes: Sequence[Shape]) -> None:
        """Add an image with its objects.

        Raises:
            UnreadableLabel: a mask is broken; then nothing is added.
        """
        before = len(self.annotations)
        entry = {"id": len(self.images) + 1, "file_name": file_name, "width": width, "height": height}
        try:
            for shape in shapes:
                self._add(entry, shape)
        except UnreadableLabel:
            del self.annotations[before:]
            raise
        self.images.append(entry)

    def _add(self, image: dict[str, Any], shape: Shape) -> None:
        """Add an object, clipped to its image; it is left out if it is completely outside."""
        size = (image["width"], image["height"])
        box = shape.box if shape.box is not None else _mask_bounds(shape, size)
        inside = self._clip(box, size, shape.where)
        if inside is None:
            return
        entry: dict[str, Any] = {
            "id": len(self.annotations) + 1,
            "image_id": image["id"],
            "category_id": shape.label + 1,
            "bbox": inside,
            "area": shape.area or round(inside[2] * inside[3], 3),
            "iscrowd": int(shape.crowd),
        }
        if shape.rle is not None:
            mask = _rle_mask(shape, size)
            entry["segmentation"] = dict(shape.rle)
            entry["area"] = shape.area or int(mask.sum())
        elif shape.polygons:
            points = [np.clip(np.reshape(part, (-1, 2)), 0, size) for part in shape.polygons]
            points = [part for part in points if _polygon_area(part) > 0]
            if not points:
                self.report.skip("polygons without area inside their image", shape.where)
                return
            entry["area"] = shape.area or round(sum(_polygon_area(part) for part in points), 3)
            entry["segmentation"] = [[round(float(v), 3) for v in part.reshape(-1)] for part in points]
        if shape.keypoints is not None:
            entry["keypoints"] = self._keypoints(shape, size)
            entry["num_keypoints"] = sum(v > 0 for v in entry["keypoints"][2::3])
        self.annotations.append(entry)

    def _clip(self, box: Sequence[float], size: tuple[int, int], where: str) -> list[float] | None:
        """Clip a box xyxy to its image and return it as xywh; None if no area is left."""
        clipped = np.clip(np.asarray(box, dtype=float), 0, [*size, *size])
        if np.abs(clipped - box).max() > 1:
            self.report.note("boxes reached more than 1 px outside their image and were cut to it", where)
        x1, y1, x2, y2 = (round(float(v), 3) for v in clipped)
        if x2 <= x1 or y2 <= y1:
            self.report.skip("boxes without area inside their image", where)
            return None
        return [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]

    def _keypoints(self, shape: Shape, size: tuple[int, int]) -> list[float]:
        assert shape.keypoints is not None
        flat: list[float] = []
        for x, y, visible in np.reshape(shape.keypoints, (-1, 3)).tolist():
            if visible > 0 and max(-x, -y, x - size[0], y - size[1]) > 1:
                self.report.note("keypoints outside their image count as not labeled", shape.where)
                visible = 0
            flat += [round(x, 3), round(y, 3), int(visible)] if visible > 0 else [0, 0, 0]
        return flat

    def to_coco(self, form: str) -> dict[str, Any]:
        """The content of the file.

        Args:
            form: the source format, which is written into ``info``.

        Raises:
            UserError: it has no images.
        """
        if not self.images:
            raise UserError(f"no image could be converted: {self.report.first_reason()}")
        categories = [{"id": number, **entry} for number, entry in enumerate(self.categories, start=1)]
        return {
            "info": {"description": f"{_DESCRIPTION} --from {form}"},
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }


_DESCRIPTION = "efftasks dataset convert"


def is_converted(data: Any) -> bool:
    """Whether the content of a COCO file was written by ``efftasks dataset convert``, which may overwrite it."""
    info = data.get("info") if isinstance(data, dict) else None
    return isinstance(info, dict) and str(info.get("description", "")).startswith(_DESCRIPTION)


def polygon_bounds(polygons: Sequence[Sequence[float]]) -> list[float]:
    """The bounding box xyxy of polygons x1, y1, x2, y2, ..."""
    points = np.concatenate([np.reshape(part, (-1, 2)) for part in polygons])
    return [*points.min(0).tolist(), *points.max(0).tolist()]


def _mask_bounds(shape: Shape, size: tuple[int, int]) -> list[float]:
    if shape.rle is None:
        return polygon_bounds(shape.polygons)
    ys, xs = np.nonzero(_rle_mask(shape, size))
    return [float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)]


def _rle_mask(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """The mask bool (H, W).

    Raises:
        UnreadableLabel: the RLE is broken, empty, or of another size than the image.
    """
    rle = shape.rle or {}
    width, height = size
    try:
        counts = rle_counts(rle.get("counts"))
        size_matches = list(rle.get("size") or ()) == [height, width] and int(counts.sum()) == width * height
        if not size_matches or (counts < 0).any() or not counts[1::2].any():
            raise ValueError
    except ValueError:
        reason = "run-length masks that are broken, empty or of another size than their image"
        raise UnreadableLabel(reason, shape.where) from None
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _polygon_area(points: np.ndarray) -> float:
    """The area of a polygon (n, 2), by the shoelace formula."""
    x, y = points.T
    return round(abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2, 3)


def check_size(annotated: tuple[int, int] | None, size: tuple[int, int], step: str, where: str) -> None:
    """Raise UnreadableLabel if an image has another (width, height) than annotated; ``step`` may have resized it."""
    if annotated is not None and annotated != size:
        reason = f"images of another size than their annotations say (resized or turned after {step}?)"
        sizes = f"{size[0]} x {size[1]}, annotated as {annotated[0]} x {annotated[1]}"
        raise UnreadableLabel(reason, f"{where} is {sizes}")


def split_names(text: str | None) -> list[str] | None:
    """``"a, b"`` -> ``["a", "b"]``; None stays None.

    Raises:
        UserError: the text has no names, or a name occurs more than once.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise UserError(f"--classes: got {text!r}, expected names with commas between, each once")
    return names
