"""Files of semantic segmentation data sets: images, label maps, and the names of the classes.

A label map is a picture of one channel with the index of a class (its "trainId") in each pixel. It is read with PIL,
since OpenCV turns the indices of a palette PNG into colors.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efftasks.datasets.image_files import find_images, read_whole_file
from efftasks.datasets.semantic_values import IGNORE, label_values
from efftasks.imaging.file_faults import BrokenImageError
from efftasks.imaging.images import UnreadableImage
from efftasks.structures.errors import UserError

__all__ = [
    "IGNORE",
    "LAYOUTS",
    "ClassList",
    "FormatProblem",
    "Pair",
    "Pairing",
    "StoredLabel",
    "classes_of",
    "find_classes",
    "find_pairs",
    "images_of",
    "load_label",
    "read_classes",
    "read_label",
]

Color = tuple[int, int, int]

LAYOUTS = {  # folder of label maps -> folder of images beside it
    "ann": "img",
    "labels": "images",
    "ann_dir": "img_dir",
    "annotations": "images",
    "gtFine": "leftImg8bit",
}
CLASSES_FILE = "classes.json"
_FOLDERS_UP = 2

# Suffixes that Cityscapes, and tools that follow it, append to the common name of an image and its label map.
_IMAGE_ENDING = "_leftImg8bit"
_LABEL_ENDINGS = ("_gtFine_labelTrainIds", "_labelTrainIds")
_OTHER_ENDINGS = ("_gtFine_color", "_gtFine_instanceIds", "_gtFine_instanceTrainIds", "_gtFine_labelIds")

_PNG = b"\x89PNG\r\n\x1a\n"
_LOSSY = {"JPEG", "MPO"}  # PIL's names of formats


class Pair(NamedTuple):
    """An image and its label map.

    ``name`` is their common name: the path below their folders, without suffix and without Cityscapes' endings.
    """

    name: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class Pairing:
    """The images of a folder paired with the label maps of another one, and the files that do not pair up.

    Attributes:
        pairs: one for each name of an image, sorted by path; ``label`` is None if the image has no label map.
        without_image: label maps that belong to no image.
        same_image: groups of images of the same name; the first of each group is in ``pairs``.
        same_label: groups of label maps of the same name.
        skipped: other pictures that Cityscapes keeps beside its label maps.
    """

    pairs: list[Pair] = field(default_factory=list)
    without_image: list[Path] = field(default_factory=list)
    same_image: list[tuple[Path, ...]] = field(default_factory=list)
    same_label: list[tuple[Path, ...]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)

    @property
    def without_label(self) -> list[Path]:
        """Images that have no label map."""
        return [pair.image for pair in self.pairs if pair.label is None]


def find_pairs(images: str | Path, labels: str | Path) -> Pairing:
    """Pair the images below one folder with the label maps below another one by their paths without suffix.

    ``IMAGES/a/b.jpg`` goes with ``LABELS/a/b.png``, and ``a/b_leftImg8bit.png`` with ``a/b_gtFine_labelTrainIds.png``
    or ``a/b_labelTrainIds.png``.

    Raises:
        UserError: a folder is missing or has no pictures, or both are the same folder.
    """
    for folder, content in ((images, "images"), (labels, "label maps")):
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder of {content}")
    if Path(images).resolve() == Path(labels).resolve():
        raise UserError(f"{images}: is the folder of the images and that of the label maps, expected two folders")
    image_of, same_image = _by_name(Path(images), find_images(images), (_IMAGE_ENDING,))
    label_maps = find_images(labels)
    skipped = [path for path in label_maps if path.stem.endswith(_OTHER_ENDINGS)]
    usable_maps = [path for path in label_maps if not path.stem.endswith(_OTHER_ENDINGS)]
    label_of, same_label = _by_name(Path(labels), usable_maps, _LABEL_ENDINGS)
    if not image_of:
        raise UserError(f"{images}: there are no images in this folder or below")
    if not label_maps:
        raise UserError(f"{labels}: there are no label maps in this folder or below")
    return Pairing(
        pairs=[Pair(name, path, label_of.get(name)) for name, path in image_of.items()],
        without_image=[path for name, path in label_of.items() if name not in image_of],
        same_image=same_image,
        same_label=same_label,
        skipped=skipped,
    )


def _by_name(
    root: Path, paths: Sequence[Path], endings: Sequence[str]
) -> tuple[dict[str, Path], list[tuple[Path, ...]]]:
    """The first path of each name, and all paths of the names that occur more than once."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        ending = next((ending for ending in endings if name.endswith(ending)), "")
        groups.setdefault(name.removesuffix(ending), []).append(path)
    first = {name: group[0] for name, group in groups.items()}
    return first, [tuple(group) for group in groups.values() if len(group) > 1]


def images_of(labels: str | Path) -> Path:
    """The image folder of a folder of label maps, by the usual ``LAYOUTS``.

    ``DIR/ann/train`` gives ``DIR/img/train``; of several folders of the path with a usual name the last is replaced.

    Raises:
        UserError: no such folder exists.
    """
    for path in (Path(labels), Path(os.path.abspath(labels))):
        for index in reversed(range(len(path.parts))):
            if path.parts[index] in LAYOUTS:
                parts = (*path.parts[:index], LAYOUTS[path.parts[index]], *path.parts[index + 1 :])
                if Path(*parts).is_dir():
                    return Path(*parts)
    usual = ", ".join(f"{label} -> {image}" for label, image in LAYOUTS.items())
    raise UserError(f"{labels}: no folder of images found beside it ({usual}), name one with --images")


@dataclass(frozen=True)
class ClassList:
    """The classes of a data set.

    Attributes:
        names: in the order of the indices.
        palette: RGB of each class, or None.
        ignore: the number of pixels without a class, or None if it is not stated.
        origin: the file that states the classes, or None.
        values: the number of each class in label maps, or None if it is the index.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...] | None = None
    ignore: int | None = None
    origin: Path | None = None
    values: tuple[int, ...] | None = None


def classes_of(
    labels: str | Path, names: Sequence[str] | None = None, values: Sequence[int] | None = None
) -> ClassList | None:
    """The classes of a folder of label maps: the given names, else those of ``find_classes``; None without both.

    Args:
        labels: the folder of the label maps.
        names: names of the classes.
        values: the number of each class in label maps; None takes that of the file, or the index.

    Raises:
        UserError: there are more than 255 names, the file cannot be used, or the values are not one for each class.
    """
    path = find_classes(labels) if names is None else None
    if names is not None:
        class_list = ClassList(tuple(names))
    elif path is not None:
        class_list = read_classes(path)
    elif values is not None:
        raise UserError(f"values: got {list(values)} and no classes in {labels}, expected their names too (--classes)")
    else:
        return None
    return _checked("classes", class_list if values is None else replace(class_list, values=tuple(values)))


def find_classes(labels: str | Path) -> Path | None:
    """The file ``classes.json`` in a folder of label maps or in one of the two folders above it; None if missing."""
    folder = Path(labels)
    for up in range(_FOLDERS_UP + 1):
        path = Path(os.path.normpath(folder / Path(*[".."] * up) / CLASSES_FILE))
        if path.is_file():
            return path
    return None


def read_classes(path: str | Path) -> ClassList:
    """Read the names of classes from JSON.

    The forms: ``["a", "b"]``, ``{"classes": ["a", "b"]}``, and ``{"classes": [{"trainId": 0, "name": "a", "color":
    [r, g, b]}, ...]}`` in any order, with ``"color"`` in all entries or none; an object may also have ``"ignore"``.
    All entries or none may have ``"value"``, the number of the class in label maps if that is not its index; then
    ``"trainId"`` may be omitted in all of them, and the order of the file counts.

    Raises:
        UserError: the file cannot be read, or has none of these forms.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error}), expected the names of classes") from error
    entries = data.get("classes") if isinstance(data, dict) else data
    ignore = data.get("ignore") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{path}: expected ["a", "b", ...] or {{"classes": [...]}} with at least one class')
    if ignore is not None and not _is_integer(ignore, 256):
        raise UserError(f"{path}: ignore: got {ignore!r}, expected 0 to 255")
    palette = values = None
    if any(isinstance(entry, dict) for entry in entries):
        entries = _by_train_id(path, entries)
        palette, values = _palette(path, entries), _values(path, entries)
        entries = [entry.get("name") for entry in entries]
    for index, name in enumerate(entries):
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{path}: classes[{index}]: got {str(name)[:40]!r}, expected a name")
    return _checked(str(path), ClassList(tuple(entries), palette, ignore, Path(path), values))


def _is_integer(value: Any, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def _by_train_id(path: str | Path, entries: list[Any]) -> list[dict[str, Any]]:
    if all(isinstance(entry, dict) and "value" in entry and "trainId" not in entry for entry in entries):
        return entries
    ordered: dict[int, dict[str, Any]] = {}
    for index, entry in enumerate(entries):
        number: Any = entry.get("trainId") if isinstance(entry, dict) else None
        if not _is_integer(number, len(entries)) or number in ordered:
            got = f"trainId {number!r}" if isinstance(entry, dict) else str(entry)[:40]
            expected = f"every trainId from 0 to {len(entries) - 1} once"
            raise UserError(f"{path}: classes[{index}]: got {got}, expected {expected}")
        ordered[number] = entry
    return [ordered[number] for number in range(len(entries))]


def _palette(path: str | Path, entries: Sequence[dict[str, Any]]) -> tuple[Color, ...] | None:
    colors = [entry.get("color") for entry in entries]
    if all(color is None for color in colors):
        return None
    for index, color in enumerate(colors):
        if not isinstance(color, list) or len(color) != 3 or not all(_is_integer(v, 256) for v in color):
            raise UserError(f"{path}: trainId {index}: got color {str(color)[:40]}, expected [r, g, b] of 0 to 255")
    return tuple((r, g, b) for r, g, b in colors)  # type: ignore[misc]


def _values(path: str | Path, entries: Sequence[dict[str, Any]]) -> tuple[int, ...] | None:
    values = [entry.get("value") for entry in entries]
    if all(value is None for value in values):
        return None
    for entry, value in zip(entries, values):
        if not _is_integer(value, 256):
            raise UserError(f"{path}: class {entry.get('name')!r}: got value {value!r}, expected 0 to 255, as all have")
    return tuple(values)  # type: ignore[arg-type]


def _checked(origin: str, classes: ClassList) -> ClassList:
    names = classes.names
    if not 1 <= len(names) <= IGNORE:
        raise UserError(f"{origin}: got {len(names)} classes, expected 1 to {IGNORE}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{origin}: got {', '.join(map(repr, repeated))} more than once, expected each name once")
    label_values(names, classes.values, classes.ignore, origin)
    return classes


class FormatProblem(NamedTuple):
    """Why a picture is not a label map: a rule of ``semantic_check.RULES``, and the reason."""

    rule: str
    reason: str


@dataclass(frozen=True)
class StoredLabel:
    """A label map as it is stored in its file.

    Attributes:
        array: (H, W), or (H, W, C) with several channels, of any dtype.
        format: PIL's name of the file format; of a TIFF that of its compression.
        bits: bits per pixel of a gray PNG or a bilevel picture; 8 for all others.
    """

    array: NDArray[Any]
    format: str
    bits: int = 8

    def format_problems(self) -> Iterator[FormatProblem]:
        """Reasons why the file is not a label map. 16 bits are none, although training and devices use 8."""
        array = self.array
        if self.format in _LOSSY:
            yield FormatProblem("label-lossy", "is a JPEG: its compression changes the numbers, a PNG keeps them")
        if array.ndim == 3:
            flat = array.reshape(-1, array.shape[2])
            equal = bool((flat[:, :3] == flat[:, :1]).all())
            distinct = f"{_distinct(flat)} distinct colors" + (", the channels are equal" if equal else "")
            remedy = "save one of them" if equal else "save the index of the class for each color, as an 8-bit PNG"
            reason = f"has {flat.shape[1]} channels with {distinct}; expected trainIds in one: {remedy}"
            yield FormatProblem("label-channels", reason)
        elif self.bits < 8:
            yield FormatProblem("label-type", f"has {self.bits} bit a pixel, which tools scale differently; expected 8")
        elif array.dtype not in (np.uint8, np.uint16):
            yield FormatProblem("label-type", f"has numbers of type {array.dtype}; expected 8 bit, without sign")


def _distinct(pixels: NDArray[Any]) -> int:
    """The number of distinct rows of (N, C)."""
    rows = np.ascontiguousarray(pixels.astype(np.uint8))
    padded = np.zeros((len(rows), 4), np.uint8)
    padded[:, : min(4, rows.shape[1])] = rows[:, :4]
    return len(np.unique(padded.view(np.uint32)))


def load_label(path: str | Path) -> StoredLabel:
    """Read a label map as it is stored; of a palette picture the indices, not the colors.

    Raises:
        BrokenImageError: the file is missing, empty, truncated or not a picture.
    """
    data = read_whole_file(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            array = np.asarray(image)
            form = str(image.info.get("compression", "")).upper() if image.format == "TIFF" else image.format
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"is too large ({error})") from error
    except Exception as error:  # PIL raises exceptions of many types for broken files
        raise BrokenImageError(f"does not decode as a picture ({type(error).__name__})") from error
    gray_png = data.startswith(_PNG) and data[25] == 0  # IHDR: width, height, bits, color type
    bits = data[24] if gray_png else 8
    if array.dtype == bool:  # one bit a pixel, in PNG, TIFF or BMP
        array, bits = array.astype(np.uint8), 1
    if bits == 16 or (array.dtype.kind == "u" and array.dtype.itemsize == 2):
        # Depending on its version and the file, PIL gives 16 bits as int32 or with swapped bytes.
        array = array.astype(np.uint16)
    return StoredLabel(array, form or "", bits)


def read_label(path: str | Path) -> NDArray[Any]:
    """Read a label map: uint8 or uint16 (H, W), the number in each pixel; of a palette picture the index.

    Raises:
        UnreadableImage: the file is missing, truncated or not a picture.
        UserError: the picture is not a label map: several channels, JPEG, numbers of another type.
    """
    try:
        stored = load_label(path)
    except BrokenImageError as error:
        raise UnreadableImage(path, str(error)) from error
    problem = next(stored.format_problems(), None)
    if problem is not None:
        raise UserError(f"{path}: the label map {problem.reason}")
    return stored.array
