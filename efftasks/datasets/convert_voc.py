"""Pascal VOC XML files to COCO.

The pixels of VOC count from 1, and ``xmax``, ``ymax`` are the last pixels *inside* a box. In COCO's frame, where pixel
i covers [i, i + 1), that is x = xmin - 1 and width = xmax - xmin + 1: ``offset=1``. Many tools write plain coordinates
into the same XML, with x = xmin and width = xmax - xmin: ``offset=0``.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efftasks.datasets.coco_convert import Conversion, first_folder
from efftasks.datasets.image_files import BrokenImageError, find_images, read_whole_image
from efftasks.datasets.progress import progress
from efftasks.structures.errors import UserError

__all__ = ["convert_voc", "voc_folders"]


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, ...] | None  # xmin, ymin, xmax, ymax as written; None if they are no numbers
    difficult: bool
    where: str


def voc_folders(source: str | Path, split: str | None = None) -> tuple[Path, Path, list[str] | None]:
    """Where images and XML files are, and which stems belong to a split (None: all).

    Known: ``JPEGImages/`` or ``images/`` with ``Annotations/`` or ``annotations/``, or both mixed in one folder. A
    split is a list in ``ImageSets/Main/``, or a folder.

    Raises:
        UserError: there is no such folder or list.
    """
    root = first_folder([Path(source)], "a VOC data set")
    stems = None
    if split is not None:
        chosen = root / "ImageSets" / "Main" / f"{split}.txt"
        if chosen.is_file():
            stems = [line.split()[0] for line in chosen.read_text(encoding="utf-8").splitlines() if line.strip()]
        elif (root / split).is_dir():
            root = root / split
        else:
            raise UserError(f"{chosen}: no such list, and there is no folder {root / split}; expected one of them")
    images = first_folder([root / "JPEGImages", root / "images", root], "images")
    return images, first_folder([root / "Annotations", root / "annotations", root], "XML files"), stems


def convert_voc(
    images: str | Path,
    annotations: str | Path,
    classes: Sequence[str] | None = None,
    stems: Sequence[str] | None = None,
    offset: int = 1,
    skip_difficult: bool = False,
) -> Conversion:
    """Convert a folder of XML files.

    Args:
        images: the folder of images; file names in the result are relative to it.
        annotations: the folder of XML files.
        classes: the names to take, in the order of the category ids; None takes all, sorted.
        stems: names of the XML files to take, without suffix; None takes all.
        offset: 1 for VOC's own convention, 0 for plain coordinates (see above).
        skip_difficult: leave out objects marked as difficult.

    Returns:
        The conversion; images in the order of the XML files' paths.

    Raises:
        UserError: there is no XML file.
    """
    files = sorted(Path(annotations).rglob("*.xml"))
    if not files:
        raise UserError(f"{annotations}: holds no .xml file, expected those of a VOC data set")
    if stems is not None:
        files = [file for file in files if file.stem in set(stems)]
    trees, broken = {}, []
    for file in files:
        try:
            trees[file] = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            broken.append(f"{file.name} ({error})")
    found = sorted({entry.name for file, tree in trees.items() for entry in _objects(file, tree) if entry.name})
    result = Conversion(list(classes) if classes is not None else found)
    for where in broken:
        result.skip("XML files that cannot be parsed", where)
    for stem in sorted(set(stems or ()) - {file.stem for file in files}):
        result.skip("names in the split list without an XML file", stem)
    by_name = _by_name(Path(images))
    used = set()
    for file, tree in progress(trees.items(), len(trees), "convert"):
        # the tag is often stale where files were renamed, so that the name of the XML file goes first
        inner = file.relative_to(annotations).with_suffix("").as_posix()
        tag = (tree.findtext("filename") or "").strip()
        path = by_name.get(inner) or by_name.get(file.stem) or by_name.get(tag)
        if path is not None and path in used:
            result.skip("XML files of an image that another one describes", file.name)
            continue
        used.add(path)
        image = _add_image(result, file, tree, path, Path(images))
        if image is not None:
            _add_objects(result, image, _objects(file, tree), offset, skip_difficult)
    return result


def _by_name(images: Path) -> dict[str, Path | None]:
    """Images by path and by name, with and without suffix; None where two share a name, for either would be a guess."""
    known: dict[str, Path | None] = {}
    for path in find_images(images):
        inner = path.relative_to(images)
        for key in {path.name, path.stem, inner.as_posix(), inner.with_suffix("").as_posix()}:
            known[key] = None if key in known else path
    return known


def _add_image(
    result: Conversion, file: Path, tree: ElementTree.Element, path: Path | None, images: Path
) -> dict[str, Any] | None:
    if path is None:
        result.skip("XML files without an image, or with several of that name", file.name)
        return None
    name = path.relative_to(images).as_posix()
    try:
        height, width = read_whole_image(path).shape[:2]
    except BrokenImageError as error:
        result.skip("images that cannot be read", f"{name} {error}")
        return None
    said = (_number(tree.findtext("size/width")), _number(tree.findtext("size/height")))
    if None not in said and said != (width, height):
        result.note("the XML has another image size; the image's own was taken", file.name)
    return result.add_image(name, width, height)


def _objects(file: Path, tree: ElementTree.Element) -> Iterator[_Object]:
    for number, element in enumerate(tree.iter("object"), start=1):
        corners = [_number(element.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
        numbers = tuple(value for value in corners if value is not None)
        yield _Object(
            name=(element.findtext("name") or "").strip(),
            box=numbers if len(numbers) == 4 else None,
            difficult=(element.findtext("difficult") or "0").strip() == "1",
            where=f"{file.name}, object {number}",
        )


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _add_objects(
    result: Conversion, image: dict[str, Any], objects: Iterator[_Object], offset: int, skip_difficult: bool
) -> None:
    for entry in objects:
        if entry.name not in result.classes:
            result.skip(f"objects of class {entry.name!r}, which is not in the class list", entry.where)
        elif entry.box is None:
            result.skip("objects without four numbers in bndbox", entry.where)
        elif entry.difficult and skip_difficult:
            result.skip("objects marked as difficult", entry.where)
        else:
            x1, y1, x2, y2 = entry.box
            if offset and min(x1, y1) < 1:
                result.note("boxes begin at 0 though VOC counts from 1: try --voc-offset 0 on this source", entry.where)
            label = list(result.classes).index(entry.name)
            result.add_object(image, label, (x1 - offset, y1 - offset, x2, y2), entry.where)
