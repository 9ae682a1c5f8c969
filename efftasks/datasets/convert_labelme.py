"""labelme's JSON files, one per image: ``shapes`` with a label, a type and points in pixels."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from efftasks.datasets.coco_convert import Report, Shape, UnreadableLabel, check_size
from efftasks.datasets.convert_source import (
    ImageFinder,
    Item,
    Part,
    Source,
    display_path,
    divide,
    first_folder,
    read_text,
)
from efftasks.datasets.image_files import find_images
from efftasks.imaging.images import IMAGE_SUFFIXES
from efftasks.imaging.rle import encode_rle
from efftasks.structures.errors import UserError

__all__ = ["read_labelme"]

_CIRCLE_POINTS = 64
_MIN_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2, "oriented_rectangle": 4}


def read_labelme(
    source: str | Path,
    classes: Sequence[str] | None = None,
    images: str | Path | None = None,
    labels: str | Path | None = None,
) -> Source:
    """Find the JSON files of a data set and their images.

    Polygons and circles become masks with boxes, rectangles become boxes; shapes of the same label and ``group_id`` are
    one object. Points with the ``group_id`` of an object are left out. Parts are folders with names such as ``train``
    and ``valid``.

    Args:
        source: the folder.
        classes: labels in the order of the category ids; None takes all, sorted.
        images: the folder of the images, if ``imagePath`` does not lead to them.
        labels: the folder of the JSON files, if they are not below ``source``.

    Raises:
        UserError: the folder does not exist, or has no labelme file.
    """
    root = first_folder([Path(source)], "a labelme data set")
    folder = Path(labels) if labels else root
    report = Report()
    parsed = _parse(folder, root, report)
    if not parsed:
        raise UserError(f"{folder}: holds no JSON file of labelme, expected some with 'shapes' and 'imagePath'")
    names = {_label(shape) for data in parsed.values() for shape in data["shapes"] if _has_extent(shape)}
    chosen = list(classes) if classes is not None else sorted(names - {""})
    pictures = Path(images) if images else root
    items = _pair(parsed, folder, pictures, root, report)
    parts: dict[str, Part] = divide(items, pictures)

    def shapes(item: Item, width: int, height: int) -> list[Shape]:
        where, data = item.label
        check_size(item.size, (width, height), "labeling", where)
        return _shapes(data["shapes"], where, chosen, classes is None, (width, height), report)

    categories = [{"name": name, "supercategory": "none"} for name in chosen]
    return Source("labelme", root, parts, categories, shapes, report)


def _parse(folder: Path, root: Path, report: Report) -> dict[Path, dict[str, Any]]:
    parsed = {}
    for file in sorted(folder.rglob("*.json")):
        where = display_path(file, root)
        try:
            data = json.loads(read_text(file, where))
        except UnreadableLabel as error:
            report.remove(error.reason, error.where)
            continue
        except (ValueError, RecursionError) as error:
            report.remove("files that are not JSON", f"{where} ({error})")
            continue
        if not isinstance(data, dict) or not isinstance(data.get("shapes"), list) or "imagePath" not in data:
            report.skip("JSON files that are none of labelme", where)
        elif not all(isinstance(shape, dict) for shape in data["shapes"]):
            report.remove("files with a shape that is no object", where)
        else:
            parsed[file] = data
    return parsed


def _pair(
    parsed: Mapping[Path, dict[str, Any]], folder: Path, pictures: Path, root: Path, report: Report
) -> list[tuple[Path, Item]]:
    finder = ImageFinder(pictures)
    items, used = [], set()
    for file, data in parsed.items():
        where = display_path(file, root)
        path, content = _picture(file, data, finder, pictures), None
        if path is None:
            content = _embedded(data)
            path = pictures / file.relative_to(folder).with_suffix(_suffix(data["imagePath"]))
        if path is None or (content is None and not path.is_file()):
            report.remove("files whose image is not there; give --images DIR", f"{where}: {data['imagePath']}")
        elif path in used:
            report.remove("files of an image that another one describes", where)
        else:
            used.add(path)
            size = _size(data)
            items.append((file.relative_to(folder), Item(path, (where, data), size, content)))
    for path in find_images(pictures):
        if path not in used:
            report.note("images have no JSON file, and are not in the result", display_path(path, root))
    return items


def _picture(file: Path, data: Mapping[str, Any], finder: ImageFinder, pictures: Path) -> Path | None:
    """The image of a JSON file: that of ``imagePath``, else one of the same name beside it."""
    path = finder.find(str(data["imagePath"]), [file.parent, pictures])
    if path is not None:
        return path
    return next((file.with_suffix(suffix) for suffix in IMAGE_SUFFIXES if file.with_suffix(suffix).is_file()), None)


def _suffix(name: Any) -> str:
    suffix = Path(str(name).replace("\\", "/")).suffix.lower()
    return suffix if suffix in IMAGE_SUFFIXES else ".png"


def _embedded(data: Mapping[str, Any]) -> bytes | None:
    """The image in ``imageData``, None without one."""
    try:
        return base64.b64decode(data.get("imageData") or "") or None
    except (binascii.Error, TypeError, ValueError):
        return None


def _size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = data.get("imageWidth"), data.get("imageHeight")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _label(shape: Mapping[str, Any]) -> str:
    return str(shape.get("label") or "").strip()


def _type(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")  # old versions had polygons only


def _has_extent(shape: Mapping[str, Any]) -> bool:
    return _type(shape) in _MIN_POINTS


def _shapes(
    rows: Sequence[Mapping[str, Any]],
    where: str,
    classes: Sequence[str],
    all_classes: bool,
    size: tuple[int, int],
    report: Report,
) -> list[Shape]:
    groups = {row.get("group_id") for row in rows if _has_extent(row)} - {None}
    joined: dict[Any, Shape] = {}
    for number, row in enumerate(rows, start=1):
        at, label, kind, group = f"{where}, shape {number}", _label(row), _type(row), row.get("group_id")
        if not label:
            raise UnreadableLabel("files with a shape without a label", at)
        if not all_classes and label not in classes:
            report.skip(f"objects of class {label!r}, which is not in the class list", at)
            continue
        if kind == "point" and group in groups:
            report.skip("points that belong to an object (keypoints are not read from labelme)", at)
            continue
        if not _has_extent(row):
            raise UnreadableLabel(f"files with a shape of type {kind!r}, which has no box", at)
        shape = _shape(row, kind, classes.index(label), at, size)
        key = (label, group) if group is not None and shape.polygons else number
        if key in joined:
            shape = Shape(shape.label, joined[key].where, polygons=[*joined[key].polygons, *shape.polygons])
        joined[key] = shape
    return list(joined.values())


def _shape(row: Mapping[str, Any], kind: str, label: int, at: str, size: tuple[int, int]) -> Shape:
    points = _points(row, kind, at)
    if kind == "mask":
        return Shape(label, at, rle=_mask(row, points, size, at))
    if kind == "circle":
        center, edge = points[:2]
        angles = np.linspace(0, 2 * math.pi, _CIRCLE_POINTS, endpoint=False)
        points = center + np.hypot(*(edge - center)) * np.column_stack([np.cos(angles), np.sin(angles)])
    if kind == "rectangle":
        return Shape(label, at, [*points.min(0).tolist(), *points.max(0).tolist()])
    return Shape(label, at, polygons=[points.reshape(-1).tolist()])


def _points(row: Mapping[str, Any], kind: str, at: str) -> np.ndarray:
    try:
        points = np.asarray(row.get("points"), dtype=float)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < _MIN_POINTS[kind] or not np.isfinite(points).all():
        reason = f"files with a {kind} of fewer than {_MIN_POINTS[kind]} points, or of something else than numbers"
        raise UnreadableLabel(reason, at)
    return points


def _mask(row: Mapping[str, Any], points: np.ndarray, size: tuple[int, int], at: str) -> dict[str, Any]:
    """The RLE of a mask, which is a picture of the region between two corners."""
    data = np.frombuffer(_embedded({"imageData": row.get("mask")}) or b"", np.uint8)
    crop = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if crop is None or crop.ndim != 2:
        raise UnreadableLabel("files with a mask that is no picture of one channel", at)
    width, height = size
    left, top = (int(v) for v in points.min(0))
    mask = np.zeros((height + crop.shape[0], width + crop.shape[1]), bool)
    if not (0 <= left < width and 0 <= top < height):
        raise UnreadableLabel("files with a mask outside its image", at)
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop > 0
    mask = np.ascontiguousarray(mask[:height, :width])
    if not mask.any():
        raise UnreadableLabel("files with a mask without a pixel", at)
    return encode_rle(mask)
