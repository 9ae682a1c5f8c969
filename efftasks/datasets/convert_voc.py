"""Pascal VOC XML files, one per image.

VOC counts pixels from 1, and ``xmax``, ``ymax`` are the last pixels *inside* a box. In COCO's coordinates, where pixel
i covers [i, i + 1), this means x = xmin - 1 and width = xmax - xmin + 1: ``offset=1``. Many tools write plain
coordinates into the same XML, with x = xmin and width = xmax - xmin: ``offset=0``.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from efftasks.datasets.coco_convert import Report, Shape, UnreadableLabel
from efftasks.datasets.convert_source import (
    ImageFinder,
    Item,
    Part,
    Source,
    display_path,
    divide,
    first_folder,
    part_name,
    read_text,
)
from efftasks.datasets.image_files import find_images
from efftasks.structures.errors import UserError

__all__ = ["read_voc"]

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FLAG = re.compile(r"\s+-?[01]$")  # in the lists of a class: whether the image shows the class


@dataclass(frozen=True)
class _Xml:
    """A parsed file, and its name in reports."""

    tree: ElementTree.Element
    where: str


def read_voc(
    source: str | Path,
    classes: Sequence[str] | None = None,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    offset: int = 1,
    skip_difficult: bool = False,
) -> Source:
    """Find the XML files of a data set and their images.

    The layouts: ``JPEGImages/`` or ``images/`` with ``Annotations/`` or ``annotations/``, or images and XML files in
    one folder. Parts are the lists in ``ImageSets/Main/``, or folders with names such as ``train`` and ``valid``.

    Args:
        source: the folder.
        classes: class names in the order of the category ids; None takes all, sorted.
        images: the folder of images, if it is none of the above.
        labels: the folder of XML files, likewise.
        offset: 1 for VOC's convention, 0 for plain coordinates (see above).
        skip_difficult: leave out objects marked as difficult.

    Raises:
        UserError: the folder does not exist, or has no XML file.
    """
    root = first_folder([Path(source)], "a VOC data set")
    candidates = [root / name for name in ("JPEGImages", "images") if find_images(root / name)]
    pictures = Path(images) if images else [*candidates, root][0]
    candidates = [root / name for name in ("Annotations", "annotations") if any((root / name).rglob("*.xml"))]
    folder = Path(labels) if labels else [*candidates, root][0]
    files = sorted(folder.rglob("*.xml"))
    if not files:
        raise UserError(f"{folder}: holds no .xml file, expected those of a VOC data set")
    report = Report()
    parsed = _parse(files, root, report)
    items = _pair(parsed, folder, pictures, root, report)
    parts = _parts(items, folder, root, pictures, report)
    names = {_text(element, "name") for xml in parsed.values() for element in xml.tree.iter("object")}
    chosen = list(classes) if classes is not None else sorted(names - {""})

    def shapes(item: Item, width: int, height: int) -> list[Shape]:
        stated = item.size
        if stated and min(stated) > 0 and stated != (width, height):
            report.note("the XML has another image size; the image's own was taken", item.label.where)
        return list(_shapes(item.label, chosen, offset, skip_difficult, report))

    categories = [{"name": name, "supercategory": "none"} for name in chosen]
    return Source("voc", root, parts, categories, shapes, report)


def _parse(files: Sequence[Path], root: Path, report: Report) -> dict[Path, _Xml]:
    parsed = {}
    for file in files:
        where = display_path(file, root)
        try:
            parsed[file] = _Xml(ElementTree.parse(file).getroot(), where)
        except (ElementTree.ParseError, ValueError) as error:
            report.remove("XML files that cannot be parsed", f"{where} ({error})")
    return parsed


def _pair(
    parsed: dict[Path, _Xml], folder: Path, pictures: Path, root: Path, report: Report
) -> list[tuple[Path, Item]]:
    """XML files with their images; files without an image are left out."""
    finder = ImageFinder(pictures)
    image_files = find_images(pictures)
    by_name = _by_name(pictures, image_files)
    items, used = [], set()
    for file, xml in parsed.items():
        # The tag is often outdated after files were renamed, so the name of the XML file comes first.
        relative = file.relative_to(folder).with_suffix("").as_posix()
        image_relative = re.sub(r"(^|/)annotations(?=/)", r"\1images", relative, flags=re.IGNORECASE)
        tag = _text(xml.tree, "filename")
        path = by_name.get(relative) or by_name.get(image_relative) or by_name.get(file.stem)
        path = path or (finder.find(tag, [file.parent, pictures]) if tag else None)
        if path is None:
            report.remove("XML files without an image, or with several of that name; give --images DIR", xml.where)
        elif path in used:
            report.skip("XML files of an image that another one describes", xml.where)
        else:
            used.add(path)
            items.append((file, Item(path, xml, _size(xml.tree))))
    for path in image_files:
        if path not in used:
            report.note("images have no XML file, and are not in the result", display_path(path, root))
    return items


def _by_name(images: Path, image_files: Sequence[Path]) -> dict[str, Path | None]:
    """Images by relative path and by name, with and without suffix; None for names of several images."""
    paths: dict[str, Path | None] = {}
    for path in image_files:
        relative = path.relative_to(images)
        for key in {path.name, path.stem, relative.as_posix(), relative.with_suffix("").as_posix()}:
            paths[key] = None if key in paths else path
    return paths


def _parts(
    items: Sequence[tuple[Path, Item]], folder: Path, root: Path, pictures: Path, report: Report
) -> dict[str, Part]:
    lists = root / "ImageSets" / "Main"
    chosen = [file for file in sorted(lists.glob("*.txt")) if part_name(file.stem)] if lists.is_dir() else []
    if not chosen:
        return divide([(file.relative_to(folder), item) for file, item in items], pictures)
    items_by_name = {file.stem: item for file, item in items}
    items_by_name.update({file.relative_to(folder).with_suffix("").as_posix(): item for file, item in items})
    parts: dict[str, Part] = {}
    for file in chosen:
        part = parts.setdefault(part_name(file.stem) or "", Part(pictures))
        for line in filter(None, map(str.strip, read_text(file).splitlines())):
            item = items_by_name.get(line) or items_by_name.get(_FLAG.sub("", line))
            if item is None:
                report.remove("names in a list without an XML file and an image", f"{display_path(file, root)}: {line}")
            else:
                part.items.append(item)
    return parts


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    width, height = _number(tree.findtext("size/width")), _number(tree.findtext("size/height"))
    return (int(width), int(height)) if width and height else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _shapes(xml: _Xml, classes: Sequence[str], offset: int, skip_difficult: bool, report: Report) -> Iterator[Shape]:
    for number, element in enumerate(xml.tree.iter("object"), start=1):
        where = f"{xml.where}, object {number}"
        name = _text(element, "name")
        if not name:
            raise UnreadableLabel("XML files with an object without a name", where)
        if name not in classes:
            report.skip(f"objects of class {name!r}, which is not in the class list", where)
            continue
        x1, y1, x2, y2 = _corners(element, where)
        if _text(element, "difficult") == "1" and skip_difficult:
            report.skip("objects marked as difficult", where)
            continue
        if offset and min(x1, y1) < 1:
            report.note("boxes begin at 0 though VOC counts from 1: try --voc-offset 0 on this source", where)
        yield Shape(list(classes).index(name), where, (x1 - offset, y1 - offset, x2, y2))


def _corners(element: ElementTree.Element, where: str) -> tuple[float, float, float, float]:
    if element.find("bndbox") is None:
        raise UnreadableLabel("XML files with an object without a bndbox", where)
    values = []
    for key in _CORNERS:
        text = element.findtext(f"bndbox/{key}")
        value = _number(text)
        if value is None:
            got = "is missing" if text is None else f"is {text.strip()[:20]!r}"
            raise UnreadableLabel("XML files with an object whose bndbox is not four numbers", f"{where}: {key} {got}")
        values.append(value)
    x1, y1, x2, y2 = values
    if x2 < x1 or y2 < y1:
        raise UnreadableLabel("XML files with an object whose xmax or ymax is before its xmin or ymin", where)
    return x1, y1, x2, y2
