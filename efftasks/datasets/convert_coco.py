"""COCO files as annotation tools export them, with their layouts of folders and image names of another machine.

The layouts: ``annotations/instances_PART.json`` with ``images/PART`` (CVAT, COCO itself),
``PART/_annotations.coco.json`` beside its images (Roboflow), ``result.json`` with ``images/`` (Label Studio), or a
single file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efftasks.annotations.coco import is_finite
from efftasks.datasets.coco_convert import Report, Shape, UnreadableLabel, check_size, is_converted
from efftasks.datasets.convert_source import (
    ImageFinder,
    Item,
    Part,
    Source,
    common_folder,
    display_path,
    first_folder,
    part_name,
    read_text,
)
from efftasks.structures.errors import UserError

__all__ = ["read_coco_export"]

_ROBOFLOW = "_annotations.coco.json"
_PREFIX = re.compile(r"^(instances|person_keypoints|annotations)_", re.IGNORECASE)


def read_coco_export(
    source: str | Path,
    classes: Sequence[str] | None = None,
    images: str | Path | None = None,
    crowds: bool = True,
) -> Source:
    """Find the COCO files of an export and their images.

    Args:
        source: the folder, or one file.
        classes: class names in the order of the new category ids; None takes all categories.
        images: the folder of the images, if they are in none of the above.
        crowds: keep ``iscrowd``; False turns crowd regions into objects.

    Raises:
        UserError: there is no COCO file, two files are the same part, or category names are missing or repeated.
    """
    path = Path(source)
    if path.is_file():
        files, root = [path], path.parent.parent if path.parent.name == "annotations" else path.parent
    else:
        root = first_folder([path], "a COCO export")
        files = _files(root)
    loaded = {file: _load(file) for file in files}
    contents = {file: data for file, data in loaded.items() if data is not None}
    if not contents:
        raise UserError(f"{path}: holds no COCO file, expected a JSON file with images, annotations and categories")
    report = Report()
    categories = _categories(contents, classes, report)
    labels = {category["name"]: number for number, category in enumerate(categories)}
    finder = ImageFinder(Path(images) if images else root)
    parts: dict[str, Part] = {}
    for file, data in _by_part(contents, root, report).items():
        name = _part_of(file, root)
        name = "" if len(contents) == 1 and name not in ("train", "val", "test") else name
        parts[name] = _part(file, data, root, images, finder, report)

    if crowds:
        _warn_crowds([row for data in contents.values() for row in data["annotations"]], report)

    def shapes(item: Item, width: int, height: int) -> list[Shape]:
        return _Shapes(item, (width, height), labels, crowds, report).read()

    return Source("coco", root, parts, categories, shapes, report, files=frozenset(contents))


def _warn_crowds(rows: Sequence[Mapping[str, Any]], report: Report) -> None:
    """Warn if crowds are more than a tenth of the annotations; COCO has few."""
    count = sum(bool(row.get("iscrowd")) for row in rows)
    if 10 * count > len(rows):
        report.warn(
            f"{count} of {len(rows)} annotations are marked iscrowd, which training and scoring ignore; CVAT marks "
            "every brush mask so: --no-crowd takes them as objects"
        )


def _files(root: Path) -> list[Path]:
    """The COCO files of an export; files that this command has written are only taken if there are no others."""
    converted: list[Path] = []
    for pattern in (f"*/{_ROBOFLOW}", _ROBOFLOW, "annotations/*.json", "*.json", "*/*.json"):
        files = {file: data for file in sorted(root.glob(pattern)) if (data := _load(file)) is not None}
        exported = [file for file, data in files.items() if not is_converted(data)]
        if exported:
            return exported
        converted = converted or list(files)
    return converted


def _load(file: Path) -> dict[str, Any] | None:
    """The content of a COCO file; None for any other JSON file."""
    try:
        data = json.loads(read_text(file))
    except UnreadableLabel as error:
        raise UserError(f"{file}: {error.reason}, expected a COCO file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is not JSON ({error}), expected a COCO file") from error
    if not isinstance(data, dict) or not isinstance(data.get("images"), list) or "categories" not in data:
        return None
    for key in ("images", "annotations", "categories"):
        rows = data.setdefault(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{file}: '{key}' is no list of objects, expected one as COCO has it")
    return data


def _part_of(file: Path, root: Path) -> str:
    """The part of a file: ``train``, ``val``, ``test``, or else the name in its path."""
    text = file.parent.name if file.name == _ROBOFLOW else _PREFIX.sub("", file.stem)
    if part_name(text) is None and file.parent != root and part_name(file.parent.name):
        text = file.parent.name
    return part_name(text) or text


def _by_part(contents: Mapping[Path, dict], root: Path, report: Report) -> dict[Path, dict]:
    """One file for each part; of several the one with ``instances`` in its name."""
    chosen: dict[str, Path] = {}
    for file in sorted(contents, key=lambda file: not file.name.startswith("instances")):
        name = _part_of(file, root)
        if name not in chosen:
            chosen[name] = file
        elif chosen[name].name.startswith("instances_") and not file.name.startswith("instances_"):
            report.skip(
                f"files that {chosen[name].name} goes before; give one as SOURCE to take it", display_path(file, root)
            )
        else:
            raise UserError(f"{root}: {chosen[name].name} and {file.name} both are {name!r}; give one as SOURCE")
    return {file: contents[file] for file in chosen.values()}


def _categories(contents: Mapping[Path, dict], classes: Sequence[str] | None, report: Report) -> list[dict[str, Any]]:
    """The categories of all files, merged by name, in the order of their ids."""
    categories: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for file, data in contents.items():
        names = {str(row.get("id")): str(row.get("name", "")).strip() for row in data["categories"]}
        if "" in names.values() or len(set(names.values())) != len(data["categories"]):
            raise UserError(f"{file}: 'categories' are {list(names.values())}, expected a name for each, each once")
        used |= {names.get(str(row.get("category_id")), "") for row in data["annotations"]}
        for row in sorted(data["categories"], key=lambda row: (len(str(row.get("id"))), str(row.get("id")))):
            optional = {key: row[key] for key in ("keypoints", "skeleton") if row.get(key)}
            name = str(row["name"]).strip()
            categories.setdefault(name, {"name": name, "supercategory": row.get("supercategory") or "none", **optional})
    if classes is not None:
        unknown = [name for name in classes if name not in categories]
        if unknown:
            raise UserError(f"--classes: got {', '.join(unknown)}, expected some of {', '.join(categories)}")
        return [categories[name] for name in classes]
    supercategories = {str(entry["supercategory"]) for entry in categories.values()}
    for name in [name for name in categories if name in supercategories and name not in used and len(categories) > 1]:
        report.note("categories stand for a group and have no annotations; they were left out", name)
        del categories[name]
    return list(categories.values())


def _part(file: Path, data: dict, root: Path, images: str | Path | None, finder: ImageFinder, report: Report) -> Part:
    where = display_path(file, root)
    subset = file.parent.name if file.name == _ROBOFLOW else _PREFIX.sub("", file.stem)
    folders = [file.parent, root / "images" / subset, root / subset, root / "images", root / "data", root]
    if images is not None:
        folders = [Path(images), Path(images) / subset]
    rows: dict[str, list[dict]] = {str(row.get("id")): [] for row in data["images"]}
    names = {str(row.get("id")): str(row["name"]).strip() for row in data["categories"]}
    for row in data["annotations"]:
        if str(row.get("image_id")) not in rows:
            report.skip("annotations of an image that the file does not list", f"{where}: annotation {row.get('id')}")
        else:
            rows[str(row.get("image_id"))].append({**row, "category": names.get(str(row.get("category_id")))})
    items: dict[Path, Item] = {}
    for image in data["images"]:
        name = image.get("file_name")
        path = finder.find(name, folders) if isinstance(name, str) else None
        at = f"{where}: {name}"
        if path is None:
            report.remove("images whose file is not there, or is one of several; give --images DIR", at)
        elif path in items:
            report.remove("images whose file another image has", at)
        else:
            items[path] = Item(path, (at, rows[str(image.get("id"))]), _annotated_size(image))
    folder = common_folder([path.parent for path in items]) if items else root
    return Part(folder, list(items.values()))


def _annotated_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (int(width), int(height)) if is_finite(width) and is_finite(height) and width and height else None


class _Shapes:
    """Reads the annotations of one image."""

    def __init__(
        self, item: Item, size: tuple[int, int], labels: Mapping[str, int], crowds: bool, report: Report
    ) -> None:
        self.where, self.rows = item.label
        self.annotated_size, self.size = item.size, size
        self.labels, self.crowds, self.report = labels, crowds, report

    def read(self) -> list[Shape]:
        """The objects that belong to the classes.

        Raises:
            UnreadableLabel: an annotation cannot be read, or the image has another size than annotated.
        """
        check_size(self.annotated_size, self.size, "the export", self.where)
        shapes = []
        for row in self.rows:
            at = f"{self.where}, annotation {row.get('id')}"
            name = row["category"]
            if name is None:
                raise UnreadableLabel("images with a category_id that the file does not list", at)
            if name not in self.labels:
                self.report.skip(f"objects of class {name!r}, which is not in the class list", at)
                continue
            shapes.append(self._shape(row, self.labels[name], at))
        return shapes

    def _shape(self, row: Mapping[str, Any], label: int, at: str) -> Shape:
        box, mask, points = row.get("bbox"), row.get("segmentation"), row.get("keypoints")
        corners = None
        if box:
            if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
                raise UnreadableLabel("images with a bbox that is not four numbers", f"{at}: {str(box)[:40]}")
            corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
        rle = mask if isinstance(mask, dict) else None
        polygons = self._polygons(mask, at) if isinstance(mask, list) else []
        if corners is None and rle is None and not polygons:
            raise UnreadableLabel("images with an annotation that has neither bbox nor segmentation", at)
        if points and (not isinstance(points, list) or len(points) % 3 or not all(map(is_finite, points))):
            raise UnreadableLabel("images with keypoints that are not x, y, visibility of each", at)
        crowd = bool(row.get("iscrowd"))
        if crowd:
            effect = (
                "are regions that training ignores (--no-crowd: objects)" if self.crowds else "are taken as objects"
            )
            self.report.note(f"annotations marked iscrowd {effect}", at)
        area = row.get("area")
        return Shape(
            label,
            at,
            corners,
            polygons,
            rle,
            points or None,
            crowd=crowd and self.crowds,
            area=area if is_finite(area) and area > 0 else None,
        )

    def _polygons(self, mask: list, at: str) -> list[list[float]]:
        parts = [mask] if mask and all(map(is_finite, mask)) else mask
        polygons = []
        for part in parts:
            if not isinstance(part, list) or len(part) % 2 or not all(map(is_finite, part)):
                raise UnreadableLabel("images with a polygon that is not x1, y1, x2, y2, ...", at)
            if len(part) < 6:
                self.report.skip("polygons of fewer than three points", at)
            else:
                polygons.append(part)
        return polygons
