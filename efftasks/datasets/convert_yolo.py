"""YOLO label files to COCO.

One text file an image, one line an object: ``class cx cy w h`` with the box's centre and size as shares of the image's,
or ``class x1 y1 x2 y2 x3 y3 ...`` with a polygon as shares. Classes are counted from 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from efftasks.datasets.coco_convert import Conversion, first_folder
from efftasks.datasets.image_files import BrokenImageError, find_images, read_whole_image
from efftasks.datasets.progress import progress
from efftasks.structures.errors import UserError

__all__ = ["convert_yolo", "read_class_names", "yolo_folders"]


def yolo_folders(source: str | Path, split: str | None = None) -> tuple[Path, Path]:
    """Where images and labels are: ``images/``, ``labels/``; with a split ``images/val`` or ``val/images``; or mixed.

    Raises:
        UserError: there is no such folder.
    """
    root = first_folder([Path(source)], "a YOLO data set")
    if split is None:
        pairs = [(root / "images", root / "labels"), (root, root)]
    else:
        pairs = [(root / "images" / split, root / "labels" / split), (root / split / "images", root / split / "labels")]
    images = first_folder([pair[0] for pair in pairs], "images")
    return images, first_folder([dict(pairs)[images]], "labels")


def read_class_names(source: str | Path, names: str | Path | None = None) -> list[str]:
    """Class names from a file, or from the ``*.yaml`` or ``classes.txt`` of a data set.

    Raises:
        UserError: there is none, it has no names, it needs PyYAML, or it describes labels of another kind.
    """
    root = Path(source)
    places = [Path(names)] if names is not None else [root / "data.yaml", *sorted(root.glob("*.y*ml"))]
    if names is None:
        places += [root / "classes.txt", root / "labels" / "classes.txt", root / "obj.names"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        wanted = str(names) if names is not None else f"data.yaml or classes.txt in {root}"
        raise UserError(f"no class names found, expected {wanted}, or give --classes")
    if file.suffix.lower() in (".yaml", ".yml"):
        return _names_of_yaml(file)
    found = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return _checked(found, file)


def _names_of_yaml(file: Path) -> list[str]:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        raise UserError(f"{file}: reading it needs PyYAML; pip install pyyaml, or give --classes") from error
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: is not YAML ({str(error).splitlines()[0]})") from error
    if isinstance(data, dict) and data.get("kpt_shape"):
        raise UserError(f"{file}: 'kpt_shape' says pose labels, expected boxes or polygons")
    names: Any = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{file}: 'names' has the keys {sorted(names)[:10]}, expected 0, 1, 2, ... without gaps")
        names = [names[key] for key in sorted(names)]
    return _checked([str(name) for name in names or []], file)


def _checked(names: list[str], file: Path) -> list[str]:
    if not names or len(set(names)) != len(names):
        raise UserError(f"{file}: got the class names {names}, expected at least one and each once")
    return names


def convert_yolo(images: str | Path, labels: str | Path, classes: Sequence[str]) -> Conversion:
    """Convert a folder of images with a folder of label files, which has the same folders below it.

    Args:
        images: file names in the result are relative to it.
        labels: an image ``a/b.jpg`` has its objects in ``a/b.txt``; one without such a file has none.
        classes: the names, in the order of the class numbers.

    Returns:
        The conversion; images in the order of their paths.

    Raises:
        UserError: there is no image.
    """
    result = Conversion(list(classes))
    files = find_images(images)
    if not files:
        raise UserError(f"{images}: holds no image, expected files like .jpg or .png")
    used = set()
    for file in progress(files, len(files), "convert"):
        name = file.relative_to(images)
        label_file = Path(labels) / name.with_suffix(".txt")
        used.add(label_file)
        try:
            height, width = read_whole_image(file).shape[:2]
        except BrokenImageError as error:
            result.skip("images that cannot be read", f"{name} {error}")
            continue
        image = result.add_image(name.as_posix(), width, height)
        if label_file.is_file():
            _add_objects(result, image, label_file)
        else:
            result.note("images have no label file, and are taken to show no object", name.as_posix())
    for label_file in sorted(Path(labels).rglob("*.txt")):
        if label_file not in used and label_file.name != "classes.txt":
            result.skip("label files without an image", label_file.name)
    return result


def _add_objects(result: Conversion, image: dict[str, Any], file: Path) -> None:
    seen: set[tuple[float, ...]] = set()
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file.name}:{number}"
        try:
            values = tuple(float(word) for word in line.split())
        except ValueError:
            result.skip("lines that are not numbers", where)
            continue
        wrong = _wrong(values, len(result.classes))
        if wrong or values in seen:
            result.skip(wrong or "lines that repeat an earlier one of their file", where)
            continue
        seen.add(values)
        sides = np.array([image["width"], image["height"]], dtype=float)
        if len(values) == 5:
            centre, size = np.asarray(values[1:3]) * sides, np.asarray(values[3:5]) * sides
            corners = np.concatenate([centre - size / 2, centre + size / 2])
            result.add_object(image, int(values[0]), corners.tolist(), where)
        else:
            points = np.reshape(values[1:], (-1, 2)) * sides
            box = [*points.min(0), *points.max(0)]
            result.add_object(image, int(values[0]), box, where, polygon=points.reshape(-1).tolist())


def _wrong(values: tuple[float, ...], classes: int) -> str | None:
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        return "lines that have neither 5 numbers (a box) nor 7, 9, 11, ... (a polygon)"
    if not np.isfinite(values).all():
        return "lines with nan or inf"
    if values[0] != int(values[0]) or not 0 <= values[0] < classes:
        return f"lines whose class is none of 0 to {classes - 1}"
    if min(values[1:]) < -0.5 or max(values[1:]) > 1.5:
        return "lines whose coordinates are not shares of the image (0 to 1)"
    return None
