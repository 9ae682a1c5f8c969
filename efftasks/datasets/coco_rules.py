"""The rules of a COCO file; each function yields the faults of its rules and raises nothing."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from efftasks.annotations.coco import is_finite, rle_counts

__all__ = ["RULES", "SLACK", "Content", "Fault", "is_key"]

# One line for each rule, in the order in which a report shows them.
RULES = {
    "file": "the file is no COCO annotation file",
    "fields": "fields are missing or of a wrong type",
    "duplicate-image-id": "image ids occur more than once",
    "duplicate-file-name": "file names occur more than once",
    "duplicate-annotation-id": "annotation ids occur more than once",
    "duplicate-category-id": "category ids occur more than once",
    "duplicate-category-name": "category names occur more than once",
    "classes": "the class list does not fit the categories",
    "image-missing": "image files are not there",
    "image-unreadable": "image files cannot be read, or are truncated",
    "image-size": "images have another size than the file says",
    "unknown-image": "annotations belong to no image of the file",
    "unknown-category": "annotations belong to no category of the file",
    "box-form": "boxes are not four finite numbers",
    "box-area": "boxes have no area",
    "box-outside": "boxes reach more than 1 px outside their image",
    "mask-polygon": "polygons are broken",
    "mask-rle": "run-length masks are broken",
    "keypoint-names": "keypoint names or the skeleton of a category are wrong",
    "keypoint-length": "keypoint lists have a wrong length or wrong numbers",
    "keypoint-visibility": "keypoint visibilities are not 0, 1 or 2",
    "keypoint-outside": "labeled keypoints lie more than 1 px outside their image",
    "keypoint-count": "num_keypoints is not the number of labeled keypoints",
}

SLACK = 1.0  # pixels by which boxes and keypoints may exceed the image: many tools round, or count pixels from 1


@dataclass(frozen=True)
class Fault:
    """One fault: the rule (a key of ``RULES``), a sentence, and the image, annotation or file that it is about."""

    rule: str
    message: str
    image_id: Any = None
    annotation_id: Any = None
    file_name: str | None = None


@dataclass
class Content:
    """The entries of a COCO file that are JSON objects, and images and categories by id."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    image_of: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    category_of: dict[int, dict[str, Any]] = field(default_factory=dict)

    def fault(self, rule: str, annotation: dict[str, Any], problem: str) -> Fault:
        """A fault of an annotation."""
        image_id, key = annotation.get("image_id"), annotation.get("id")
        image = self.image_of.get(image_id, {}) if is_key(image_id) else {}
        name = image.get("file_name")
        where = f"image {image_id}, {name}" if name else f"image {image_id}"
        return Fault(
            rule, f"annotation {key} ({where}): {problem}", image_id, key, name if isinstance(name, str) else None
        )

    def size_of(self, annotation: dict[str, Any]) -> tuple[int, int] | None:
        """Width and height of an annotation's image; None if the file states none."""
        image_id = annotation.get("image_id")
        image = self.image_of.get(image_id, {}) if is_key(image_id) else {}
        width, height = image.get("width"), image.get("height")
        return (width, height) if _is_side(width) and _is_side(height) else None


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53


def is_key(value: Any) -> TypeGuard[int | str]:
    """Whether a value can be the id of an image or an annotation: an integer, or a string that is not empty."""
    return _is_id(value) or _is_name(value)


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def _is_side(value: Any) -> TypeGuard[int]:
    return _is_id(value) and 0 < value < 1 << 24


def _is_area(value: Any) -> bool:
    return is_finite(value) and value > 0


def _is_present(value: Any) -> bool:
    return value is not None


_FIELDS: dict[str, dict[str, tuple[Any, str]]] = {
    "images": {
        "id": (is_key, "a whole number or a text"),
        "file_name": (_is_name, "a file name"),
        "width": (_is_side, "a whole number above 0"),
        "height": (_is_side, "a whole number above 0"),
    },
    "annotations": {
        "id": (is_key, "a whole number or a text"),
        "image_id": (is_key, "a whole number or a text"),
        "category_id": (_is_id, "a whole number"),
        "bbox": (_is_present, "[x, y, width, height]"),
        "area": (_is_area, "a number above 0 (COCO's evaluation needs it)"),
    },
    "categories": {"id": (_is_id, "a whole number"), "name": (_is_name, "a name")},
}


def structure(data: Any) -> tuple[Content, list[Fault]]:
    """Parse the top level and the fields: the usable entries, and the faults."""
    content = Content()
    if not isinstance(data, dict):
        return content, [Fault("file", f"the top level is a {type(data).__name__}, expected an object")]
    faults = []
    for key, into in (
        ("images", content.images),
        ("annotations", content.annotations),
        ("categories", content.categories),
    ):
        entries = data.get(key)
        if not isinstance(entries, list):
            got = f"is a {type(entries).__name__}" if key in data else "is missing"
            faults.append(Fault("file", f"top-level key '{key}' {got}, expected a list"))
            continue
        if not entries:
            faults.append(Fault("file", f"'{key}' is empty, expected at least one entry"))
        for number, entry in enumerate(entries):
            if isinstance(entry, dict):
                faults += _wrong_fields(key, number, entry)
                into.append(entry)
            else:
                faults.append(Fault("fields", f"{key}[{number}] is a {type(entry).__name__}, expected an object"))
    content.image_of = {e["id"]: e for e in reversed(content.images) if is_key(e.get("id"))}
    content.category_of = {e["id"]: e for e in reversed(content.categories) if _is_id(e.get("id"))}
    return content, faults


def _wrong_fields(key: str, number: int, entry: dict[str, Any]) -> Iterator[Fault]:
    where = f"{key}[{number}]" + (f" (id {entry['id']})" if "id" in entry else "")
    for name, (valid, expected) in _FIELDS[key].items():
        if name not in entry:
            yield _field_fault(key, entry, f"{where}: '{name}' is missing, expected {expected}")
        elif not valid(entry[name]):
            yield _field_fault(key, entry, f"{where}: '{name}' is {str(entry[name])[:40]!r}, expected {expected}")
    if key == "annotations" and entry.get("iscrowd", 0) not in (0, 1):
        yield _field_fault(key, entry, f"{where}: 'iscrowd' is {str(entry['iscrowd'])[:40]!r}, expected 0 or 1")


def _field_fault(key: str, entry: dict[str, Any], message: str) -> Fault:
    if key == "annotations":
        return Fault("fields", message, image_id=entry.get("image_id"), annotation_id=entry.get("id"))
    return Fault("fields", message, image_id=entry.get("id") if key == "images" else None)


def duplicates(content: Content) -> Iterator[Fault]:
    """Ids and names that occur more than once."""
    for rule, entries, name, valid in (
        ("duplicate-image-id", content.images, "id", is_key),
        ("duplicate-file-name", content.images, "file_name", _is_name),
        ("duplicate-annotation-id", content.annotations, "id", is_key),
        ("duplicate-category-id", content.categories, "id", _is_id),
        ("duplicate-category-name", content.categories, "name", _is_name),
    ):
        values = Counter(entry[name] for entry in entries if valid(entry.get(name)))
        for value, times in values.items():
            if times > 1:
                yield Fault(
                    rule,
                    f"{value!r} occurs {times} times",
                    image_id=value if rule == "duplicate-image-id" else None,
                    annotation_id=value if rule == "duplicate-annotation-id" else None,
                    file_name=value if rule == "duplicate-file-name" else None,
                )


def class_list(content: Content, classes: Sequence[str]) -> Iterator[Fault]:
    """Classes of the list without a category, and categories that are not in the list."""
    names = [c["name"] for c in content.categories if _is_name(c.get("name"))]
    for name, times in Counter(classes).items():
        if times > 1:
            yield Fault("classes", f"class {name!r} is {times} times in the list")
        if name not in names:
            yield Fault("classes", f"class {name!r} is no category of the file{_nearest(name, names)}")
    for name in dict.fromkeys(names):
        if name not in classes:
            yield Fault("classes", f"category {name!r} of the file is not in the class list{_nearest(name, classes)}")


def _nearest(name: str, candidates: Sequence[str]) -> str:
    lower = {other.lower().strip(): other for other in candidates}
    matches = difflib.get_close_matches(name.lower().strip(), lower, n=1)
    return f"; the nearest is {lower[matches[0]]!r}" if matches else ""


def references(content: Content) -> Iterator[Fault]:
    """Annotations of images or categories that do not exist."""
    for annotation in content.annotations:
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        if is_key(image_id) and image_id not in content.image_of:
            yield content.fault("unknown-image", annotation, f"no image has the id {image_id!r}")
        if _is_id(category_id) and category_id not in content.category_of:
            yield content.fault("unknown-category", annotation, f"no category has the id {category_id}")


def boxes(content: Content) -> Iterator[Fault]:
    """Boxes that are not four numbers, have no area, or reach outside their image."""
    for annotation in content.annotations:
        box = annotation.get("bbox")
        if box is None:
            continue
        if not isinstance(box, list) or len(box) != 4 or not all(is_finite(v) for v in box):
            yield content.fault("box-form", annotation, f"bbox is {str(box)[:60]}, expected four finite numbers")
            continue
        x, y, width, height = box
        if width <= 0 or height <= 0:
            yield content.fault("box-area", annotation, f"bbox {_short(box)} is {width:g} wide and {height:g} high")
        size = content.size_of(annotation)
        if size is None:
            continue
        beyond = max(-x, -y, x + width - size[0], y + height - size[1])
        if beyond > SLACK:
            inside = f"{size[0]:g} x {size[1]:g}"
            yield content.fault("box-outside", annotation, f"bbox {_short(box)} is {beyond:g} px outside {inside}")


def _short(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:g}" for v in numbers) + "]"


def masks(content: Content) -> Iterator[Fault]:
    """Polygons and RLEs that do not decode; an empty 'segmentation' means no mask."""
    for annotation in content.annotations:
        mask = annotation.get("segmentation")
        if mask is None or mask == []:
            continue
        if isinstance(mask, dict):
            problem = _wrong_rle(mask, content.size_of(annotation))
            if problem:
                yield content.fault("mask-rle", annotation, problem)
        elif isinstance(mask, list) and not any(isinstance(part, list) for part in mask):
            problem = f"segmentation is one flat list of {len(mask)} values, expected a list of polygons"
            yield content.fault("mask-polygon", annotation, problem)
        elif isinstance(mask, list):
            for number, polygon in enumerate(mask):
                problem = _wrong_polygon(polygon)
                if problem:
                    yield content.fault("mask-polygon", annotation, f"polygon {number} {problem}")
        else:
            got = type(mask).__name__
            yield content.fault("mask-polygon", annotation, f"segmentation is a {got}, expected polygons or an RLE")


def _wrong_polygon(polygon: Any) -> str | None:
    if not isinstance(polygon, list):
        return f"is a {type(polygon).__name__}, expected a list x1, y1, x2, y2, ..."
    if len(polygon) < 6:
        return f"has {len(polygon)} numbers, expected at least 6"
    if len(polygon) % 2:
        return f"has {len(polygon)} numbers, expected an even count"
    if not all(is_finite(v) for v in polygon):
        return "has something else than finite numbers"
    return None


def _wrong_rle(mask: dict[str, Any], size: tuple[int, int] | None) -> str | None:
    shape = mask.get("size")
    if not isinstance(shape, list) or len(shape) != 2 or not all(_is_side(v) for v in shape):
        return f"RLE size is {str(shape)[:40]}, expected [height, width]"
    if size is not None and (shape[1], shape[0]) != size:
        return f"RLE size is {shape} (height, width), expected [{size[1]:g}, {size[0]:g}] as the image"
    try:
        counts = rle_counts(mask.get("counts"))
    except ValueError as error:
        return f"RLE counts {error}"
    if (counts < 0).any() or int(counts.sum()) != shape[0] * shape[1]:
        return f"RLE counts cover {int(counts.sum())} pixels, expected {shape[0] * shape[1]}"
    if not counts[1::2].any():
        return "RLE has no pixel inside"
    return None


def keypoints(content: Content, count: int | None) -> Iterator[Fault]:
    """Keypoint lists that differ from ``count``, or if it is None from the names of their category."""
    for category in content.categories:
        yield from _wrong_names(category, count)
    for annotation in content.annotations:
        category_id = annotation.get("category_id")
        names = content.category_of.get(category_id, {}).get("keypoints") if _is_id(category_id) else None
        expected = count if count is not None else len(names) if isinstance(names, list) and names else None
        points = annotation.get("keypoints")
        if points is not None:
            yield from _wrong_points(content, annotation, points, expected)
        elif count is not None and not annotation.get("iscrowd"):
            yield content.fault("keypoint-length", annotation, f"has no keypoints, expected {3 * count} numbers")


def _wrong_names(category: dict[str, Any], count: int | None) -> Iterator[Fault]:
    names, skeleton = category.get("keypoints"), category.get("skeleton") or []
    where = f"category {category.get('name')!r}"
    if names is None:
        return
    if not isinstance(names, list) or not all(_is_name(name) for name in names):
        yield Fault("keypoint-names", f"{where}: 'keypoints' is {str(names)[:40]}, expected a list of names")
        return
    if count is not None and len(names) != count:
        yield Fault("keypoint-names", f"{where} names {len(names)} keypoints, expected {count}")
    pairs = skeleton if isinstance(skeleton, list) else [skeleton]
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(_is_id(v) and 1 <= v <= len(names) for v in pair)):
            expected = f"two numbers from 1 to {len(names)}"
            yield Fault("keypoint-names", f"{where}: skeleton has {str(pair)[:40]}, expected {expected}")


def _wrong_points(content: Content, annotation: dict[str, Any], points: Any, expected: int | None) -> Iterator[Fault]:
    if not isinstance(points, list) or not all(is_finite(v) for v in points):
        yield content.fault("keypoint-length", annotation, "keypoints are not a list of finite numbers")
        return
    if len(points) % 3 or (expected is not None and len(points) != 3 * expected):
        needed = "a multiple of 3" if expected is None else f"3 * {expected} = {3 * expected}"
        yield content.fault("keypoint-length", annotation, f"{len(points)} numbers in keypoints, expected {needed}")
        return
    visible = points[2::3]
    strange = [v for v in visible if v not in (0, 1, 2)]
    if strange:
        yield content.fault("keypoint-visibility", annotation, f"visibility {strange[0]:g}, expected 0, 1 or 2")
    labeled = sum(v > 0 for v in visible)
    if annotation.get("num_keypoints") != labeled:
        got = f"num_keypoints is {annotation.get('num_keypoints', 'missing')}"
        yield content.fault("keypoint-count", annotation, f"{got}, expected {labeled} as labeled in keypoints")
    size = content.size_of(annotation)
    for number, (x, y, v) in enumerate(zip(points[::3], points[1::3], visible, strict=True)):
        if size and v > 0 and max(-x, -y, x - size[0], y - size[1]) > SLACK:
            problem = f"keypoint {number} at ({x:g}, {y:g}) is outside {size[0]:g} x {size[1]:g}"
            yield content.fault("keypoint-outside", annotation, problem)
