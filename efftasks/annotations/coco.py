"""Read COCO annotation files entry by entry; every error names the entry and the field.

Standard library and numpy only. Unambiguous variants are read (ids as strings, one polygon without a list around it, a
byte order mark); everything else is a ValueError of one sentence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from efftasks.structures.errors import UserError

__all__ = [
    "annotation_name",
    "area_of",
    "box_of",
    "check_coco_entries",
    "check_rle_size",
    "file_name_of",
    "image_size_of",
    "is_crowd",
    "is_finite",
    "keypoints_of",
    "object_box",
    "read_coco",
    "read_json",
    "rle_counts",
    "rle_runs",
    "segmentation_of",
    "without_size_warning",
]

Box = tuple[float, float, float, float]
Segmentation = list[list[float]] | dict[str, Any]
_LIMIT = 1e6  # pixels: a polygon with larger ones is broken, and filling it would exhaust the memory


def read_json(path: str | Path) -> Any:
    """Parse a JSON file in UTF-8, with or without a byte order mark, or in UTF-16.

    Raises:
        UserError: the file is not there, or is not JSON.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not content.strip(b"\xef\xbb\xbf \t\r\n"):
        raise UserError(f"{path}: the annotation file is empty, expected COCO's images, annotations and categories")
    try:
        return json.loads(content)  # of bytes json finds the encoding
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: the annotation file is not JSON ({error})") from error


def read_coco(path: str | Path) -> dict[str, Any]:
    """Read a COCO annotation file and check the lists, ids and names that every reader needs.

    Raises:
        UserError: the file is missing, empty or not JSON, has no images or categories, or has an entry without its ids
            or name.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path}: the annotation file is empty, expected COCO's images, annotations and categories")
    for key in ("images", "categories"):
        if not isinstance(data.get(key), list) or not data[key]:
            raise UserError(f"{path}: '{key}' is missing or empty, expected a list as COCO has it")
    if data.get("annotations") is None:
        data["annotations"] = []
    if not isinstance(data["annotations"], list):
        raise UserError(f"{path}: 'annotations' is not a list, expected one as COCO has it")
    check_coco_entries(data, path)
    return data


def check_coco_entries(data: Mapping[str, Any], name: str | Path) -> None:
    """Check the ids and names of a COCO dict.

    Raises:
        UserError: an image, annotation or category is not an object, has no id or name, refers to no image or category,
            or has the id of another.
    """
    for key, fields in _FIELDS.items():
        for number, entry in enumerate(data.get(key) or ()):
            if not isinstance(entry, dict):
                raise UserError(f"{name}: {key}[{number}] is a {type(entry).__name__}, expected an object")
            for field, (valid, expected) in fields.items():
                if not valid(entry.get(field)):
                    where = f"{key}[{number}]" + (f" (id {entry['id']})" if field != "id" and "id" in entry else "")
                    got = f"'{field}' is {_short(entry[field])}" if field in entry else f"'{field}' is missing"
                    raise UserError(f"{name}: {where}: {got}, expected {expected}")
    for key in ("images", "categories"):
        ids = [entry["id"] for entry in data[key]]
        if len(set(ids)) != len(ids):
            repeated = next(value for value, times in Counter(ids).items() if times > 1)
            count = ids.count(repeated)
            raise UserError(f"{name}: {count} {key} have the id {repeated!r}, expected ids that occur once")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether a value is a number, not nan, not infinite, and below 1e18, so that sums do not overflow."""
    return _is_number(value) and -1e18 < value < 1e18


def _is_integer(value: Any) -> TypeGuard[float]:
    return is_finite(value) and value == int(value)


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def _is_key(value: Any) -> bool:
    return _is_integer(value) or _is_name(value)


_KEY = (_is_key, "a whole number or a text")
_INTEGER = (_is_integer, "a whole number")
_FIELDS: dict[str, dict[str, tuple[Any, str]]] = {
    "images": {"id": _KEY},
    "categories": {"id": _INTEGER, "name": (_is_name, "a name")},
    "annotations": {"image_id": _KEY, "category_id": _INTEGER},
}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def annotation_name(annotation: Mapping[str, Any]) -> str:
    """The annotation's name in messages: its id, or its image where it has no id."""
    key = annotation.get("id")
    return f"annotation {key}" if key is not None else f"an annotation of image {annotation.get('image_id')}"


def file_name_of(image: Mapping[str, Any]) -> str:
    """The file name of an image; raises ValueError if it is missing or no valid file name."""
    name = image.get("file_name")
    if isinstance(name, str) and name.strip() and "\0" not in name:
        return name
    got = f"'file_name' is {_short(name)}" if "file_name" in image else "'file_name' is missing"
    raise ValueError(f"image {image.get('id')}: {got}, expected the name of a file")


def image_size_of(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """The annotated (height, width) of an image, pixels; None if missing or invalid."""
    height, width = image.get("height"), image.get("width")
    if _is_integer(height) and _is_integer(width) and 0 < height < 1 << 24 and 0 < width < 1 << 24:
        return int(height), int(width)
    return None


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation is a crowd region.

    Raises:
        ValueError: ``iscrowd`` is not 0 or 1; a string would count as true.
    """
    value = annotation.get("iscrowd")
    if value is None or (isinstance(value, (int, float)) and value in (0, 1)):
        return bool(value)
    raise ValueError(f"'iscrowd' is {_short(value)}, expected 0 or 1")


def area_of(annotation: Mapping[str, Any]) -> float | None:
    """The annotated area, square pixels; None if missing or not above 0."""
    area = annotation.get("area")
    return float(area) if is_finite(area) and area > 0 else None


def box_of(annotation: Mapping[str, Any]) -> Box | None:
    """The annotated box x, y, width, height, pixels; None if missing or without area.

    Raises:
        ValueError: ``bbox`` is not four numbers.
    """
    box = annotation.get("bbox")
    if box is None or box == []:
        return None
    valid = isinstance(box, list) and len(box) == 4
    finite = valid and _are_all_finite(box)
    if not valid or not (finite or all(v is None or _is_number(v) for v in box)):
        raise ValueError(f"'bbox' is {_short(box)}, expected four numbers: x, y, width, height in pixels")
    return tuple(box) if finite and box[2] > 0 and box[3] > 0 else None


def segmentation_of(annotation: Mapping[str, Any]) -> Segmentation | None:
    """The annotated mask: polygons of at least three points, or an RLE that is not decoded; None if missing.

    One flat list of numbers, or of points, is read as one polygon.

    Raises:
        ValueError: ``segmentation`` is neither polygons nor an RLE.
    """
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        _check_rle_form(segmentation)
        return segmentation
    if not isinstance(segmentation, list):
        raise ValueError(f"'segmentation' is {_short(segmentation)}, expected polygons or run lengths")
    if _is_number(segmentation[0]):
        segmentation = [segmentation]
    elif len(segmentation) > 2 and all(isinstance(part, list) and len(part) == 2 for part in segmentation):
        segmentation = [[value for point in segmentation for value in point]]
    for part in segmentation:
        _check_polygon(part)
    return [part for part in segmentation if len(part) >= 6] or None


def _check_polygon(part: Any) -> None:
    try:
        valid = isinstance(part, list) and (not part or -_LIMIT < min(part) <= max(part) < _LIMIT) and sum(part) < 1e18
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(
            f"'segmentation' has the polygon {_short(part)}, expected numbers x1, y1, x2, y2, ... in pixels"
        )
    if len(part) % 2:
        raise ValueError(f"'segmentation': a polygon has {len(part)} numbers, expected pairs of x and y")


def _check_rle_form(rle: Mapping[str, Any]) -> None:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(_is_integer(v) and 0 < v < 1 << 24 for v in size):
        raise ValueError(f"'segmentation' has run lengths of size {_short(size)}, expected [height, width]")
    if not isinstance(counts, (str, list)):
        raise ValueError(f"'segmentation' has counts of {_short(counts)}, expected a text or a list of whole numbers")


def keypoints_of(annotation: Mapping[str, Any], count: int) -> list[list[float]] | None:
    """The keypoints as ``count`` rows of x, y, visibility; None if missing.

    A keypoint of visibility 0 with null or nan as coordinates becomes (0, 0, 0).

    Raises:
        ValueError: ``keypoints`` is not 3 ``count`` numbers, or a visible keypoint has no coordinates.
    """
    flat = annotation.get("keypoints")
    if not flat:
        return None
    if not isinstance(flat, list):
        raise ValueError(f"'keypoints' is {_short(flat)}, expected a list x1, y1, v1, x2, y2, v2, ...")
    if len(flat) != 3 * count:
        raise ValueError(
            f"'keypoints' has {len(flat)} numbers, expected {3 * count}, three for each of {count} keypoints"
        )
    rows = [flat[i : i + 3] for i in range(0, len(flat), 3)]
    return rows if _are_all_finite(flat) else [_keypoint(row) for row in rows]


def _are_all_finite(values: Sequence[Any]) -> bool:
    """Fast test for the usual case; after False each value needs a look with :func:`is_finite`."""
    try:
        return sum(map(abs, values)) < 1e18 and bool not in set(map(type, values))
    except (TypeError, OverflowError):
        return False


def _keypoint(row: list[Any]) -> list[float]:
    if all(map(is_finite, row)):
        return row
    if any(not (v is None or _is_number(v)) for v in row) or (is_finite(row[2]) and row[2] > 0):
        raise ValueError(f"'keypoints' has {_short(row)}, expected three finite numbers: x, y, visibility")
    return [0, 0, 0]


def object_box(annotation: Mapping[str, Any], size: tuple[int, int] | None = None) -> Box | None:
    """The box xyxy of an object, pixels: the annotated box, else the bounds of its mask, else of its keypoints.

    Args:
        annotation: an entry of ``annotations``.
        size: (height, width) of its image, which an RLE must match; None accepts any.

    Returns:
        The box, or None if none of them has an area.

    Raises:
        ValueError: one of them is broken, or all are missing.
    """
    box = box_of(annotation)
    if box is not None:
        return box[0], box[1], box[0] + box[2], box[1] + box[3]
    segmentation = segmentation_of(annotation)
    if isinstance(segmentation, dict):
        check_rle_size(segmentation, size)
        bounds = _rle_bounds(segmentation)
    else:
        bounds = _bounds(segmentation or ())
    if bounds is not None:
        return bounds
    points = annotation.get("keypoints")
    if isinstance(points, list) and points and len(points) % 3 == 0:
        rows = keypoints_of(annotation, len(points) // 3) or []
        return _bounds([[value for x, y, v in rows if v > 0 for value in (x, y)]])
    if annotation.get("bbox") in (None, []) and segmentation is None:
        raise ValueError("neither 'bbox' nor a mask is there, expected a box [x, y, width, height]")
    return None


def _bounds(parts: Iterable[Sequence[float]]) -> Box | None:
    xs = [x for part in parts for x in part[::2]]
    ys = [y for part in parts for y in part[1::2]]
    if not xs or min(xs) == max(xs) or min(ys) == max(ys):
        return None
    return min(xs), min(ys), max(xs), max(ys)


def check_rle_size(rle: Mapping[str, Any], size: tuple[int, int] | None) -> None:
    """Raise ValueError if an RLE has another (height, width) than its image; a ``size`` of None accepts any."""
    if size is not None and tuple(rle["size"]) != tuple(size):
        raise ValueError(f"run lengths are of size {rle['size']}, expected the image's {list(size)}")


def _rle_bounds(rle: Mapping[str, Any]) -> Box | None:
    height = int(rle["size"][0])
    ends = rle_runs(rle).cumsum()
    first, last = ends[:-1:2], ends[1::2] - 1  # pixels of each run inside, down the columns
    first, last = first[last >= first], last[last >= first]
    if not len(first):
        return None
    left, right = int(first[0]) // height, int(last[-1]) // height
    spans_columns = (first // height != last // height).any()  # a run that goes on in the next column
    top, bottom = (0, height - 1) if spans_columns else (int((first % height).min()), int((last % height).max()))
    return float(left), float(top), float(right + 1), float(bottom + 1)


def rle_runs(rle: Mapping[str, Any]) -> NDArray[np.int64]:
    """Run lengths int64 of an RLE, compressed or not, background first.

    Raises:
        ValueError: the counts are broken, or their sum is not height x width.
    """
    try:
        runs = rle_counts(rle.get("counts"))
    except ValueError as error:
        raise ValueError(f"run lengths {error}") from error
    pixels = int(rle["size"][0]) * int(rle["size"][1])
    if runs.min() < 0 or runs.sum() != pixels:
        raise ValueError(f"run lengths cover {runs.sum()} pixels, expected {pixels}")
    return runs


def rle_counts(counts: Any) -> NDArray[np.int64]:
    """Run lengths int64 of COCO's compressed (str) or uncompressed (list) counts, which may be broken.

    The compressed form: characters 48..111 hold six bits each, five of a little-endian number and one that says that
    more follow; from the fourth run on, a run is stored as its difference to the run two before.

    Raises:
        ValueError: the counts have neither form.
    """
    if isinstance(counts, list):
        if not counts or not all(_is_integer(v) and abs(v) < 1 << 53 for v in counts):
            raise ValueError("are not a list of whole numbers")
        return np.array(counts, dtype=np.int64)
    if not isinstance(counts, str) or not counts or not counts.isascii():
        raise ValueError(f"are a {type(counts).__name__}, expected a text or a list of whole numbers")
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = (codes & 0x20) == 0
    if codes.min() < 0 or codes.max() > 63 or not last[-1]:
        raise ValueError("are no compressed run lengths")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digit = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if digit.max() > 8:
        raise ValueError("have a number of too many digits")
    values = np.add.reduceat((codes & 0x1F) << (5 * digit), starts)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * (digit[ends] + 1)), 0)  # two's complement
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def without_size_warning(name: str | Path, number: int) -> str:
    """The warning about objects without size, the same in training, scoring and the check."""
    return (
        f"{name}: {number} objects have no size (a box of zero, negative or unknown width or height, and no mask) and "
        f"are left out, of training and of scores alike"
    )
